"""Probes: factors that depend on the code in a known way, and scikit-learn by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from lit_bottleneck.metrics.factor_metric import halves
from lit_bottleneck.metrics.factor_probe import FactorProbe, ProbeKind, probe
from tests.metrics.cases import values

KINDS: list[ProbeKind] = ["linear", "mlp"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(rows: int, count: int, seed: int = 0) -> Tensor:
    return torch.randint(count, (rows,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_linear_code_gives_a_linear_factor_back(scale: float) -> None:
    codes = randn(2000, 4)
    factor = scale * (codes @ torch.tensor([1.0, -2.0, 0.0, 0.5]) + 3)
    found = probe(scale * codes, factor)
    assert found.score == pytest.approx(1, abs=1e-3)
    assert found.chance is None


def test_a_square_is_found_by_the_mlp_only() -> None:
    codes = randn(3000, 2)
    factor = codes[:, 0].square()
    assert probe(codes, factor, "linear").score < 0.05
    assert probe(codes, factor, "mlp").score > 0.9


def test_classes_that_no_line_divides_are_found_by_the_mlp_only() -> None:
    codes = randn(3000, 2)
    factor = (codes.prod(1) > 0).long()
    linear, mlp = probe(codes, factor, "linear"), probe(codes, factor, "mlp")
    assert linear.score < 0.6
    assert mlp.score > 0.9
    assert linear.chance == mlp.chance == pytest.approx(factor.double().mean().item(), abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("codes", [randn(2000, 3, seed=7), torch.zeros(2000, 3)])
def test_a_code_that_is_independent_of_the_factor_is_at_chance(kind: ProbeKind, codes: Tensor) -> None:
    assert probe(codes, randn(2000), kind).score == pytest.approx(0, abs=0.08)
    frequent = (labels(2000, 10) > 2).long()  # 70 %
    found = probe(codes, frequent, kind)
    assert found.chance == pytest.approx(0.7, abs=0.02)
    assert found.score == pytest.approx(found.chance, abs=0.02)


def test_scores_are_those_of_scikit_learn_by_hand() -> None:
    codes, factor = randn(400, 3).double(), labels(400, 3)
    codes[:, 0] += factor
    number = codes[:, 0] + randn(400, seed=2)
    for target, model in ((factor, LogisticRegression()), (number, Ridge())):
        rows = torch.cat([codes, target[:, None]], 1).numpy()
        rows = rows[np.argsort(rows[:, 0])][np.random.default_rng(4).permutation(400)][:300]
        z, y = rows[:, :3], rows[:, 3] if target is number else rows[:, 3].astype(int)
        train, test = halves(y, "y", seed=4, test_size=0.3)
        assert len(test) == 90
        z = (z - z[train].mean(0)) / z[train].std(0)
        expected = model.fit(z[train], y[train]).score(z[test], y[test])
        found = probe(codes, target, test_size=0.3, seed=4, max_rows=300)
        assert found.score == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("test_size", [0.5, 0.25])
def test_halves_are_of_the_size_and_have_their_share_of_each_class(test_size: float) -> None:
    factor = np.repeat([3, 1, 2], [100, 40, 8])
    train, test = halves(factor, "y", 0, test_size)
    assert sorted([*train, *test]) == list(range(148))
    for one, count in ((3, 100), (1, 40), (2, 8)):
        assert abs((factor[test] == one).sum() - test_size * count) <= 1


def test_an_mlp_does_not_depend_on_the_order_of_rows() -> None:
    codes, factor = randn(150, 3), labels(150, 3)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(3))
    assert probe(codes, factor, "mlp", max_rows=120) == probe(codes[order], factor[order], "mlp", max_rows=120)


def test_the_metric_scores_each_factor_as_the_function_does() -> None:
    codes, factor = randn(200, 3), randn(200, seed=1)
    metric = FactorProbe(seed=2, test_size=0.4)
    metric.update(codes[:, :, None], factor)
    assert values(metric.compute()) == {"factor_0": pytest.approx(probe(codes, factor, "linear", 0.4, 2).score)}


@pytest.mark.parametrize("kind", KINDS)
def test_rare_classes_and_few_rows_are_scored(kind: ProbeKind) -> None:
    codes, factor = randn(300, 2), torch.zeros(300, dtype=torch.int64)
    factor[:4], factor[4] = 1, 2  # a class of one row
    assert 0.9 < probe(codes, factor, kind).score <= 1
    assert 0 <= probe(codes[:8], labels(8, 2), kind).score <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_data_without_a_score_are_refused(kind: ProbeKind) -> None:
    metric = FactorProbe(kind, names=["a", "b"])
    metric.update(randn(20, 3), torch.stack([labels(20, 2), torch.full((20,), 4)], 1))
    with pytest.raises(ValueError, match="'b' is 4 in all 20 rows"):
        metric.compute()
    with pytest.raises(ValueError, match="at least 4 rows of codes and factors; got 3"):
        probe(randn(3, 2), randn(3), kind)
    with (
        pytest.raises(ValueError, match="at least 4 rows of codes and factors; got 0"),
        pytest.warns(UserWarning, match="before the ``update``"),
    ):
        FactorProbe(kind).compute()
    with pytest.raises(ValueError, match="'factor' does not vary in the 10 rows to"):
        probe(randn(20, 2), (torch.arange(20) == 7).long(), kind)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kind must be one of 'linear', 'mlp'; got 'tree'"):
        FactorProbe("tree")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_rows must be a whole number, at least 4"):
        FactorProbe(max_rows=3)
    for size in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="test_size must be above 0 and below 1"):
            probe(randn(9, 2), randn(9), test_size=size)
    with pytest.raises(ValueError, match=r"factor must be \(N,\); got \(9, 2\)"):
        probe(randn(9, 2), randn(9, 2))
