"""Networks are tried on what stands for the examples: where their weights are, and with what a datamodule tells."""

from typing import Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from torch import Tensor, nn

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.models.setup_checks import dummy_batch, dummy_zeros, try_forward
from lit_bottleneck.networks import MLP, MLPDecoder, TextEncoder


class Told(LightningDataModule):
    """A datamodule that tells something of its examples."""

    def __init__(self, **told: Any) -> None:
        super().__init__()
        vars(self).update(told)


def in_setup(model: Any, data: LightningDataModule | None) -> Any:
    """A model as Lightning has it in ``setup``: on a device, as it says, to which its weights will only be moved."""
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    model.trainer.datamodule = data
    model._device = torch.device("meta")
    return model


def vib(encoder: nn.Module, **arguments: Any) -> VIBClassifier:
    return VIBClassifier(encoder, latent_dim=4, num_classes=3, **arguments)


def test_what_stands_for_examples_is_where_the_weights_are_and_as_the_datamodule_tells() -> None:
    model = vib(MLP(6, [], 8).double())
    assert dummy_batch(in_setup(model, None)) is None
    assert dummy_batch(in_setup(model, Told())) is None
    images = dummy_batch(in_setup(model, Told(dims=(1, 2, 3))))
    assert images is not None
    assert torch.equal(images, torch.zeros(2, 1, 2, 3, dtype=torch.float64))
    texts = dummy_batch(in_setup(model, Told(dims=(7,), vocabulary_size=5)))
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
    in_setup(model, Told(dims=(1, 2, 3))).setup("fit")
    with pytest.raises(ValueError, match=r"\(1, 3, 3\)"):
        in_setup(model, Told(dims=(1, 3, 3))).setup("fit")


def test_words_outside_of_an_encoders_vocabulary_are_found_before_there_is_a_text() -> None:
    model = vib(TextEncoder(vocabulary_size=5, filters=2, out_features=8))
    in_setup(model, Told(dims=(7,), vocabulary_size=5)).setup("fit")
    with pytest.raises(ValueError, match="vocabulary_size=5 needs tokens from 0 to 4; got 5 to 5"):
        in_setup(model, Told(dims=(7,), vocabulary_size=6)).setup("fit")
    bag = vib(nn.Sequential(nn.EmbeddingBag(5, 8)))
    with pytest.raises(ValueError, match="encoder=Sequential does not take the examples of Told, of the shape"):
        in_setup(bag, Told(dims=(7,), vocabulary_size=6)).setup("fit")


def test_rows_may_be_numbers_or_tokens_of_which_nothing_is_told() -> None:
    in_setup(vib(MLP(7, [], 8)), Told(dims=(7,))).setup("fit")
    in_setup(vib(nn.Sequential(nn.EmbeddingBag(5, 8))), Told(dims=(7,))).setup("fit")
    with pytest.raises(
        ValueError, match=r"encoder=MLP does not take .* \(7,\): .*cannot be multiplied \(2x7 and 6x8\)"
    ):
        in_setup(vib(MLP(6, [], 8)), Told(dims=(7,))).setup("fit")


def test_a_decoder_of_classes_takes_codes_and_gives_a_logit_for_each() -> None:
    with pytest.raises(ValueError, match="num_classes=3 needs a decoder of as many logits; got 2"):
        vib(MLP(6, [], 8), decoder=MLP(4, [], 2))
    silent = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    with pytest.raises(ValueError, match="num_classes=3 needs a decoder of as many logits; got 2"):
        in_setup(vib(MLP(6, [], 8), decoder=silent), Told(dims=(1, 2, 3))).setup("fit")
    with pytest.raises(ValueError, match="decoder=Linear does not take codes of latent_dim=4"):
        in_setup(vib(MLP(6, [], 8), decoder=nn.Linear(5, 3)), Told(dims=(1, 2, 3))).setup("fit")


def test_what_torch_says_is_part_of_the_complaint_and_other_errors_are_handed_on() -> None:
    def bug(x: Tensor) -> Tensor:
        return x + None  # type: ignore[operator, no-any-return]

    with pytest.raises(ValueError, match=r"it is too wide: .*cannot be multiplied") as complaint:
        try_forward("it is too wide", nn.Linear(2, 1), torch.zeros(1, 3))
    assert isinstance(complaint.value.__cause__, RuntimeError)
    with pytest.raises(TypeError):
        try_forward("it is too wide", bug, torch.zeros(1))
