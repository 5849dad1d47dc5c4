"""Dry runs of networks on dummy batches, on the device and of the dtype of their weights."""

from typing import Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from torch import Tensor, nn

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.models.setup_checks import dummy_batch, dummy_zeros, try_forward
from lit_bottleneck.networks import MLP, MLPDecoder, TextEncoder


class Described(LightningDataModule):
    """A datamodule with given attributes."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        vars(self).update(attributes)


def in_setup(model: Any, data: LightningDataModule | None) -> Any:
    """Return a model as in ``setup``, which names a device to which its weights are moved only later."""
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    model.trainer.datamodule = data
    model._device = torch.device("meta")
    return model


def vib(encoder: nn.Module, **arguments: Any) -> VIBClassifier:
    return VIBClassifier(encoder, latent_dim=4, num_classes=3, **arguments)


def test_a_dummy_batch_has_the_dims_of_the_datamodule_and_device_and_dtype_of_the_weights() -> None:
    model = vib(MLP(6, [], 8).double())
    assert dummy_batch(in_setup(model, None)) is None
    assert dummy_batch(in_setup(model, Described())) is None
    images = dummy_batch(in_setup(model, Described(dims=(1, 2, 3))))
    assert images is not None
    assert torch.equal(images, torch.zeros(2, 1, 2, 3, dtype=torch.float64))
    texts = dummy_batch(in_setup(model, Described(dims=(7,), vocabulary_size=5)))
    assert texts is not None
    assert torch.equal(texts, torch.full((2, 7), 4))
    assert torch.equal(dummy_zeros(nn.Flatten(), 3), torch.zeros(2, 3))


@pytest.mark.parametrize(
    "model",
    [
        vib(MLP(6, [], 8)),
        VAE(MLP(6, [], 8), MLPDecoder(4, [], (1, 2, 3)), latent_dim=4, likelihood="bernoulli"),
        VDBGAN(MLPDecoder(5, [], (1, 2, 3)), MLP(6, [], 8), latent_dim=4, noise_dim=5),
    ],
)
def test_a_model_whose_weights_are_not_yet_on_its_device_is_set_up(model: Any) -> None:
    in_setup(model, Described(dims=(1, 2, 3))).setup("fit")
    with pytest.raises(ValueError, match=r"\(1, 3, 3\)"):
        in_setup(model, Described(dims=(1, 3, 3))).setup("fit")


def test_tokens_outside_of_an_encoders_vocabulary_are_refused_in_setup() -> None:
    model = vib(TextEncoder(vocabulary_size=5, filters=2, out_features=8))
    in_setup(model, Described(dims=(7,), vocabulary_size=5)).setup("fit")
    with pytest.raises(ValueError, match="vocabulary_size=5 needs tokens from 0 to 4; got 5 to 5"):
        in_setup(model, Described(dims=(7,), vocabulary_size=6)).setup("fit")
    bag = vib(nn.Sequential(nn.EmbeddingBag(5, 8)))
    with pytest.raises(ValueError, match="encoder=Sequential does not take the examples of Described, of the shape"):
        in_setup(bag, Described(dims=(7,), vocabulary_size=6)).setup("fit")


def test_rows_may_be_numbers_or_tokens_where_no_vocabulary_is_known() -> None:
    in_setup(vib(MLP(7, [], 8)), Described(dims=(7,))).setup("fit")
    in_setup(vib(nn.Sequential(nn.EmbeddingBag(5, 8))), Described(dims=(7,))).setup("fit")
    with pytest.raises(
        ValueError, match=r"encoder=MLP does not take .* \(7,\): .*cannot be multiplied \(2x7 and 6x8\)"
    ):
        in_setup(vib(MLP(6, [], 8)), Described(dims=(7,))).setup("fit")


def test_a_decoder_of_classes_must_take_codes_and_return_a_logit_per_class() -> None:
    with pytest.raises(ValueError, match="num_classes=3 needs a decoder of as many logits; got 2"):
        vib(MLP(6, [], 8), decoder=MLP(4, [], 2))
    silent = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    with pytest.raises(ValueError, match="num_classes=3 needs a decoder of as many logits; got 2"):
        in_setup(vib(MLP(6, [], 8), decoder=silent), Described(dims=(1, 2, 3))).setup("fit")
    with pytest.raises(ValueError, match="decoder=Linear does not take codes of latent_dim=4"):
        in_setup(vib(MLP(6, [], 8), decoder=nn.Linear(5, 3)), Described(dims=(1, 2, 3))).setup("fit")


def test_the_message_holds_torchs_and_other_errors_are_not_caught() -> None:
    def bug(x: Tensor) -> Tensor:
        return x + None  # type: ignore[operator, no-any-return]

    with pytest.raises(ValueError, match=r"it is too wide: .*cannot be multiplied") as complaint:
        try_forward("it is too wide", nn.Linear(2, 1), torch.zeros(1, 3))
    assert isinstance(complaint.value.__cause__, RuntimeError)
    with pytest.raises(TypeError):
        try_forward("it is too wide", bug, torch.zeros(1))
