"""What the models share: arguments in the checkpoint, optimizer and scheduler, the sum of a loss."""

import csv
import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningCLI, ReduceLROnPlateau
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VIBClassifier
from lit_bottleneck.beta import BetaController, DualBeta, ScheduledBeta
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.data import Digits
from lit_bottleneck.models.base import BottleneckModule
from lit_bottleneck.networks import MLP
from tests.quiet import trainer

RECIPE = str(recipe_paths()["vib_digits"])


def encoder() -> MLP:
    return MLP(6, [16], 8)


def classifier(**kwargs: Any) -> VIBClassifier:
    torch.manual_seed(0)
    return VIBClassifier(encoder(), **{"latent_dim": 4, "num_classes": 3} | kwargs)


def loader(batches: int = 4, size: int = 5) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batches * size, 6, generator=generator)
    return DataLoader(TensorDataset(x, torch.arange(len(x)) % 3), batch_size=size)


def saved(model: LightningModule, folder: Path) -> Path:
    """The path of a checkpoint after four steps of training."""
    run = trainer()
    run.fit(model, loader())
    run.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


def hyperparameters(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, weights_only=True)["hyper_parameters"])


def same_logits(first: nn.Module, second: nn.Module, x: Tensor | None = None) -> bool:
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(2)) if x is None else x
    return torch.equal(first.cpu().eval()(x), second.cpu().eval()(x))


PARTS = {
    "decoder": lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)),
    "optimizer": lambda: functools.partial(torch.optim.SGD, lr=0.1),
    "lr_scheduler": lambda: lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2),
    "scale": lambda: torch.tanh,
}


def parts(**kwargs: Any) -> dict[str, Any]:
    return {name: make() for name, make in PARTS.items()} | kwargs


# ----------------------------------------------------------------------------------------- arguments in the checkpoint


def test_a_checkpoint_loads_with_weights_only_and_the_parts_passed_again(tmp_path: Path) -> None:
    model = classifier(beta=DualBeta(capacity=0.5, ema=0.5), eval_samples=3, **parts())
    path = saved(model, tmp_path)
    again = VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder(), **parts())
    assert model.beta not in (1e-3, DualBeta(capacity=0.5).beta)
    assert again.beta_controller.get_extra_state() == model.beta_controller.get_extra_state()
    assert (again.beta_controller.capacity, again.beta_controller.ema) == (0.5, 0.5)
    assert again.beta_controller.bounds == model.beta_controller.bounds
    assert again.eval_samples == 3
    assert same_logits(model, again)


def test_an_adaptive_price_goes_on_from_a_checkpoint_as_it_would_have(tmp_path: Path) -> None:
    model = classifier(beta=DualBeta(capacity=0.5))
    path = saved(model, tmp_path)
    again = VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder())
    for rate in (3.0, 0.2, 7.0):
        model.beta_controller.update(rate)
        again.beta_controller.update(rate)
        assert again.beta == model.beta


def test_what_is_missing_is_named_all_at_once(tmp_path: Path) -> None:
    path = saved(classifier(**parts()), tmp_path)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'encoder'"):
        VIBClassifier.load_from_checkpoint(path, weights_only=True)
    with pytest.raises(ConfigurationError, match=r"its decoder, scale \(torch.nn.*decoder=..., scale=..."):
        VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder())
    with pytest.raises(ConfigurationError, match=r"does not hold its scale \("):
        VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder(), decoder=PARTS["decoder"]())
    with pytest.raises(ConfigurationError, match=r"does not hold its decoder, scale \("):
        trainer().validate(classifier(), loader(), ckpt_path=path, weights_only=True)


def test_without_its_optimizer_a_checkpoint_loads_and_warns_where_training_goes_on(tmp_path: Path) -> None:
    path = saved(classifier(optimizer=PARTS["optimizer"](), lr_scheduler=PARTS["lr_scheduler"]()), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder())
    with pytest.warns(UserWarning, match="trained with another optimizer and lr_scheduler"):
        trainer().fit(model, loader())
    again = VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder(), optimizer=torch.optim.SGD)
    with pytest.warns(UserWarning, match="trained with another lr_scheduler, which"):
        trainer().fit(again, loader())


def test_a_controller_that_cannot_be_stored_is_named(tmp_path: Path) -> None:
    class Own(BetaController):
        def __init__(self, price: Callable[[], float]) -> None:
            super().__init__()
            self.price = price

        @property
        def beta(self) -> float:
            return self.price()

    path = saved(classifier(beta=Own(lambda: 0.5)), tmp_path)
    with pytest.raises(ConfigurationError, match=r"does not hold its beta \("):
        VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder())
    load = functools.partial(VIBClassifier.load_from_checkpoint, path, weights_only=True, encoder=encoder())
    assert load(beta=Own(lambda: 0.25)).beta == 0.25


def test_what_was_left_at_its_default_is_not_missing(tmp_path: Path) -> None:
    path = saved(classifier(), tmp_path)
    assert same_logits(
        classifier(), VIBClassifier.load_from_checkpoint(path, encoder=encoder(), weights_only=True)
    ) is (False)  # it has the trained weights, not the first ones


def test_a_list_of_modules_is_missing_like_a_module(tmp_path: Path) -> None:
    class Ensemble(VIBClassifier):
        def __init__(self, trunks: list[nn.Module], settings: dict[str, Any] | None = None) -> None:
            super().__init__(nn.Sequential(*trunks, nn.Linear(16, 8)), latent_dim=4, num_classes=3)

    path = saved(Ensemble([nn.Linear(6, 16)]), tmp_path)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'trunks'"):
        Ensemble.load_from_checkpoint(path, weights_only=True)
    path = saved(Ensemble([nn.Linear(6, 16)], {"norm": nn.BatchNorm1d(3)}), tmp_path)
    with pytest.raises(ConfigurationError, match="does not hold its settings"):
        Ensemble.load_from_checkpoint(path, weights_only=True, trunks=[nn.Linear(6, 16)])


def test_a_constant_price_is_that_of_the_checkpoint_or_the_one_given(tmp_path: Path) -> None:
    path = saved(classifier(beta=0.02), tmp_path)
    assert VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder()).beta == 0.02
    assert VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder(), beta=0.5).beta == 0.5


def test_an_adaptive_checkpoint_in_a_model_of_another_price_fails_loudly(tmp_path: Path) -> None:
    path = saved(classifier(beta=DualBeta(capacity=0.5)), tmp_path)
    with pytest.raises(RuntimeError, match="beta_controller"):
        VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder(), beta=0.5)
    with pytest.raises((RuntimeError, ValueError), match="another state of beta"):
        VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder(), beta=ScheduledBeta(0.1, 10))


def test_numpy_scalars_are_stored_as_python_numbers(tmp_path: Path) -> None:
    numbers = {"latent_dim": np.int64(4), "eval_samples": np.uint8(2)}
    path = saved(classifier(**numbers, beta=np.float32(0.25)), tmp_path)
    stored = hyperparameters(path)
    assert {name: (type(stored[name]), stored[name]) for name in (*numbers, "beta")} == {
        "latent_dim": (int, 4),
        "eval_samples": (int, 2),
        "beta": (float, 0.25),
    }
    path = saved(classifier(beta=DualBeta(np.float64(2.0), bounds=(np.float32(0.0009765625), np.int64(9)))), tmp_path)
    arguments = hyperparameters(path)["beta"]["init_args"]
    assert (type(arguments["capacity"]), [*map(type, arguments["bounds"])]) == (float, [float, int])
    assert VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder()).beta_controller.capacity == 2


def test_the_number_of_classes_may_be_a_numpy_integer(tmp_path: Path) -> None:
    path = saved(classifier(num_classes=np.arange(3).max() + 1), tmp_path)
    assert type(hyperparameters(path)["num_classes"]) is int


def test_a_numpy_bool_is_stored_as_a_python_bool(tmp_path: Path) -> None:
    path = saved(classifier(deterministic=np.bool_(True)), tmp_path)
    assert hyperparameters(path)["deterministic"] is True
    assert VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder()).deterministic


class Narrow(VIBClassifier):
    """A user's model, with arguments of its own."""

    def __init__(self, width: int, names: tuple[str, ...] = (), beta: float | BetaController = 1e-3) -> None:
        super().__init__(MLP(6, [width], 8), latent_dim=4, num_classes=3, beta=beta)
        self.width, self.names = width, names


@pytest.mark.parametrize("beta", [lambda: 0.3, lambda: DualBeta(capacity=0.5)], ids=["constant", "dual"])
def test_a_subclass_is_stored_by_its_own_arguments(beta: Any, tmp_path: Path) -> None:
    model = Narrow(11, names=("a", "b"), beta=beta())
    path = saved(model, tmp_path)
    stored = hyperparameters(path)
    assert set(stored) == {"width", "names", "beta"}
    assert stored["width"] == 11
    again = Narrow.load_from_checkpoint(path, weights_only=True)
    assert (again.width, list(again.names), again.beta) == (11, ["a", "b"], model.beta)
    assert same_logits(model, again)


def test_a_subclass_that_passes_everything_on_keeps_everything(tmp_path: Path) -> None:
    class Passing(VIBClassifier):
        def __init__(self, *args: Any, temperature: float = 1.0, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.temperature = temperature

    by_name = Passing(encoder=encoder(), latent_dim=4, num_classes=3, beta=0.2, temperature=2.0)
    again = Passing.load_from_checkpoint(saved(by_name, tmp_path), weights_only=True, encoder=encoder())
    assert (again.beta, again.temperature) == (0.2, 2.0)
    assert same_logits(by_name, again)

    by_place = Passing(encoder(), 4, 3, 0.2, temperature=2.0)
    again = Passing.load_from_checkpoint(saved(by_place, tmp_path), weights_only=True, encoder=encoder())
    assert (again.beta, again.temperature) == (0.2, 2.0)
    assert same_logits(by_place, again)


class Around(LightningModule):
    """A model inside another one."""

    def __init__(self, learning_rate: float = 0.1, width: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.inner = VIBClassifier(MLP(6, [width], 8), latent_dim=4, num_classes=3, beta=0.2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.inner(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["learning_rate"])


def test_a_model_inside_another_takes_none_of_its_arguments(tmp_path: Path) -> None:
    model = Around(learning_rate=0.5)
    inner = dict(model.inner.hparams)
    assert dict(model.hparams) == {"learning_rate": 0.5, "width": 16}
    assert not {"learning_rate", "width"} & set(inner)
    assert (inner["latent_dim"], inner["beta"]) == (4, 0.2)
    again = Around.load_from_checkpoint(saved(model, tmp_path), weights_only=True)
    assert dict(again.hparams) == dict(model.hparams)
    assert same_logits(model.inner, again.inner)


def test_nor_does_it_where_a_command_line_builds_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--model.learning_rate=0.25", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["around", *arguments])
    cli = LightningCLI(Around, Digits, run=False, save_config_callback=None)
    assert cli.model.hparams["learning_rate"] == 0.25
    assert not {"learning_rate", "width"} & set(cli.model.inner.hparams)
    assert cli.model.inner.hparams["latent_dim"] == 4


# ------------------------------------------------------------------------------------------------------ command lines


def checkpoint_in(folder: Path) -> Path:
    [path] = folder.rglob("*.ckpt")
    return path


def digits() -> Tensor:
    dataset = Digits().dataset("test")
    return dataset.__getitems__(range(20))[0]


DUAL = ["--model.init_args.beta=lit_bottleneck.beta.DualBeta", "--model.init_args.beta.init_args.capacity=4"]


@pytest.mark.parametrize("beta", [[], DUAL], ids=["constant", "dual"])
def test_a_model_of_the_command_line_loads_with_nothing_passed(
    beta: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    limits = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.enable_progress_bar=false"]
    main(["fit", "--config", RECIPE, "--trainer.accelerator=cpu", *limits, *beta])
    path = checkpoint_in(tmp_path)
    again = VIBClassifier.load_from_checkpoint(path, weights_only=True)

    weights = torch.load(path, weights_only=True)["state_dict"]
    by_hand = VIBClassifier(MLP(64, [256, 256], 64), 32, 10, beta=DualBeta(capacity=4.0) if beta else 0.001)
    by_hand.load_state_dict(weights)
    assert same_logits(again, by_hand, digits())
    assert again.beta == by_hand.beta
    if beta:
        assert again.beta_controller.get_extra_state() == weights["beta_controller._extra_state"]
        assert again.beta_controller.capacity == 4
        assert again.beta != 1e-3  # it has moved, twice
    else:
        assert again.beta == 1e-3
        assert VIBClassifier.load_from_checkpoint(path, weights_only=True, beta=0.5).beta == 0.5


class NoteRates(Callback):
    """Notes the learning rate of every optimizer step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_a_command_line_of_the_users_own_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "fit",
        "--model.encoder=lit_bottleneck.networks.MLP",
        "--model.encoder.in_features=64",
        "--model.encoder.hidden=[16]",
        "--model.encoder.out_features=8",
        "--model.latent_dim=4",
        "--model.num_classes=10",
        "--model.beta=lit_bottleneck.beta.DualBeta",
        "--model.beta.capacity=4",
        "--model.optimizer=torch.optim.SGD",
        "--model.optimizer.lr=0.5",
        "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
        "--model.lr_scheduler.monitor=val/cross_entropy",
        "--model.lr_scheduler.patience=0",
        "--model.lr_scheduler.factor=0.5",
        "--model.lr_scheduler.threshold=1e9",  # nothing is an improvement
        f"--trainer.default_root_dir={tmp_path}",
        "--trainer.logger=CSVLogger",
        f"--trainer.logger.save_dir={tmp_path}",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=3",
        "--trainer.limit_train_batches=2",  # 1 may be read as 1.0, which is everything
        "--trainer.limit_val_batches=1",
        "--trainer.num_sanity_val_steps=0",
        "--trainer.enable_progress_bar=false",
    ]
    noted = NoteRates()
    monkeypatch.setattr(sys, "argv", ["mine", *arguments])
    cli = LightningCLI(VIBClassifier, Digits, trainer_defaults={"callbacks": [noted]})
    assert noted.rates == [0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    model = cli.model
    assert isinstance(cli.trainer.optimizers[0], torch.optim.SGD)
    assert model.beta != 1e-3
    again = VIBClassifier.load_from_checkpoint(checkpoint_in(tmp_path), weights_only=True)
    assert again.beta == model.beta
    assert same_logits(model, again, digits())


# --------------------------------------------------------------------------------------------- optimizer and scheduler


def test_the_default_optimizer_is_adam_on_all_parameters() -> None:
    model = classifier()
    optimizer = model.configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 1e-3
    assert {*optimizer.param_groups[0]["params"]} == {*model.encoder.parameters(), *model.decoder.parameters()}


def test_an_optimizer_is_made_of_all_parameters() -> None:
    model = classifier(optimizer=functools.partial(torch.optim.AdamW, lr=0.02, weight_decay=0.1))
    optimizer = model.configure_optimizers()
    assert type(optimizer) is torch.optim.AdamW
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.02, 0.1)
    assert optimizer.param_groups[0]["params"] == list(model.parameters())


def rates(epochs: int, **kwargs: Any) -> list[float]:
    model = classifier(optimizer=functools.partial(torch.optim.SGD, lr=1.0), **kwargs)
    noted = NoteRates()
    data = loader(batches=3)
    trainer(max_epochs=epochs, callbacks=[noted]).fit(model, data, data)
    return noted.rates


def halve(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)


def test_a_scheduler_moves_after_every_epoch_or_every_step() -> None:
    assert rates(2) == [1.0] * 6
    assert rates(2, lr_scheduler=halve) == [1.0] * 3 + [0.5] * 3
    assert rates(2, lr_scheduler=halve, lr_scheduler_interval="epoch") == [1.0] * 3 + [0.5] * 3
    assert rates(2, lr_scheduler=halve, lr_scheduler_interval="step") == [0.5**step for step in range(6)]


@pytest.mark.parametrize(("threshold", "expected"), [(1e9, [1.0, 0.5, 0.25]), (-1e9, [1.0, 1.0, 1.0])])
def test_a_plateau_is_one_of_the_monitored_metric(threshold: float, expected: list[float]) -> None:
    """With one threshold nothing is an improvement, with the other everything."""
    plateau = functools.partial(
        ReduceLROnPlateau, monitor="val/cross_entropy", patience=0, factor=0.5, threshold=threshold
    )
    assert rates(3, lr_scheduler=plateau)[::3] == expected


# ----------------------------------------------------------------------------------------------------- sum of the loss


class Sum(BottleneckModule):
    """Notes the terms of its loss."""

    def __init__(self, beta: float = 0.5) -> None:
        super().__init__(nn.Linear(6, 8), latent_dim=4, beta=beta)
        self.notes: list[dict[str, float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        code = self.encode(self.inputs(batch))
        terms = {
            "distortion": code.z.square().sum(1).mean(),
            "balance": -3 * code.z.mean(),
            "rate_penalty": self.rate_penalty(code.rate),
        }
        loss = self.training_loss(**terms)
        torch.testing.assert_close(loss, sum(terms.values()))
        self.notes.append(
            {"loss": loss.item(), "rate": code.rate.mean().item()} | {k: v.item() for k, v in terms.items()}
        )
        return loss


def test_the_loss_and_its_unweighted_terms_are_logged_in_the_steps_of_the_logger(tmp_path: Path) -> None:
    model = Sum()
    logger = CSVLogger(tmp_path, name="run")
    trainer(max_epochs=2, logger=logger, log_every_n_steps=3).fit(model, loader(batches=4))
    with open(Path(logger.log_dir) / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert set(rows[0]) == {
        "epoch",
        "step",
        "train/loss",
        "train/distortion",
        "train/balance",
        "train/rate",
        "train/beta",
    }
    assert [int(row["step"]) for row in rows] == [2, 5]
    for row in rows:
        note = model.notes[int(row["step"])]
        for name in ("loss", "distortion", "balance", "rate"):
            assert float(row[f"train/{name}"]) == pytest.approx(note[name], rel=1e-5)
        assert float(row["train/beta"]) == 0.5
        assert note["loss"] == pytest.approx(note["distortion"] + note["balance"] + 0.5 * note["rate"], rel=1e-5)


def test_the_loss_is_differentiable_in_every_term() -> None:
    model = Sum()
    first, second = (torch.tensor(value, requires_grad=True) for value in (2.0, -3.0))
    loss = model.training_loss(first=first, second=second)
    loss.backward()
    assert (loss.item(), first.grad, second.grad) == (-1, 1, 1)


def test_the_inputs_of_a_batch_are_its_first_part() -> None:
    x, y = torch.randn(3, 6), torch.arange(3)
    for batch in (x, (x,), [x], (x, y), [x, y], (x, y, {"more": 1})):
        assert BottleneckModule.inputs(batch) is x
