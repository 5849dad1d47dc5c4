"""Parts of models as programs of ``torch.export`` and ONNX files."""

import itertools
import re
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import resnet18

from lit_bottleneck import (
    VAE,
    VDBGAN,
    BottleneckLayer,
    Code,
    GaussianBottleneck,
    VIBClassifier,
    VIBRegressor,
    likelihoods,
    networks,
)
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Digits
from lit_bottleneck.export import parts as export_parts
from lit_bottleneck.export.files import runner
from lit_bottleneck.export.parts import _hypot, deterministic_path, export_onnx, export_program
from lit_bottleneck.likelihoods import Likelihood
from lit_bottleneck.models.export_parts import ExportPart
from lit_bottleneck.networks import MLP, Backbone, MLPDecoder, TextEncoder
from tests.quiet import trainer

DIMS = (1, 8, 8)
SIZES = (1, 2, 7, 64)


class CountsRows(nn.Module):
    """A network that uses the size of the batch as a Python number."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)


def vib(encoder: nn.Module, **arguments: Any) -> VIBClassifier:
    return VIBClassifier(encoder, latent_dim=8, num_classes=10, **arguments)


def regressor(likelihood: Likelihood) -> VIBRegressor:
    """Return a regressor of targets in units of their own."""
    model = VIBRegressor(MLP(64, [16], 16), 8, likelihood, (3, 2), eval_samples=3)
    model.units.take(torch.arange(6.0), torch.tensor([1.0, 50.0, 0.1, 2.0, 3.0, 4.0]))
    return model


def vae(likelihood: Likelihood, decoder: nn.Module | None = None) -> VAE:
    decoder = decoder or MLPDecoder(8, [], DIMS, likelihood.numbers_per_output)
    return VAE(MLP(64, [16], 16), decoder, 8, likelihood)


def dcgan(normalization: Any = "none", **arguments: Any) -> VDBGAN:
    encoder = networks.DCGANEncoder(DIMS, 16, width=4, normalization=normalization)
    return VDBGAN(networks.DCGANGenerator(4, DIMS, width=4), encoder, latent_dim=8, noise_dim=4, **arguments)


def spatial_gan() -> VDBGAN:
    """The authors' networks: a code of each of 4 x 4 positions."""
    encoder = networks.ResNetEncoder(DIMS, 16, width=4, spatial=True)
    generator, head = networks.ResNetGenerator(4, DIMS, width=4), networks.LogitHead(8 * 16)
    return VDBGAN(generator, encoder, 8, 4, head=head, scale="exp")


MODELS: dict[str, Callable[[], LightningModule]] = {
    "mlp": lambda: vib(MLP(64, [16], 16), scale="softplus"),
    "deterministic": lambda: vib(MLP(64, [16], 16, activation="leaky_relu"), deterministic=True),
    "conv": lambda: vib(networks.ConvEncoder(DIMS, 16, width=4)),
    "resnet": lambda: vib(networks.ResNetEncoder(DIMS, 16, width=4), scale="exp"),
    "dcgan_batch": lambda: vib(networks.DCGANEncoder(DIMS, 16, width=4, normalization="batch")),
    "dcgan_group": lambda: vib(networks.DCGANEncoder(DIMS, 16, width=4, normalization="group")),
    "text": lambda: vib(TextEncoder(50, 8, 6, (2, 3), 16)),
    "deterministic_text": lambda: VIBClassifier(TextEncoder(50, 8, 6, (3,), None), 6, 2, deterministic=True),
    "backbone": lambda: vib(Backbone(nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)), 6, 16, frozen=True)),
    "embedding_bag": lambda: vib(Backbone(nn.EmbeddingBag(50, 10), 10, 16)),
    "layer": lambda: vib(nn.Sequential(nn.Flatten(), BottleneckLayer(64, 4), nn.ReLU(), nn.Linear(4, 16))),
    "counts_rows": lambda: vib(nn.Sequential(CountsRows(), nn.Linear(64, 16))),
    "several_labels": lambda: vib(MLP(64, [16], 16), multilabel=True, eval_samples=3),
    "regressor": lambda: regressor(likelihoods.PerOutputGaussian()),
    "learned_regressor": lambda: regressor(likelihoods.LearnedGaussian((3, 2))),
    "vae": lambda: vae(likelihoods.OptimalGaussian()),
    "deterministic_vae": lambda: VAE(MLP(64, [], 16), MLP(8, [], 64), 8, "bernoulli", deterministic=True),
    "conv_vae": lambda: vae(likelihoods.ContinuousBernoulli(), networks.ConvDecoder(DIMS, 8, 4)),
    "dcgan": lambda: dcgan(spectral_norm=True),
    "plain_dcgan": lambda: dcgan("batch", deterministic=True),
    "spatial_gan": spatial_gan,
    "ring_gan": lambda: VDBGAN(MLPDecoder(4, [16], (2,)), MLP(2, [16], 16), 8, 4, spectral_norm=True),
}
LIKELIHOODS: list[Callable[[], Likelihood]] = [
    *(likelihoods.Bernoulli, likelihoods.ContinuousBernoulli, likelihoods.Gaussian, likelihoods.PerOutputGaussian),
    *(lambda: likelihoods.Categorical(5), lambda: likelihoods.DiscretizedLogistic(5), likelihoods.OptimalGaussian),
    lambda: likelihoods.LearnedGaussian(dims=DIMS, sigma_init=0.5),
]
MODELS |= {f"vae_{type(kind()).__name__}": lambda kind=kind: vae(kind()) for kind in LIKELIHOODS}
IMAGES = ("mlp", "deterministic", "conv", "dcgan_batch", "dcgan_group", "backbone", "layer")
DECODERS = ("conv_vae", "vae_Bernoulli", "vae_Categorical", "vae_DiscretizedLogistic")
TOGETHER: dict[str, list[tuple[str, str]]] = {  # parts with the same inputs, exported as one program to save time
    "images": [*((name, "logits") for name in IMAGES), ("regressor", "prediction"), ("spatial_gan", "code")],
    # these two need the size of the batch, and so the slower way to export
    "by_bytecode": [("dcgan", "logits"), ("vae_PerOutputGaussian", "reconstruction")],
    "tokens": [(name, "logits") for name in ("text", "embedding_bag")],
    "codes": [(name, "decoder") for name in DECODERS],
    "noise": [(name, "generator") for name in ("plain_dcgan", "spatial_gan")],
}  # fmt: skip
QUICK_ONNX = [("text", "logits"), ("ring_gan", "generator")]


def made(name: str) -> LightningModule:
    """Return a model as training may leave it: in training mode, with other statistics and weights than initially."""
    torch.manual_seed(0)
    model = MODELS[name]()
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            assert isinstance(layer.running_mean, Tensor)
            assert isinstance(layer.running_var, Tensor)
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    if isinstance(model, VDBGAN):
        for weight in model.generator.parameters():
            weight.data.mul_(1.5)
    return model


def inputs(name: str, part: str, size: int) -> Tensor:
    draws = torch.Generator().manual_seed(size)
    if part in ("decoder", "generator"):
        return torch.randn(size, 8 if part == "decoder" else 4, generator=draws)
    if "text" in name or name == "embedding_bag":
        return torch.randint(50, (size, 12), generator=draws)
    return torch.randn(size, *((2,) if name == "ring_gan" else DIMS), generator=draws)


@torch.no_grad()
def expected(model: Any, part: str, x: Tensor) -> Tensor:
    """Return the output of the model itself, by its public methods."""
    model = deepcopy(model).eval()
    model.draw_noise = lambda n: x
    compute: dict[str, Callable[[], Tensor]] = {
        "code": lambda: model.encode(x, sample=False).mean,
        "decoder": lambda: model.decode(x),
        "generator": lambda: model.sample(len(x)),
    }
    return compute.get(part, lambda: model.discriminate(x) if isinstance(model, VDBGAN) else model(x))()


class Together(nn.Module):
    """Parts of several models on the same inputs."""

    def __init__(self, parts: list[tuple[str, str]]) -> None:
        super().__init__()
        self.models = nn.ModuleList([made(name) for name, _ in parts])
        pairs: Any = zip(self.models, parts, strict=True)
        self.computed = [model.export_parts()[part].compute for model, (_, part) in pairs]

    def parts(self, x: Tensor) -> list[Tensor]:
        pairs: Any = zip(self.models, self.computed, strict=True)
        return [compute(model, x).reshape(x.shape[0], -1) for model, compute in pairs]

    def export_parts(self) -> dict[str, ExportPart]:
        return {"all": ExportPart(lambda model, x: torch.cat(model.parts(x), 1))}


@pytest.mark.parametrize("parts", TOGETHER.values(), ids=TOGETHER)
def test_programs_compute_the_models_numbers(parts: list[tuple[str, str]]) -> None:
    models, (name, part) = Together(parts), parts[0]
    run = export_program(models, "all", inputs(name, part, 3)).module()
    for size in SIZES:
        x = inputs(name, part, size)
        start, outputs = 0, run(x)
        for model, (name, part) in zip(models.models, parts, strict=True):
            wanted = expected(model, part, x).reshape(size, -1)
            output, start = outputs[:, start : start + wanted.shape[1]], start + wanted.shape[1]
            torch.testing.assert_close(output, wanted, msg=lambda text, name=name: f"{name}: {text}")


def check(model: LightningModule, name: str, part: str, run: Any, **tolerances: float) -> None:
    for size in SIZES:
        x = inputs(name, part, size)
        torch.testing.assert_close(run(x), expected(model, part, x), **tolerances)


def check_onnx(model: LightningModule, name: str, part: str, file: Path) -> None:
    export_onnx(model, part, file, inputs(name, part, 1))
    check(model, name, part, runner(file), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "part"), QUICK_ONNX, ids=["-".join(case) for case in QUICK_ONNX])
def test_an_onnx_file_computes_the_models_numbers(name: str, part: str, tmp_path: Path) -> None:
    check_onnx(made(name), name, part, tmp_path / "new" / "model.onnx")
    graph = onnx.load(tmp_path / "new" / "model.onnx").graph
    [given], [returned] = graph.input, graph.output
    assert (given.name, returned.name) == ({"generator": "noise"}.get(part, "x"), part)
    sizes = {value.type.tensor_type.shape.dim[0].dim_param for value in (given, returned)}
    assert len(sizes) == 1
    assert "" not in sizes  # which is a fixed size
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "model.onnx"]
    assert vae(likelihoods.Bernoulli()).export_parts()["decoder"].input_name == "z"


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_all_parts_of_all_models_in_both_forms(name: str, tmp_path: Path) -> None:
    model: Any = made(name)
    for part in model.export_parts():
        check(model, name, part, export_program(model, part, inputs(name, part, 3)).module())
        check_onnx(model, name, part, tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_resnet18_in_both_forms(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = vib(Backbone(resnet18(weights=None), 512, 16, without="fc", frozen=True))
    export_onnx(model, "logits", tmp_path / "model.onnx", torch.rand(2, 3, 32, 32))
    runs = runner(tmp_path / "model.onnx"), export_program(model, "logits", torch.rand(2, 3, 32, 32)).module()
    for size, run in itertools.product(SIZES, runs):
        x = torch.rand(size, 3, 32, 32)
        assert run is not None
        torch.testing.assert_close(run(x), expected(model, "logits", x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "part"), [("layer", "code"), ("vae", "decoder"), ("dcgan", "generator")])
def test_export_does_not_change_the_model(name: str, part: str) -> None:
    model: Any = made(name)
    x = inputs(name, "code", 5)
    next(model.encoder.children()).eval()  # another mode than the rest
    model.encode(x)  # leaves a rate in a BottleneckLayer
    layers = [layer for layer in model.modules() if isinstance(layer, BottleneckLayer)]
    state, modes = deepcopy(model.state_dict()), [module.training for module in model.modules()]
    trained, random_state = [weight.requires_grad for weight in model.parameters()], torch.get_rng_state()

    path = deterministic_path(model, part)
    export_program(model, part, None if part in ("decoder", "generator") else x)

    assert not any(module.training for module in path.modules())
    assert [module.training for module in model.modules()] == modes
    assert [weight.requires_grad for weight in model.parameters()] == trained
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [layer.take_rate().requires_grad for layer in layers] == [True] * len(layers)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]) if isinstance(value, Tensor) else value == state[key]
    code = model.encode(x)
    (code.z.square().sum() + code.rate.sum()).backward()
    assert all(weight.grad is not None for weight in model.encoder.parameters())


def test_further_training_does_not_change_what_was_exported() -> None:
    model = made("mlp")
    x = inputs("mlp", "code", 3)
    before = expected(model, "logits", x)
    path, program = deterministic_path(model, "logits"), export_program(model, "logits", x)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert torch.equal(path(x), before)
    assert torch.equal(program.module()(x), before)
    assert not torch.equal(expected(model, "logits", x), before)


@pytest.mark.parametrize(
    ("name", "part", "networks"),
    [("mlp", "code", {"encoder"}), ("vae", "decoder", {"decoder", "likelihood"})],
)
def test_a_program_holds_only_its_part(name: str, part: str, networks: set[str]) -> None:
    x = inputs(name, part, 3)
    program = export_program(made(name), part, x)
    assert {key.split(".")[1] for key in program.state_dict} == networks
    [[example], _] = program.example_inputs  # type: ignore[misc]
    assert not example.any()  # no data of the user's


class Mine(GaussianBottleneck, LightningModule):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(beta=1e-3)
        self.encoder = encoder

    def encode(self, x: Tensor) -> Code:
        return self.bottleneck(self.encoder(x / 255))


class Other(Mine):
    def encode(self, x: Tensor) -> Tensor:  # type: ignore[override]
        moments: Tensor = self.encoder(x)
        return moments


def test_a_users_model_with_encode_has_the_part_code() -> None:
    model, x = Mine(MLP(64, [], 16)), 255 * inputs("mlp", "code", 3)
    run = export_program(model, "code", x).module()
    torch.testing.assert_close(run(x), model.encoder(x / 255)[:, :8])
    with pytest.raises(ValueError, match="a Mine has no part 'logits'; it has 'code'"):
        export_program(model, "logits", x)
    with pytest.raises(TypeError, match=r"Other\.encode must return a Code .* got a .*Tensor"):
        export_program(Other(MLP(64, [], 16)), "code", x)
    with pytest.raises(ValueError, match="a Linear has no part 'code'; it has none, since it has neither export_parts"):
        export_program(nn.Linear(2, 2), "code", x)


def test_a_users_model_names_its_parts() -> None:
    class Paired(nn.Module):
        """A module whose own method draws its example inputs."""

        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 2), nn.Linear(5, 2)

        def export_parts(self) -> dict[str, ExportPart]:
            def draw(n: int, generator: torch.Generator) -> Tensor:
                return torch.rand(n, 5, generator=generator)

            return {"right": ExportPart(lambda model, x: model.right(x).relu(), ("left",), draw=draw)}

    torch.manual_seed(0)
    model = Paired()
    program = export_program(model, "right")
    x = torch.randn(7, 5)
    torch.testing.assert_close(program.module()(x), model.right(x).relu())
    assert {key.split(".")[1] for key in program.state_dict} == {"right"}
    with pytest.raises(ConfigurationError, match="a Paired has no part 'left'; it has 'right'"):
        deterministic_path(model, "left")


def test_a_subclass_exports_its_own_forward() -> None:
    class Scaled(VIBClassifier):
        def forward(self, x: Tensor) -> Tensor:
            code = self.encode(x, sample=False)
            return super().forward(x) / (1 + code.rate.unsqueeze(1))

    torch.manual_seed(0)
    model, x = Scaled(MLP(64, [], 16), 8, 10), inputs("mlp", "code", 3)
    torch.testing.assert_close(export_program(model, "logits", x).module()(x), model.eval()(x))


@pytest.mark.parametrize(
    ("name", "missing", "known"),
    [
        ("mlp", "decoder", "'code', 'logits'"),
        ("vae", "logits", "'code', 'reconstruction', 'decoder'"),
        ("dcgan", "reconstruction", "'code', 'logits', 'generator'"),
    ],
)
def test_an_unknown_part_is_named_with_the_known_ones(name: str, missing: str, known: str) -> None:
    with pytest.raises(ConfigurationError, match=f"has no part '{missing}'; it has {known}$"):
        export_program(made(name), missing)


class Fails(nn.Module):
    """A network that applies a function first."""

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.compute = compute
        self.moments = nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.moments(self.compute(x.flatten(1))))


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda x: x if x.sum() > 0 else -x, "torch cannot export it for batches of any size: .* control flow"),
        (lambda x: torch.stack(list(x)), "torch cannot export it for batches of any size: .* batch"),
        (lambda x: x + torch.randn_like(x), "gives other numbers than the model, by up to .*: does a network draw"),
    ],
    ids=["branches", "loops_over_rows", "draws"],
)
def test_a_network_that_cannot_be_exported_is_an_error(compute: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        export_program(vib(Fails(compute)), "code", torch.rand(3, *DIMS))


class Length(Fails):
    """A part that goes through ``torch.hypot``, which ONNX does not have."""

    def export_parts(self) -> dict[str, ExportPart]:
        return {"code": ExportPart(lambda model, x: torch.hypot(*model(x).chunk(2, 1)))}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Length(torch.relu), "what was exported gives other numbers than the model"),
        pytest.param(
            vib(Fails(torch.special.bessel_j0)),
            r"torch\.onnx cannot export it: No ONNX function found .*bessel_j0",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["other_numbers", "unknown_operator"],
)
def test_an_onnx_error_keeps_the_old_file(
    model: nn.Module, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.onnx"
    file.write_text("old")
    monkeypatch.setattr(export_parts, "_hypot", lambda x, y: 0.01 * (x + y))
    with pytest.raises(RuntimeError, match=message):
        export_onnx(model, "code", file, torch.rand(3, *DIMS))
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_compiled_network_is_exported_in_eager_form(wrapped: bool) -> None:
    encoder: Any = MLP(64, [16], 16)
    model = vib(torch.compile(encoder, backend="eager") if wrapped else encoder)
    if not wrapped:
        encoder.compile(backend="eager")
    x = inputs("mlp", "code", 3)
    run = export_program(model, "code", x).module()
    torch.testing.assert_close(run(x), encoder.eval()(x)[:, :8])


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_missing_packages_are_named_with_the_install_command(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"package {package}: pip install lit_bottleneck\[onnx\]"):
        export_onnx(made("mlp"), "code", tmp_path / "model.onnx", inputs("mlp", "code", 3))


def test_a_network_that_cannot_be_copied_is_an_error() -> None:
    model = vib(nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(64, 16))))
    model.encode(torch.rand(3, *DIMS))
    with pytest.raises(ValueError, match=r"VIBClassifier cannot be copied.*parametrizations"):
        deterministic_path(model, "code")


@pytest.mark.parametrize("example", [torch.zeros(3, 5), torch.zeros(3, *DIMS, dtype=torch.long)])
def test_an_example_that_does_not_fit_is_an_error(example: Tensor) -> None:
    given = re.escape(
        f"does not take inputs of the shape {tuple(example.shape[1:])} and {example.dtype}: mat1 and mat2"
    )
    with pytest.raises(ValueError, match=given):
        export_program(made("mlp"), "code", example)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_kept(dtype: torch.dtype) -> None:
    model, x = made("mlp").to(dtype), inputs("mlp", "code", 3).to(dtype)
    run = export_program(model, "logits", x).module()
    assert run(x).dtype == dtype
    torch.testing.assert_close(run(x), expected(model, "logits", x))


def test_the_trainers_datamodule_gives_the_shape_of_inputs() -> None:
    torch.manual_seed(0)
    model = vib(MLP(64, [16], 16))
    trainer(max_steps=3, limit_val_batches=0).fit(model, Digits())
    run = export_program(model, "logits").module()
    images, _ = next(iter(Digits().test_dataloader()))
    torch.testing.assert_close(run(images), expected(model, "logits", images))
    assert model.trainer.datamodule.dims == DIMS  # the trainer is still attached


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_hypotenuse_for_onnx_equals_that_of_torch(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 1.0, -3.0, 4.0, 1e-30, 1e30, -torch.inf, torch.nan], dtype=dtype)
    x, y = torch.meshgrid(values, values, indexing="ij")
    torch.testing.assert_close(_hypot(x, y)[:-1, :-1], torch.hypot(x, y)[:-1, :-1])
    assert _hypot(x, y)[-1].isnan().all()
