"""Tests of significance between two models. They need SciPy, imported in functions; `metrics` needs NumPy alone."""

from __future__ import annotations

import dataclasses

import numpy as np

LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Mean of `better - worse` over seeds, its standard error, the p of a two-sided paired t-test, and the verdict.

    With one seed nothing can be tested: `error` and `p` are None.
    """

    difference: float
    error: float | None
    p: float | None
    verdict: str


def compare(better: np.ndarray, worse: np.ndarray, *, lower_is_better: bool) -> Comparison:
    """A paired t-test over seeds (Student 1908) of the claim that `better` does better; arrays are (seeds,)."""
    from scipy import stats

    differences = np.asarray(better, float) - np.asarray(worse, float)
    mean = float(differences.mean())
    if len(differences) < 2:
        return Comparison(mean, None, None, "not testable with one seed")
    error = float(differences.std(ddof=1) / np.sqrt(len(differences)))
    p = float(stats.ttest_1samp(differences, 0.0).pvalue) if error else float(mean == 0)
    if p >= LEVEL:
        return Comparison(mean, error, p, "in the noise")
    return Comparison(mean, error, p, "holds" if (mean < 0) == lower_is_better else "wrong: it is the other way round")


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
