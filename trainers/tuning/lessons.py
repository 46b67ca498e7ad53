"""What a sweep has taught: which hyper-parameters have an effect, what each value costs, what equals the best trial.

A *cost* is a trial's validation loss, or its share of wrong answers (1 - accuracy), so lower is better and all are
positive; one that is worse than a guess among ten classes counts as that of a guess.

An effect is what least squares explain. Numbers are tested by their trend, linear and quadratic with two degrees of
freedom: in a range's own scale (its logarithm if it is searched so), or in the places of listed numbers, 0, 1, 2, ...
For three listed numbers that is the test of their values. Of four to six it finds what rises, falls or bends in 12 to
27 of 100 simulated sweeps more; one bad value between good ones it misses. Other values are tested one by one. A
hyper-parameter that some trials lack is tested on those that have it. With five trials or more for each parameter of
the joint model the others are held equal, else each hyper-parameter is tested alone.

p is the probability that permuted costs explain as much, by a beta distribution with the mean and variance of all
permutations (Box and Andersen 1955). For normal costs that is the F test; for skewed losses of few trials F finds
effects too often. Counting permutations instead knows no p below 1/28 for a grid of nine whose worst value has the
three worst trials, however far off. p is corrected for the number of hyper-parameters by Holm.

NumPy and SciPy's functions; no TensorFlow, no matplotlib.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from fmnist_zoo.statistics import LEVEL, holm, tukey_margin
from trainers.tuning.space import Parameter
from trainers.tuning.study import Objective, Study, Trial

GUESS = {True: math.log(10), False: 0.9}  # the cost of a guess among ten classes, by `lower_is_better`
ENOUGH = 5  # trials for each parameter of the joint model
MOST_BINS, IN_A_BIN = 5, 4  # of a range: how many, and the trials that each has at least
ROUNDING = 1e-9
FEWEST = 8  # trials from which noise is estimated, if there are as many
SEEDS, HALVES = "seeds", "halves"


@dataclasses.dataclass(frozen=True)
class Levels:
    """The listed values of a hyper-parameter that occur, or bins of its range with about equally many trials.

    Attributes:
        labels: a text for each level, such as `1e-4`, or for a bin the first and last value in it, `0.1 to 0.2`.
        index: (trials,) int, each trial's level; -1 for a trial that lacks the hyper-parameter.
        places: (trials,) float, each trial's place on an axis: the value itself of a range, else its level.
        scale: of that axis: `linear`, `log`, `steps` for listed numbers; empty for values without an order.
    """

    labels: tuple[str, ...]
    index: np.ndarray
    places: np.ndarray
    scale: str

    @property
    def ranged(self) -> bool:
        """Whether the levels are bins of a range."""
        return self.scale in ("linear", "log")

    @property
    def counts(self) -> np.ndarray:
        """(levels,) int: how many trials have each level; at least one."""
        return np.bincount(self.index[self.index >= 0], minlength=len(self.labels))


@dataclasses.dataclass(frozen=True)
class Effect:
    """What a hyper-parameter does to the objective; arrays are (levels,), in the order of `levels.labels`.

    Attributes:
        name: of the hyper-parameter.
        share: of the variance of the costs that is explained in the test; NaN if it has one value alone.
        p: that chance explains as much, by Holm; NaN if there are too few trials, or one value alone.
        means: the objective's plain mean at each level.
        adjusted: its mean with the other hyper-parameters held equal; None where each is tested alone.
        low, high: the 95 % interval of `adjusted`, or else of `means`. The spread within the levels is taken as
            proportional to the cost, so it is symmetrical in the logarithm, and no loss in it is negative; it ends at
            that of a guess. NaN if it is not known.
        losses: how much worse that mean is than at the best level, at least 0.
        worse: bool, whether that is more than noise, by Tukey's and Kramer's test of the logarithms. None is without an
            effect.
    """

    name: str
    levels: Levels
    share: float
    p: float
    means: np.ndarray
    adjusted: np.ndarray | None
    low: np.ndarray
    high: np.ndarray
    losses: np.ndarray
    worse: np.ndarray

    @property
    def varied(self) -> bool:
        return len(self.levels.labels) > 1

    @property
    def found(self) -> bool:
        return self.p < LEVEL


@dataclasses.dataclass(frozen=True)
class Ties:
    """The trials that cannot be told from the best, `group[0]`, out of `among`.

    The others are worse by more than `margin`, in units of the objective: Tukey's honestly significant difference for
    the number of trials, which allows for the luck of the one that came first. `source`: of the noise, SEEDS or HALVES.
    """

    group: tuple[Trial, ...]
    among: tuple[Trial, ...]
    margin: float
    source: str


@dataclasses.dataclass(frozen=True)
class Lessons:
    """What `learn` finds.

    Attributes:
        trials: those that teach: the completed ones, of asha those of the first rung, which have equally many epochs.
        scores: (trials,) their objectives; that of a guess for those that learned nothing.
        guesses: how many these are.
        effects: of each hyper-parameter, in the order of the space.
        visible: the share of the variance from which on an effect would be found; NaN if none can be.
        rivals: how many trials are compared with the best: all that are ranked, of asha those of the longest rung.
        ties: among these; None if nothing can be told.
    """

    trials: tuple[Trial, ...]
    scores: np.ndarray
    guesses: int
    effects: tuple[Effect, ...]
    visible: float
    rivals: int
    ties: Ties | None


def learn(study: Study) -> Lessons | None:
    """What the completed trials of a sweep say; None if no trial has completed."""
    if not study.ranked:
        return None
    used = [trial for trial in study.ranked if trial.parent is None]
    lower = study.objective.lower_is_better
    costs = np.array([trial.score if lower else 1 - trial.score for trial in used], float)
    guesses = int((costs >= GUESS[lower]).sum())
    costs = np.minimum(costs, GUESS[lower])
    found, visible = effects(study.space.parameters, [trial.values for trial in used], costs, lower_is_better=lower)
    longest = max(trial.epochs or 0 for trial in study.ranked)
    rivals = [trial for trial in study.ranked if (trial.epochs or 0) == longest]
    return Lessons(tuple(used), costs if lower else 1 - costs, guesses, found, visible, len(rivals),
                   ties(rivals, [trial for trial, cost in zip(used, costs) if cost < GUESS[lower]], study.objective))


def effects(parameters: Sequence[Parameter], values: Sequence[Mapping[str, Any]], costs: np.ndarray, *,
            lower_is_better: bool = True) -> tuple[tuple[Effect, ...], float]:
    """The effect of each hyper-parameter, and `Lessons.visible`.

    Args:
        values: of each trial, by name; None for a hyper-parameter that a trial lacks.
        costs: (trials,), lower is better.
    """
    all_levels = [levels(one, [of_trial.get(one.name) for of_trial in values]) for one in parameters]
    blocks = [_terms(one) for one in all_levels]
    alone = np.ones((len(costs), 1))
    joint = np.concatenate([alone, *blocks], axis=1)
    together = (sum(block.shape[1] > 0 for block in blocks) > 1 and len(costs) >= ENOUGH * joint.shape[1]
                and np.linalg.matrix_rank(joint) == joint.shape[1])
    tests, adjusted, start = [], [], 1
    for one, block in zip(all_levels, blocks):
        own = slice(start, start := start + block.shape[1])
        has = slice(None) if together else one.index >= 0
        rest = np.delete(joint, np.r_[own], axis=1) if together else alone
        tests.append(_test(block[has], rest[has], costs[has]))
        if together:
            others = np.delete(np.linalg.lstsq(joint, costs, rcond=None)[0], np.r_[0, own])
            adjusted.append((costs - np.delete(joint, np.r_[0, own], axis=1) @ others, len(others)))
    known = [test for test in tests if not math.isnan(test.p)]
    corrected = iter(holm([test.p for test in known]))
    found = tuple(
        _effect(parameter.name, one, test.share, math.nan if math.isnan(test.p) else next(corrected), costs,
                adjusted[index] if together else None, lower_is_better)
        for index, (parameter, one, test) in enumerate(zip(parameters, all_levels, tests)))
    return found, max((test.visible(LEVEL / len(known)) for test in known), default=math.nan)


class _Test(NamedTuple):
    """The share of the variance that is explained, its p (NaN: unknown), and both degrees of freedom."""

    share: float
    p: float
    columns: int
    freedom: int

    def visible(self, level: float) -> float:
        """The share that is found at a level, by the F distribution."""
        from scipy import special

        ratio = self.columns * special.fdtri(self.columns, self.freedom, 1 - level)
        return float(ratio / (ratio + self.freedom))


def _test(block: np.ndarray, rest: np.ndarray, costs: np.ndarray) -> _Test:
    """The test of the columns `block` (trials, columns) beside `rest`, which has that of the mean."""
    from scipy import special

    count, freedom = block.shape[1], len(costs) - block.shape[1] - rest.shape[1]
    if not count:
        return _Test(math.nan, math.nan, count, freedom)
    others, _ = np.linalg.qr(rest)
    own, _ = np.linalg.qr(block - others @ (others.T @ block))
    left = costs - others @ (others.T @ costs)
    if np.abs(left).max(initial=0) <= ROUNDING * np.abs(costs).max(initial=0):
        return _Test(0.0, 1.0, count, freedom)
    explained = float(((left @ own) ** 2).sum())
    share = explained / float(((costs - costs.mean()) ** 2).sum())
    if freedom < 2:
        return _Test(share, math.nan, count, freedom)
    size = max(_size(own, left), ROUNDING)
    if math.isinf(size):  # every permutation explains as much
        return _Test(share, 1.0, count, freedom)
    p = special.betainc(size * freedom / 2, size * count / 2, max(1 - explained / float(left @ left), ROUNDING))
    return _Test(share, float(p), count, freedom)


def _size(own: np.ndarray, left: np.ndarray) -> float:
    """As how much each degree of freedom counts, so that the share of `left` (trials,) that orthonormal columns `own`
    (trials, columns) explain has the variance that it has over all permutations of `left`. Both have mean 0.

    The share is a sum of products of four values. A fourth moment of permuted values depends on which of the four are
    equal; for each such pattern the sum of its terms follows from `columns` and from the squares of the leverages.
    Infinite if the share is the same in all permutations.
    """
    trials, columns = own.shape
    fourth = float((left ** 4).sum()) / float(left @ left) ** 2
    squares = float(((own ** 2).sum(axis=1) ** 2).sum())
    both = columns * (columns + 2)
    square = (fourth * squares * (trials + 3) + (1 - fourth) * (both - 3 * squares)
              + (2 * fourth - 1) * (12 * squares - 2 * both) / (trials - 2)
              + (3 - 6 * fourth) * (both - 6 * squares) / ((trials - 2) * (trials - 3))) / (trials * (trials - 1))
    mean = columns / (trials - 1)
    variance = square - mean ** 2
    return 2 * (mean * (1 - mean) / variance - 1) / (trials - 1) if variance > ROUNDING * mean ** 2 else math.inf


def _effect(name: str, one: Levels, share: float, p: float, costs: np.ndarray,
            adjusted: tuple[np.ndarray, int] | None, lower_is_better: bool) -> Effect:
    """`adjusted`: the costs of all trials with the others held equal, and how many parameters that took."""
    from scipy import special

    held, spent = adjusted or (costs, 0)
    has, counts = one.index >= 0, one.counts
    index = one.index[has]
    plain, means = (np.bincount(index, of_all[has], len(counts)) / counts for of_all in (costs, held))
    freedom = len(index) - len(counts) - spent
    variance = float(((held[has] / means[index] - 1) ** 2).sum()) / freedom if freedom > 0 else math.nan  # relative
    reach = np.exp(special.stdtrit(max(freedom, 1), 1 - LEVEL / 2) * np.sqrt(variance / counts))
    low, high = means / reach, np.minimum(means * reach, GUESS[lower_is_better])
    best = means.min(initial=math.inf)
    worse = np.zeros(len(means), bool)
    if p < LEVEL and freedom > 0:
        gaps = 1 / counts + 1 / counts[np.argmin(means)]
        worse = np.log(means / best) > tukey_margin(len(means), freedom) * np.sqrt(variance * gaps)
    losses = means - best
    if not lower_is_better:
        plain, means, low, high = 1 - plain, 1 - means, 1 - high, 1 - low
    return Effect(name, one, share, p, plain, means if adjusted else None, low, high, losses, worse)


def label(value: Any) -> str:
    """A value as a person writes it: 1e-4, not 0.0001 or 1e-04."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    text = f"{value:.6g}"
    if 0 < abs(value) < 1e-2:
        exponent = re.sub(r"e([+-])0*", r"e\1", f"{value:.5e}")
        mantissa, _, power = exponent.partition("e")
        text = min(text, f"{mantissa.rstrip('0').rstrip('.')}e{power}", key=len)
    return text


def levels(parameter: Parameter, values: Sequence[Any]) -> Levels:
    """The levels of trials that have these `values`; None: the trial lacks the hyper-parameter."""
    has = np.array([value is not None for value in values], bool)
    index = np.full(len(values), -1)
    places = np.full(len(values), math.nan)
    given = [value for value in values if value is not None]
    if parameter.kind == "choice":
        numbers = not any(isinstance(value, (str, bool)) for value in given)
        tried = sorted(set(given)) if numbers else [value for value in parameter.values if value in given]
        tried += [value for value in dict.fromkeys(given) if value not in tried]  # a start beside the listed values
        index[has] = places[has] = [tried.index(value) for value in given]
        return Levels(tuple(map(label, tried)), index, places, "steps" if numbers else "")
    places[has] = given
    index[has] = np.unique(places[has], return_inverse=True)[1]
    if index.max(initial=-1) >= MOST_BINS or not all(isinstance(value, int) for value in given):
        bins = min(max(len(given) // IN_A_BIN, 2), MOST_BINS)
        cuts = np.sort(places[has])[np.arange(1, bins) * len(given) // bins]  # the first value of each bin but one
        index[has] = np.unique(np.searchsorted(cuts, places[has], side="right"), return_inverse=True)[1]
    labels = []
    for level in range(index.max(initial=-1) + 1):
        inside = [value for value, at in zip(values, index) if at == level]
        ends = [label(end if isinstance(end, int) else float(f"{end:.2g}")) for end in (min(inside), max(inside))]
        labels.append(" to ".join(dict.fromkeys(ends)))
    return Levels(tuple(labels), index, places, parameter.kind)


def _terms(one: Levels) -> np.ndarray:
    """(trials, columns): what the test of a hyper-parameter fits, orthonormal, without mean among the trials that have
    it, and 0 in the others."""
    has = one.index >= 0
    columns = np.eye(len(one.labels))[one.index[has]]
    if one.scale and has.any():
        line = one.places[has]
        line = np.log(line) if one.scale == "log" else line
        line = (line - line.mean()) / (line.std() or 1.0)
        columns = np.stack([line, line ** 2], axis=1)
    found, sizes, _ = np.linalg.svd(columns - columns.sum(axis=0) / max(has.sum(), 1), full_matrices=False)
    found = found[:, sizes > 1e-6]
    terms = np.zeros((len(has), found.shape[1]))
    terms[has] = found
    return terms


def ties(rivals: Sequence[Trial], taught: Sequence[Trial], objective: Objective) -> Ties | None:
    """The trials that equal the best of `rivals`, which are ranked; None if there is one, or the noise is not known.

    Args:
        rivals: the trials that are compared, best first.
        taught: those that have learned something. The noise is that of the better half of them and of the rivals that
            continue others, at least FEWEST: bad trials are noisier, and not what is compared.
    """
    judges = [*taught, *(trial for trial in rivals if trial.parent is not None)]
    if not judges or len(rivals) < 2:
        return None
    finals = [[outcome["final"] for outcome in trial.executions] for trial in judges]
    scores = np.array([[final[objective.metric] for final in of_trial] for of_trial in finals], float)
    source = SEEDS if scores.shape[1] > 1 else HALVES
    if source == HALVES:
        chose = [of_trial[0].get(objective.metric.replace("ranking", "val")) for of_trial in finals]
        if None in chose or len(judges) < 4:
            return None
        scores = np.stack([np.array(chose, float), scores[:, 0]], axis=1)
    costs = scores.mean(axis=1) if objective.lower_is_better else -scores.mean(axis=1)
    better = np.argsort(costs, kind="stable")[:max(FEWEST, (len(costs) + 1) // 2)]
    same_seeds = len({judges[index].seed for index in better}) == 1
    variance, freedom = _noise_of_halves(scores[better]) if source == HALVES else _noise_of_seeds(
        scores[better], same_seeds)
    if not freedom or variance <= (ROUNDING * np.abs(scores).max()) ** 2:
        return None
    margin = tukey_margin(len(rivals), freedom) * math.sqrt(2 * variance)
    group = tuple(trial for trial in rivals if abs(trial.score - rivals[0].score) <= margin)
    return Ties(group, tuple(rivals), margin, source)


def _noise_of_seeds(scores: np.ndarray, same_seeds: bool) -> tuple[float, int]:
    """The variance of a trial's mean score by noise, and its degrees of freedom, from (trials, executions) scores: what
    they leave beyond the mean of their trial and, if all trials have the same seeds, that of their seed."""
    trials, seeds = scores.shape
    left = scores - scores.mean(axis=1, keepdims=True)
    freedom = trials * (seeds - 1)
    if same_seeds:
        left = left - left.mean(axis=0)
        freedom = (trials - 1) * (seeds - 1)
    return (float((left ** 2).sum()) / freedom / seeds if freedom else math.nan), freedom


def _noise_of_halves(scores: np.ndarray) -> tuple[float, int]:
    """The same from (trials, 2) scores on the half of the validation images that chose the epoch and on the other: of
    their difference, regressed on their mean, because a shift may grow with the loss (Bland and Altman 1999)."""
    differences, means = scores[:, 1] - scores[:, 0], scores.mean(axis=1)
    differences, means = differences - differences.mean(), means - means.mean()
    spread = float(means @ means)
    if spread:
        differences = differences - means * float(means @ differences) / spread
    freedom = len(scores) - 2
    return float(differences @ differences) / freedom / 2, freedom
