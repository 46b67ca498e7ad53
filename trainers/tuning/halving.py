"""Asynchronous successive halving (ASHA): many combinations train for few epochs, and the best of them for more.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2, with factor eta: a rung holds the
trials of one number of epochs. A trial of a rung is promoted, that is trained up to the next rung's epochs, as soon as
it is among the best 1/eta of those that have ended there. If none can be promoted, a new combination is drawn.

Two things go beyond the algorithm. A failed trial counts in its rung, as the worst. And when nothing is left to do, but
no trial has reached the last rung (fewer than eta^k combinations promote none to rung k), the best of the highest rung
is promoted.

A request without a proposal changes nothing. What is drawn depends on the seed alone, what is promoted on the results
so far. No TensorFlow, no keras-tuner.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import random
from typing import Any, Iterable, Mapping, Sequence

from trainers.tuning.oracle import Proposal
from trainers.tuning.space import Parameter, Space, Value
from trainers.tuning.study import Trial

FACTOR = 3


def rungs(epochs: int, factor: int) -> list[int]:
    """The epochs of each rung, up to `epochs`; each is `factor` times the one before, rounded up."""
    count = 0
    while factor ** (count + 1) <= epochs:
        count += 1
    return [-(-epochs // factor ** left) for left in range(count, -1, -1)]


def planned(combinations: int, epochs: int, factor: int) -> list[tuple[int, int]]:
    """About how many trials there are in each rung, and the epochs that each of them adds: (trials, epochs)."""
    ends = rungs(epochs, factor)
    return [(max(1, combinations // factor ** level), end - before)
            for level, (end, before) in enumerate(zip(ends, [0, *ends]))]


@dataclasses.dataclass
class Rung:
    """The trials of one number of epochs.

    Attributes:
        ranking: completed trials as (loss, number), best first; equal ones in the order of proposal.
        waiting: those of them that were not promoted.
        begun, ended: how many trials there are, and how many have ended, failed ones too.
    """

    epochs: int
    ranking: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    waiting: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    begun: int = 0
    ended: int = 0

    def promotable(self, factor: int) -> int | None:
        """The number of the best trial among the first 1/factor that was not promoted; None if there is none."""
        if not self.waiting or bisect.bisect_left(self.ranking, self.waiting[0]) >= self.ended // factor:
            return None
        return self.waiting[0][1]


class Asha:
    """Proposes trials and learns from their results, as `Oracle`.

    Args:
        combinations: how many are drawn at most.
        start: combinations that are tried first.
    """

    blind = False

    def __init__(self, space: Space, *, lower_is_better: bool, seed: int, epochs: int, factor: int, combinations: int,
                 start: Sequence[Mapping[str, Value]] = ()):
        self._sign, self._factor, self._combinations = 1 if lower_is_better else -1, factor, combinations
        self._sampler = Sampler(space, seed, start)
        self._rungs = [Rung(end) for end in rungs(epochs, factor)]
        self._trials: list[tuple[Proposal, int]] = []  # with the level of its rung
        self._scores: dict[int, tuple[float, int]] = {}  # of trials that may be promoted, as in `ranking`
        self._promoted: set[int] = set()
        self._running = 0

    def propose(self) -> Proposal | str:
        """The next proposal, "wait" (until another trial ends), or "done"."""
        for level in range(len(self._rungs) - 2, -1, -1):
            number = self._rungs[level].promotable(self._factor)
            if number is not None:
                return self._promote(number)
        if self._rungs[0].begun < self._combinations:
            drawn = self._draw()
            if drawn:
                return drawn
        if self._running:
            return "wait"
        for level in range(len(self._rungs) - 2, -1, -1):
            if self._rungs[level].waiting and not self._rungs[level + 1].begun:
                return self._promote(self._rungs[level].waiting[0][1])
        return "done"

    def repeat(self, recorded: Proposal) -> Proposal | str:
        """Repeats a recorded proposal, in the order of their numbers; returns what it proposes in its place.

        A promotion was right when it was recorded; with more combinations now, others might come first.
        """
        if not recorded.parent:
            return self._draw() or "done"
        number = int(recorded.parent)
        return self._promote(number) if number < len(self._trials) and number not in self._promoted else "nothing"

    def report(self, trial: str, objective: float | None) -> None:
        """Records the result of a trial; None if it failed."""
        number = int(trial)
        rung = self._rungs[self._trials[number][1]]
        self._running -= 1
        rung.ended += 1
        if objective is not None:
            self._scores[number] = score = (self._sign * objective, number)
            bisect.insort(rung.ranking, score)
            if number not in self._promoted:
                bisect.insort(rung.waiting, score)

    def _promote(self, number: int) -> Proposal:
        parent, level = self._trials[number]
        self._promoted.add(number)
        waiting = self._rungs[level].waiting
        if number in self._scores:
            del waiting[bisect.bisect_left(waiting, self._scores[number])]
        return self._begin(parent.values, level + 1, parent.trial)

    def _draw(self) -> Proposal | None:
        values = self._sampler.draw()
        return self._begin(values, 0, None) if values else None

    def _begin(self, values: dict[str, Any], level: int, parent: str | None) -> Proposal:
        rung = self._rungs[level]
        rung.begun += 1
        self._running += 1
        proposal = Proposal(f"{len(self._trials):04}", values, rung.epochs, parent)
        self._trials.append((proposal, level))
        return proposal


def is_finished(asha: Asha, trials: Sequence[Trial]) -> bool:
    """Whether a sweep with these trials, in the order of their numbers, has nothing left to do; uses `asha` up."""
    if any(trial.result is None for trial in trials):
        return False
    for trial in trials:
        if asha.repeat(trial.proposal) != trial.proposal:
            return False
    for trial in trials:
        asha.report(trial.name, trial.score)
    return asha.propose() == "done"


class Sampler:
    """Draws combinations of a space, after given ones; of listed values each combination once (without replacement)."""

    def __init__(self, space: Space, seed: int, start: Iterable[Mapping[str, Value]]):
        self._space, self._random = space, random.Random(seed)
        self._first = [dict(values) for values in reversed(list(start))]
        self._start = list(self._first)
        self._drawn = 0
        self._moved: dict[int, int] = {}  # of a shuffle of all combinations: which is at a place, where it is another

    def draw(self) -> dict[str, Any] | None:
        """A value for each hyper-parameter; None if all combinations were drawn."""
        if self._first:
            return self._first.pop()
        while self._space.size is None or self._drawn < self._space.size:
            values = self._any() if self._space.size is None else self._next(self._space.size)
            if values not in self._start:
                return values
        return None

    def _any(self) -> dict[str, Any]:
        return {parameter.name: _within(parameter, self._random.random()) for parameter in self._space.parameters}

    def _next(self, size: int) -> dict[str, Any]:
        """The next combination of a shuffle, by Fisher and Yates, of which only the moved places are kept."""
        place = self._drawn + int(self._random.random() * (size - self._drawn))
        index = here = self._moved.pop(self._drawn, self._drawn)
        if place > self._drawn:
            index, self._moved[place] = self._moved.get(place, place), here
        self._drawn += 1
        values = {}
        for parameter in reversed(self._space.parameters):
            index, which = divmod(index, parameter.count or 1)
            values[parameter.name] = parameter.values[which] if parameter.kind == "choice" else \
                int(parameter.values[0]) + which
        return {name: values[name] for name in self._space.names}


def _within(parameter: Parameter, share: float) -> Value:
    """The value at a share, in [0, 1), of all values of a hyper-parameter."""
    if parameter.kind == "choice":
        return parameter.values[int(share * len(parameter.values))]
    low, high = (float(end) for end in parameter.values)
    whole = isinstance(parameter.values[0], int)
    if parameter.kind == "log":
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        return round(value) if whole else min(max(value, low), high)
    return min(int(low + share * (high - low + 1)), int(high)) if whole else low + share * (high - low)
