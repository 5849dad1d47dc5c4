"""Compiled networks have the numbers of uncompiled ones; double backward through them is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.beta import DualBeta
from lit_bottleneck.callbacks import Compile
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.models.base import output_width
from lit_bottleneck.networks import MLP, MLPDecoder, add_spectral_norm
from lit_bottleneck.training.compilation import compile_in_place, is_compiled
from tests.models.runs import batches
from tests.quiet import trainer

FAST = "aot_eager"  # captures the same graphs, and generates no code
NETWORKS = {"vib": ["encoder", "decoder"], "vae": ["encoder", "decoder"], "gan": ["encoder", "head", "generator"]}


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def rows(count: int = 24) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(3)), torch.arange(count) % 3


def loader(count: int = 24) -> DataLoader:
    return batches(*rows(count), size=8)


def networks(name: str) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    if name == "gan":
        return {
            "generator": MLPDecoder(4, [16], [6], activation="leaky_relu"),
            "encoder": MLP(6, [16], 6, activation="leaky_relu"),
            "head": nn.Linear(3, 1),
        }
    return {"encoder": MLP(6, [16], 6), "decoder": MLP(3, [16], 6 if name == "vae" else 3)}


def model_of(name: str, parts: dict[str, nn.Module], **kwargs: Any) -> Any:
    if name == "gan":
        return VDBGAN(**parts, **{"latent_dim": 3, "noise_dim": 4, "beta": DualBeta(1.0)} | kwargs)
    if name == "vae":
        return VAE(**parts, latent_dim=3, likelihood="gaussian", beta=DualBeta(1.0))
    return VIBClassifier(**parts, latent_dim=3, num_classes=3, beta=DualBeta(1.0))


def compiled(parts: dict[str, nn.Module], way: str, backend: str = FAST) -> dict[str, nn.Module]:
    if way == "wrapped":
        return {name: torch.compile(part, backend=backend) for name, part in parts.items()}
    for part in parts.values():
        compile_in_place(part, backend=backend)
    return parts


def losses(model: Any) -> list[Tensor]:
    torch.manual_seed(1)
    x, y = rows(8)
    if isinstance(model, VDBGAN):
        return [model.discriminator_loss(x, model(torch.randn(8, 4)).detach()), model.generator_loss(8)]
    return [model.training_step((x, y), 0)]


# --- the same numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "way"), [("vib", "in place"), ("gan", "wrapped")])
def test_losses_and_gradients_are_those_of_uncompiled_networks(name: str, way: str) -> None:
    plain, ours = model_of(name, networks(name)), model_of(name, compiled(networks(name), way))
    assert all(is_compiled(getattr(ours, part)) for part in NETWORKS[name])
    for expected, loss in zip(losses(plain), losses(ours), strict=True):
        torch.testing.assert_close(loss, expected)
        plain.zero_grad()
        ours.zero_grad()
        expected.backward()
        loss.backward()
        for one, other in zip(plain.parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad)
    assert counters["stats"]["unique_graphs"] >= len(NETWORKS[name])


def fitted(name: str, tmp_path: Path, callbacks: list[Any], **kwargs: Any) -> dict[str, Any]:
    """Train three logged steps with a validation, and return the checkpoint's state.

    The last batch is smaller: a graph compiled for several sizes allows no second backward at all.
    """
    run = trainer(callbacks=callbacks, log_every_n_steps=1)
    model = model_of(name, networks(name), **kwargs)
    torch.manual_seed(1)
    run.fit(model, loader(20), loader(20))
    assert run.global_step == (6 if name == "gan" else 3)
    assert [part for part in NETWORKS[name] if is_compiled(getattr(model, part))] == (
        [part for part in NETWORKS[name] if part in (callbacks[0].networks or NETWORKS[name])] if callbacks else []
    )
    run.save_checkpoint(tmp_path / "it.ckpt")
    state: dict[str, Any] = torch.load(tmp_path / "it.ckpt", weights_only=True)["state_dict"]
    assert len(state.pop("beta_controller._extra_state"))
    return state | {"beta": torch.tensor(model.beta)}


CASES = [
    ("vib", None, {}),
    ("gan", ["generator"], {"gradient_penalty": 1.0, "spectral_norm": True}),
    pytest.param("vae", ["decoder"], {}, marks=pytest.mark.slow),
    pytest.param("gan", None, {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "parts", "kwargs"), CASES)
@pytest.mark.parametrize("backend", [FAST, pytest.param("inductor", marks=pytest.mark.slow)])  # needs a C++ compiler
def test_a_compiled_training_ends_with_the_same_checkpoint(
    name: str, parts: Any, kwargs: Any, backend: str, tmp_path: Path
) -> None:
    expected = fitted(name, tmp_path, [], **kwargs)
    found = fitted(name, tmp_path, [Compile(parts, backend=backend)], **kwargs)
    torch.testing.assert_close(found, expected, **{"rtol": 1e-4, "atol": 1e-5} if backend == "inductor" else {})
    assert counters["stats"]["unique_graphs"] > 0


def test_each_network_of_a_classifier_is_one_graph_whatever_beta_does() -> None:
    graphs = []
    for steps in (1, 6):
        torch._dynamo.reset()
        counters.clear()
        model = model_of("vib", networks("vib"))
        run = trainer(callbacks=[Compile(backend=FAST)], limit_train_batches=steps, log_every_n_steps=1)
        run.fit(model, loader(48))
        assert run.global_step == steps
        assert not counters["graph_break"]
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [2, 2]


@pytest.mark.slow
def test_the_overlay_compiles_the_networks_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipes = recipe_paths()
    overlays = [recipes["vib_digits"], recipes["trainer/smoke"], recipes["trainer/compile"]]
    main(["fit", *(f"--config={path}" for path in overlays), f"--trainer.callbacks.backend={FAST}"])
    assert counters["stats"]["unique_graphs"] >= 2
    [path] = (tmp_path / "runs").rglob("best.ckpt")
    model = VIBClassifier.load_from_checkpoint(path, weights_only=True)
    assert not is_compiled(model)


# --- widths and errors ----------------------------------------------------------------------------------------------


def test_wrong_widths_of_compiled_networks_are_refused() -> None:
    def wrapped(*layers: nn.Module) -> nn.Module:
        return torch.compile(nn.Sequential(*layers), backend=FAST)

    assert output_width(wrapped(nn.Linear(6, 4), nn.Linear(4, 8))) == 8
    assert output_width(torch.compile(MLP(6, [16], 8), backend=FAST)) == 8
    with pytest.raises(ValueError, match=r"latent_dim=3 needs an encoder that returns 6 numbers .* got 8"):
        VIBClassifier(wrapped(nn.Linear(6, 8)), latent_dim=3, num_classes=3)
    with pytest.raises(ValueError, match=r"noise_dim=4, but .* a width of 5"):
        model_of("gan", networks("gan") | {"generator": wrapped(nn.Linear(5, 6))})
    with pytest.raises(ValueError, match="head must return logits"):
        model_of("gan", networks("gan") | {"head": wrapped(nn.Linear(3, 1), nn.Sigmoid())})


@pytest.mark.parametrize("way", ["in place", "wrapped", "callback"])
@pytest.mark.parametrize("part", ["encoder", "head"])
def test_a_gradient_penalty_needs_an_uncompiled_discriminator(part: str, way: str) -> None:
    parts, callbacks = networks("gan"), []
    if way == "callback":
        callbacks = [Compile([part], backend=FAST)]
    else:
        parts |= compiled({part: parts[part]}, way)
    run = trainer(callbacks=callbacks)
    with pytest.raises(ValueError, match=rf"gradient_penalty=R1 needs .* do not compile {part} .*'generator'"):
        run.fit(model_of("gan", parts, gradient_penalty=1.0), loader())
    assert run.global_step == 0


def test_a_gan_with_a_gradient_penalty_is_not_compiled_as_a_whole() -> None:
    with pytest.raises(ValueError, match=r"gradient_penalty=R1 needs .* do not compile the whole model"):
        trainer().fit(torch.compile(model_of("gan", networks("gan"), gradient_penalty=1.0), backend=FAST), loader())
    trainer(limit_train_batches=0).fit(torch.compile(model_of("gan", networks("gan")), backend=FAST), loader())


def test_a_spectral_norm_needs_an_uncompiled_discriminator() -> None:
    with pytest.raises(ValueError, match=r"a spectral norm .* do not compile encoder and head"):
        trainer(callbacks=[Compile()]).fit(model_of("gan", networks("gan"), spectral_norm=True), loader())
    parts = networks("gan")
    add_spectral_norm(parts["head"])
    with pytest.raises(ValueError, match=r"a spectral norm .* do not compile head"):
        trainer(callbacks=[Compile(["head"])]).fit(model_of("gan", parts), loader())


def test_a_compiled_discriminator_can_be_tested_despite_a_gradient_penalty() -> None:
    plain = model_of("gan", networks("gan"), gradient_penalty=1.0)
    ours = model_of("gan", compiled(networks("gan"), "in place"), gradient_penalty=1.0)
    measured = []
    for model in (plain, ours):
        torch.manual_seed(1)
        measured += trainer().test(model, loader(), verbose=False)
    assert measured[1] == pytest.approx(measured[0], rel=1e-5)


def test_dry_runs_in_setup_compile_nothing() -> None:
    model = model_of("gan", compiled(networks("gan"), "in place"))
    trainer(limit_train_batches=0).fit(model, loader())
    assert counters["stats"]["unique_graphs"] == 0


def test_unknown_networks_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"\['generator'\] .*; VIBClassifier has encoder, decoder$"):
        trainer(callbacks=[Compile(["generator"])]).fit(model_of("vib", networks("vib")), loader())
    with pytest.raises(ValueError, match=r"networks=\[\] .*; VDBGAN has encoder, generator, averaged_generator, head$"):
        trainer(callbacks=[Compile([])]).fit(model_of("gan", networks("gan")), loader())
