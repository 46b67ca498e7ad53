"""How much a hyper-parameter decides whether a trial is among the best: PED-ANOVA. NumPy alone.

Watanabe, Bansal, Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces"
(IJCAI): the variance of the marginal of "is among the best gamma" is proportional to the Pearson divergence between the
density p of the hyper-parameter among all trials and its density q among the best,

    D = sum over x of p(x) (q(x) / p(x) - 1)^2

so that importances are shares of these divergences. p is the density among the trials, not of the space, because
bayesian and halving sweeps do not sample the space evenly. Ours beside the paper: a divergence of few trials is above 0
by chance, so its mean under chance is subtracted, and a test says whether the rest is more than chance.
"""

from __future__ import annotations

import dataclasses
from typing import Sequence

import numpy as np

from trainers.tuning.levels import Levels

BEST, LEAST = 0.1, 5  # the share of trials that count as the best, and their least number
CELLS = 50  # into which a range is cut
DRAWS, MANY = (1999, 499), 2000  # random choices of "best" trials, for up to MANY trials and for more


@dataclasses.dataclass(frozen=True)
class Importance:
    """`share`: of the divergences of all hyper-parameters, from 0 to 1. `p`: the probability of as large a divergence
    if the best were drawn by chance, not corrected for the number of hyper-parameters."""

    share: float
    p: float


def best(costs: np.ndarray) -> np.ndarray:
    """(trials,) bool: the tenth with the lowest cost, at least 5; those that are equal to the last of them too."""
    count = min(len(costs), max(LEAST, int(np.ceil(BEST * len(costs)))))
    return np.asarray(costs <= np.partition(costs, count - 1)[count - 1])


def ped_anova(levels: Sequence[Levels], costs: np.ndarray) -> list[Importance] | None:
    """The importance of each hyper-parameter; `costs` is (trials,), lower is better.

    None if nothing can be said: fewer than 8 trials, or half of the trials or more are equally the best.
    """
    trials = len(costs)
    if trials < 8:
        return None
    top = best(costs)
    if 3 * top.sum() > 2 * trials:
        return None
    generator = np.random.default_rng(0)
    draws = DRAWS[trials > MANY]
    drawn = np.zeros((draws + 1, trials), np.float32)
    drawn[0] = top
    for row in drawn[1:]:
        row[generator.choice(trials, int(top.sum()), replace=False, shuffle=False)] = 1
    drawn /= top.sum()
    above, chances = [], []
    for one in levels:
        divergences = _divergences(_density_rows(one, int(top.sum())), drawn)
        above.append(max(0.0, float(divergences[0] - divergences[1:].mean())))
        at_least = divergences[1:] >= divergences[0] * (1 - 1e-5)  # float32: equal ones differ in their last digits
        chances.append(float(1 + at_least.sum()) / (draws + 1))
    total = sum(above) or 1.0
    return [Importance(value / total, p) for value, p in zip(above, chances)]


def _divergences(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(sets,): the Pearson divergence of sets of trials from all trials. `rows` are (trials, cells) densities of each
    trial, `weights` (sets, trials) sum to 1 over a set."""
    everywhere = rows.mean(axis=0)
    return np.asarray(((weights @ rows - everywhere) ** 2 / everywhere).sum(axis=1))


def _density_rows(levels: Levels, top: int) -> np.ndarray:
    """(trials, cells) float32: what each trial adds to a density. A listed value is a cell; in a range it is a
    Gaussian, cut off at both ends, whose width is Scott's rule (1992) for the `top` best: 1.06 s top^-0.2."""
    values = levels.values
    if values is None:
        return np.eye(len(levels.labels), dtype=np.float32)[levels.index]
    cells = (np.arange(CELLS) + 0.5) / CELLS
    width = max(1.06 * float(values.std()) * top ** -0.2, 0.5 / CELLS)
    rows = np.exp(-0.5 * ((values[:, None] - cells) / width) ** 2) + 1e-12
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
