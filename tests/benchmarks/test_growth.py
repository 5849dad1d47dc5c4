"""Growth: its fit and its measure of memory against what is known, and each case at its smallest size."""

from collections.abc import Callable

import pytest
import torch

from tests.benchmarks.growth import SMALLEST, Case, exponent, in_child, rows_of
from tests.benchmarks.growth_cases import CASES

# One million rows, in data and in a metric that keeps some of them.
EDGES = ("Table", "split", "EvaluationSampler", "MutualInformation", "PrecisionRecall", "images")


def test_the_exponent_is_that_of_the_upper_half_where_a_constant_no_longer_rules() -> None:
    sizes = [2**power for power in range(14)]
    assert exponent(sizes, [3e-9 * size**2 for size in sizes]) == pytest.approx(2)
    assert exponent(sizes, [10.0 if size < 100 else 0.1 * size for size in sizes]) == pytest.approx(1)
    assert exponent([10, 1000], [5.0, 5.0]) == pytest.approx(0)


def zeros(numbers: Callable[[int], int]) -> Callable[[int], Callable[[], object]]:
    return lambda size: lambda: torch.zeros(numbers(size)).add_(1).sum()


@pytest.mark.slow  # a kernel that reclaims pages of idle processes may take some meanwhile, and the difference is less
def test_memory_is_that_of_the_tensors_at_the_peak() -> None:
    time, memory = rows_of(Case("n", zeros(lambda size: size), (2**20, 2**21, 2**22)))
    assert time.name.removesuffix("time") == memory.name.removesuffix("memory") == "growth: n, 1048576 to 4194304, "
    assert memory.ours == pytest.approx(16, rel=0.1)
    assert memory.ratio == pytest.approx(1, abs=0.1)
    assert time.ours is not None
    assert time.ours > 0
    assert memory.bar == time.bar == 1.1
    time, memory = rows_of(Case("squares", zeros(lambda size: size**2), (1024, 2048), note="bounded by something"))
    assert memory.ratio == pytest.approx(2, abs=0.2)
    assert memory.bar is time.bar is None
    assert time.note == "bounded by something"
    assert in_child(Case("nothing", lambda size: lambda: None, (1,)), 1)[1] == SMALLEST


def test_a_child_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match="division at 0 ended"):
        in_child(Case("division", lambda size: lambda: 1 / size, (1, 0)), 0)


@pytest.mark.filterwarnings("ignore")  # of Lightning's trainer
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_smallest_size_of_each_case(case: Case) -> None:
    case.prepare(case.sizes[0])()
    assert list(case.sizes) == sorted(case.sizes)
    assert len(case.sizes) >= 7


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if "rows" in case.name and any(e in case.name for e in EDGES)])
def test_a_million_rows(case: Case) -> None:
    assert case.sizes[-1] == 10**6
    case.prepare(10**6)()
