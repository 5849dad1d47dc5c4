"""What the models share: arguments in the checkpoint, optimizer and scheduler, the logged loss."""

import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI, ReduceLROnPlateau
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_bottleneck import VIBClassifier
from lit_bottleneck.beta import BetaController, DualBeta, ScheduledBeta
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.data import Digits
from lit_bottleneck.models.base import BottleneckModule
from lit_bottleneck.networks import MLP
from tests.models.runs import batches, checkpoint_of, fit, logged
from tests.quiet import trainer

RECIPE = str(recipe_paths()["vib_digits"])


def encoder() -> MLP:
    return MLP(6, [16], 8)


def classifier(**kwargs: Any) -> VIBClassifier:
    torch.manual_seed(0)
    return VIBClassifier(encoder(), **{"latent_dim": 4, "num_classes": 3} | kwargs)


def loader(count: int = 4) -> DataLoader:
    x = torch.randn(5 * count, 6, generator=torch.Generator().manual_seed(1))
    return batches(x, torch.arange(len(x)) % 3, size=5)


def saved(model: LightningModule, folder: Path) -> Path:
    return checkpoint_of(model, loader(), folder)


def load(path: Path, **kwargs: Any) -> VIBClassifier:
    """Load a checkpoint, with the encoder that it does not hold."""
    return VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=encoder(), **kwargs)


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


def test_a_checkpoint_loads_with_weights_only_when_networks_and_functions_are_given_again(tmp_path: Path) -> None:
    model = classifier(beta=DualBeta(capacity=0.5, ema=0.5), eval_samples=3, **parts())
    path = saved(model, tmp_path)
    again = load(path, **parts())
    assert model.beta not in (1e-3, DualBeta(capacity=0.5).beta)
    assert torch.equal(again.beta_controller.get_extra_state(), model.beta_controller.get_extra_state())
    assert (again.beta_controller.capacity, again.beta_controller.ema) == (0.5, 0.5)
    assert again.beta_controller.bounds == model.beta_controller.bounds
    assert again.eval_samples == 3
    assert same_logits(model, again)


def test_an_adaptive_beta_continues_from_a_checkpoint(tmp_path: Path) -> None:
    model = classifier(beta=DualBeta(capacity=0.5))
    path = saved(model, tmp_path)
    again = load(path)
    for rate in (3.0, 0.2, 7.0):
        model.beta_controller.update(rate)
        again.beta_controller.update(rate)
        assert again.beta == model.beta


def test_all_missing_arguments_are_named_at_once(tmp_path: Path) -> None:
    path = saved(classifier(**parts()), tmp_path)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'encoder'"):
        VIBClassifier.load_from_checkpoint(path, weights_only=True)
    with pytest.raises(ConfigurationError, match=r"its decoder, scale \(torch.nn.*decoder=..., scale=..."):
        load(path)
    with pytest.raises(ConfigurationError, match=r"does not hold its scale \("):
        load(path, decoder=PARTS["decoder"]())
    with pytest.raises(ConfigurationError, match=r"does not hold its decoder, scale \("):
        trainer().validate(classifier(), loader(), ckpt_path=path, weights_only=True)


def test_a_checkpoint_loads_without_its_optimizer_and_warns_if_training_continues(tmp_path: Path) -> None:
    path = saved(classifier(optimizer=PARTS["optimizer"](), lr_scheduler=PARTS["lr_scheduler"]()), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load(path)
    with pytest.warns(UserWarning, match="trained with another optimizer and lr_scheduler"):
        fit(model, loader())
    again = load(path, optimizer=torch.optim.SGD)
    with pytest.warns(UserWarning, match="trained with another lr_scheduler, which"):
        fit(again, loader())


ZEROS = np.zeros(2)


def test_a_default_that_cannot_be_stored_is_no_argument_that_was_given(tmp_path: Path) -> None:
    class Own(VIBClassifier):
        def __init__(self, activation: type[nn.Module] = nn.ReLU, shift: Any = ZEROS) -> None:
            super().__init__(nn.Sequential(nn.Linear(6, 8), activation()), latent_dim=4, num_classes=3)

    assert isinstance(Own.load_from_checkpoint(saved(Own(), tmp_path), weights_only=True).encoder[1], nn.ReLU)
    path = saved(Own(nn.Tanh, shift=[0.0, 0.0]), tmp_path)
    with pytest.raises(ConfigurationError, match=r"does not hold its activation \("):
        Own.load_from_checkpoint(path, weights_only=True)
    assert isinstance(Own.load_from_checkpoint(path, weights_only=True, activation=nn.Tanh).encoder[1], nn.Tanh)


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
        load(path)
    assert load(path, beta=Own(lambda: 0.25)).beta == 0.25


def test_a_list_of_modules_must_be_given_again_like_a_module(tmp_path: Path) -> None:
    class Ensemble(VIBClassifier):
        def __init__(self, trunks: list[nn.Module], settings: dict[str, Any] | None = None) -> None:
            super().__init__(nn.Sequential(*trunks, nn.Linear(16, 8)), latent_dim=4, num_classes=3)

    path = saved(Ensemble([nn.Linear(6, 16)]), tmp_path)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'trunks'"):
        Ensemble.load_from_checkpoint(path, weights_only=True)
    path = saved(Ensemble([nn.Linear(6, 16)], {"norm": nn.BatchNorm1d(3)}), tmp_path)
    with pytest.raises(ConfigurationError, match="does not hold its settings"):
        Ensemble.load_from_checkpoint(path, weights_only=True, trunks=[nn.Linear(6, 16)])


def test_a_constant_beta_is_that_of_the_checkpoint_or_the_one_given(tmp_path: Path) -> None:
    path = saved(classifier(beta=0.02), tmp_path)
    assert load(path).beta == 0.02
    assert load(path, beta=0.5).beta == 0.5


def test_a_checkpoint_of_another_controller_loads_with_a_warning(tmp_path: Path) -> None:
    path = saved(classifier(beta=DualBeta(capacity=0.5)), tmp_path)
    with pytest.warns(UserWarning, match="a state of beta, which a ConstantBeta has not"):
        assert load(path, beta=0.5).beta == 0.5
    with pytest.warns(UserWarning, match="ScheduledBeta starts afresh.* of DualBeta in log"):
        assert load(path, beta=ScheduledBeta(0.1, 10)).beta == 0


def test_numpy_scalars_are_stored_as_python_values(tmp_path: Path) -> None:
    given = {"latent_dim": np.int64(4), "num_classes": np.arange(3).max() + 1, "eval_samples": np.uint8(2)}
    given |= {"beta": np.float32(0.25), "deterministic": np.bool_(True)}
    path = saved(classifier(**given), tmp_path)
    stored = {name: hyperparameters(path)[name] for name in given}
    assert list(stored.values()) == [4, 3, 2, 0.25, True]
    assert [*map(type, stored.values())] == [int, int, int, float, bool]
    assert load(path).deterministic
    path = saved(classifier(beta=DualBeta(np.float64(2.0), bounds=(np.float32(0.0009765625), np.int64(9)))), tmp_path)
    arguments = hyperparameters(path)["beta"]["init_args"]
    assert (type(arguments["capacity"]), [*map(type, arguments["bounds"])]) == (float, [float, int])
    assert load(path).beta_controller.capacity == 2


class Narrow(VIBClassifier):
    """A user's model with its own arguments."""

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


def test_a_subclass_that_passes_arguments_on_stores_them_given_by_name_or_by_place(tmp_path: Path) -> None:
    class Passing(VIBClassifier):
        def __init__(self, *args: Any, temperature: float = 1.0, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.temperature = temperature

    for model in (
        Passing(encoder=encoder(), latent_dim=4, num_classes=3, beta=0.2, temperature=2.0),
        Passing(encoder(), 4, 3, 0.2, temperature=2.0),
    ):
        again = Passing.load_from_checkpoint(saved(model, tmp_path), weights_only=True, encoder=encoder())
        assert (again.beta, again.temperature) == (0.2, 2.0)
        assert same_logits(model, again)


class Around(LightningModule):
    """A model that contains a classifier."""

    def __init__(self, learning_rate: float = 0.1, width: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.inner = VIBClassifier(MLP(6, [width], 8), latent_dim=4, num_classes=3, beta=0.2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.inner(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["learning_rate"])


def test_a_model_inside_another_stores_its_own_arguments_only(tmp_path: Path) -> None:
    model = Around(learning_rate=0.5)
    inner = dict(model.inner.hparams)
    assert dict(model.hparams) == {"learning_rate": 0.5, "width": 16}
    assert not {"learning_rate", "width"} & set(inner)
    assert (inner["latent_dim"], inner["beta"]) == (4, 0.2)
    again = Around.load_from_checkpoint(saved(model, tmp_path), weights_only=True)
    assert dict(again.hparams) == dict(model.hparams)
    assert same_logits(model.inner, again.inner)


def test_so_does_one_that_a_command_line_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--model.learning_rate=0.25", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["around", *arguments])
    cli = LightningCLI(Around, Digits, run=False, save_config_callback=None)
    assert cli.model.hparams["learning_rate"] == 0.25
    assert not {"learning_rate", "width"} & set(cli.model.inner.hparams)
    assert cli.model.inner.hparams["latent_dim"] == 4


# ------------------------------------------------------------------------------------------------------ command lines


class LearningRates(Callback):
    """Records the learning rate of every optimizer step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def checkpoint_in(folder: Path) -> Path:
    [path] = folder.rglob("*.ckpt")
    return path


def digits() -> Tensor:
    return Digits().dataset("test").__getitems__(range(20))[0]


def test_a_model_of_a_recipe_loads_without_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a constant beta; the checkpoints of test_safety.py and the next test hold an adaptive one."""
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", RECIPE, "--config", str(recipe_paths()["trainer/smoke"])])
    path = checkpoint_in(tmp_path)
    again = VIBClassifier.load_from_checkpoint(path, weights_only=True)
    by_hand = VIBClassifier(MLP(64, [256, 256], 64), 32, 10, beta=0.001)
    by_hand.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    assert same_logits(again, by_hand, digits())
    assert again.beta == 1e-3
    assert VIBClassifier.load_from_checkpoint(path, weights_only=True, beta=0.5).beta == 0.5


def test_a_users_own_lightning_cli_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    noted = LearningRates()
    monkeypatch.setattr(sys, "argv", ["mine", *arguments])
    cli = LightningCLI(VIBClassifier, Digits, trainer_defaults={"callbacks": [noted]})
    assert noted.seen == [0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    model = cli.model
    assert isinstance(cli.trainer.optimizers[0], torch.optim.SGD)
    assert model.beta != 1e-3
    again = VIBClassifier.load_from_checkpoint(checkpoint_in(tmp_path), weights_only=True)
    assert torch.equal(again.beta_controller.get_extra_state(), model.beta_controller.get_extra_state())
    assert again.beta_controller.capacity == 4
    assert same_logits(model, again, digits())


# --------------------------------------------------------------------------------------------- optimizer and scheduler


@pytest.mark.parametrize(
    ("optimizer", "kind", "settings"),
    [
        (None, torch.optim.Adam, {"lr": 1e-3}),
        (functools.partial(torch.optim.AdamW, lr=0.02, weight_decay=0.1), torch.optim.AdamW, {"lr": 0.02}),
    ],
)
def test_the_optimizer_is_adam_or_the_given_one_on_all_parameters(optimizer: Any, kind: type, settings: Any) -> None:
    model = classifier(optimizer=optimizer)
    found = model.configure_optimizers()
    assert type(found) is kind
    assert found.defaults.items() >= settings.items()
    assert found.param_groups[0]["params"] == list(model.parameters())
    assert {*model.parameters()} == {*model.encoder.parameters(), *model.decoder.parameters()}


def rates(epochs: int, **kwargs: Any) -> list[float]:
    model = classifier(optimizer=functools.partial(torch.optim.SGD, lr=1.0), **kwargs)
    noted = LearningRates()
    trainer(max_epochs=epochs, callbacks=[noted]).fit(model, loader(3), loader(3))
    return noted.seen


def halve(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)


def test_a_scheduler_moves_after_every_epoch_or_every_step() -> None:
    assert rates(2) == [1.0] * 6
    assert rates(2, lr_scheduler=halve) == [1.0] * 3 + [0.5] * 3
    assert rates(2, lr_scheduler=halve, lr_scheduler_interval="epoch") == [1.0] * 3 + [0.5] * 3
    assert rates(2, lr_scheduler=halve, lr_scheduler_interval="step") == [0.5**step for step in range(6)]


@pytest.mark.parametrize(("threshold", "expected"), [(1e9, [1.0, 0.5, 0.25]), (-1e9, [1.0, 1.0, 1.0])])
def test_a_plateau_schedule_follows_its_metric(threshold: float, expected: list[float]) -> None:
    """With one threshold nothing is an improvement, with the other everything."""
    plateau = functools.partial(
        ReduceLROnPlateau, monitor="val/cross_entropy", patience=0, factor=0.5, threshold=threshold
    )
    assert rates(3, lr_scheduler=plateau)[::3] == expected


# ----------------------------------------------------------------------------------------------------- the logged loss


class Sum(BottleneckModule):
    """A model that notes the terms of its loss."""

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
    fit(model, loader(), max_epochs=2, logger=CSVLogger(tmp_path), log_every_n_steps=3)
    rows = [row for row in logged(tmp_path) if row["train/loss"]]
    names = ("loss", "distortion", "balance", "rate", "beta")
    assert set(rows[0]) == {"epoch", "step", *(f"train/{name}" for name in names)}
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
        assert Sum().inputs(batch) is x
