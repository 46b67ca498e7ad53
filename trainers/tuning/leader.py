"""Leads a sweep: asks the oracle, gives jobs to the pool, writes down what comes back. It never trains."""

from __future__ import annotations

import collections
import time
import uuid
from typing import Any, Callable

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write
from trainers.running import estimate, folder as folders, progress
from trainers.tuning import trial as trials
from trainers.tuning.oracle import Oracle
from trainers.tuning.pool import DIED, ChildPool, DaskPool
from trainers.tuning.study import COMPLETED, Study, Trial

DEATHS = 3  # of a worker in the same epoch of the same trial, after which the trial has failed


class SweepError(ZooError, RuntimeError):
    """A sweep that cannot go on; what was done is kept, and the same command goes on."""


class Leader:
    """One start of a sweep, from what stands in its folder to its end.

    Args:
        max_trials: how many trials the sweep has at most.
        max_failures: failed trials of this start after which it ends.
        reporter: what a person sees of it.
    """

    def __init__(self, study: Study, pool: ChildPool | DaskPool, oracle: Oracle, *, max_trials: int,
                 max_failures: int, reporter: progress.Reporter):
        self.study, self.pool, self.oracle, self.reporter = study, pool, oracle, reporter
        self.max_trials, self.max_failures, self.failures = max_trials, max_failures, 0
        self._jobs: collections.deque[tuple[Trial, int]] = collections.deque()
        self._running: dict[str, tuple[Trial, int]] = {}
        self._outcomes: dict[str, dict[int, dict[str, Any]]] = collections.defaultdict(dict)
        self._deaths: dict[str, tuple[int, int]] = {}
        self._exhausted = self._stopping = False
        self._leader = uuid.uuid4().hex
        self._started, self._ended_at_start = time.monotonic(), len(study.ended)

    def run(self, should_stop: Callable[[], bool]) -> bool:
        """Brings the sweep to its end; False if it was told to stop.

        Raises:
            SweepError: after `max_failures`, or if no trial can run.
        """
        with atomic_write(self.study.path / trials.LEADER, "w") as file:
            file.write(self._leader)
        self._replay()
        for trial in self.study.trials.values():
            if trial.result is None:
                self._queue(trial)
        while not should_stop():
            self._fill()
            if self._running:
                self._collect(1.0)
                self._show()
            elif self.pool.slots:
                return True
            else:
                time.sleep(1.0)  # workers come and go
        self._stopping = True
        (self.study.path / trials.LEADER).unlink(missing_ok=True)  # workers look at it after each epoch
        while self._running:
            self._collect(1.0)
        return False

    def _replay(self) -> None:
        """Tells the oracle all that happened, in the order in which it did."""
        study = self.study
        ended, told, proposed = {trial.order: trial for trial in study.ended}, 0, set()
        last = max(map(int, study.trials), default=-1)
        if study.trials:
            self.reporter.note(f"telling the oracle of {len(study.trials)} trials")
        for name in (f"{number:04}" for number in range(last + 1)):
            trial = study.trials.get(name)
            while not self.oracle.blind and trial and told < trial.ended_before:
                if told not in ended or ended[told].name not in proposed:
                    raise self._lost("the result of a trial")
                self._tell(ended[told])
                told += 1
            proposal = self.oracle.propose()
            proposed.add(name)
            if not trial and self.oracle.blind and not isinstance(proposal, str):
                study.add(proposal)  # its folder is gone; it runs again
            elif not trial:
                raise self._lost(f"the folder of trial {name}")
            elif isinstance(proposal, str) or (proposal.trial, proposal.values) != (name, trial.values):
                raise SweepError(f"{study.path / name}: the oracle would not propose this trial now; its "
                                 "proposal.json was changed, or made otherwise. Start anew with --overwrite")
        for order in sorted(ended):
            if order >= told:
                self._tell(ended[order])

    def _lost(self, what: str) -> SweepError:
        return SweepError(f"{self.study.path}: {what} is gone, and with it what the oracle learned; put it back, or "
                          "start anew with --overwrite")

    def _tell(self, trial: Trial) -> None:
        assert trial.result is not None
        self.oracle.report(trial.name, trial.result["objective"])

    def _queue(self, trial: Trial) -> None:
        self._jobs.extend((trial, execution) for execution in range(self.study.executions))

    def _fill(self) -> None:
        """Gives each free worker a job, of the trials that are there or of a new one."""
        while len(self._running) < self.pool.slots:
            if not self._jobs and not self._propose():
                return
            trial, execution = self._jobs.popleft()
            if trial.result is None:
                self._submit(trial, execution)

    def _propose(self) -> bool:
        full = len(self.study.trials) >= self.max_trials
        proposal = "done" if full or self._exhausted else self.oracle.propose()
        if isinstance(proposal, str):
            if proposal == "done" and not (full or self._exhausted):
                self._exhausted = True
                self.reporter.note(f"the oracle has no more to propose after {len(self.study.trials)} trials")
            return False
        self._queue(self.study.add(proposal))
        return True

    def _submit(self, trial: Trial, execution: int) -> None:
        study, name = self.study, f"{trial.name}/{execution}"
        parent = study.folder(study.trials[trial.parent], execution) if trial.parent else None
        self._running[name] = (trial, execution)
        self.pool.submit(name, {
            "config": study.config(trial, execution).to_dict(), "expected": study.manifest["data"],
            "folder": str(study.folder(trial, execution).absolute()), "parent": parent and str(parent.absolute()),
            "sweep": str(study.path.absolute()), "leader": self._leader})

    def _collect(self, timeout: float) -> None:
        for name, outcome in self.pool.wait(timeout):
            trial, execution = self._running.pop(name)
            if outcome["status"] == DIED and outcome["begun"]:
                self._died(name, trial, execution)
            elif outcome["status"] == DIED:
                self._jobs.appendleft((trial, execution))
            elif outcome["status"] == "STOPPED":
                if not self._stopping:
                    raise SweepError(f"{self.study.path}: another sweep took this folder over")
            elif outcome["status"] == COMPLETED:
                self._outcomes[trial.name][execution] = outcome
                if len(self._outcomes[trial.name]) == self.study.executions:
                    done = self._outcomes.pop(trial.name)
                    self.study.complete(trial, [done[one] for one in sorted(done)])
                    self._ended(trial)
            elif trial.result is None:
                self.study.fail(trial, outcome["reason"])
                self._ended(trial)

    def _died(self, name: str, trial: Trial, execution: int) -> None:
        """The worker is gone; its trial goes on from its checkpoint, unless it keeps dying where it is."""
        epoch = len(folders.RunFolder(self.study.folder(trial, execution)).rows())
        deaths = self._deaths[name][1] + 1 if self._deaths.get(name, (-1,))[0] == epoch else 1
        self._deaths[name] = (epoch, deaths)
        if deaths < DEATHS:
            self._jobs.appendleft((trial, execution))
        else:
            self.study.fail(trial, f"its worker died {deaths} times in epoch {epoch + 1}: killed, or out of memory")
            self._ended(trial)

    def _ended(self, trial: Trial) -> None:
        self._tell(trial)
        self.reporter.note(self._line(trial))
        if trial.status != COMPLETED:
            self.failures += 1
            if self.failures >= self.max_failures:
                raise SweepError(f"{self.failures} trials failed in this start, the last one {trial.name}: "
                                 f"{trial.result['reason']}. Failed trials are not run again; "  # type: ignore[index]
                                 "the same command goes on with the others")

    def _show(self) -> None:
        self.reporter.trials(len(self.study.ended), self.max_trials, lambda: {
            trial.name: (self.study.epochs_so_far(trial), self.study.config(trial, 0).recipe.epochs)
            for trial, _ in self._running.values()})

    def _line(self, trial: Trial) -> str:
        study, result = self.study, trial.result or {}
        done, total = len(study.ended), self.max_trials
        told = f"[{done}/{total}] {trial.name}  {trial.text}: "
        if trial.status != COMPLETED:
            return f"{told}FAILED: {result['reason']}"
        best = study.ranked[0]
        best_objective = (best.result or {})["objective"]
        better = "the best so far" if best is trial else f"best {best_objective:.4f} of {best.name}"
        spent = (time.monotonic() - self._started) / (done - self._ended_at_start)
        left = f"  about {estimate.clock(spent * (total - done))} left" if done < total else ""
        return (f"{told}{study.manifest['objective']} {result['objective']:.4f}, {better}  "
                f"{result['seconds']:.0f} s{left}")
