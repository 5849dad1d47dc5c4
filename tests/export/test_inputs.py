"""Example inputs: their shapes, and where these come from."""

import gc
import weakref
from copy import deepcopy

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.export.inputs import batch_of, example_inputs
from lit_bottleneck.networks import MLP, Backbone, ConvEncoder, DCGANGenerator, MLPDecoder, TextEncoder

DIMS = (1, 8, 8)


def vib(encoder: nn.Module) -> VIBClassifier:
    return VIBClassifier(encoder, latent_dim=8, num_classes=10)


def vae() -> VAE:
    return VAE(MLP(64, [16], 16), MLPDecoder(8, [16], DIMS), 8, "bernoulli")


def gan() -> VDBGAN:
    return VDBGAN(MLPDecoder(4, [16], (3,)), MLP(3, [16], 16), latent_dim=8, noise_dim=4)


@pytest.mark.parametrize(
    ("model", "part", "shape"),
    [
        (vib(ConvEncoder(DIMS, 16, width=4)), "logits", DIMS), (vae(), "reconstruction", DIMS),
        (vae(), "decoder", (8,)), (gan(), "generator", (4,)), (gan(), "code", (3,)),
    ],
    ids=["encoder", "decoder", "codes", "noise", "generated"],
)  # fmt: skip
def test_networks_give_the_shape_and_no_other_is_accepted(
    model: LightningModule, part: str, shape: tuple[int, ...]
) -> None:
    x = example_inputs(model, part)
    assert x.shape[1:] == shape
    assert torch.equal(example_inputs(model, part, shape), x)
    with pytest.raises(ValueError, match=rf"takes inputs of the shape \({shape[0]}, ?.*\); got \(5, 5\)"):
        example_inputs(model, part, (5, 5))


def test_an_unknown_shape_must_be_given() -> None:
    model = vib(MLP(64, [], 16))
    with pytest.raises(ValueError, match="the shape of an input of this VIBClassifier is not known: give a batch"):
        example_inputs(model, "code")
    x = example_inputs(model, "code", DIMS)
    assert x.shape[1:] == DIMS
    assert 0 <= x.min() < 0.1 < 0.9 < x.max() < 1


def test_a_deleted_trainer_is_ignored() -> None:
    model, trainer = vib(MLP(64, [], 16)), Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    model._trainer = weakref.proxy(trainer)  # as Lightning has it, with some versions of torch
    del trainer
    gc.collect()
    with pytest.raises(ValueError, match="is not known"):
        example_inputs(model, "code")


@pytest.mark.parametrize("encoder", [TextEncoder(9, 4, 5, (2,), 16), Backbone(nn.EmbeddingBag(9, 4), 4, 16)])
def test_inputs_of_an_embedding_are_tokens(encoder: nn.Module) -> None:
    x = example_inputs(vib(encoder), "code", (30,))
    assert x.dtype == torch.int64
    assert set(x.flatten().tolist()) == set(range(9))


def test_only_a_first_embedding_takes_tokens() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.embedding = nn.Linear(6, 16), nn.Embedding(9, 16)

    assert example_inputs(vib(Positions()), "code", (6,)).dtype == torch.float32


def test_inputs_of_a_gan_come_from_its_averaged_generator() -> None:
    model = VDBGAN(DCGANGenerator(4, DIMS, width=4), MLP(64, [], 16), latent_dim=8, noise_dim=4)
    with torch.no_grad():
        for weight in model.generator.parameters():
            weight.add_(1)
        state = deepcopy(model.averaged_generator.state_dict())
        examples = example_inputs(model, "logits")
        assert all(torch.equal(value, state[key]) for key, value in model.averaged_generator.state_dict().items())
        assert all(module.training for module in model.modules())
        generated = model.averaged_generator.eval()(example_inputs(model, "generator"))
    assert torch.equal(examples, generated)


@pytest.mark.parametrize("part", ["code", "decoder"])
def test_inputs_have_the_models_precision_and_leave_the_global_generator_alone(part: str) -> None:
    assert example_inputs(vae().double(), part).dtype == torch.float64
    model = vae()
    state = torch.get_rng_state()
    example_inputs(model, part)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("example", [torch.zeros(0, 3), torch.zeros(3), torch.zeros(())])
def test_an_example_must_be_a_batch(example: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="example must be a batch of inputs"):
        batch_of(example, 2)
