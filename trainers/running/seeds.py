"""Several seeds as one: mean and deviation of a figure, and paired differences between models. SciPy does the tests."""

from __future__ import annotations

import itertools
import statistics
from typing import Any, Mapping, NamedTuple, Sequence

from fmnist_zoo import card

BySeed = Mapping[int | None, Mapping[str, Any]]  # the figures of a model's runs, by their seeds


class Difference(NamedTuple):
    """The mean of `first - second` in a figure, over the seeds that both have.

    Attributes:
        seeds: those seeds.
        low, high: the 95 % interval of this difference alone.
        p: of a two-sided paired t-test, corrected by Holm for all differences that are made together.

    With fewer than two seeds these three are None, and without one so is `difference`.
    """

    figure: str
    first: str
    second: str
    seeds: list[int | None]
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def differences(models: Mapping[str, BySeed], figures: Sequence[str]) -> list[Difference]:
    """Between each two models, in each figure: the later one less the earlier one."""
    from fmnist_zoo.statistics import holm, paired

    found = []
    for figure, (second, first) in itertools.product(figures, itertools.combinations(models, 2)):
        values = [{seed: run[figure] for seed, run in models[name].items() if run[figure] is not None}
                  for name in (first, second)]
        both = [seed for seed in values[0] if seed in values[1]]
        one = Difference(figure, first, second, both)
        if both:
            test = paired(*([of_model[seed] for seed in both] for of_model in values))
            low, high = test.interval or (None, None)
            one = one._replace(difference=test.difference, low=low, high=high, p=test.p)
        found.append(one)
    corrected = iter(holm([one.p for one in found if one.p is not None]))
    return [one if one.p is None else one._replace(p=next(corrected)) for one in found]


def text(found: Sequence[Difference]) -> str:
    """Differences as a table, and how they were tested."""
    rows: list[Sequence[str]] = [("paired by seed", "", "seeds", "difference", "95 %", "p")]
    for one in found:
        cells = ["-" if one.difference is None else f"{round(one.difference, 4) + 0.0:+.4f}",
                 "-" if one.low is None else f"{one.low:+.4f} to {one.high:+.4f}",
                 "-" if one.p is None else f"{one.p:.2g}"]
        rows.append((one.figure.replace("_", " "), f"{one.first} - {one.second}", str(len(one.seeds)), *cells))
    tests = sum(one.p is not None for one in found)
    note = f"p: two-sided paired t-tests, corrected for {card.counted(tests, 'comparison')} by Holm" if tests else \
        "no two seeds are in both: nothing can be tested"
    return f"{card.aligned(rows, numeric=rows[0][2:])}\n{note}"


def mean_and_deviation(values: Sequence[float | None]) -> str:
    """`0.8931 ± 0.0021`; the deviation is that of the sample, and of one value there is none."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.4f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.4f}{deviation}"
