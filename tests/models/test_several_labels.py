"""The classifier of several labels: loss, metrics and predictions, against torch.distributions and scikit-learn."""

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningDataModule
from sklearn.metrics import average_precision_score, f1_score, hamming_loss, log_loss
from torch import Tensor, nn
from torch.distributions import Bernoulli
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VIBClassifier, VIBRegressor
from lit_bottleneck.callbacks import Paths
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.models.label_metrics import LabelAveragePrecision, LabelF1
from lit_bottleneck.models.labels import SeveralLabels
from lit_bottleneck.networks import MLP
from tests.models.runs import batches, checkpoint_of, fit
from tests.models.test_vib import INPUTS, WIDTH, classifier, measure, posterior, rate
from tests.quiet import trainer

LABELS = 3


def labeller(**kwargs: Any) -> VIBClassifier:
    return classifier(**{"multilabel": True, "num_classes": LABELS} | kwargs)


def rows(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return inputs and labels, of which the first is rare and depends on the second."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, INPUTS, generator=generator)
    y = torch.stack([x[:, 0] > 1, x[:, 0] > 0, x[:, 1] * x[:, 2] > 0], 1)
    return x, y.long()


def logits_of(model: VIBClassifier, z: Tensor) -> Tensor:
    return F.linear(z, model.decoder.weight, model.decoder.bias)


def scores(probabilities: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return scikit-learn's metrics; labels for which one is undefined are left out of its mean."""
    occurring = y.any(0)
    return {
        "val/cross_entropy": sum(log_loss(y[:, c], probabilities[:, c], labels=[0, 1]) for c in range(y.shape[1])),
        "val/accuracy": 1 - hamming_loss(y, probabilities > 0.5),
        "val/f1": f1_score(y, probabilities > 0.5, average="macro", zero_division=np.nan),
        "val/average_precision": average_precision_score(y[:, occurring], probabilities[:, occurring]),
    }


# ------------------------------------------------------------------------------------------------------ the formulas


@pytest.mark.parametrize("beta", [0.0, 0.1, 2.5])
def test_the_training_loss_is_the_nll_of_bernoullis_at_a_draw_plus_beta_times_the_mean_rate(beta: float) -> None:
    model, (x, y) = labeller(beta=beta), rows(12)
    code = posterior(model, x)
    torch.manual_seed(7)
    nll = -Bernoulli(logits=logits_of(model, code.sample())).log_prob(y.float()).sum(1).mean()
    torch.manual_seed(7)
    loss = model.training_step((x, y), 0)
    torch.testing.assert_close(loss, nll + beta * rate(code).mean())
    loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_forward_gives_the_logits_at_the_mean_code() -> None:
    model, (x, _) = labeller(), rows(9)
    torch.testing.assert_close(model(x), logits_of(model, posterior(model, x).mean))


@pytest.mark.parametrize("samples", [1, 5])
def test_evaluation_averages_the_probability_of_each_label_over_the_draws(samples: int) -> None:
    model, (x, y) = labeller(eval_samples=samples).eval(), rows(7)
    torch.manual_seed(3)
    each = logits_of(model, posterior(model, x).sample((samples,))).double().sigmoid()
    expected = each.mean(0).detach().numpy()
    torch.manual_seed(3)
    with torch.no_grad():
        prediction = model.predict_step((x, y), 0)
    np.testing.assert_allclose(prediction["probabilities"], expected, rtol=1e-5)
    torch.manual_seed(3)
    loader = DataLoader(TensorDataset(x, y), batch_size=7, generator=torch.Generator())  # draws its seed from there
    [found] = trainer().validate(model, loader, verbose=False)
    for name, value in scores(expected, y.numpy()).items():
        assert found[name] == pytest.approx(value, rel=1e-5)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=5))
def test_the_logits_of_averaged_probabilities_are_exact_in_both_tails(logits: list[float]) -> None:
    labels, draws = SeveralLabels(1), torch.tensor(logits)[:, None, None]
    high, low = (F.logsigmoid(sign * draws.double()).logsumexp(0) - math.log(len(logits)) for sign in (1, -1))
    averaged = labels.average(draws)
    for y, expected in ((1.0, -high), (0.0, -low)):
        found = labels.cross_entropy(averaged, torch.full((1, 1), y))
        torch.testing.assert_close(found.double(), expected[:, 0], rtol=1e-4, atol=1e-6)
    assert labels.log_probabilities(averaged).max() <= 0


def test_one_label_is_a_classifier_of_two_classes() -> None:
    one, two, (x, y) = labeller(num_classes=1), classifier(num_classes=2), rows(20)
    with torch.no_grad():
        two.encoder.load_state_dict(one.encoder.state_dict())
        two.decoder.weight.zero_()[1], two.decoder.bias.zero_()[1]
        two.decoder.weight[1], two.decoder.bias[1] = one.decoder.weight[0], one.decoder.bias[0]
    ours, theirs = measure(one, (x, y[:, 1]), 8), measure(two, (x, y[:, 1]), 8)
    for name in ("loss", "cross_entropy", "rate", "accuracy"):
        assert ours[f"val/{name}"] == pytest.approx(theirs[f"val/{name}"], rel=1e-5)


def test_at_the_mean_code_it_is_a_regressor_under_a_bernoulli_likelihood() -> None:
    model, (x, y) = labeller(), rows(20)
    torch.manual_seed(0)
    regressor = VIBRegressor(MLP(INPUTS, [16], 2 * WIDTH), WIDTH, "bernoulli", (LABELS,), beta=0.1)
    regressor.load_state_dict(model.state_dict(), strict=False)
    ours, theirs = measure(model, (x, y), 8), measure(regressor, (x, y), 8)  # type: ignore[arg-type]
    assert ours["val/cross_entropy"] == pytest.approx(theirs["val/nll"], rel=1e-5)
    assert ours["val/loss"] == pytest.approx(theirs["val/loss"], rel=1e-5)


def test_cross_entropy_and_rate_of_a_draw_bound_the_entropy_of_the_labels() -> None:
    """Of the second label and the third, which are independent and fair: 2 log 2."""
    model, (x, y) = labeller(num_classes=2), rows(4000)
    [tested] = trainer().test(model, batches(x, y[:, 1:], size=4000), verbose=False)
    assert tested["test/cross_entropy_sampled"] + tested["test/rate"] > 2 * math.log(2) - 0.02
    assert tested["test/cross_entropy_sampled"] > tested["test/cross_entropy"]


# -------------------------------------------------------------------------------------------------------- measurements


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_metrics_of_a_ragged_split_are_scikit_learns_of_its_rows(beta: float) -> None:
    model, (x, y) = labeller(beta=beta), rows(30, seed=4)
    found = measure(model, (x, y), 7)
    assert found == pytest.approx(measure(model, (x, y), 30), rel=1e-6)
    probabilities = logits_of(model, posterior(model, x).mean).detach().double().sigmoid().numpy()
    expected = scores(probabilities, y.numpy())
    rates = rate(posterior(model, x)).double().mean().item()
    expected |= {"val/rate": rates, "val/loss": expected["val/cross_entropy"] + beta * rates}
    assert found == pytest.approx(expected, rel=1e-5)
    [tested] = trainer().test(model, batches(x, y, size=7), verbose=False)
    del tested["test/cross_entropy_sampled"]
    assert {name.replace("test/", "val/"): value for name, value in tested.items()} == found


def metrics_of(probabilities: Any, y: Any) -> dict[str, float]:
    found = {}
    for name, metric in (("f1", LabelF1(len(y[0]))), ("average_precision", LabelAveragePrecision(len(y[0])))):
        for part in np.array_split(np.arange(len(y)), 2):
            metric.update(torch.tensor(probabilities)[part], torch.tensor(y)[part])
        found[name] = metric.compute().item()
    return found


def test_a_label_that_never_occurs_is_left_out_and_warns_of_nothing() -> None:
    """Two right labels of the first kind; the second never occurs, and is once predicted; the third is in neither."""
    certain, y = [[0.9, 0.8, 0.1], [0.8, 0.1, 0.2], [0.1, 0.2, 0.3]], [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics_of(certain, y) == pytest.approx({"f1": 0.5, "average_precision": 1.0})
        assert metrics_of(certain, np.zeros_like(y)) == {"f1": 0.0, "average_precision": 0.0}
        assert metrics_of(np.full((4, 2), 0.1), np.zeros((4, 2), dtype=int)) == {"f1": 0.0, "average_precision": 0.0}


def test_a_split_in_which_labels_never_occur_logs_finite_numbers_alone() -> None:
    x, y = rows(10)
    for nothing in (y * torch.tensor([0, 1, 1]), y * 0):
        found = measure(labeller(), (x, nothing), 4)
        assert all(math.isfinite(value) for value in found.values())
    assert found["val/average_precision"] == 0


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_any_precision_trains_and_measures(precision: Any) -> None:
    model = labeller(eval_samples=2)
    run = fit(model, batches(*rows(64), size=16), precision=precision, max_epochs=2)
    [metrics] = run.test(model, batches(*rows(64), size=16), verbose=False)
    assert all(math.isfinite(value) for value in metrics.values())


# --------------------------------------------------------------------------------------------- predictions, checkpoints


def test_a_prediction_holds_a_probability_of_each_label_with_which_scikit_learn_finds_what_is_logged() -> None:
    model, (x, y) = labeller().eval(), rows(30)
    with torch.no_grad():
        prediction, unlabelled = model.predict_step((x, y), 0), model.predict_step(x, 0)
    shapes = {name: tuple(value.shape) for name, value in prediction.items()}
    assert shapes == {"probabilities": (30, LABELS), "rate": (30,), "mean": (30, WIDTH), "label": (30, LABELS)}
    assert unlabelled.keys() == shapes.keys() - {"label"}
    assert (prediction["probabilities"].sum(1) - 1).abs().max() > 0.1
    found = measure(model, (x, y), 30)
    for name, value in scores(prediction["probabilities"].double().numpy(), y.numpy()).items():
        assert found[name] == pytest.approx(value, rel=1e-5)


def test_a_checkpoint_brings_the_kind_of_labels(tmp_path: Path) -> None:
    model, (x, y) = labeller(eval_samples=2), rows(16)
    path = checkpoint_of(model, batches(x, y, size=8), tmp_path)
    loaded = VIBClassifier.load_from_checkpoint(path, weights_only=True, encoder=MLP(INPUTS, [16], 2 * WIDTH))
    assert loaded.multilabel
    assert torch.equal(loaded(x), model(x))
    assert copy.deepcopy(loaded).training_step((x, y), 0).isfinite()


# --------------------------------------------------------------------------------------------------------------- hooks


class Weighted(VIBClassifier):
    """Rare labels count more, and labels are smoothed."""

    def labelled(self, batch: Any) -> tuple[Any, Any]:
        return batch["row"], batch["tags"]

    def inputs(self, batch: Any) -> Any:
        return batch["row"]

    def classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = torch.tensor([5.0, 1.0, 0.5])
        smooth = 0.9 * labels + 0.05
        return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weight, reduction="none").sum(1)


def test_weights_smoothing_and_other_batches_hold_in_training_and_evaluation() -> None:
    torch.manual_seed(0)
    model, (x, y) = Weighted(MLP(INPUTS, [16], 2 * WIDTH), WIDTH, LABELS, multilabel=True, deterministic=True), rows(8)
    p = logits_of(model, model.encoder(x)[:, :WIDTH]).sigmoid().double()
    smooth, weight = 0.9 * y + 0.05, torch.tensor([5.0, 1.0, 0.5])
    expected = -(weight * smooth * p.log() + (1 - smooth) * (1 - p).log()).sum(1).mean().item()
    batch = {"row": x, "tags": y}
    assert model.training_step(batch, 0).item() == pytest.approx(expected, rel=1e-5)
    data = [{"row": row, "tags": tags} for row, tags in zip(x, y, strict=True)]
    [found] = trainer().validate(model, DataLoader(data, batch_size=3), verbose=False)  # type: ignore[arg-type]
    assert found["val/cross_entropy"] == pytest.approx(expected, rel=1e-5)


def test_soft_labels_have_the_cross_entropy_of_their_probabilities() -> None:
    model, (x, y) = labeller(deterministic=True), rows(8)
    soft = 0.8 * y + 0.1
    p = logits_of(model, model.encoder(x)[:, :WIDTH]).sigmoid()
    found = measure(model, (x, soft.double()), 8)
    expected = F.binary_cross_entropy(p, soft, reduction="none").sum(1).mean().item()
    assert found["val/cross_entropy"] == pytest.approx(expected, rel=1e-5)
    assert found["val/f1"] == measure(model, (x, y), 8)["val/f1"]


# ----------------------------------------------------------------------------------------------------------- bad input

X, Y = rows(8)


@pytest.mark.parametrize(
    "y",
    [Y.bool(), Y.to(torch.uint8), Y.float(), Y.double(), Y.numpy(), Y.numpy().astype(bool), Y.float().numpy()],
    ids=["bool", "uint8", "float32", "float64", "array", "bools", "floats"],
)
def test_labels_of_any_form_are_the_same_labels(y: Any) -> None:
    losses = []
    for labels in (y, Y):
        torch.manual_seed(1)
        losses.append(labeller().training_step((X, labels), 0))
    torch.testing.assert_close(*losses, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kwargs", "y", "words"),
    [
        ({}, Y[:, 0], r"=3 needs labels \(B, 3\) of 0 and 1; got .* \(8,\): labels of one class .* multilabel=False$"),
        ({}, Y[:, :1], r"needs labels \(B, 3\) of 0 and 1; got .*int64 \(8, 1\): labels of one class"),
        ({}, Y[:, :2], r"needs labels \(B, 3\) of 0 and 1; got .*int64 \(8, 2\): these have num_classes=2$"),
        ({}, Y[:, :, None], r"needs labels \(B, 3\) of 0 and 1; got a Tensor of int64 \(8, 3, 1\)$"),
        ({}, torch.tensor(1), r"needs labels \(B, 3\) of 0 and 1; got a Tensor of int64 \(\)$"),
        ({}, Y.to(torch.complex64), r"needs labels \(B, 3\) of 0 and 1; got a Tensor of complex64 \(8, 3\)$"),
        ({}, Y[:7], "a batch of 8 inputs needs as many labels; got 7"),
        ({}, 2 * Y, "multilabel=True needs labels of 0 and 1, or soft ones between; got 2$"),
        ({}, 2 * Y - 1, "needs labels of 0 and 1, or soft ones between; got -1$"),
        ({}, Y.float().where(Y == 1, torch.nan), "needs labels of 0 and 1, or soft ones between; got nan$"),
        ({}, [["a", "b", "c"]] * 8, "labels must be a tensor or a NumPy array of numbers; got a list of list"),
        ({}, None, "a classifier needs batches with labels, "),
        ({"num_classes": 1}, Y[:, 1] + 1, "needs labels of 0 and 1, or soft ones between; got [12]$"),
        ({"multilabel": False}, Y, r"num_classes=3 needs labels \(B,\) .*\(8, 3\): several labels of an example need"),
        ({"multilabel": False}, Y.float(), "rows sum to 1; got a sum of [023]: several labels .* multilabel=True$"),
        ({"decoder": nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU())}, Y, "num_classes=3 needs a decoder .*; got 4"),
    ],
)
def test_labels_that_do_not_fit_are_refused_in_words(kwargs: dict[str, Any], y: Any, words: str) -> None:
    model = labeller(**kwargs)
    for step in (model.training_step, model.validation_step, model.test_step):
        with pytest.raises(ConfigurationError, match=words):
            step((X, y), 0)


class Tagged(LightningDataModule):
    """Rows with two labels each."""

    dims, num_classes = (INPUTS,), 2

    def train_dataloader(self) -> DataLoader:
        return batches(X, Y[:, 1:], size=4)


@pytest.mark.parametrize("num_classes", [1, 3])
def test_a_datamodule_of_another_number_of_labels_is_refused_in_setup(num_classes: int) -> None:
    with pytest.raises(ConfigurationError, match=f"num_classes={num_classes}, but Tagged has num_classes=2 labels"):
        fit(labeller(num_classes=num_classes), Tagged())
    assert fit(labeller(num_classes=2), Tagged()).global_step == 2


def test_paths_need_one_class_for_each_example() -> None:
    run = trainer(callbacks=[Paths()])
    with pytest.raises(ConfigurationError, match=r"Paths needs one class for each example; .* with multilabel=True"):
        run.test(labeller(), batches(X, Y, size=4), verbose=False)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"multilabel": "yes"}, "multilabel must be True or False; got 'yes'"),
        ({"num_classes": 0}, "num_classes must be a whole number, at least 1; got 0"),
        ({"num_classes": 1, "multilabel": False}, "num_classes must be a whole number, at least 2; got 1"),
        ({"decoder": nn.Linear(WIDTH, 4)}, "num_classes=3 needs a decoder of as many logits; got 4"),
    ],
)
def test_arguments_that_do_not_fit_are_named_at_construction(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        labeller(**kwargs)
