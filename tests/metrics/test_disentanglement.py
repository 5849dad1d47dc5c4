"""Gaps and importances: closed forms, numpy, scikit-learn, and codes with known scores."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor

from lit_bottleneck.metrics import DCI, MIG, SAP
from lit_bottleneck.metrics.dci import disentanglement_completeness
from lit_bottleneck.metrics.factor_metric import FactorMetric, halves
from lit_bottleneck.metrics.gaps import _nearest, attribute_gaps, mutual_information_gaps
from tests.metrics import cases

METRICS: list[Callable[[], FactorMetric]] = [MIG, SAP, DCI]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def numbers(rows: int, seed: int = 0) -> Tensor:
    return torch.rand(rows, 2, generator=torch.Generator().manual_seed(seed))


def classes(rows: int, seed: int = 0) -> Tensor:
    return torch.randint(5, (rows, 2), generator=torch.Generator().manual_seed(seed))


def standard(factors: Tensor) -> Tensor:
    factors = factors.double()
    return (factors - factors.mean(0)) / factors.std(0)


def fed(metric: FactorMetric, codes: Tensor, factors: Tensor) -> FactorMetric:
    metric.update(codes, factors)
    return metric


def values(metric: FactorMetric, codes: Tensor, factors: Tensor) -> dict[str, float]:
    return cases.values(fed(metric, codes, factors).compute())


def rotated(codes: Tensor) -> Tensor:
    half = math.sqrt(0.5)
    return codes @ torch.tensor([[half, half], [-half, half]], dtype=codes.dtype)


# --- codes with known scores ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [numbers, classes])
def test_each_factor_in_a_dimension_of_its_own(draw: Callable[[int], Tensor]) -> None:
    factors = draw(2000)
    codes = torch.cat([standard(factors), randn(2000, 1).double()], 1)
    codes[:, :2] += 1e-3 * randn(2000, 2, seed=1)
    mig, sap, dci = (values(make(), codes, factors) for make in METRICS)
    assert mig["mig"] > 0.9
    assert sap["sap"] > 0.7
    assert dci["disentanglement"] > 0.97
    assert dci["completeness"] > 0.97
    assert dci["informativeness"] > 0.99


@pytest.mark.parametrize("draw", [numbers, classes])
def test_a_rotated_code_is_informative_without_gaps(draw: Callable[[int], Tensor]) -> None:
    factors = draw(2000)
    mig, sap, dci = (values(make(), rotated(standard(factors)), factors) for make in METRICS)
    assert mig["mig"] < 0.05
    assert sap["sap"] < 0.05
    assert dci["disentanglement"] < 0.2
    assert dci["completeness"] < 0.2
    assert dci["informativeness"] > 0.95


@pytest.mark.parametrize("codes", [torch.zeros(2000, 3), torch.full((2000, 3), 0.1), randn(2000, 3, seed=9)])
def test_a_collapsed_code_scores_zero(codes: Tensor) -> None:
    for draw, chance in ((numbers, 0.0), (classes, 0.2)):
        factors = draw(2000)
        mig, sap, dci = (values(make(), codes, factors) for make in METRICS)
        assert mig["mig"] == pytest.approx(0, abs=0.02)
        assert sap["sap"] == pytest.approx(0, abs=0.05)
        assert dci["informativeness"] < chance + 0.05
        assert dci["disentanglement"] < 0.05
        if codes[0].equal(codes[1]):
            assert (mig["mig"], sap["sap"], dci["disentanglement"], dci["completeness"]) == (0, 0, 0, 0)
            assert dci["informativeness"] == pytest.approx(chance, abs=0.05)


def test_a_collapsed_dimension_predicts_nothing_however_well_it_correlates() -> None:
    """With a standard deviation of 3e-8 beside noise of 1, a dimension carries (3e-8)^2 / 2 = 5e-16 nats.

    It is the factor itself, scaled: its squared correlation is 1, and the nearest mean finds each class. Scored as a
    constant it has 0, and the accuracy of one class in five; the other dimension is independent noise.
    """
    for draw, chance in ((numbers, 0.0), (classes, 0.2)):
        factors = draw(2000)
        shared = (factors[:, 0].double() - factors[:, 0].double().mean()) / factors[:, 0].double().std()
        codes = torch.stack([3e-8 * shared, randn(2000, seed=9)], 1)
        whole = torch.stack([shared, randn(2000, seed=9)], 1)
        assert attribute_gaps(whole, factors[:, 0])[0] == pytest.approx(1 - chance, abs=0.05)
        assert attribute_gaps(codes, factors[:, 0])[0] == pytest.approx(0, abs=0.05)


# --- against other implementations ------------------------------------------------------------------------------------


def numpy_information(a: np.ndarray, b: np.ndarray) -> float:
    joint = np.array([[np.mean((a == i) & (b == j)) for j in np.unique(b)] for i in np.unique(a)])
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float((joint[joint > 0] * np.log(joint[joint > 0] / product[joint > 0])).sum())


def test_mutual_information_gap_by_numpy() -> None:
    factors, codes = classes(300), randn(300, 4)
    codes[:, 0] += factors[:, 0]
    codes[:, 1] += 0.5 * factors[:, 0] + factors[:, 1]
    bins = [np.digitize(z, np.linspace(z.min(), z.max(), 8)[:-1]) for z in codes.double().numpy().T]
    expected = []
    for factor in factors.numpy().T:
        shares = np.bincount(factor) / len(factor)
        information = sorted(numpy_information(b, factor) for b in bins)
        expected.append((information[-1] - information[-2]) / -(shares * np.log(shares)).sum())
    gaps = mutual_information_gaps(codes, factors, num_bins=7)
    assert gaps.numpy() == pytest.approx(np.array(expected), rel=1e-9)
    assert max(expected) > 0.1


def test_a_float_of_few_values_is_classes_and_one_of_many_is_binned() -> None:
    codes, factors = randn(200, 2), classes(200)
    codes[:, 0] += factors[:, 0]
    as_classes = mutual_information_gaps(codes, factors, num_bins=5)
    torch.testing.assert_close(mutual_information_gaps(codes, factors.float() ** 2, num_bins=5), as_classes)
    many = numbers(200)
    binned = (many.double() - many.double().amin(0)) / (many.double().amax(0) - many.double().amin(0))
    binned = (binned * 5).long().clamp(max=4)
    of_many, of_binned = (mutual_information_gaps(codes, factors, num_bins=5) for factors in (many, binned))
    torch.testing.assert_close(of_many, of_binned)


def test_gap_of_numbers_is_that_of_squared_correlations() -> None:
    factors, codes = randn(100, 2), randn(100, 3, seed=1)
    codes[:, 0] += factors[:, 0]
    expected = []
    for i in range(2):
        squares = torch.corrcoef(torch.cat([factors[:, i : i + 1], codes], 1).double().T)[0, 1:].square().sort().values
        expected.append(squares[-1] - squares[-2])
    torch.testing.assert_close(attribute_gaps(codes, factors), torch.stack(expected))
    moved = attribute_gaps(1e6 + 1e-3 * codes.double(), factors)
    torch.testing.assert_close(moved, torch.stack(expected), rtol=1e-5, atol=0)


def test_gap_of_classes_is_that_of_linear_discriminants_with_equal_priors() -> None:
    factor, codes = classes(400)[:, 0] ** 2, randn(400, 3).double()  # 0, 1, 4, 9, 16
    codes[:, 1] += factor
    codes[:, 2] += 0.3 * factor
    rows = torch.cat([codes, factor[:, None]], 1).numpy()
    rows = rows[np.lexsort((rows[:, 3], *rows[:, 2::-1].T))]
    y = rows[:, 3].astype(int)
    train, test = halves(y, "y", seed=3)
    scores = []
    for z in rows[:, :3].T[:, :, None]:
        model = LinearDiscriminantAnalysis(priors=np.full(5, 0.2)).fit(z[train], y[train])
        scores.append(balanced_accuracy_score(y[test], model.predict(z[test])))
    scores.sort()
    assert attribute_gaps(codes, factor, seed=3).item() == pytest.approx(scores[-1] - scores[-2], abs=1e-12)


def test_the_nearest_mean_is_the_first_of_the_least_distances() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 12):
        values, means = rng.integers(-6, 7, 200) / 2, rng.integers(-4, 5, count).astype(float)  # with ties and repeats
        assert (_nearest(values, means) == np.abs(values[:, None] - means).argmin(1)).all()


def test_concentration_of_importances_with_known_entropies() -> None:
    eye = torch.eye(3)
    assert [x.item() for x in disentanglement_completeness(eye)] == pytest.approx([1, 1])
    assert [x.item() for x in disentanglement_completeness(torch.ones(4, 3))] == pytest.approx([0, 0], abs=1e-12)
    assert [x.item() for x in disentanglement_completeness(torch.zeros(4, 3))] == [0, 0]
    importance = torch.tensor([[0.9, 0.0], [0.1, 0.5], [0.0, 0.5]])
    mixed = 1 / 6 * math.log2(1 / 6) + 5 / 6 * math.log2(5 / 6)
    disentanglement = 0.45 * 1 + 0.3 * (1 + mixed) + 0.25 * 1
    first = (0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(3)
    completeness = (1 + first + 1 - math.log(2) / math.log(3)) / 2
    expected = pytest.approx([disentanglement, completeness], rel=1e-6)
    assert [x.item() for x in disentanglement_completeness(importance)] == expected


def test_names_of_scores() -> None:
    factors, codes = classes(100), randn(100, 3)
    assert set(values(MIG(), codes, factors)) == {"mig", "mig_factor_0", "mig_factor_1"}
    assert set(values(SAP(names=["a", "b"]), codes, factors)) == {"sap", "sap_a", "sap_b"}
    mig = values(MIG(names=["a", "b"]), codes, factors)
    assert mig["mig"] == pytest.approx((mig["mig_a"] + mig["mig_b"]) / 2)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "needed"), [(MIG, 20), (SAP, 4), (DCI, 20)])
def test_data_without_a_score_are_refused(make: Callable[..., FactorMetric], needed: int) -> None:
    for rows in (0, needed - 1):
        with pytest.raises(ValueError, match=f"at least {needed} rows of codes and factors; got {rows}"):
            fed(make(), randn(rows, 3), numbers(rows)).compute()
    with pytest.raises(ValueError, match="at least 2 dimensions; got 1"):
        fed(make(), randn(30, 1), numbers(30)).compute()
    constant = numbers(30)
    constant[:, 1] = 0.5
    with pytest.raises(ValueError, match=r"'y' is 0\.5 in all 30 rows"):
        fed(make(names=["x", "y"]), randn(30, 3), constant).compute()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_bins must be a whole number, at least 2"):
        MIG(num_bins=1)
    with pytest.raises(ValueError, match="num_trees must be a whole number, at least 1"):
        DCI(num_trees=0)
    with pytest.raises(ValueError, match="at least 2 dimensions and 2 factors"):
        fed(DCI(), randn(20, 3), numbers(20)[:, 0]).compute()
    for bad in (-torch.eye(2), torch.full((2, 2), math.nan)):
        with pytest.raises(ValueError, match="importance must be finite and not negative"):
            disentanglement_completeness(bad)


def with_one(bad: float, rows: Tensor) -> Tensor:
    return rows.index_fill(0, torch.tensor([2]), bad)


@pytest.mark.parametrize("make", METRICS)
@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (randn(5, 3), numbers(4), "codes and factors must have as many rows; got 5 and 4"),
        (randn(5), numbers(5), r"codes must be \(B, K, \.\.\.\) and factors \(B, F\) or \(B,\)"),
        (randn(5, 3), numbers(5)[..., None], r"codes must be \(B, K, \.\.\.\) and factors \(B, F\) or \(B,\)"),
        (randn(5, 0), numbers(5), r"codes must be \(B, K, \.\.\.\) and factors \(B, F\) or \(B,\)"),
        (with_one(math.nan, randn(5, 3)), numbers(5), "codes must be finite; 1 of 5 rows"),
        (randn(5, 3), with_one(math.inf, numbers(5)), "factors must be finite; 1 of 5 rows"),
        (randn(5, 3), numbers(5)[:, 0], r"names=\('a', 'b'\) need as many factors; got \(5, 1\)"),
    ],
)
def test_invalid_codes_and_factors_are_refused(
    make: Callable[..., FactorMetric], codes: Tensor, factors: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(names=["a", "b"]).update(codes, factors)
    with pytest.raises(ValueError, match="names must be different"):
        make(names=["a", "a"])
