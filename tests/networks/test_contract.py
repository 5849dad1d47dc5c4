"""Facts that hold for all networks: shapes, ranges, gradients, independence of examples, dtypes and errors."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_bottleneck.networks import (
    MLP,
    Backbone,
    ConvDecoder,
    ConvEncoder,
    DCGANEncoder,
    DCGANGenerator,
    LogitHead,
    MLPDecoder,
    ResNetEncoder,
    ResNetGenerator,
    TextEncoder,
)
from lit_bottleneck.networks.layers import halvings

Dims = tuple[int, ...]
Make = Callable[..., Any]

DIMS = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32), (1, 64, 64), (3, 64, 64), (2, 8, 20)]
GENERATORS: list[Make] = [DCGANGenerator, ResNetGenerator]
ENCODERS: dict[str, Make] = {
    "dcgan": DCGANEncoder,
    "dcgan group": partial(DCGANEncoder, normalization="group"),
    "dcgan batch": partial(DCGANEncoder, normalization="batch"),
    "resnet": ResNetEncoder,
}
ENCODERS |= {f"{name} spatial": partial(make, spatial=True) for name, make in ENCODERS.items()}
WITHOUT_BATCH_NORM = [name for name in ENCODERS if "batch" not in name]

# A network by name with the shape of an input. Wider than in the tests of shapes, so that no unit of a ReLU is dead.
ALL: dict[str, tuple[Callable[[], nn.Module], Dims]] = {
    "mlp": (lambda: MLP(16, [9], 6, activation="leaky_relu"), (1, 4, 4)),
    "mlp decoder": (lambda: MLPDecoder(5, [9], (3, 4, 4), 2, activation="leaky_relu"), (5,)),
    "conv": (lambda: ConvEncoder((1, 16, 16), 6, width=4), (1, 16, 16)),
    "conv decoder": (lambda: ConvDecoder((1, 16, 16), 5, width=4, numbers_per_output=2), (5,)),
    "dcgan generator": (lambda: DCGANGenerator(5, (3, 16, 16), width=4), (5,)),
    "resnet generator": (lambda: ResNetGenerator(5, (3, 16, 16), width=4), (5,)),
    "logit head": (lambda: LogitHead(16), (4, 2, 2)),
    "backbone": (lambda: Backbone(nn.Conv2d(1, 7, 3), 7, 6), (1, 16, 16)),
    **{name: (partial(make, (1, 16, 16), 6, width=4), (1, 16, 16)) for name, make in ENCODERS.items()},
}
BATCH_NORM = {"conv", "conv decoder", "dcgan generator", "dcgan batch", "dcgan batch spatial"}


def made(name: str, batch: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, dims = ALL[name]
    return make(), torch.randn(batch, *dims)


@pytest.mark.parametrize("make", GENERATORS)
@pytest.mark.parametrize("dims", DIMS)
def test_a_generator_maps_noise_to_images_of_its_dims_and_value_range(make: Make, dims: Dims) -> None:
    torch.manual_seed(0)
    network = make(5, list(dims), width=2)
    assert (network.noise_dim, network.dims, network.value_range) == (5, dims, (-1.0, 1.0))
    for scale in (1.0, 1e6):
        images = network(scale * torch.randn(3, network.noise_dim))
        assert images.shape == (3, *network.dims)
        assert network.value_range[0] <= images.min() <= images.max() <= network.value_range[1]


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("dims", DIMS)
def test_an_encoder_maps_images_of_its_dims_to_moments_of_its_out_dims(name: str, dims: Dims) -> None:
    network = ENCODERS[name](list(dims), 6, width=2)
    assert (network.dims, network.out_features) == (dims, 6)
    assert network.out_dims == ((6, *halvings(dims)[1:]) if "spatial" in name else (6,))
    assert network(torch.randn(3, *dims)).shape == (3, *network.out_dims)


@pytest.mark.parametrize(
    ("dims", "stages"), [((1, 8, 8), 1), ((1, 8, 8), 3), ((3, 12, 20), 2), ((2, 2, 2), 1), ((1, 28, 28), 2)]
)
@pytest.mark.parametrize("numbers", [1, 2])
def test_convolutional_encoders_and_decoders_have_the_shapes_of_their_arguments(
    dims: Dims, stages: int, numbers: int
) -> None:
    encoder = ConvEncoder(dims, out_features=10, width=4, stages=stages).eval()
    decoder = ConvDecoder(dims, latent_dim=5, width=4, stages=stages, numbers_per_output=numbers)
    assert (encoder.dims, encoder.out_features) == (dims, 10)
    assert encoder(torch.randn(3, *dims)).shape == (3, 10)
    assert (decoder.latent_dim, decoder.dims, decoder.numbers_per_output) == (5, dims, numbers)
    assert decoder(torch.randn(3, 5)).shape == (3, numbers * dims[0], *dims[1:])


@pytest.mark.parametrize("dims", [(5,), (1, 8, 8), (3, 4, 6)])
@pytest.mark.parametrize("numbers", [1, 2, 256])
def test_perceptrons_have_the_shapes_of_their_arguments(dims: Dims, numbers: int) -> None:
    encoder = MLP(torch.Size(dims).numel(), (7, 5), 6)
    decoder = MLPDecoder(3, [7], dims, numbers_per_output=numbers)
    assert (encoder.in_features, encoder.out_features) == (torch.Size(dims).numel(), 6)
    assert encoder(torch.randn(2, *dims)).shape == (2, 6)
    assert (decoder.latent_dim, decoder.dims, decoder.numbers_per_output) == (3, dims, numbers)
    assert decoder(torch.randn(2, 3)).shape == (2, numbers * dims[0], *dims[1:])


@pytest.mark.parametrize("name", ALL)
def test_every_output_depends_on_the_input_and_every_weight_has_a_gradient(name: str) -> None:
    network, x = made(name, batch=16)
    outputs = network(x)
    assert (outputs.std(0) > 0).all()
    (outputs - 0.5).square().sum().backward()
    assert [what for what, weight in network.named_parameters() if not weight.grad.any()] == []


@pytest.mark.parametrize("name", ALL)
def test_examples_are_independent_in_evaluation_and_without_batch_normalisation_in_training(name: str) -> None:
    network, x = made(name, batch=4)
    x.requires_grad_()
    for training in (True, False):
        together = network.train(training)(x)
        alone = torch.cat([network(row[None]) for row in x]) if name not in BATCH_NORM or not training else None
        [gradient] = torch.autograd.grad(together[1].square().sum(), x)
        assert gradient[1].any()
        if alone is None:
            assert gradient[[0, 2, 3]].any()
        else:
            torch.testing.assert_close(together, alone)
            assert not gradient[[0, 2, 3]].any()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_outputs_have_the_dtype_of_the_network(name: str, dtype: torch.dtype) -> None:
    network, x = made(name, batch=4)
    assert network.to(dtype)(x.to(dtype)).dtype == dtype


@pytest.mark.parametrize("name", WITHOUT_BATCH_NORM)
def test_the_gradient_of_an_input_gradient_is_that_of_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    network = ENCODERS[name]((1, 16, 16), 4, width=2).double()
    x = torch.randn(3, 1, 16, 16, dtype=torch.float64, requires_grad=True)

    def penalty() -> Tensor:
        [gradient] = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
        return gradient.square().sum()

    weights = list(network.parameters())
    gradients = torch.autograd.grad(penalty(), weights)
    assert all(gradient.any() for gradient in gradients)
    directions = [torch.randn_like(weight) / weight.numel() ** 0.5 for weight in weights]
    slope = sum((gradient * way).sum() for gradient, way in zip(gradients, directions, strict=True))
    values = []
    for step in (1e-6, -2e-6):
        for weight, way in zip(weights, directions, strict=True):
            weight.data.add_(way, alpha=step)
        values.append(penalty().item())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(slope), rel=1e-4)


# --- errors ---------------------------------------------------------------------------------------------------------

SIZES: list[tuple[Make, dict[str, Any], list[str]]] = [
    (MLP, {"in_features": 6, "hidden": [5], "out_features": 4}, ["in_features", "out_features"]),
    (MLPDecoder, {"latent_dim": 3, "hidden": [], "dims": (2,)}, ["latent_dim", "numbers_per_output"]),
    (ConvEncoder, {"dims": (1, 8, 8), "out_features": 4}, ["out_features", "width", "stages"]),
    (ConvDecoder, {"dims": (1, 8, 8), "latent_dim": 4}, ["latent_dim", "width", "stages", "numbers_per_output"]),
    *((make, {"noise_dim": 4, "dims": (1, 8, 8)}, ["noise_dim", "width"]) for make in GENERATORS),
    *((make, {"dims": (1, 8, 8), "out_features": 4}, ["out_features", "width"]) for make in ENCODERS.values()),
    (LogitHead, {}, ["in_features"]),
    (Backbone, {"network": nn.Identity(), "num_features": 3, "out_features": 4}, ["num_features", "out_features"]),
    (TextEncoder, {}, ["vocabulary_size", "embedding_dim", "filters", "out_features"]),
]


@pytest.mark.parametrize(("make", "arguments", "sizes"), SIZES)
def test_sizes_below_one_are_refused_by_name(make: Make, arguments: dict[str, Any], sizes: list[str]) -> None:
    for size in sizes:
        for wrong in (0, -1):
            with pytest.raises(ValueError, match=rf"^{size} must be .*at least 1.* got {wrong}$"):
                make(**arguments | {size: wrong})


@pytest.mark.parametrize("dims", [(1, 7, 7), (3, 6, 6), (1, 9, 8), (1, 8, 9), (3, 4, 32)])
def test_images_that_cannot_be_halved_are_refused(dims: Dims) -> None:
    for make in (
        *(partial(make, 4) for make in GENERATORS),
        *(partial(make, out_features=4) for make in ENCODERS.values()),
    ):
        with pytest.raises(ValueError, match=rf"even and at least 8; got \({dims[0]}, {dims[1]}, {dims[2]}\)"):
            make(dims=dims, width=2)


@pytest.mark.parametrize(
    ("make", "argument", "known"),
    [
        (partial(MLP, 6, [5], 4), "activation", "'relu', 'leaky_relu'"),
        (partial(MLPDecoder, 6, [5], (1, 2, 2)), "activation", "'relu', 'leaky_relu'"),
        (partial(MLP, 6, [5], 4), "initialization", "'torch', 'xavier'"),
        (TextEncoder, "initialization", "'torch', 'xavier'"),
        (partial(DCGANEncoder, (1, 8, 8), 4), "normalization", "'none', 'batch', 'group'"),
    ],
)
def test_unknown_choices_are_refused_with_the_known_ones(make: Make, argument: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument} must be one of {known}; got 'other'$"):
        make(**{argument: "other"})
