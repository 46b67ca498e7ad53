"""Which trials cannot be told from the best. NumPy and SciPy's functions.

The noise of a trial's score comes from one of two sources:

- `seeds`, if trials have two executions or more. Trials have the same seeds, so what a seed does to all of them alike
  is no noise: with scores s of trial t and seed i, the noise is what s leaves beyond the mean of its trial and that of
  its seed (a two-way analysis of variance, without replication), with (trials - 1) (seeds - 1) degrees of freedom.
  Where trials have other seeds (values that were proposed again), it is the spread within trials.
- `halves` otherwise: each trial's loss on the half of the validation images that chose its epoch, and on the half that
  ranks it. Their differences have a common shift, which may grow with the loss. So the differences are regressed on the
  trials' averages (Bland and Altman 1999); what remains has the noise of both halves, twice the variance of one, with
  trials - 2 degrees of freedom. It is the noise of 3,000 images; the seed is not in it.

Both are taken from the better half of the trials, at least 8: bad trials are noisier, and not what is compared.

The group of the best are the trials within Tukey's honestly significant difference of it, for the number of trials
(`fmnist_zoo.statistics.tukey_margin`). It allows for the luck of the one that came first: in 95 of 100 sweeps no trial
is called worse that is not.
"""

from __future__ import annotations

import dataclasses
from typing import Sequence

import numpy as np

from fmnist_zoo.statistics import tukey_margin
from trainers.tuning.study import Objective, Trial

SEEDS, HALVES = "seeds", "halves"
FEWEST = 8  # trials from which noise is estimated, if there are as many


@dataclasses.dataclass(frozen=True)
class Noise:
    """The variance of a trial's score by noise alone, its degrees of freedom, and its source."""

    variance: float
    freedom: int
    source: str


@dataclasses.dataclass(frozen=True)
class Ties:
    """The trials that cannot be told from the best, which is the first of them, out of `among`; the others are worse by
    more than `margin`, in units of the objective."""

    trials: tuple[Trial, ...]
    among: tuple[Trial, ...]
    margin: float
    noise: Noise


def by_seed(trials: Sequence[Trial], objective: Objective) -> np.ndarray:
    """(trials, executions): the scores of the runs of completed trials."""
    return np.array([[outcome["final"][objective.metric] for outcome in (trial.result or {})["executions"]]
                     for trial in trials], float)


def same_seeds(trials: Sequence[Trial]) -> bool:
    return len({trial.seed for trial in trials}) == 1


def noise(trials: Sequence[Trial], objective: Objective) -> Noise | None:
    """The noise of the scores of completed trials; None if there are too few."""
    scores = by_seed(trials, objective)
    sign = 1 if objective.lower_is_better else -1
    if scores.shape[1] > 1:
        better = _better_half(sign * scores.mean(axis=1))
        return _of_seeds(scores[better], same_seeds([trials[index] for index in better]))
    finals = [(trial.result or {})["executions"][0]["final"] for trial in trials]
    chose = [final.get(objective.metric.replace("ranking", "val")) for final in finals]
    if len(trials) < 4 or None in chose:
        return None
    pairs = np.stack([np.array(chose, float), scores[:, 0]], axis=1)
    better = _better_half(sign * pairs.mean(axis=1))  # by the average, of which the difference is independent
    return _of_halves(*pairs[better].T)


def _better_half(costs: np.ndarray) -> np.ndarray:
    return np.sort(np.argsort(costs, kind="stable")[:max(FEWEST, (len(costs) + 1) // 2)])


def _of_seeds(scores: np.ndarray, same: bool) -> Noise | None:
    """From (trials, executions) scores; `same`: all trials have the same seeds."""
    trials, seeds = scores.shape
    left = scores - scores.mean(axis=1, keepdims=True)
    freedom = trials * (seeds - 1)
    if same:
        left = left - left.mean(axis=0)
        freedom = (trials - 1) * (seeds - 1)
    return Noise(float((left ** 2).sum()) / freedom / seeds, freedom, SEEDS) if freedom else None


def _of_halves(chose: np.ndarray, ranked: np.ndarray) -> Noise:
    """From the losses, or accuracies, (trials,) on the two halves."""
    differences, averages = ranked - chose, (ranked + chose) / 2
    differences, averages = differences - differences.mean(), averages - averages.mean()
    spread = float(averages @ averages)
    if spread:
        differences = differences - averages * float(averages @ differences) / spread
    freedom = len(chose) - 2
    return Noise(float(differences @ differences) / freedom / 2, freedom, HALVES)


def ties(trials: Sequence[Trial], found: Noise, *, lower_is_better: bool) -> Ties:
    """The group of the best of at least two `trials`, best first."""
    margin = tukey_margin(len(trials), found.freedom) * float(np.sqrt(2 * found.variance))
    ranked = sorted(trials, key=lambda trial: trial.score, reverse=not lower_is_better)
    group = tuple(trial for trial in ranked if abs(trial.score - ranked[0].score) <= margin)
    return Ties(group, tuple(trials), margin, found)
