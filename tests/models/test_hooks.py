"""Hooks of the models: labels, the loss of a classifier, further terms of a VAE's, and logged names."""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lit_bottleneck import IWAE, VAE, BetaTC, VIBClassifier
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.networks import MLP
from tests.models.runs import batches, fit, logged
from tests.models.test_vib import blobs, calibration_error, classifier, measure, posterior
from tests.quiet import trainer

CLASSES, INPUTS = 3, 6
WEIGHT = torch.tensor([0.2, 1.0, 3.0])


def soft(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return inputs and soft labels, of which the largest entry is rarely that of a first class."""
    x, _ = blobs(rows, seed)
    return x, torch.rand(rows, CLASSES, generator=torch.Generator().manual_seed(seed)).pow(2).softmax(1)


def soft_cross_entropy(probabilities: Any, labels: Tensor) -> np.ndarray:
    return -(labels.double().numpy() * np.log(np.asarray(probabilities, dtype=np.float64))).sum(1)


def predictive(model: VIBClassifier, x: Tensor) -> np.ndarray:
    """Return probabilities at the mean code."""
    with torch.no_grad():
        return model.decoder(posterior(model, x).mean).double().softmax(-1).numpy()


# -------------------------------------------------------------------------------------------------------- soft labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_training_loss_of_soft_labels_is_their_cross_entropy(dtype: torch.dtype) -> None:
    model, (x, labels) = classifier(deterministic=True), soft(7)
    loss = model.training_step((x, labels.to(dtype)), 0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(soft_cross_entropy(predictive(model, x), labels).mean(), rel=1e-5)


@pytest.mark.parametrize("size", [CLASSES, 4, 10])
def test_metrics_of_soft_labels_take_their_largest_entry(size: int) -> None:
    """With as many rows as classes, too."""
    model, (x, labels) = classifier(), soft(10)
    found = measure(model, (x, labels), size)
    probabilities, largest = predictive(model, x), labels.numpy().argmax(1)
    assert found["val/cross_entropy"] == pytest.approx(soft_cross_entropy(probabilities, labels).mean(), rel=1e-5)
    assert found["val/accuracy"] == pytest.approx((probabilities.argmax(1) == largest).mean())
    assert found["val/calibration_error"] == pytest.approx(calibration_error(probabilities, largest), rel=1e-4)
    [tested] = trainer().test(model, batches(x, labels, size=size), verbose=False)
    assert tested["test/accuracy"] == found["val/accuracy"]
    assert tested["test/cross_entropy"] == found["val/cross_entropy"]


def test_the_training_accuracy_of_soft_labels_is_of_their_largest_entry(tmp_path: Path) -> None:
    still = lambda weights: torch.optim.SGD(weights, lr=0.0)  # noqa: E731
    model, (x, labels) = classifier(deterministic=True, optimizer=still), soft(12)
    fit(model, batches(x, labels, size=CLASSES), logger=CSVLogger(tmp_path), log_every_n_steps=1)
    right = predictive(model, x).argmax(1) == labels.numpy().argmax(1)
    found = [float(row["train/accuracy"]) for row in logged(tmp_path)]
    assert found == pytest.approx(right.reshape(4, 3).mean(1), abs=1e-6)
    assert len(set(found)) > 1


def test_certain_soft_labels_are_labels() -> None:
    x, y = blobs(11)
    model = classifier(eval_samples=2)
    torch.manual_seed(0)
    hard = measure(model, (x, y), 4)
    torch.manual_seed(0)
    assert measure(model, (x, F.one_hot(y).float()), 4) == pytest.approx(hard, rel=1e-6)


def test_soft_labels_in_the_precision_of_a_half_precision_trainer_are_taken() -> None:
    model, (x, labels) = classifier(), soft(50)
    fit(model, batches(x, labels, size=10), precision="bf16-true")
    assert all(weight.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([[0.5, 0.2, 0.2]]), "num_classes=3 needs soft labels whose rows sum to 1; got a sum of 0.9"),
        (torch.tensor([[0.5, 0.7, -0.2]]), "num_classes=3 needs soft labels that are not negative; got -0.2"),
        (torch.tensor([[math.nan, 0.7, 0.3]]), "needs soft labels whose rows sum to 1; got a sum of nan"),
        (torch.full((1, 4), 0.25), r"labels \(B,\) .* or soft labels \(B, 3\) of floats; got .* float32 \(1, 4\)"),
        (torch.tensor([1.0]), r"got a Tensor of float32 \(1,\)"),
        (torch.tensor([[0, 1, 0]]), r"num_classes=3 needs .*; got a Tensor of int64 \(1, 3\)"),
        (torch.tensor(1), r"got a Tensor of int64 \(\)"),
        (torch.tensor([0, 1]), "a batch of 1 inputs needs as many labels; got 2"),
        (torch.tensor([3], dtype=torch.uint8), "num_classes=3 needs labels 0 to 2; got 3"),
        (["cat"], "labels must be a tensor or a NumPy array of numbers; got a list of str"),
        (np.array(["cat"]), "labels must be a tensor or a NumPy array of numbers; got a ndarray of <U3"),
        (None, r"a classifier needs batches with labels, \(x, y, ...\) or {'x': x, 'y': y, ...}; got a tuple of"),
    ],
)
def test_other_labels_are_refused_in_words(labels: Any, words: str) -> None:
    model, (x, _) = classifier(), blobs(1)
    for step in (model.training_step, model.validation_step):
        with pytest.raises(ConfigurationError, match=words):
            step((x, labels), 0)


# ------------------------------------------------------------------------------------------------------ another loss


class Weighted(VIBClassifier):
    """Class weights and label smoothing."""

    def classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, weight=WEIGHT, label_smoothing=0.2, reduction="none")


class Focal(VIBClassifier):
    """The focal loss, on top of the cross-entropy."""

    def classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        each = super().classification_loss(logits, labels)
        return (1 - torch.exp(-each)) ** 2 * each


class WeightedMean(VIBClassifier):
    """torch's mean of a batch, weighted by the classes."""

    def classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, weight=WEIGHT)


def weighted(log_probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the losses of ``Weighted`` by torch's documented formula."""
    targets = 0.8 * np.eye(CLASSES)[y] + 0.2 / CLASSES
    return -(targets * WEIGHT.double().numpy() * log_probabilities).sum(1)


def focal(log_probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    own = log_probabilities[np.arange(len(y)), y]
    return -((1 - np.exp(own)) ** 2) * own


def weighted_mean(log_probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    weight = WEIGHT.double().numpy()[y]
    return np.full(len(y), -(weight * log_probabilities[np.arange(len(y)), y]).sum() / weight.sum())


@pytest.mark.parametrize(("kind", "each"), [(Weighted, weighted), (Focal, focal), (WeightedMean, weighted_mean)])
@pytest.mark.parametrize("eval_samples", [0, 4])
def test_one_override_is_the_loss_in_training_and_the_cross_entropy_of_evaluation(
    kind: type[VIBClassifier], each: Any, eval_samples: int
) -> None:
    torch.manual_seed(0)
    model = kind(MLP(INPUTS, [16], 8), latent_dim=4, num_classes=CLASSES, beta=0.1, eval_samples=eval_samples)
    x, y = blobs(10)
    code = posterior(model, x)
    with torch.no_grad():
        torch.manual_seed(3)
        z = code.sample()
        rate = torch.distributions.kl_divergence(code, torch.distributions.Normal(0.0, 1.0)).sum(1).mean().item()
    torch.manual_seed(3)
    loss = model.training_step((x, y), 0)
    drawn = each(model.decoder(z).double().log_softmax(-1).detach().numpy(), y.numpy()).mean()
    assert loss.item() == pytest.approx(drawn + 0.1 * rate, rel=1e-5)

    expected = []
    for start, stop in ((0, 7), (7, 10)):  # batches of a ragged split
        torch.manual_seed(4)
        part = posterior(model, x[start:stop])
        draws = part.sample((eval_samples,)) if eval_samples else part.mean[None]
        with torch.no_grad():
            probabilities = model.decoder(draws).double().softmax(-1).mean(0).numpy()
        expected.append(each(np.log(probabilities), y[start:stop].numpy()))
    run = trainer(callbacks=[SameDraws()])
    [found] = run.validate(model, batches(x, y, size=7), verbose=False)
    assert found["val/cross_entropy"] == pytest.approx(np.concatenate(expected).mean(), rel=1e-5)


class SameDraws(Callback):
    """Seed each batch."""

    def on_validation_batch_start(self, *args: Any) -> None:
        torch.manual_seed(4)


def test_a_loss_of_another_shape_is_refused() -> None:
    class Wide(VIBClassifier):
        def classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return logits

    model = Wide(nn.Linear(INPUTS, 8), 4, CLASSES)
    with pytest.raises(ConfigurationError, match=r"a scalar or \(5,\), .*; got a Tensor of float32 \(5, 3\)"):
        model.training_step(blobs(5), 0)


def test_labelled_takes_batches_of_any_form() -> None:
    class Named(VIBClassifier):
        def labelled(self, batch: Any) -> tuple[Any, Any]:
            return batch["views"][0], batch["target"] - 1

    x, y = blobs(9)
    torch.manual_seed(0)
    named = Named(MLP(INPUTS, [16], 8), latent_dim=4, num_classes=CLASSES, beta=0.1)
    torch.manual_seed(1)
    loss = named.training_step({"views": [x, None], "target": (y + 1).short().numpy()}, 0)
    plain = classifier()
    torch.manual_seed(1)
    torch.testing.assert_close(loss, plain.training_step((x, y), 0))
    with pytest.raises(ConfigurationError, match="needs labels 0 to 2; got -1"):
        named.training_step({"views": [x], "target": y}, 0)


# ----------------------------------------------------------------------------------------------- further terms of a VAE


class WithHead(VAE):
    """A VAE with a classifier on its code."""

    def __init__(self, **kwargs: Any) -> None:
        torch.manual_seed(0)
        kwargs = {"latent_dim": 4, "likelihood": "gaussian", "beta": 0.5} | kwargs
        super().__init__(MLP(INPUTS, [16], 8), MLP(4, [16], INPUTS), **kwargs)
        self.head = nn.Linear(4, CLASSES)
        self.codes: list[Tensor] = []

    def extra_terms(self, code: Any, batch: Any) -> dict[str, Tensor]:
        self.codes.append(code.z)
        return {"head": F.cross_entropy(self.head(code.z), batch[1]), "size": 0.01 * code.mean.square().mean()}


@pytest.mark.parametrize("objective", [None, IWAE(3), BetaTC(2.0, dataset_size=100)])
def test_extra_terms_are_added_to_the_loss_of_the_same_code(objective: Any) -> None:
    model, batch = WithHead(objective=objective), blobs(9)
    plain = VAE(model.encoder, model.decoder, latent_dim=4, likelihood="gaussian", beta=0.5, objective=objective)
    passes: list[int] = []
    model.encoder.register_forward_hook(lambda *args: passes.append(1))
    torch.manual_seed(1)
    loss = model.training_step(batch, 0)
    assert len(passes) == 1
    [z] = model.codes
    assert z.requires_grad
    with torch.no_grad():
        torch.manual_seed(1)
        expected = plain.training_step(batch, 0)
        expected += -model.head(z).log_softmax(-1)[torch.arange(9), batch[1]].mean()
        expected += 0.01 * posterior(model, batch[0]).mean.square().mean()
    torch.testing.assert_close(loss.detach(), expected)


def test_extra_terms_are_logged_in_every_split(tmp_path: Path) -> None:
    model, data = WithHead(deterministic=True, optimizer=lambda weights: torch.optim.SGD(weights, lr=0.0)), blobs(10)
    run = trainer(logger=CSVLogger(tmp_path), log_every_n_steps=1)
    loader = batches(*data, size=7)  # 7 + 3 rows
    run.fit(model, loader, loader)
    run.test(model, loader, verbose=False)
    with torch.no_grad():
        code = model.encode(data[0], sample=False)
        each = F.cross_entropy(model.head(code.mean), data[1], reduction="none")
        size = 0.01 * code.mean.square().mean(1)
    rows = logged(tmp_path)
    train = [float(row["train/head"]) for row in rows if row["train/head"]]
    assert train == pytest.approx([each[:7].mean().item(), each[7:].mean().item()], rel=1e-5)
    for stage in ("val", "test"):
        [row] = [row for row in rows if row[f"{stage}/head"]]
        assert float(row[f"{stage}/head"]) == pytest.approx(each.mean().item(), rel=1e-5)
        assert float(row[f"{stage}/size"]) == pytest.approx(size.mean().item(), rel=1e-5)
        parts = sum(float(row[f"{stage}/{name}"]) for name in ("distortion", "head", "size"))
        assert float(row[f"{stage}/loss"]) == pytest.approx(parts, rel=1e-5)
        assert float(row[f"{stage}/elbo"]) == pytest.approx(-float(row[f"{stage}/distortion"]), rel=1e-5)


def test_terms_that_appear_late_are_measured_and_leave_the_checkpoint_as_it_was() -> None:
    class Late(WithHead):
        def extra_terms(self, code: Any, batch: Any) -> dict[str, Tensor]:
            return {"late": batch[1].double().mean()} if self.trainer.current_epoch else {}

    model, keys = Late(), set(Late().state_dict())
    x, y = blobs(10)
    run = fit_with_validation(model, (x, y), max_epochs=3)
    assert run.callback_metrics["val/late"].item() == pytest.approx(y.double().mean().item())
    assert set(model.state_dict()) == keys
    [measured] = trainer(inference_mode=False).validate(WithHead(), batches(x, y, size=7), verbose=False)
    assert "val/head" in measured


def fit_with_validation(model: LightningModule, data: Any, **kwargs: Any) -> Trainer:
    run = trainer(**kwargs)
    run.fit(model, batches(*data, size=7), batches(*data, size=7))
    return run


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"elbo": torch.tensor(1.0)}, "extra_terms must return terms of other names than the model's own; got 'elbo'"),
        ({"distortion": torch.tensor(1.0)}, "got 'distortion'"),
        ({"rate_penalty": torch.tensor(1.0)}, "got 'rate_penalty'"),
        ({"beta": torch.tensor(1.0)}, "got 'beta'"),
        ({"negative_iwae": torch.tensor(1.0)}, "got 'negative_iwae'"),
        ({"a.b": torch.tensor(1.0)}, r"got 'a\.b'"),
        ({"values": torch.tensor(1.0)}, "got 'values'"),
        ({"head": torch.ones(9)}, r"extra_terms must return scalars, as tensors; got head: a Tensor of float32 \(9,\)"),
        ({"head": 1.0}, "got head: a float"),
        (None, "extra_terms must return a dictionary of scalars; got none"),
    ],
)
def test_terms_that_collide_or_are_no_scalars_are_refused(terms: Any, words: str) -> None:
    class Own(WithHead):
        def extra_terms(self, code: Any, batch: Any) -> Any:
            return terms

    with pytest.raises(ConfigurationError, match=words):
        Own(objective=IWAE(2)).training_step(blobs(9), 0)


def test_a_term_that_is_not_finite_is_named() -> None:
    class Broken(WithHead):
        def extra_terms(self, code: Any, batch: Any) -> dict[str, Tensor]:
            return {"head": code.z.sum() * math.inf}

    with pytest.raises(FloatingPointError, match="not finite: head of distortion="):
        Broken().training_step(blobs(9), 0)


# -------------------------------------------------------------------------------------------------------- logged names


NAMES = {"train/loss": "loss", "train/rate": "nats", "train/beta": "price", "val/loss": "val_loss", "val/own": "own"}


class Renamed(VIBClassifier):
    """Names as other projects have them."""

    log_names: ClassVar = NAMES | {"val/accuracy": "val_acc", "train/cross_entropy": "ce"}


class RenamedVAE(WithHead):
    """A VAE with such names."""

    log_names: ClassVar = NAMES | {"val/elbo": "val_elbo", "val/head": "val_head", "train/head": "head"}


class Own(Callback):
    """Logs through the module."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log_dict({"val/own": 2.0})


@pytest.mark.parametrize(
    ("renamed", "plain"),
    [
        (lambda: Renamed(MLP(INPUTS, [16], 8), 4, CLASSES), lambda: VIBClassifier(MLP(INPUTS, [16], 8), 4, CLASSES)),
        (RenamedVAE, WithHead),
    ],
    ids=["vib", "vae"],
)
def test_every_value_is_logged_under_its_other_name(renamed: Any, plain: Any, tmp_path: Path) -> None:
    rows, shown, names = [], [], {}
    for make, folder in ((renamed, tmp_path / "renamed"), (plain, tmp_path / "plain")):
        torch.manual_seed(0)
        model = make()
        names = names or dict(model.log_names)
        torch.manual_seed(1)
        options = {"logger": CSVLogger(folder), "log_every_n_steps": 1, "callbacks": [Own()], "max_epochs": 2}
        run = fit_with_validation(model, blobs(10), **options)
        rows.append([{name: value for name, value in row.items() if value} for row in logged(folder)])
        shown.append(run.progress_bar_metrics)
    expected = [{names.get(name, name): value for name, value in row.items()} for row in rows[1]]
    assert set(names) <= {name for row in rows[1] for name in row}
    assert rows[0] == expected
    assert shown[0] == {names.get(name, name): value for name, value in shown[1].items()}
    assert {"loss", "nats", "price"} <= set(shown[0])


def test_callbacks_monitor_the_other_name(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, filename="best", monitor="val_loss")
    stop = EarlyStopping("val_acc", patience=1, mode="max", min_delta=2.0)  # nothing is an improvement
    model = Renamed(MLP(INPUTS, [16], 8), 4, CLASSES)
    run = fit_with_validation(model, blobs(10), max_epochs=5, callbacks=[best, stop, Own()], enable_checkpointing=True)
    assert run.current_epoch == 2
    assert best.best_model_score is not None
    assert best.best_model_score <= run.callback_metrics["val_loss"]
    assert (tmp_path / "best.ckpt").exists()


def test_an_instance_has_names_of_its_own_and_two_values_cannot_share_one() -> None:
    model = classifier()
    model.log_names = {"val/loss": "score"}
    assert "score" in measure(model, blobs(10), 5)
    for names in ({"val/loss": "one", "val/rate": "one"}, {"val/loss": "val/rate"}):
        model.log_names = names
        with pytest.raises(ConfigurationError, match=r"give each value its own name; got '(one|val/rate)'"):
            measure(model, blobs(10), 5)
    model = classifier()
    model.log_names = {"val/loss": "val/rate", "val/rate": "val/loss"}
    swapped, straight = measure(model, blobs(10), 5), measure(classifier(), blobs(10), 5)
    assert (swapped["val/loss"], swapped["val/rate"]) == (straight["val/rate"], straight["val/loss"])
