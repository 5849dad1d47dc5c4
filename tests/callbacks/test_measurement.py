"""When measurements are due, of which batches, and that they change nothing of the training."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck.callbacks import Factors, Information, Paths, Pictures, SampleQuality, SkipNonFinite, WeightEMA
from lit_bottleneck.callbacks.measurement import Measurement
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Digits, Ring
from lit_bottleneck.data.nuisance import Rotation
from lit_bottleneck.metrics import RawFeatures
from tests.callbacks.small_models import Trainable, classifier, gan, point_gan, vae
from tests.quiet import trainer


class Sum(Measurement):
    """Sum of the inputs."""

    def __init__(self, every_n_epochs: int) -> None:
        super().__init__(every_n_epochs)
        self.found: list[tuple[int, float]] = []

    def reset(self, trainer: Trainer, module: LightningModule) -> None:
        self.sum = torch.zeros(())

    def update(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.sum += batch[0].sum()

    def compute(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        self.found.append((trainer.current_epoch + 1, self.sum.item()))
        return {"sum": self.sum}

    @property
    def epochs(self) -> list[int]:
        return [epoch for epoch, _ in self.found]


class Line(Trainable):
    """A model of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.layer(batch[0]).square().mean()


class Drawing(RawFeatures):
    """Features that draw random numbers, as a network does that is built late."""

    def features(self, x: Tensor) -> Tensor:
        torch.rand(3), np.random.rand(), random.random()
        return x


def loader(value: float = 1.0) -> DataLoader:
    return DataLoader(TensorDataset(torch.full((12, 1), value)), batch_size=4)


@pytest.mark.parametrize(
    ("every", "arguments", "epochs"),
    [
        (0, {"max_epochs": 3}, []),
        (2, {"max_epochs": 5}, [2, 4, 5]),
        (2, {"max_epochs": -1, "max_steps": 9}, [2, 3]),  # three steps an epoch
        (2, {"max_epochs": 7, "check_val_every_n_epoch": 3}, [3, 6]),
        (1, {"max_epochs": 2, "limit_val_batches": 0}, []),
    ],
)
def test_epochs_that_are_measured(every: int, arguments: dict[str, Any], epochs: list[int]) -> None:
    measurement = Sum(every)
    trainer(callbacks=[measurement], **arguments).fit(Line(), loader(), loader())
    assert measurement.found == [(epoch, 12.0) for epoch in epochs]  # each starts from 0


def test_a_resumed_training_measures_the_epochs_that_it_would_have_measured(tmp_path: Path) -> None:
    whole = Sum(3), Sum(2)
    trainer(callbacks=[*whole], max_epochs=8).fit(Line(), loader(), loader())
    first = trainer(callbacks=[Sum(3), Sum(2)], max_epochs=4)
    first.fit(Line(), loader(), loader())
    first.save_checkpoint(tmp_path / "4.ckpt")
    resumed = Sum(3), Sum(2)
    run = trainer(callbacks=[*resumed], max_epochs=8)
    run.fit(Line(), loader(), loader(), ckpt_path=tmp_path / "4.ckpt", weights_only=True)
    assert [one.epochs for one in whole] == [[3, 6, 8], [2, 4, 6, 8]]
    assert [one.epochs for one in resumed] == [[7, 8], [6, 8]]  # the fourth was the last of the first training


def test_the_first_dataloader_is_measured_in_validation_if_asked_for_and_always_in_test() -> None:
    for every in (0, 7):
        measurement = Sum(every)
        run, loaders = trainer(callbacks=[measurement]), [loader(2), loader(3)]
        run.validate(Line(), loaders, verbose=False)
        assert measurement.found == [(1, 24.0)] * bool(every)
        assert ("val/sum" in run.callback_metrics) == bool(every)
        run.test(Line(), loaders, verbose=False)
        assert run.callback_metrics["test/sum"] == 24


@pytest.mark.parametrize("callback", [Information(), Factors()], ids=["information", "factors"])
def test_a_module_without_codes_is_refused_before_training(callback: Callback) -> None:
    run = trainer(callbacks=[callback])
    with pytest.raises(ConfigurationError, match=r"needs a module with encode.*; Line has neither"):
        run.fit(Line(), loader())
    assert run.global_step == 0


@pytest.mark.parametrize(
    ("model", "data", "callback"),
    [
        (classifier, Digits, Factors(["linear"], disentanglement=False, every_n_epochs=1)),
        (classifier, Digits, Information(max_codes=50, every_n_epochs=1)),
        (classifier, Digits, Information(max_codes=50)),  # tried in validation
        (classifier, Digits, Paths(num_pairs=5)),
        (vae, Digits, Pictures(every_n_epochs=1)),
        (gan, Digits, Pictures(every_n_epochs=1)),
        (vae, Digits, SampleQuality(Drawing(), num_samples=50, every_n_epochs=1)),
        (point_gan, Ring, SampleQuality(Drawing(), num_samples=50, every_n_epochs=1)),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_training_is_bit_identical_with_and_without(model: Any, data: Any, callback: Callback, tmp_path: Path) -> None:
    arguments = {"val_size": 128} if data is Ring else {"nuisance": Rotation(max_degrees=45)}
    states, random_states = [], []
    for callbacks in ([], [callback]):
        seed_everything(1, verbose=False)
        trained = model()
        run = trainer(
            callbacks=callbacks, max_epochs=2, limit_train_batches=2, limit_val_batches=2, limit_test_batches=2,
            default_root_dir=tmp_path,
        )  # fmt: skip
        run.fit(trained, datamodule=data(**arguments))
        assert trained.training
        run.test(trained, datamodule=data(**arguments), verbose=False)
        random_states.append((torch.get_rng_state().tolist(), np.random.rand(), random.random()))
        states.append(trained.state_dict())
    assert random_states[0] == random_states[1]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) if isinstance(value, Tensor) else value == states[1][name]


@pytest.mark.parametrize(
    ("callback", "arguments", "message"),
    [
        (Sum, {"every_n_epochs": -1}, "every_n_epochs must be a whole number, at least 0; got -1"),
        (Factors, {"probes": ["tree"]}, "probes must be one of 'linear', 'mlp'; got 'tree'"),
        (Factors, {"max_rows": 3}, "max_rows must be a whole number, at least 4"),
        (Information, {"max_codes": 1}, "max_codes"),
        (Paths, {"steps": 2}, "steps must be a whole number, at least 3; got 2"),
        (Paths, {"num_pairs": 0}, "num_pairs must be a whole number, at least 1; got 0"),
        (Paths, {"modes": ["linear", "straight"]}, "modes must be one of 'linear', .*; got 'straight'"),
        (Paths, {"modes": []}, "modes must list at least 1 of"),
        (Paths, {"modes": "linear"}, "modes must list at least 1 of"),
        (Pictures, {"every_n_epochs": 0}, "every_n_epochs"),
        (Pictures, {"num_images": 0}, "num_images"),
        (Pictures, {"steps": 1}, "steps"),
        (Pictures, {"mode": "straight"}, "mode must be one of"),
        (SampleQuality, {"num_samples": 3}, "num_samples must be a whole number, at least 4"),
        (SampleQuality, {"num_samples": 5, "neighbours": 5}, "num_samples must be a whole number, at least 6"),
        (SampleQuality, {"neighbours": 0}, "neighbours"),
        (SkipNonFinite, {"most_in_a_row": 0}, "most_in_a_row"),
        (SkipNonFinite, {"most_in_a_row": 1.5}, "most_in_a_row"),
        (WeightEMA, {"decay": -0.1}, "decay"),
        (WeightEMA, {"decay": 1.0}, "decay"),
    ],
)
def test_arguments_out_of_range_are_named(callback: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        callback(**arguments)
