"""What each value of a hyper-parameter does to the objective, and which pairs interact. NumPy and SciPy's functions.

Main effects are least squares of the additive model

    objective = mean + effect of the level of each hyper-parameter + residual,

with effects that sum to 0 over the levels of each. A level's mean is the model's prediction with the effects of all
other hyper-parameters at 0: in a complete grid that is the plain mean of the trials with this level, elsewhere it is
corrected for the levels of the others that they happen to have. Its 95 % interval is that of the t distribution, with
the standard error of this prediction from the residuals of all trials; interactions count as residuals. With two
executions or more, each seed gives an estimate of its own, and the spread of an effect over seeds is a second estimate
of its noise (as in an analysis of variance with repeated measures); the larger one counts. What a seed does to all
trials alike is no noise.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Sequence

import numpy as np

from fmnist_zoo.statistics import LEVEL, holm, tukey_margin
from trainers.tuning.levels import Levels


@dataclasses.dataclass(frozen=True)
class Effect:
    """The main effect of one hyper-parameter; arrays are (levels,), in the order of `levels.labels`.

    Attributes:
        levels: its levels.
        means: the objective's mean at each level.
        errors: the 95 % interval of each mean is `means` - `errors` to `means` + `errors`; NaN if it is not known.
        share: of the variance of the objective that this effect explains, less what noise explains; NaN if unknown, or
            if there is one level.
        p: of the F-test that there is no effect, by Holm for all hyper-parameters; NaN likewise.
        costs: how much worse the mean is than that of the best level, at least 0.
        worse: bool, whether that is more than noise, by Tukey's and Kramer's test of the levels (see `tukey_margin`),
            with the error rate of 5 % divided by the number of hyper-parameters.
        adjusted: whether the means are corrected for the other hyper-parameters; too few trials allow no correction.
    """

    levels: Levels
    means: np.ndarray
    errors: np.ndarray
    share: float
    p: float
    costs: np.ndarray
    worse: np.ndarray
    adjusted: bool

    @property
    def name(self) -> str:
        return self.levels.name


@dataclasses.dataclass(frozen=True)
class Pair:
    """The interaction of two hyper-parameters: what the means of their combinations have beyond both effects.

    Attributes:
        first, second: indices of the hyper-parameters.
        strength: its standard deviation over the trials, in units of the objective. What noise alone explains in 95 of
            100 cases is subtracted from its variance, so that noise does not win; 0 if that is all. NaN if unknown.
        p: of the F-test that there is no interaction, by Holm for all pairs; NaN likewise.
        table: (levels of first, levels of second), the interaction of each combination, shrunk by the share
            of its variance that was subtracted; NaN where there is no trial.
    """

    first: int
    second: int
    strength: float
    p: float
    table: np.ndarray


class Additive:
    """The additive model, fitted: `scores` is (trials,) or, with the same seeds in all trials, (trials, seeds)."""

    def __init__(self, levels: Sequence[Levels], scores: np.ndarray):
        self.levels, self.by_seed = levels, scores.reshape(len(scores), -1)
        self.scores = scores = self.by_seed.mean(axis=1)
        self.seeds = self.by_seed.shape[1]
        blocks = [np.ones((len(scores), 1)), *map(_contrasts, levels)]
        ends = np.cumsum([block.shape[1] for block in blocks])
        self.slices = [slice(start, end) for start, end in zip(ends, ends[1:])]
        self.design = np.concatenate(blocks, axis=1)
        self.gram = self.design.T @ self.design
        self.freedom = len(scores) - self.design.shape[1]
        self.sound = bool(np.linalg.matrix_rank(self.gram, hermitian=True) == self.design.shape[1])
        if self.sound:
            self.inverse = np.linalg.inv(self.gram)
            self.weights = self.inverse @ (self.design.T @ self.by_seed)  # (columns, seeds)
            self.residuals = self.by_seed - self.design @ self.weights
            self.sum = self._squares(self.residuals.mean(axis=1))

    def _squares(self, values: np.ndarray) -> float:
        """The sum of squares of scores or of sums of them, 0 if it is nothing but rounding errors."""
        squares = float((values ** 2).sum())
        return squares if squares > values.size * (1e-13 * float(np.abs(self.scores).max())) ** 2 else 0.0

    def _noise(self, left: float, freedom: int, fitted: np.ndarray, count: int) -> tuple[float, float]:
        """The variance of a trial's score by noise and its degrees of freedom: of the residuals, whose sum of squares
        is `left`, or of what an effect with `count` free parameters explains by each seed, `fitted` (trials, seeds)."""
        estimates = [(left / freedom, float(freedom))] if freedom > 0 else []
        if self.seeds > 1 and count:
            over_seeds = self._squares(fitted - fitted.mean(axis=1, keepdims=True)) / self.seeds
            estimates.append((over_seeds / (count * (self.seeds - 1)), float(count * (self.seeds - 1))))
        return max(estimates, default=(float("nan"), float("nan")))

    def effect(self, index: int, tests: int) -> Effect:
        """The effect of a hyper-parameter, one of `tests`; its p is not corrected yet."""
        from scipy import special

        levels, part = self.levels[index], self.slices[index]
        rows = np.zeros((len(levels.labels), self.design.shape[1]))
        rows[:, 0], rows[:, part] = 1, _coding(len(levels.labels))
        means, covariance = rows @ self.weights.mean(axis=1), rows @ self.inverse @ rows.T
        count, share, p = len(levels.labels) - 1, float("nan"), float("nan")
        # (count, seeds), of which the squares sum up to what the effect explains
        found = np.linalg.cholesky(np.linalg.inv(self.inverse[part, part])).T @ self.weights[part]
        variance, freedom = self._noise(self.sum, self.freedom, found, count)
        if count:
            explained = self._squares(found.mean(axis=1))
            total = self._squares(self.scores - self.scores.mean())
            share = max(0.0, explained - count * variance) / total if total else 0.0 * variance
            p = _f_test(explained / count, count, variance, freedom)
        deviation = np.sqrt(variance)
        errors = special.stdtrit(freedom, 1 - LEVEL / 2) * deviation * np.sqrt(np.diag(covariance))
        costs = means - means.min()
        winner = int(np.argmin(means))
        gaps = np.diag(covariance) + covariance[winner, winner] - 2 * covariance[winner]
        worse = np.zeros(len(means), bool)
        if count and freedom > 0:
            margin = tukey_margin(count + 1, freedom, LEVEL / tests)
            worse = costs > margin * deviation * np.sqrt(np.maximum(gaps, 0)) + 1e-12 * np.abs(means).max()
        return Effect(levels, means, errors, share, p, costs, worse, len(self.levels) > 1 or tests == 1)

    def pair(self, first: int, second: int, noise: tuple[float, float] | None) -> Pair:
        """The interaction of two hyper-parameters; its p is not corrected yet.

        `noise` is the variance of a score and its degrees of freedom, used where the pair leaves no residuals.
        """
        from scipy import special

        one, other = self.levels[first], self.levels[second]
        cells = (_contrasts(one)[:, :, None] * _contrasts(other)[:, None, :]).reshape(len(self.scores), -1)
        shared = self.inverse @ (self.design.T @ cells)  # the part of the cells that the additive model has already
        gram = cells.T @ cells - shared.T @ self.gram @ shared
        count = int(np.linalg.matrix_rank(gram, tol=1e-9 * len(cells), hermitian=True))
        weights = np.linalg.pinv(gram, rcond=1e-9, hermitian=True) @ (cells.T @ self.residuals)
        by_seed = cells @ weights - self.design @ (shared @ weights)
        fitted = by_seed.mean(axis=1)
        explained = self._squares(fitted)
        variance = freedom = float("nan")
        if count:
            left = self._squares(self.residuals.mean(axis=1) - fitted)
            variance, freedom = self._noise(left, self.freedom - count, by_seed, count)
        if count and np.isnan(variance) and noise:
            variance, freedom = noise
        real = max(0.0, explained - count * variance * (special.fdtri(count, freedom, 1 - LEVEL) if variance else 0.0))
        table = np.zeros((len(one.labels), len(other.labels)))
        trials = np.zeros_like(table)
        np.add.at(table, (one.index, other.index), fitted * (real / explained if explained else 1.0))
        np.add.at(trials, (one.index, other.index), 1)
        table = np.where(trials > 0, table / np.maximum(trials, 1), np.nan)
        return Pair(first, second, float(np.sqrt(real / len(self.scores))) if variance == variance else variance,
                    _f_test(explained / max(count, 1), count, variance, freedom), table)


def effects_and_pairs(levels: Sequence[Levels], scores: np.ndarray, *, lower_is_better: bool,
                      noise: tuple[float, float] | None = None) -> tuple[list[Effect], list[Pair]]:
    """The main effect of each hyper-parameter, and all pairs that have two levels or more each, the strongest first.

    Without enough trials for the additive model there are no pairs, and each effect is as if it were alone. `scores`
    is as in `Additive`, `noise` as in `Additive.pair`.
    """
    sign, tests = 1.0 if lower_is_better else -1.0, len(levels)
    model = Additive(levels, sign * scores)
    if model.sound and (model.freedom > 0 or model.seeds > 1):
        found = [model.effect(index, tests) for index in range(tests)]
    else:
        found = [Additive([one], sign * scores).effect(0, tests) for one in levels]
    found = [dataclasses.replace(effect, means=sign * effect.means, p=p)
             for effect, p in zip(found, _corrected([effect.p for effect in found]))]
    if not model.sound or model.freedom < 1:
        return found, []
    varied = [index for index, one in enumerate(levels) if len(one.labels) > 1]
    pairs = [model.pair(*both, noise) for both in itertools.combinations(varied, 2)]
    pairs = [dataclasses.replace(pair, table=sign * pair.table, p=p)
             for pair, p in zip(pairs, _corrected([pair.p for pair in pairs]))]
    return found, sorted(pairs, key=lambda pair: -np.nan_to_num(pair.strength, nan=-1))


def _coding(count: int) -> np.ndarray:
    """(levels, levels - 1): the weights of the free effects in each level; in the last one all are -1."""
    return np.concatenate([np.eye(count - 1), -np.ones((1, count - 1))])


def _contrasts(levels: Levels) -> np.ndarray:
    return _coding(len(levels.labels))[levels.index]


def _f_test(found: float, count: int, variance: float, freedom: float) -> float:
    from scipy import special

    if np.isnan(variance):
        return variance
    if not variance:
        return 0.0 if found else 1.0
    return float(special.fdtrc(count, freedom, found / variance))


def _corrected(p: Sequence[float]) -> list[float]:
    """Holm's correction of the p that are known."""
    known = [index for index, one in enumerate(p) if one == one]
    corrected = list(p)
    for index, one in zip(known, holm([p[index] for index in known])):
        corrected[index] = one
    return corrected
