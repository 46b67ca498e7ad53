"""Asynchronous successive halving (ASHA): many combinations train for few epochs, and the best of them for more.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2, with factor eta: a rung holds the
trials of one number of epochs. A trial of a rung is promoted, that is trained up to the next rung's epochs, as soon as
it is among the best 1/eta of those that have ended there. If none can be promoted, a new combination is drawn.

Two things go beyond the algorithm. A failed trial counts in its rung, as the worst. And when nothing is left to do, but
no trial has reached the last rung (fewer than eta^k combinations promote none to rung k), the best of the highest rung
is promoted.

A proposal is a function of the seed and the trials that the tuner was told of. No TensorFlow, and no keras-tuner, but
for a function that asks for its hyper-parameters.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import random
from typing import Any, Mapping, Sequence

from trainers.tuning.oracle import DONE, WAIT, Oracle, Proposal
from trainers.tuning.space import Parameter, Space, Value
from trainers.tuning.study import RUNNING, Trial

FACTOR = 3


def rungs(epochs: int, factor: int) -> list[int]:
    """The epochs of each rung, up to `epochs`; each is `factor` times the one before, rounded up."""
    count = 0
    while factor ** (count + 1) <= epochs:
        count += 1
    return [-(-epochs // factor ** left) for left in range(count, -1, -1)]


def planned(combinations: int, epochs: int, factor: int) -> int:
    """About how many trials there are in all rungs together."""
    return sum(max(1, combinations // factor ** level) for level in range(len(rungs(epochs, factor))))


@dataclasses.dataclass
class Rung:
    """The trials of one number of epochs.

    Attributes:
        ranking: completed trials as (loss, number), best first; equal ones in the order of proposal.
        begun, ended: how many trials there are, and how many have ended, failed ones too.
    """

    epochs: int
    ranking: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    begun: int = 0
    ended: int = 0


class Asha:
    """Proposes trials of a space, as `Oracle`.

    Args:
        combinations: how many are drawn at most.
        start: combinations that are tried first.
    """

    def __init__(self, space: Space, *, lower_is_better: bool, seed: int, epochs: int, factor: int, combinations: int,
                 start: Sequence[Mapping[str, Value]] = ()):
        self._space, self._seed, self._start = space, seed, start
        # what a function asks for is drawn by keras-tuner
        self._oracle = Oracle("random", space, lower_is_better=lower_is_better, seed=seed) if space.configs else None
        self._sign, self._factor, self._combinations = 1 if lower_is_better else -1, factor, combinations
        self._rungs = [Rung(end) for end in rungs(epochs, factor)]
        self._trials: dict[int, Trial] = {}
        self._drawn: set[tuple[Any, ...]] = set()
        self._promoted: set[str] = set()
        self._running: set[int] = set()

    def tell(self, trial: Trial) -> None:
        """Takes note of a trial, when it is proposed and again when it has ended."""
        number, rung = trial.number, next(rung for rung in self._rungs if rung.epochs == trial.epochs)
        if number not in self._trials:
            self._trials[number] = trial
            self._running.add(number)
            rung.begun += 1
            if trial.parent:
                self._promoted.add(trial.parent)
            else:
                self._drawn.add(tuple(trial.values.values()))
                if self._oracle:
                    self._oracle.tell(trial)
        if trial.status != RUNNING:
            self._running.remove(number)
            rung.ended += 1
            if trial.score is not None:
                bisect.insort(rung.ranking, (self._sign * trial.score, number))

    def propose(self, number: int) -> Proposal | str:
        """What the trial of this number tries; WAIT if that depends on another trial's end, DONE if nothing is left."""
        steps = list(zip(self._rungs, self._rungs[1:]))[::-1]
        for rung, following in steps:
            for _, best in rung.ranking[:rung.ended // self._factor]:
                if self._trials[best].name not in self._promoted:
                    return self._promotion(best, following)
        if self._rungs[0].begun < self._combinations:
            values = self._draw()
            if values:
                return Proposal(values, self._rungs[0].epochs)
        if self._running:
            return WAIT
        for rung, following in steps:
            if rung.ranking and not following.begun:
                return self._promotion(rung.ranking[0][1], following)
        return DONE

    def _promotion(self, number: int, following: Rung) -> Proposal:
        trial = self._trials[number]
        return Proposal(trial.values, following.epochs, trial.name)

    def _draw(self) -> dict[str, Value] | None:
        """A combination that no trial has drawn, given ones first; None if there is none.

        It depends on how many were drawn, not on the trial's number, which depends on how fast others end.
        """
        if self._rungs[0].begun < len(self._start):
            return dict(self._start[self._rungs[0].begun])
        if self._oracle:
            proposal = self._oracle.propose(self._rungs[0].begun)
            return proposal.values if isinstance(proposal, Proposal) else None
        dice = random.Random(f"{self._seed} {len(self._drawn)}")
        while self._space.size is None or len(self._drawn) < self._space.size:
            values = {parameter.name: _within(parameter, dice.random()) for parameter in self._space.parameters}
            if tuple(values.values()) not in self._drawn:
                return values
        return None


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
