"""The table of a comparison: means, spreads, and paired confidence intervals."""

import csv
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

Values = Mapping[int, float]  # by seed

CONFIDENCE = 0.95


def paired_difference(arm: Values, reference: Values) -> tuple[float, float, float]:
    """Mean difference of an arm from the reference over their common seeds, and its 95 % confidence interval.

    Student's t for paired observations: ``mean +- t(n - 1) * sd / sqrt(n)``.

    Returns:
        The mean difference and the ends of the interval. The ends are NaN with fewer than two common seeds; all three
        are NaN without a common seed, or if a value is infinite.

    >>> [round(number, 3) for number in paired_difference({0: 2.0, 1: 4.0}, {0: 1.0, 1: 1.0})]
    [2.0, -10.706, 14.706]
    """
    differences = np.array(_differences(arm, reference))
    if not np.isfinite(differences).all() or not len(differences):
        return math.nan, math.nan, math.nan
    mean = float(differences.mean())
    if len(differences) < 2:
        return mean, math.nan, math.nan
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)) * error
    return mean, mean - reach, mean + reach


def _differences(arm: Values, reference: Values) -> list[float]:
    """Return the difference of each common seed whose two values are known."""
    seeds = [seed for seed in arm if seed in reference and not math.isnan(arm[seed] + reference[seed])]
    return [arm[seed] - reference[seed] for seed in seeds]


def markdown_table(measures: Sequence[str], arms: Mapping[str, Sequence[Values]]) -> str:
    """Format a Markdown table with a row for each measure and arm.

    Args:
        measures: the names of the measures.
        arms: for each arm, the values of each measure; the first arm is the reference.
    """
    reference = next(iter(arms))
    header = ["metric", "arm", "mean"]
    if len(arms) > 1:
        header.append(f"minus {reference}")
    lines = [header, ["---"] * len(header)]
    for place, measure in enumerate(measures):
        seeds = max(len(_known(row[place])) for row in arms.values())
        for name, row in arms.items():
            cells = [measure, name, _summary(row[place], seeds)]
            if len(arms) > 1:
                cells.append("" if name == reference else _difference(row[place], arms[reference][place]))
            lines.append(cells)
    escaped = [[cell.replace("|", "\\|") for cell in cells] for cells in lines]  # of metrics
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def values_csv(measures: Sequence[str], arms: Mapping[str, Sequence[Values]]) -> str:
    """Format every value as CSV, one run a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", *measures])
    for name, row in arms.items():
        for seed in sorted({seed for values in row for seed in values}):
            writer.writerow([name, seed, *(values.get(seed, math.nan) for values in row)])
    return text.getvalue()


def _summary(values: Values, seeds: int) -> str:
    numbers = np.array(_known(values))
    if not len(numbers):
        return "-"
    spread = f" ({numbers.std(ddof=1):.2g})" if len(numbers) > 1 and np.isfinite(numbers).all() else ""
    short = f", n={len(numbers)}" if len(numbers) < seeds else ""
    return f"{numbers.mean():.5g}{spread}{short}"


def _difference(values: Values, reference: Values) -> str:
    mean, low, high = paired_difference(values, reference)
    if math.isnan(mean):
        return "-"
    interval = "" if math.isnan(low) else f" [{low:+.3g}, {high:+.3g}]"
    return f"{mean:+.3g}{interval}, n={len(_differences(values, reference))}"


def _known(values: Values) -> list[float]:
    return [value for value in values.values() if not math.isnan(value)]
