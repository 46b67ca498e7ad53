"""Which files of trials that have ended a sweep keeps; the others are removed.

A trial keeps its record, curves and events. Weights are kept of the best trials. A checkpoint is kept as long as a
trial of successive halving may continue it: in each rung that of the better half (a third is promoted), until the trial
that continues it has ended. What was removed can be trained again with the same bits.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import pathlib
import shutil

from trainers.running.folder import RunFolder
from trainers.tuning.execution import COMPLETED
from trainers.tuning.study import Study, Trial

BEST = 10  # trials whose weights are kept
HALF_FROM = 6  # trials of a rung, until whose number all checkpoints are kept


class Keeper:
    """Removes files of a sweep; the manifest's `keeps` says of how many trials the weights stay."""

    def __init__(self, study: Study):
        self._study, self._best = study, int(study.manifest["keeps"])
        self._rungs: dict[tuple[int, int], list[tuple[float, int]]] = collections.defaultdict(list)  # the best first
        self._continued: dict[str, bool] = {}  # parents: whether the trial that continues it has ended

    def begin(self) -> None:
        """Removes what an earlier start, killed, has left. Call it after `queued` was called for each open trial."""
        for trial in self._study.ended:
            self._note(trial)
        for trial in self._study.ended:
            self._clean(trial)

    def queued(self, trial: Trial) -> None:
        """A trial will run: it may need the checkpoint of its parent."""
        if trial.parent:
            self._continued[trial.parent] = False

    def ended(self, trial: Trial) -> None:
        """A trial has ended, and none of its executions runs any more."""
        self._note(trial)
        self._clean(trial)
        if trial.parent:
            self._clean(self._study.trials[trial.parent])
        if self._is_best(trial) and len(self._study.ranked) > self._best:
            self._clean(self._study.ranked[self._best])
        rung = self._rungs.get(self._rung(trial), [])
        if len(rung) > self._half(rung):
            self._clean(self._study.trials[f"{rung[self._half(rung)][1]:04}"])

    def finish(self) -> None:
        """The sweep is finished: no trial will be continued."""
        rungs, self._rungs = self._rungs, collections.defaultdict(list)
        for rung in rungs.values():
            for _, number in rung:
                self._clean(self._study.trials[f"{number:04}"])

    def _note(self, trial: Trial) -> None:
        if trial.parent:
            self._continued[trial.parent] = True
        if trial.status == COMPLETED and trial.epochs and trial.epochs < self._study.base.recipe.epochs:
            bisect.insort(self._rungs[self._rung(trial)], self._rank(trial))

    def _rung(self, trial: Trial) -> tuple[int, int]:
        """Its epochs, and how many trials it continues: rungs of several brackets may have equal epochs."""
        continued, one = 0, trial
        while one.parent:
            continued, one = continued + 1, self._study.trials[one.parent]
        return trial.epochs or 0, continued

    def _rank(self, trial: Trial) -> tuple[float, int]:
        return (trial.score if self._study.objective.lower_is_better else -trial.score, trial.number)

    @staticmethod
    def _half(rung: list[tuple[float, int]]) -> int:
        return max(HALF_FROM, (len(rung) + 1) // 2)

    def _is_best(self, trial: Trial) -> bool:
        return any(trial is one for one in self._study.ranked[:self._best])

    def _needs_checkpoint(self, trial: Trial) -> bool:
        if trial.name in self._continued:
            return not self._continued[trial.name]
        rung = self._rungs.get(self._rung(trial), [])
        half = min(len(rung), self._half(rung))
        return half > 0 and trial.status == COMPLETED and self._rank(trial) <= rung[half - 1]

    def _clean(self, trial: Trial) -> None:
        """Removes the files of an ended trial that are needed for nothing."""
        best = self._is_best(trial)
        checkpoint = self._needs_checkpoint(trial)
        for execution in range(self._study.executions):
            folder = RunFolder(self._study.folder(trial, execution))
            with contextlib.suppress(OSError):  # what cannot be removed harms nothing
                if not best:
                    folder.model.unlink(missing_ok=True)
                    _remove(folder.weights)
                if not checkpoint:
                    _remove(folder.checkpoint.parent)


def _remove(folder: pathlib.Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
