"""Lightning's finders of a learning rate and a batch size."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder
from lightning.pytorch.tuner import Tuner
from torch.optim.lr_scheduler import CosineAnnealingLR

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.beta import DualBeta
from lit_bottleneck.callbacks import RandomStates, ResumePoint, WeightEMA
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.data import Digits
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.quiet import trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*will not be able to resume")


def vib(**kwargs: Any) -> VIBClassifier:
    torch.manual_seed(0)
    return VIBClassifier(MLP(64, [16], 8), 4, 10, beta=DualBeta(2.0), **kwargs)


def vae(**kwargs: Any) -> VAE:
    torch.manual_seed(0)
    return VAE(MLP(64, [16], 8), MLPDecoder(4, [16], (1, 8, 8)), 4, "gaussian", beta=DualBeta(2.0), **kwargs)


def gan(**kwargs: Any) -> VDBGAN:
    torch.manual_seed(0)
    return VDBGAN(MLPDecoder(4, [16], (1, 8, 8)), MLP(64, [16], 8), latent_dim=4, noise_dim=4, **kwargs)


class Start(Callback):
    """Keep the state at the start of the training."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.state = {name: value.clone() for name, value in pl_module.state_dict().items()}


def fitted(model: Any, folder: Path, callbacks: list[Callback], data: Digits | None = None) -> Any:
    torch.manual_seed(1)
    run = trainer(callbacks=callbacks, default_root_dir=folder, limit_val_batches=0)
    run.fit(model, datamodule=data or Digits(batch_size=64))
    return run


def cosine(optimizer: Any) -> Any:
    return CosineAnnealingLR(optimizer, T_max=10)


@pytest.mark.parametrize(
    ("make", "lr_scheduler", "others", "first"),
    [
        (vib, None, list, True),
        (vae, cosine, list, True),
        (vib, cosine, lambda: [RandomStates(), ResumePoint()], True),
        (vae, None, lambda: [RandomStates(), ResumePoint()], False),
        (vae, None, lambda: [WeightEMA()], True),
    ],
)
def test_a_training_starts_afresh_at_the_found_rate(
    make: Any, lr_scheduler: Any, others: Any, first: bool, tmp_path: Path
) -> None:
    finder, start = LearningRateFinder(min_lr=1e-4, max_lr=0.05, num_training_steps=20), Start()
    model = make(lr_scheduler=lr_scheduler, lr_scheduler_interval="step")
    run = fitted(model, tmp_path, [finder, *others(), start] if first else [*others(), finder, start])
    assert model.lr == finder.optimal_lr.suggestion()
    assert 1e-4 < model.lr != 1e-3
    torch.testing.assert_close(start.state, dict(make().state_dict()), rtol=0, atol=0)
    steps = run.num_training_batches
    decay = 1.0 if lr_scheduler is None else (1 + math.cos(math.pi * steps / 10)) / 2
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(model.lr * decay)
    assert (run.global_step, model.beta_controller.beta) == (steps, pytest.approx(1e-3, rel=0.5))


@pytest.mark.parametrize(
    ("make", "others"), [(vib, list), (vae, lambda: [RandomStates(), ResumePoint()]), (gan, lambda: [RandomStates()])]
)
def test_a_training_goes_on_at_the_found_batch_size(make: Any, others: Any, tmp_path: Path) -> None:
    data, start = Digits(batch_size=256), Start()
    run = fitted(make(), tmp_path, [BatchSizeFinder(init_val=64, max_trials=2), start, *others()], data)
    assert data.batch_size == 128
    assert run.num_training_batches == -(-len(data.dataset("train")) // 128)
    torch.testing.assert_close(start.state, dict(make().state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("make", [vib, vae])
def test_the_tuner_finds_both(make: Any, tmp_path: Path) -> None:
    model, data, tuner = make(), Digits(), Tuner(trainer(default_root_dir=tmp_path, limit_val_batches=0))
    assert tuner.scale_batch_size(model, datamodule=data, init_val=64, max_trials=1) == data.batch_size == 64
    found = tuner.lr_find(model, datamodule=data, num_training=20)
    assert found.suggestion() == model.lr
    assert model.configure_optimizers().param_groups[0]["lr"] == model.lr
    torch.testing.assert_close(model.state_dict(), make().state_dict(), rtol=0, atol=0)


def test_a_learning_rate_by_hand_is_that_of_both_networks_of_a_gan() -> None:
    model = gan()
    model.lr = 0.5
    assert [group["lr"] for one in model.configure_optimizers() for group in one.param_groups] == [0.5, 0.5]


@pytest.mark.parametrize("finder", ["LearningRateFinder", pytest.param("BatchSizeFinder", marks=pytest.mark.slow)])
def test_a_recipe_may_have_a_finder(finder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    numbers = ["num_training_steps=20"] if finder == "LearningRateFinder" else ["init_val=128", "max_trials=2"]
    command = ["fit", "--config", str(recipe_paths()["vae_digits"]), "--trainer.max_epochs=1"]
    command.append(f"--trainer.callbacks+=lightning.pytorch.callbacks.{finder}")
    main([*command, *(f"--trainer.callbacks.{number}" for number in numbers)])
    [path] = tmp_path.rglob("best.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    rate = checkpoint["optimizer_states"][0]["param_groups"][0]["lr"]
    assert (rate != 1e-3) == (finder == "LearningRateFinder")
    assert checkpoint["global_step"] == -(-1294 // (256 if finder == "BatchSizeFinder" else 64))
    assert not list(tmp_path.rglob(".lr_find*")) + list(tmp_path.rglob(".scale_batch_size*"))
