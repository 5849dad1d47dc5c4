"""Checkpoints and recipes of the commit before modules moved: they name classes by paths that are no more."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.cli import main
from lit_bottleneck.networks import MLP, MLPDecoder

FOLDER = Path(__file__).parent / "before_the_move"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())  # what the commit returned that wrote the checkpoints
ROWS = torch.linspace(-1, 1, 24).reshape(6, 4)
DIGITS = torch.linspace(0, 1, 128).reshape(2, 1, 8, 8)


def encoder() -> nn.Module:
    return MLP(4, [3], 4)


FROM_PYTHON: dict[str, tuple[type[LightningModule], Callable[[], dict[str, Any]]]] = {
    "vib_python": (VIBClassifier, lambda: {"encoder": encoder()}),
    "vib_decoder_python": (
        VIBClassifier,
        lambda: {"encoder": encoder(), "decoder": MLP(2, [3], 3), "scale": torch.tanh},
    ),
    "vae_python": (VAE, lambda: {"encoder": encoder(), "decoder": MLP(2, [3], 4)}),
    "gan_python": (
        VDBGAN,
        lambda: {"generator": MLPDecoder(2, [3], [4]), "encoder": encoder(), "head": MLP(2, [3], 1)},
    ),
}


def output(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.discriminate(x) if isinstance(model, VDBGAN) else model(x)


def check(name: str, model: Any, x: Tensor) -> None:
    assert model.beta == EXPECTED[name]["beta"]
    torch.testing.assert_close(output(model.eval(), x), torch.tensor(EXPECTED[name]["output"]))


@pytest.mark.parametrize("name", FROM_PYTHON)
def test_a_checkpoint_from_python_loads(name: str) -> None:
    model, networks = FROM_PYTHON[name]
    check(name, model.load_from_checkpoint(FOLDER / f"{name}.ckpt", weights_only=True, **networks()), ROWS)


@pytest.mark.parametrize(("name", "x"), [("vib_cli", DIGITS), ("vae_cli", DIGITS), ("gan_cli", ROWS.reshape(-1, 2))])
def test_a_checkpoint_of_the_command_line_loads(name: str, x: Tensor) -> None:
    check(name, LightningModule.load_from_checkpoint(FOLDER / f"{name}.ckpt", weights_only=True), x)


@pytest.mark.parametrize("name", ["vib_cli", "vae_cli", "gan_cli"])
def test_a_recipe_runs_and_goes_on_from_its_checkpoint(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, checkpoint = (str(FOLDER / f"{name}.{suffix}") for suffix in ("yaml", "ckpt"))
    main(["fit", "--config", config, "--trainer.max_epochs", "3", "--ckpt_path", checkpoint])
    [written] = tmp_path.rglob("epoch=2*.ckpt")
    steps = torch.load(written, weights_only=True)["global_step"]
    assert steps == torch.load(FOLDER / f"{name}.ckpt", weights_only=True)["global_step"] * 3 // 2


def test_checkpoints_are_small() -> None:
    assert all(path.stat().st_size <= 50_000 for path in FOLDER.iterdir())
