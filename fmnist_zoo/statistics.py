"""Tests of significance between models. They need SciPy, imported in functions; `metrics` needs NumPy alone."""

from __future__ import annotations

import dataclasses
import functools
from typing import Sequence

import numpy as np

LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Paired:
    """A paired t-test over seeds (Student 1908). With one seed nothing can be tested: all but `difference` is None.

    Attributes:
        difference: the mean of `first - second`.
        error: its standard error.
        interval: of 1 - `LEVEL` confidence, 95 %.
        p: two-sided, of the hypothesis that there is no difference.
    """

    difference: float
    error: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None

    def verdict(self, *, lower_is_better: bool) -> str:
        """On the claim that `first` is better."""
        if self.p is None:
            return "not testable with one seed"
        if self.p >= LEVEL:
            return "in the noise"
        return "holds" if (self.difference < 0) == lower_is_better else "wrong: it is the other way round"


def paired(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> Paired:
    """Compares the values of two models, (seeds,) each, that belong together seed by seed."""
    from scipy import stats

    differences = np.asarray(first, float) - np.asarray(second, float)
    mean = float(differences.mean())
    if len(differences) < 2:
        return Paired(mean)
    error = float(differences.std(ddof=1) / np.sqrt(len(differences)))
    p = float(stats.ttest_1samp(differences, 0.0).pvalue) if error else float(mean == 0)
    reach = float(stats.t.ppf(1 - LEVEL / 2, len(differences) - 1)) * error
    return Paired(mean, error, (mean - reach, mean + reach), p)


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """McNemar's paired test (1947), exact and two-sided, of the images that two classifiers got right: (images,) bool.

    Returns:
        How many images only the first classified correctly, how many only the second did, and the probability p of a
        split at least as uneven if both were equally good.
    """
    from scipy import stats

    alone, other = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    p = float(stats.binomtest(alone, alone + other).pvalue) if alone + other else 1.0
    return alone, other, p


def holm(p: Sequence[float]) -> list[float]:
    """The p-values of several tests, corrected for their number by Holm's step-down method (1979), in their order."""
    adjusted, largest = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = largest
    return adjusted


@functools.lru_cache
def tukey_margin(count: int, freedom: float, level: float = LEVEL) -> float:
    """How far two of `count` means may lie apart by noise, in standard errors of a difference.

    Tukey's honestly significant difference (1953): if all `count` means have the same true value, and equal,
    independent, normal errors, the largest lies more than this above the smallest with probability `level`. So no pair
    is called different by mistake with probability 1 - `level`, whichever are compared, such as all with the best.
    It is q / sqrt(2) with the quantile q of the studentized range, P(max Z - min Z <= q u) = 1 - `level`, where the Z
    are standard normal and u is the estimated standard deviation, in units of the true one, with `freedom` degrees of
    freedom. SciPy has q too, but takes seconds for it.
    """
    from scipy import special

    lowest = np.linspace(-9, 9, 181)  # the smallest of the Z
    density = count * np.exp(-lowest ** 2 / 2) / np.sqrt(2 * np.pi) * (lowest[1] - lowest[0])
    shares, steps = np.polynomial.legendre.leggauss(64)
    spread = np.sqrt(special.chdtri(freedom, (1 + shares) / 2) / freedom)[:, None]  # quantiles of u
    low, high = 0.0, 200.0
    for _ in range(40):
        middle = (low + high) / 2
        within = (special.ndtr(lowest + middle * spread) - special.ndtr(lowest)) ** (count - 1)
        if steps @ within @ density / 2 < 1 - level:
            low = middle
        else:
            high = middle
    return (low + high) / 2 / float(np.sqrt(2))
