"""Leads a sweep: its folder, its workers, and the loop that proposes trials and records their results.

It never trains. What needs TensorFlow, dask or matplotlib is imported where it is used, after all that can be refused
was refused.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import shutil
import sys
import time
import uuid
from multiprocessing import process
from typing import Any, Callable, Iterator

from fmnist_zoo.backend import need_tensorflow
from fmnist_zoo.errors import SpecError, ZooError
from fmnist_zoo.files import atomic_write, local_path, make_folder, write_json
from trainers.config import DEPENDENT, ConfigError, RunConfig, decisive_differences, flat
from trainers.running import dependencies, plotting, progress, provenance
from trainers.running.folder import SWEEPS, RunFolder, locked, names_folder
from trainers.tuning import page, workers as pools
from trainers.tuning.cluster import Scheduler
from trainers.tuning.execution import COMPLETED, DIED, LEADER, STOPPED, Job
from trainers.tuning.oracle import DONE, Proposal
from trainers.tuning.plan import COUNT, Plan
from trainers.tuning.space import apply, of_function
from trainers.tuning.study import RUNNING, Study, Trial, load
from trainers.tuning.workers import Pool

DEATHS = 3  # of workers in the same epoch of the same trial, after which the trial has failed
LEFT_AT_ONCE = "left at once; trials that ended are kept, those that ran continue from their checkpoints: the same " \
    "command continues"


class SweepError(ZooError, RuntimeError):
    """A sweep that cannot continue. What was done is kept, and the same command continues once the cause is removed."""


def sweep_folder(plan: Plan, logdir: str | os.PathLike[str], name: str) -> pathlib.Path:
    """The folder of a sweep, named after its plan by default; `ConfigError` if `name` is not the name of a folder."""
    name = name or plan.name()
    if not isinstance(name, str) or not names_folder(name) or len(name) > 200:
        raise ConfigError(f"--name names a folder below {logdir}/{SWEEPS}, of at most 200 characters; "
                          f"received {name!r:.80}")
    return pathlib.Path(local_path(logdir, "logdir")) / SWEEPS / name


def execute(plan: Plan, path: pathlib.Path, *, workers: int | None, scheduler: Scheduler | None, max_failures: int,
            overwrite: bool, draw: bool, reporter: progress.Reporter, should_stop: Callable[[], bool]) -> Study | None:
    """Runs a sweep in its folder `path`, from where it was left.

    Args:
        workers, scheduler, max_failures, overwrite: as the flags of `trainers.sweep`.
        draw: whether the sweep's page is written when it ends.
        reporter: is shown the progress, and closed in the end.
        should_stop: asked about once a second; True ends the sweep after the running epochs.

    Returns:
        The sweep. None if it is a new one that was stopped before its first epoch: nothing is left of it.

    Raises:
        SpecError, ConfigError: if the settings are invalid, or the folder holds another sweep or is in use.
        SweepError, TrialError, PoolError: if the sweep cannot continue; finished trials are kept.
        KeyboardInterrupt: with a text that says what is kept.
    """
    if getattr(process.current_process(), "_inheriting", False):
        raise ConfigError("a worker imports your script, which starts the sweep again: put what is to run once under "
                          "if __name__ == '__main__':")
    need_tensorflow()
    COUNT.check("max_failures", max_failures)
    pools.check(workers, scheduler, plan.base.spec)
    manifest = plan.manifest()
    with _folder(path):
        study = earlier(path, manifest, overwrite=overwrite)
        if study:
            study.base = plan.base  # the same, but for what decides no numbers, such as the folder of the data
            study.manifest["base"] = manifest["base"]
            if study.is_finished and plan.max_trials <= study.starts[-1]["max_trials"]:
                if draw and study.ranked and not (path / page.NAME).exists():
                    write_page(study)
                return study
        workers = workers or pools.usual(plan.planned * plan.executions)
        pool = pools.make(workers, scheduler, plan.base.threads)
        with _moved_aside(path) if overwrite else contextlib.nullcontext():
            try:
                with _errors_of_disk(), contextlib.closing(pool):
                    study = study or _create(path, manifest)
                    _lead(study, plan, pool, max_failures=max_failures, reporter=reporter, should_stop=should_stop)
            except (ZooError, KeyboardInterrupt) as error:
                begun = _is_begun(path)
                if isinstance(error, KeyboardInterrupt):
                    error.args = (LEFT_AT_ONCE if begun else "left at once; nothing had begun",)
                if overwrite and begun:
                    error.args = (str(error).replace("the same command", "the same command without --overwrite"),)
                raise
            if draw and study.is_finished and study.ranked:
                write_page(study)
            return study if _is_begun(path) else None


def _create(path: pathlib.Path, manifest: dict[str, Any]) -> Study:
    write_json(path / "sweep.json", {**manifest, "started": time.time()})
    return load(path)


def _lead(study: Study, plan: Plan, pool: Pool, *, max_failures: int, reporter: progress.Reporter,
          should_stop: Callable[[], bool]) -> None:
    """Leads a sweep to its end, or until it is stopped, and writes its tables."""
    with contextlib.closing(reporter):
        about = "about " if plan.planned != plan.max_trials else ""
        reporter.note(f"sweep    {study.path}: {len(study.ended)} of {about}{plan.planned} trials done")
        reporter.note(f"model    {study.base.spec.name} on {study.base.data}")
        reporter.note(f"space    {study.space.text}")
        for note in dependencies.notes(plan.named, study.manifest["data"]):
            reporter.note(note)
        try:
            Leader(study, plan, pool, reporter, max_failures=max_failures).run(should_stop)
        finally:
            with contextlib.suppress(OSError):  # on a full disk, the error that is being raised says so already
                study.write_tables()


def write_page(study: Study) -> None:
    """Writes what a sweep has taught into its folder; a line on standard error says why if it cannot."""
    try:
        page.write(study, study.path / page.NAME)
    except plotting.PlotError as error:
        print(error, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _folder(path: pathlib.Path) -> Iterator[None]:
    """Makes the folder of a sweep and locks it for this process. One that is new goes again if nothing was trained.

    Raises:
        LockedError: if another process leads the sweep.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    make_folder(path)
    with locked(path, "sweeping"):
        try:
            yield
        finally:
            if missing and not _is_begun(path):
                shutil.rmtree(path, ignore_errors=True)
                for folder in missing[1:]:
                    with contextlib.suppress(OSError):  # another sweep has begun there
                        folder.rmdir()


@contextlib.contextmanager
def _moved_aside(path: pathlib.Path) -> Iterator[None]:
    """Gives the folder's name to a new sweep; the old one has it back if nothing of the new one was trained."""
    aside = path.with_name(f"{path.name}-until-{time.strftime('%Y%m%d-%H%M%S')}")
    if not (path / "sweep.json").exists():
        yield
        return
    path.rename(aside)
    try:
        with _folder(path):
            yield
    finally:
        if not path.exists():
            aside.rename(path)


def _is_begun(path: pathlib.Path) -> bool:
    """Whether a sweep has trained an epoch, or a trial of it has ended."""
    return any(path.glob("*/*/metrics.csv")) or (path / "sweep.json").exists() and bool(load(path).ended)


@contextlib.contextmanager
def _errors_of_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename is None:  # not of a file; or a closed standard output
            raise
        raise SweepError(f"{error.filename}: cannot be written: {error.strerror}; make room or make it writable, then "
                         "the same command continues") from error


def earlier(path: pathlib.Path, manifest: dict[str, Any], *, overwrite: bool) -> Study | None:
    """The sweep in a folder, which one with this manifest continues; None if it is a new one.

    Raises:
        ConfigError: if the folder holds another sweep, or something but no sweep.
    """
    if (path / "sweep.json").exists():
        if overwrite:
            return None
        study = load(path)
        _refuse_another(study, manifest)
        return study
    for entry in path.iterdir() if path.is_dir() else ():
        if not entry.name.startswith("."):
            raise ConfigError(f"{path}: holds {entry.name}, but no sweep.json; restore that file, or choose another "
                              "--name")
    return None


def _refuse_another(study: Study, manifest: dict[str, Any]) -> None:
    """`ConfigError` if a sweep differs from a manifest in what decides numbers, saying in what.

    Versions may differ; the leader notes them. Without "data" in the manifest, data are not compared.
    """
    bases = [RunConfig.from_config(one["base"]) for one in (study.manifest, manifest)]
    found = decisive_differences(*bases)
    pairs = {name: (study.manifest[name], manifest[name])
             for name in ("space", "asked", "tuner", "factor", "start", "objective", "executions")}
    pairs["model"] = (bases[0].spec.name, bases[1].spec.name)
    if "optimizer" in study.space.names:  # a given learning rate is kept, see `space.apply`
        kept = [[name for name in one["given"] if name in DEPENDENT] for one in (study.manifest, manifest)]
        pairs["given"] = (kept[0], kept[1])
    pairs |= {f"data: {name}": (study.manifest["data"].get(name), digest)
              for name, digest in manifest.get("data", {}).items()}
    pairs |= {f"sha256 of {name}": (digest, manifest["named"][name])
              for name, digest in study.manifest["named"].items() if name in manifest["named"]}
    found |= {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if found:
        changes = "; ".join(f"{name} was {old}, now {new}" for name, (old, new) in found.items())
        raise ConfigError(f"{study.path}: holds another sweep: {changes}. Choose another --name, or start again with "
                          "--overwrite, which moves this one aside")


def columns(study: Study) -> Iterator[dict[str, Any]]:
    """For TensorBoard's HParams tab: trials that have, between them, all values that are searched."""
    from trainers.board import hparams

    for parameter in study.space.parameters:
        for value in parameter.values:
            with contextlib.suppress(ZooError):  # a value that is possible beside certain others alone
                config = apply(study.base, {parameter.name: value}, given=study.given)
                yield hparams.hyperparameters(config, sweep=study.shown)


class Leader:
    """One start of a sweep, from what its folder holds to its end, or to `max_failures` failed trials."""

    def __init__(self, study: Study, plan: Plan, pool: Pool, reporter: progress.Reporter, *, max_failures: int):
        self.study, self.plan, self.pool, self.reporter = study, plan, pool, reporter
        self.max_failures, self.failures = max_failures, 0
        self.environment = plan.environment()
        self.oracle = plan.tuner_for()
        self._jobs: collections.deque[tuple[Trial, int]] = collections.deque()
        self._running: dict[str, tuple[Trial, int]] = {}
        self._outcomes: dict[str, dict[int, dict[str, Any]]] = collections.defaultdict(dict)
        self._deaths: dict[str, tuple[int, int]] = {}  # of an execution: (epoch, how many workers died in it)
        self._stopping = self._declared = False
        self._leader = uuid.uuid4().hex
        self._started, self._ended_at_start = time.monotonic(), len(study.ended)
        self._shown = self._tables_due = 0.0  # times of the monotonic clock

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Runs the sweep to its end, or until it is asked to stop.

        Raises:
            SweepError: after `max_failures` failed trials.
        """
        study, leader = self.study, self.study.path / LEADER
        with atomic_write(leader, "w") as file:
            file.write(self._leader)
        self._note_changes()
        study.add_start(self.environment, max_trials=self.plan.max_trials, planned=self.plan.planned)
        for trial in study.trials.values():
            self.oracle.tell(trial)
            if trial.status == RUNNING:
                self._queue(trial)
        for trial in study.ended:  # of an earlier start, which was killed
            study.clean(trial)
        while not should_stop():
            self._submit_jobs()
            if self._running:
                self._collect()
                self._show()
            elif self._jobs or self._propose():
                time.sleep(1.0)  # no worker at the moment: all are restarting, or none has joined the scheduler yet
            else:
                self._show(last=True)
                study.write_tables()  # a sweep that is finished is not led again
                study.finish()
                for trial in study.ended:
                    study.clean(trial)
                return
        self._stopping = True
        leader.unlink(missing_ok=True)  # workers look for it after each epoch
        while self._running and self.pool.slots:
            self._collect()

    def _note_changes(self) -> None:
        """Notes what has changed since the last start and may change numbers."""
        if not self.study.ended:
            return
        before, now = self.study.starts[-1], self.environment
        if modules := provenance.changed_modules(before, now):
            self.reporter.note(f"the source of {modules} has changed since the last start: trials from now on may "
                               "differ from the earlier ones, and are ranked with them")
        then = before["versions"]
        changed = [f"{name} {then[name]} -> {version}" for name, version in now["versions"].items()
                   if then.get(name, version) != version]
        if changed:
            self.reporter.note(f"versions {', '.join(changed)} since the last start: trials from now on may differ in "
                               "their last digits from what the earlier versions compute")

    def _queue(self, trial: Trial) -> None:
        self._jobs.extend((trial, execution) for execution in range(self.study.executions))

    def _submit_jobs(self) -> None:
        """Gives each free worker a job: of a queued trial, or of a new one."""
        while len(self._running) < self.pool.slots and (self._jobs or self._propose()):
            trial, execution = self._jobs.popleft()
            if trial.status == RUNNING:
                self._submit(trial, execution)

    def _propose(self) -> bool:
        """Queues a new trial; False if there is none now."""
        while True:
            count = len(self.study.trials)
            if self.plan.tuner != "asha" and count >= self.plan.max_trials:
                return False
            proposal = self.oracle.propose(self.study.next_number)
            if not isinstance(proposal, Proposal):
                if proposal == DONE and count < self.plan.planned and not self._running:
                    self.reporter.note(f"there is nothing more to try after {count} trials")
                return False
            trial, problem = self._add(proposal)
            self.oracle.tell(trial)
            if not problem:
                self._queue(trial)
                return True
            self._fail(trial, problem)

    def _add(self, proposal: Proposal) -> tuple[Trial, str]:
        """Records a new trial; and why its values are not possible together, or its model cannot be built, or "".

        The function of a user's model is called here for the values that it asks for, and for what it compiles.
        """
        study = self.study
        if proposal.parent:
            return study.add(*proposal, compiled=study.trials[proposal.parent].compiled), ""
        try:
            config = apply(study.base, proposal.values, given=study.given)
            if not study.base.spec.build:
                return study.add(*proposal), ""
            from trainers.tuning import hypermodel

            known = {name: value for name, value in flat(config).items() if name in (*study.given, *proposal.values)}
            built = hypermodel.build(config, study.space, known)
        except (SpecError, ConfigError) as error:
            return study.add(*proposal), str(error)
        if not study.trials:
            for note in built.notes:
                self.reporter.note(note)
        if built.found:
            self._declared = False
        values, unused = dict(proposal.values), {}
        if study.space.configs:
            asked = {parameter.name for parameter in of_function(study.space.configs)}
            unused = {name: values.pop(name) for name in asked.difference(built.values) if name in values}
            values |= built.values
        return study.add(values, proposal.epochs, compiled=built.settings, unused=unused, found=built.found), ""

    def _submit(self, trial: Trial, execution: int) -> None:
        study, name = self.study, f"{trial.name}/{execution}"
        parent = None
        if trial.parent:
            parent = str(study.folder(study.trials[trial.parent], execution).absolute())
        self._running[name] = (trial, execution)
        self.pool.submit(name, Job(
            config=study.config(trial, execution).get_config(), folder=str(study.folder(trial, execution).absolute()),
            parent=parent, sweep=str(study.path.absolute()), leader=self._leader, data=study.manifest["data"],
            shown=study.shown, modules=self.environment["modules"], directory=os.getcwd()))

    def _collect(self) -> None:
        """Records the outcomes that arrive within a second."""
        for name, outcome in self.pool.wait(1.0):
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
            if trial.status != RUNNING and not any(f"{trial.name}/{other}" in self._running
                                                   for other in range(self.study.executions)):
                self.study.clean_after(trial)

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
        if trial.status == RUNNING:  # else another of its executions has failed already
            self.study.fail(trial, reason)
            self._ended(trial)

    def _ended(self, trial: Trial) -> None:
        self.oracle.tell(trial)
        self.reporter.note(self._line(trial))
        if trial.status == COMPLETED:
            return
        self.failures += 1
        if self.failures >= self.max_failures:
            raise SweepError(f"{self.failures} trials failed in this start, the last one {trial.name}: {trial.reason}. "
                             "Failed trials are not run again; the same command continues with the others")

    def _show(self, *, last: bool = False) -> None:
        """Moves the bar and writes the tables, at most once a second; the tables take a tenth of the time at most."""
        now = time.monotonic()
        if now >= self._tables_due and len(self.study.ended) > self._ended_at_start:
            self.study.write_tables()
            self._tables_due = time.monotonic() + max(1.0, 10 * (time.monotonic() - now))
        if now < self._shown + 1.0 and not last:
            return
        self._shown = now
        epochs = {trial.name: (self.study.epochs_so_far(trial), self.study.config(trial, 0).recipe.epochs)
                  for trial, _ in self._running.values()}
        if not self._declared and (self.study.ended or any(done for done, _ in epochs.values())):
            self._declare()
        self.reporter.trials(len(self.study.ended), self._total, epochs)

    def _declare(self) -> None:
        from trainers.board import hparams

        hparams.declare(self.study.path.parent.parent, columns(self.study), first=self.study.space.names)
        self._declared = True

    @property
    def _total(self) -> int:
        """How many trials there will be; of asha about how many."""
        return max(self.plan.planned, len(self.study.trials))

    def _line(self, trial: Trial) -> str:
        """An ended trial in one line."""
        study, done, total = self.study, len(self.study.ended), self._total
        start = f"[{done}/{total}] {trial.name}  {trial.text}: "
        if trial.status != COMPLETED:
            return f"{start}FAILED: {trial.reason}"
        best = study.ranked[0]
        rank = "the best so far" if best is trial else f"best {best.score:.4f} of {best.name}"
        pace = (time.monotonic() - self._started) / (done - self._ended_at_start)
        left = f"  about {progress.clock(pace * (total - done))} left" if done < total else ""
        return f"{start}{study.manifest['objective']} {trial.score:.4f}, {rank}  {trial.seconds:.0f} s{left}"
