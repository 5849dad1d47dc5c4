"""What a VIB regressor is given: units of a datamodule, targets of any form, and what it refuses."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from torch import nn
from torch.utils.data import DataLoader

from lit_bottleneck import VIBClassifier, VIBRegressor
from lit_bottleneck.likelihoods import Categorical, LearnedGaussian
from lit_bottleneck.networks import MLP
from tests.models.runs import batches, fit
from tests.models.test_regressor import INPUTS, TARGETS, WIDTH, measure, regressor, rows, with_sigma

# -------------------------------------------------------------------------------------------------------------- units


class Standardised(LightningDataModule):
    """Rows with standardised targets."""

    dims, target_dims = (INPUTS,), (TARGETS,)
    target_mean, target_scale = (150.0, -2.0), torch.tensor([40.0, 0.25])

    def train_dataloader(self) -> DataLoader:
        return batches(*rows(24), size=8)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def test_means_errors_and_labels_are_in_the_units_that_a_datamodule_tells(tmp_path: Path) -> None:
    model, data = with_sigma(), Standardised()
    run = fit(model, data, max_epochs=2)
    plain = copy.deepcopy(model)
    plain.units = regressor().units
    (x, y), mean, scale = rows(24), torch.tensor(data.target_mean), data.target_scale
    torch.testing.assert_close(model(x), plain(x) * scale + mean)
    with torch.no_grad():
        found, standardised = (one.eval().predict_step((x, y), 0) for one in (model, plain))
    torch.testing.assert_close(found["mean"], standardised["mean"] * scale + mean)
    torch.testing.assert_close(found["deviation"], standardised["deviation"] * scale)
    torch.testing.assert_close(found["label"], y * scale + mean)
    metrics, others = run.validate(model, data, verbose=False)[0], measure(plain, (x, y), 8)
    truth, predicted = (y * scale + mean).numpy(), model(x).detach().numpy()
    assert metrics["val/rmse"] == pytest.approx(root_mean_squared_error(truth.ravel(), predicted.ravel()), rel=1e-5)
    assert metrics["val/mae"] == pytest.approx(mean_absolute_error(truth, predicted), rel=1e-5)
    for name in ("val/nll", "val/loss", "val/rate", "val/r2"):
        assert metrics[name] == pytest.approx(others[name], rel=1e-5)

    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = VIBRegressor.load_from_checkpoint(
        tmp_path / "model.ckpt", weights_only=True, encoder=MLP(INPUTS, [16], 2 * WIDTH)
    )
    assert torch.equal(loaded(x), model(x))
    torch.testing.assert_close(loaded.bfloat16().units.mean, mean, rtol=0, atol=0)


def test_standardised_targets_outside_the_support_are_told_to_be_so() -> None:
    with pytest.raises(ValueError, match=r"targets \(standardised; .*standardize_target=False\) must be 0 or 1"):
        fit(regressor(likelihood="bernoulli"), Standardised())


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"target_dims": ()}, r"target_dims must be one size or more, such as \(1,\); got \(\)"),
        ({"target_dims": (0,)}, r"target_dims must be whole numbers, at least 1 each; got \(0,\)"),
        ({"target_dims": 2}, "target_dims must be whole numbers, at least 1 each; got 2"),
        ({"eval_samples": -1}, "eval_samples must be a whole number, at least 0; got -1"),
        ({"likelihood": "poisson"}, "likelihood must be a Likelihood or one of bernoulli, .*; got 'poisson'"),
        ({"likelihood": LearnedGaussian((3,))}, r"target_dims=\(2,\) does not fit the likelihood: .*dims=\(3,\)"),
        (
            {"decoder": nn.Linear(WIDTH, 3)},
            r"target_dims=\(2,\) under LearnedGaussian, with numbers_per_output=1, needs a decoder that returns \(2,\)"
            r", or as many flat, per example; got \(3,\)",
        ),
        ({"decoder": MLP(WIDTH, [8], 2), "likelihood": "gaussian_per_output"}, r"returns \(4,\), .*; got \(2,\)"),
        ({"decoder": nn.Linear(5, 2)}, "latent_dim=4 needs a decoder of codes of that width; got one of 5"),
        ({"encoder": MLP(INPUTS, [16], 9)}, "latent_dim=4 needs an encoder that returns 8 numbers .*; got 9"),
    ],
)
def test_arguments_that_do_not_fit_are_named_at_construction(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        regressor(**kwargs)


SILENT = nn.Sequential(nn.Linear(WIDTH, 3), nn.ReLU())


def test_a_decoder_of_unknown_width_is_refused_in_setup_or_at_the_first_batch() -> None:
    for data in (Standardised(), batches(*rows(8), size=4)):
        with pytest.raises(ValueError, match=r"target_dims=\(2,\) under LearnedGaussian, .* per example; got \(3,\)"):
            fit(regressor(decoder=copy.deepcopy(SILENT)), data)


class Classes(LightningDataModule):
    """Rows of 0 and 1, which are classes."""

    dims, num_classes = (INPUTS,), 2

    def train_dataloader(self) -> DataLoader:
        return batches(rows(8)[0], torch.arange(8) % 2, size=4)


class Numbers(VIBRegressor):
    def labelled(self, batch: Any) -> Any:
        return batch[0], 10.0 * batch[1]


def test_classes_are_no_numbers_unless_the_model_makes_some_of_them() -> None:
    words = "VIBRegressor needs a datamodule with target_dims; got Classes with num_classes=2: VIBClassifier reads"
    with pytest.raises(ValueError, match=words):
        fit(regressor(target_dims=(1,)), Classes())
    assert fit(Numbers(MLP(INPUTS, [8], 8), 4), Classes()).global_step == 2
    assert fit(regressor(target_dims=(1,), likelihood="bernoulli"), Classes()).global_step == 2
    words = r"VIBClassifier needs a datamodule with num_classes; got Standardised with target_dims=\(2,\): VIBRegressor"
    with pytest.raises(ValueError, match=words):
        fit(VIBClassifier(MLP(INPUTS, [8], 8), 4, 2), Standardised())


def test_a_datamodule_of_other_targets_or_inputs_is_refused_in_setup() -> None:
    with pytest.raises(ValueError, match=r"target_dims=\(3,\), but the targets of Standardised need \(2,\)"):
        fit(regressor(target_dims=(3,)), Standardised())
    with pytest.raises(ValueError, match=r"encoder=MLP does not take the examples of Standardised, .* \(6,\)"):
        fit(regressor(encoder=MLP(5, [8], 2 * WIDTH)), Standardised())
    data = Standardised()
    data.target_scale = torch.ones(3)
    with pytest.raises(ValueError, match=r"target_dims=\(2,\) needs .* as many numbers in target_scale; got 3"):
        fit(regressor(), data)


X, Y = rows(8)


@pytest.mark.parametrize(
    ("kwargs", "batch", "words"),
    [
        ({}, X, "a regressor needs batches with targets, .*; got a Tensor of float32"),
        ({}, (X, Y[:7]), "a batch of 8 inputs needs as many targets; got 7"),
        (
            {},
            (X, Y[:, 0]),
            r"target_dims=\(2,\) needs targets \(B, 2\) .*float32 \(8,\): these have target_dims=\(1,\)",
        ),
        ({}, (X, torch.zeros(8, 3)), r"needs targets \(B, 2\) .*\(8, 3\): these have target_dims=\(3,\)"),
        ({"target_dims": (1,)}, (X, Y), r"needs targets \(B, 1\) or \(B,\) of real .*: these have target_dims=\(2,\)"),
        ({}, (X, torch.tensor(1.0)), r"needs targets \(B, 2\) of real numbers; got a Tensor of float32 \(\)$"),
        ({}, (X, Y.to(torch.complex64)), r"of real numbers; got a Tensor of complex64 \(8, 2\)$"),
        ({}, (X, ["a"] * 8), "targets must be a tensor or a NumPy array of numbers; got a list of str"),
        ({}, (X, Y.where(Y[4] != Y, torch.nan)), "targets must be finite .* for LearnedGaussian; got nan"),
        ({}, (X, Y.where(Y[4] != Y, torch.inf)), "targets must be finite .* for LearnedGaussian; got inf: leave"),
        ({}, (X, Y.double() * 1e300), "targets must be finite .* for LearnedGaussian; got -?inf"),
        (
            {"likelihood": "bernoulli"},
            (X, Y.round()),
            "targets must be 0 or 1 for Bernoulli; got -?[0-9]: data outside",
        ),
        ({"likelihood": "bernoulli"}, (X, Y * 0 + 0.5), "targets must be 0 or 1 for Bernoulli; got 0.5: .*continuous"),
        (
            {"likelihood": "continuous_bernoulli"},
            (X, Y - 9),
            r"targets must be in \[0, 1\] for ContinuousBernoulli; got",
        ),
        (
            {"likelihood": Categorical(3)},
            (X, Y * 0 + 0.2),
            "targets must be one of 3 levels, k / 2 for Categorical; got",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused_in_words(kwargs: dict[str, Any], batch: Any, words: str) -> None:
    model = regressor(**kwargs)
    for step in (model.training_step, model.validation_step, model.test_step):
        with pytest.raises(ValueError, match=words):
            step(batch, 0)


@pytest.mark.parametrize(
    "y",
    [Y[:, 0], Y[:, :1], Y[:, 0].double(), Y[:, 0].numpy(), Y[:, :1].double().numpy()],
    ids=["(B,)", "(B, 1)", "float64", "array", "array64"],
)
def test_targets_of_any_form_are_the_same_targets(y: Any) -> None:
    model = regressor(target_dims=(1,))
    assert model(X).shape == (8, 1)
    torch.manual_seed(1)
    loss = model.training_step((X, y), 0)
    torch.manual_seed(1)
    torch.testing.assert_close(loss, model.training_step({"x": X, "y": Y[:, :1]}, 0), rtol=0, atol=0)
    whole = [torch.tensor([0, 1] * 4), torch.tensor([False, True] * 4), np.array([0, 1] * 4, dtype=np.uint8)]
    assert len({measure_one(regressor(target_dims=(1,), likelihood="bernoulli"), labels) for labels in whole}) == 1


def measure_one(model: VIBRegressor, y: Any) -> float:
    torch.manual_seed(0)
    return float(model.training_step((X, y), 0).item())


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_any_precision_trains_and_measures(precision: Any) -> None:
    model = regressor(eval_samples=2)
    run = fit(model, batches(*rows(64), size=16), precision=precision, max_epochs=2)
    [metrics] = run.test(model, batches(*rows(64), size=16), verbose=False)
    assert all(math.isfinite(value) for value in metrics.values())
