"""Leads a sweep: gets proposals from the oracle, gives jobs to the pool, records their outcomes. It never trains."""

from __future__ import annotations

import collections
import contextlib
import os
import time
import uuid
from typing import Any, Callable, Mapping

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write
from trainers.running import progress, provenance
from trainers.running.folder import RunFolder
from trainers.tuning.execution import COMPLETED, DIED, LEADER, STOPPED, Job
from trainers.tuning.halving import Asha
from trainers.tuning.kept import Keeper
from trainers.tuning.oracle import Oracle, Proposal
from trainers.tuning.study import Study, Trial
from trainers.tuning.workers import Pool

AT_ONCE = 8  # jobs that go out together
TABLES = 1.0  # seconds between two writings of the tables; the last one is at the end of a sweep
PROPOSE = 0.02  # seconds in which trials are proposed whose jobs go out together
DEATHS = 3  # of workers in the same epoch of the same trial, after which the trial has failed


class SweepError(ZooError, RuntimeError):
    """A sweep that cannot continue. What was done is kept, and the same command continues once the cause is removed."""


class Leader:
    """One start of a sweep, from what its folder holds to its end, or to `max_failures` failed trials.

    Args:
        max_trials: trials that are proposed at most; None: the oracle has its own limit.
        planned: about how many trials the sweep will have.
        environment: the versions, the commit and the modules of the user's of this start.
    """

    def __init__(self, study: Study, pool: Pool, oracle: Oracle | Asha, *, max_trials: int | None, planned: int,
                 max_failures: int, reporter: progress.Reporter, environment: Mapping[str, Any]):
        self.study, self.pool, self.oracle, self.reporter = study, pool, oracle, reporter
        self.max_trials, self.planned, self.max_failures, self.failures = max_trials, planned, max_failures, 0
        self.environment, self._keeper = environment, Keeper(study)
        self._jobs: collections.deque[tuple[Trial, int]] = collections.deque()
        self._running: dict[str, tuple[Trial, int]] = {}
        self._outcomes: dict[str, dict[int, dict[str, Any]]] = collections.defaultdict(dict)
        self._deaths: dict[str, tuple[int, int]] = {}  # of an execution: (epoch, how many workers died in it)
        self._exhausted = self._stopping = False
        self._leader = uuid.uuid4().hex
        self._started, self._ended_at_start = time.monotonic(), len(study.ended)
        self._shown = self._tables_due = 0.0  # times of the monotonic clock

    def run(self, should_stop: Callable[[], bool]) -> bool:
        """Runs the sweep to its end; False if it was stopped before.

        Raises:
            SweepError: after `max_failures` failed trials, or if the oracle's state cannot be restored.
        """
        with contextlib.closing(self.study.journal):
            return self._run(should_stop)

    def _run(self, should_stop: Callable[[], bool]) -> bool:
        with atomic_write(self.study.path / LEADER, "w") as file:
            file.write(self._leader)
        self._note_versions()
        self._replay()
        self.study.add_start({**self.environment, "trials": self.max_trials})
        for trial in self.study.trials.values():
            if trial.result is None:
                self._queue(trial)
        self._keeper.begin()
        while not should_stop():
            while jobs := self._next_jobs():
                self.study.journal.commit()  # before anything follows from it
                for trial, execution in jobs:
                    self._submit(trial, execution)
            self.study.journal.commit()
            if self._running:
                self._collect(1.0)
                self._show()
            elif self._jobs or self._propose():
                time.sleep(1.0)  # no worker at the moment: all are restarting, or none has joined the scheduler yet
            else:
                self._keeper.finish()
                if self._exhausted and self.max_trials:
                    self.study.add_start({**self.study.starts.pop(), "trials": len(self.study.trials)})
                return True
        self._stopping = True
        (self.study.path / LEADER).unlink(missing_ok=True)  # workers look for it after each epoch
        while self._running and self.pool.slots:
            self._collect(1.0)
        return False

    def _note_versions(self) -> None:
        modules = provenance.changed_modules({"modules": self.study.modules}, dict(self.environment))
        if modules and self.study.trials:
            self.reporter.note(f"the source of {modules} has changed since the last start: trials from now on may "
                               "differ from the earlier ones, and are ranked with them")
        then, now = self.study.versions, self.environment["versions"]
        changed = [f"{name} {then[name]} -> {now[name]}" for name in now if then.get(name, now[name]) != now[name]]
        if changed and self.study.trials:
            self.reporter.note(f"versions {', '.join(changed)} since the last start: trials from now on may differ in "
                               "their last digits from what the earlier versions compute")

    def _replay(self) -> None:
        """Repeats the recorded proposals and results in their order, which restores the oracle's state."""
        study, oracle = self.study, self.oracle
        ended = {trial.order: trial for trial in study.ended}
        last = max((trial.number for trial in study.trials.values()), default=-1)
        if study.trials:
            self.reporter.note(f"restoring the oracle from {len(study.trials)} trials")
        reported, proposed = 0, set()
        for name in (f"{number:04}" for number in range(last + 1)):
            trial = study.trials.get(name)
            if trial is None and not oracle.blind:
                raise self._missing(f"the folder of trial {name}")
            while trial and not oracle.blind and reported < trial.ended_before:
                if reported not in ended or ended[reported].name not in proposed:
                    raise self._missing("the result of a trial")
                oracle.report(ended[reported].name, ended[reported].score)
                reported += 1
            proposal = oracle.repeat(trial.proposal) if trial else oracle.propose()
            proposed.add(name)
            if trial is None and isinstance(proposal, Proposal):
                study.add(proposal)  # its folder was deleted: it runs again
            elif trial and (isinstance(proposal, str) or (proposal.trial, proposal.values) != (name, trial.values)):
                raise self._other_proposal(trial, proposal)
        for order in sorted(ended):
            if order >= reported:
                oracle.report(ended[order].name, ended[order].score)

    def _missing(self, what: str) -> SweepError:
        return SweepError(f"{self.study.path}: {what} is missing, and the proposals after it depend on it; restore it, "
                          "or start again with --overwrite")

    def _other_proposal(self, trial: Trial, proposal: Proposal | str) -> SweepError:
        then, now = self.study.versions, self.environment["versions"]
        libraries = [name for name in ("keras-tuner", "scikit-learn", "scipy") if name in now] or ["fmnist_zoo"]
        versions = ", ".join(f"{name} was {then.get(name, 'unknown')} and is {now[name]}" for name in libraries)
        values = proposal.values if isinstance(proposal, Proposal) else "nothing"
        return SweepError(f"{self.study.path / trial.name}: the oracle proposes {values} for this trial now, not "
                          f"{trial.values}: its version or the trial's proposal.json has changed ({versions}). Install "
                          "the earlier version or restore the file, or start again with --overwrite")

    def _queue(self, trial: Trial) -> None:
        self._keeper.queued(trial)
        self._jobs.extend((trial, execution) for execution in range(self.study.executions))

    def _next_jobs(self) -> list[tuple[Trial, int]]:
        """Jobs for free workers, of queued trials or of new ones; a few, because these workers wait meanwhile."""
        jobs: list[tuple[Trial, int]] = []
        until = time.monotonic() + PROPOSE
        while len(jobs) < AT_ONCE and len(self._running) + len(jobs) < self.pool.slots and time.monotonic() <= until:
            if not self._jobs and not self._propose():
                break
            trial, execution = self._jobs.popleft()
            if trial.result is None:
                jobs.append((trial, execution))
        return jobs

    def _propose(self) -> bool:
        """Queues a new trial; False if there is none now."""
        if self._exhausted or self.max_trials is not None and len(self.study.trials) >= self.max_trials:
            return False
        proposal = self.oracle.propose()
        if isinstance(proposal, Proposal):
            self._queue(self.study.add(proposal))
            return True
        if proposal == "done":
            self._exhausted = True
            if len(self.study.trials) < self.planned:
                self.reporter.note(f"the oracle has no more to propose after {len(self.study.trials)} trials")
        return False

    def _submit(self, trial: Trial, execution: int) -> None:
        study, name = self.study, f"{trial.name}/{execution}"
        parent = None
        if trial.parent:
            parent = str(study.folder(study.trials[trial.parent], execution).absolute())
        self._running[name] = (trial, execution)
        self.pool.submit(name, Job(
            config=study.config(trial, execution).get_config(), folder=str(study.folder(trial, execution).absolute()),
            parent=parent, sweep=str(study.path.absolute()), leader=self._leader, data=study.manifest["data"],
            shown=study.shown, modules=self.environment.get("modules", {}), directory=os.getcwd()))

    def _collect(self, timeout: float) -> None:
        """Records the outcomes that arrive within `timeout` seconds."""
        for name, outcome in self.pool.wait(timeout):
            trial, execution = self._running.pop(name)
            status = outcome["status"]
            if status == COMPLETED:
                self._outcomes[trial.name][execution] = outcome
                if len(self._outcomes[trial.name]) == self.study.executions:
                    done = self._outcomes.pop(trial.name)
                    self.study.complete(trial, [done[index] for index in sorted(done)])
                    self._ended(trial)
            elif status == DIED:
                self._died(name, trial, execution, outcome["reason"])
            elif status == STOPPED:
                if not self._stopping:
                    raise SweepError(f"{self.study.path}: another process now leads this sweep")
            else:
                self._fail(trial, outcome["reason"])
            if trial.result and not any(f"{trial.name}/{other}" in self._running
                                        for other in range(self.study.executions)):
                self._keeper.ended(trial)  # if its result is lost, its own folder still has it

    def _died(self, name: str, trial: Trial, execution: int, reason: str) -> None:
        """Runs a trial again whose worker died, from its checkpoint; one that keeps dying in the same epoch fails."""
        epoch = RunFolder(self.study.folder(trial, execution)).table.row_count()
        epoch_before, deaths = self._deaths.get(name, (epoch, 0))
        deaths = deaths + 1 if epoch == epoch_before else 1
        self._deaths[name] = (epoch, deaths)
        if deaths < DEATHS:
            self._jobs.appendleft((trial, execution))
        else:
            self._fail(trial, f"its worker died {deaths} times in epoch {epoch + 1}: {reason}")

    def _fail(self, trial: Trial, reason: str) -> None:
        if trial.result is None:  # else another of its executions has failed already
            self.study.fail(trial, reason)
            self._ended(trial)

    def _ended(self, trial: Trial) -> None:
        self.oracle.report(trial.name, trial.score)
        self.reporter.note(self._line(trial))
        if trial.status == COMPLETED:
            return
        self.failures += 1
        if self.failures >= self.max_failures:
            raise SweepError(f"{self.failures} trials failed in this start, the last one {trial.name}: "
                             f"{trial.result['reason']}. Failed trials are not run again; "  # type: ignore[index]
                             "the same command continues with the others")

    def _show(self) -> None:
        """Moves the bar and writes the tables, at most once a second. The tables take a tenth of the time at most."""
        now = time.monotonic()
        if now >= self._tables_due and len(self.study.ended) > self._ended_at_start:
            self.study.write_tables(so_far=False)
            self._tables_due = time.monotonic() + max(TABLES, 10 * (time.monotonic() - now))
        if now < self._shown + 1.0:
            return
        self._shown = now

        def running() -> dict[str, tuple[int, int]]:
            return {trial.name: (self.study.epochs_so_far(trial), self.study.config(trial, 0).recipe.epochs)
                    for trial, _ in self._running.values()}

        self.reporter.trials(len(self.study.ended), self._total, running)

    @property
    def _total(self) -> int:
        """How many trials there will be; of asha about how many."""
        return max(self.planned, len(self.study.trials))

    def _line(self, trial: Trial) -> str:
        """An ended trial in one line."""
        study, result = self.study, trial.result or {}
        done, total = len(study.ended), self._total
        start = f"[{done}/{total}] {trial.name}  {trial.text}: "
        if trial.status != COMPLETED:
            return f"{start}FAILED: {result['reason']}"
        best = study.ranked[0]
        rank = "the best so far" if best is trial else f"best {best.score:.4f} of {best.name}"
        pace = (time.monotonic() - self._started) / (done - self._ended_at_start)
        left = f"  about {progress.clock(pace * (total - done))} left" if done < total else ""
        return (f"{start}{study.manifest['objective']} {result['objective']:.4f}, {rank}  {result['seconds']:.0f} s"
                f"{left}")
