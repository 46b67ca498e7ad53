"""Starts or continues a sweep: locks its folder, checks its manifest, starts the workers, and runs the leader.

What needs TensorFlow, dask or matplotlib is imported where it is used, after all that can be refused was refused.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sys
import time
from multiprocessing import process
from typing import Any, Callable, Iterator

from fmnist_zoo.backend import need_tensorflow
from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import local_path, make_folder, write_json
from trainers.config import DEPENDENT, ConfigError, RunConfig, decisive_differences
from trainers.running import plotting
from trainers.running.folder import SWEEPS, locked, names_folder
from trainers.tuning import page
from trainers.tuning.cluster import Scheduler
from trainers.tuning.execution import PoolError
from trainers.tuning.halving import Asha, is_finished
from trainers.tuning.kept import BEST
from trainers.tuning.plan import COUNT, Plan
from trainers.tuning.space import apply
from trainers.tuning.study import Study, load


def execute(plan: Plan, *, workers: int, scheduler: Scheduler | None, max_failures: int,
            logdir: str | os.PathLike[str], name: str, overwrite: bool, verbose: bool,
            should_stop: Callable[[], bool]) -> tuple[Study, bool]:
    """Runs a sweep in `<logdir>/sweeps/<name>`, from where it was left.

    Args:
        workers, scheduler, max_failures, logdir, name, overwrite: as the flags of `trainers.sweep`.
        verbose: print progress on standard output.
        should_stop: asked about once a second; True ends the sweep after the running epochs.

    Returns:
        The sweep, and whether it is finished.

    Raises:
        SpecError, ConfigError: if the settings are invalid, or the folder holds another sweep or is in use.
        SweepError, TrialError, PoolError: if the sweep cannot continue; finished trials are kept.
    """
    if getattr(process.current_process(), "_inheriting", False):
        raise ConfigError("a worker imports your script, which starts the sweep again: put what is to run once under "
                          "if __name__ == '__main__':")
    need_tensorflow()
    COUNT.check("workers", workers)
    COUNT.check("max_failures", max_failures)
    if scheduler:
        scheduler.security()
    path, manifest = sweep_folder(plan, logdir, name), plan.manifest()
    try:
        if overwrite:
            move_aside(path)
        new = not path.exists()
        with hold(path):
            study = open_or_create(path, manifest)
            environment = {name: manifest[name] for name in ("versions", "commit", "modules")}
            try:
                finished = _finished(study, plan) or _lead(
                    study, plan, environment, workers=workers, scheduler=scheduler, max_failures=max_failures,
                    verbose=verbose, should_stop=should_stop)
            except (ZooError, KeyboardInterrupt):
                if new and not study.trials:  # it must not take its name from another sweep
                    shutil.rmtree(path, ignore_errors=True)
                raise
            finally:
                with contextlib.suppress(OSError):  # on a full disk, the error that is being raised says so already
                    if study.trials:
                        study.write_tables()
                    if study.ranked and not isinstance(sys.exc_info()[1], KeyboardInterrupt):  # it takes seconds
                        _write_page(study)
            return study, finished
    except OSError as error:
        if error.filename is None:  # not of a file; or a closed standard output
            raise
        from trainers.tuning.leader import SweepError

        raise SweepError(f"{error.filename}: cannot be written: {error.strerror}; make room or make it writable, then "
                         "the same command continues") from error


def _finished(study: Study, plan: Plan) -> bool:
    """Whether there is nothing left to do."""
    tuner = plan.tuner_for(study.space) if plan.tuner == "asha" else None
    return is_finished(tuner, list(study.trials.values())) if isinstance(tuner, Asha) else \
        len(study.ended) >= plan.max_trials


def _lead(study: Study, plan: Plan, environment: dict[str, Any], *, workers: int, scheduler: Scheduler | None,
          max_failures: int, verbose: bool, should_stop: Callable[[], bool]) -> bool:
    """Starts the workers and leads the sweep; returns whether it is finished."""
    from trainers.board import hparams
    from trainers.running import dependencies, progress
    from trainers.tuning import workers as _workers
    from trainers.tuning.leader import Leader

    try:
        started = _workers.make(workers, scheduler, study.base.threads)
    except PoolError:
        if should_stop():
            return False
        raise
    reporter = progress.for_output() if verbose else progress.Reporter()
    with contextlib.closing(started), contextlib.closing(reporter):
        hparams.declare(study.path.parent.parent, _columns(study), first=study.space.names)
        about = "about " if plan.tuner == "asha" else ""
        reporter.note(f"sweep    {study.path}: {len(study.ended)} of {about}{plan.planned} trials done")
        reporter.note(f"space    {study.space.text}")
        named = {"teacher": plan.teachers, "initial_weights": [study.base.recipe.initial_weights]}
        for note in dependencies.notes(named, study.manifest["data"]):
            reporter.note(note)
        leader = Leader(study, started, plan.tuner_for(study.space), planned=plan.planned, max_failures=max_failures,
                        max_trials=None if plan.tuner == "asha" else plan.max_trials, reporter=reporter,
                        environment=environment)
        return leader.run(should_stop)


def _columns(study: Study) -> Iterator[dict[str, Any]]:
    """For TensorBoard's HParams tab: trials that have, between them, all values that are searched."""
    from trainers.board import hparams

    for parameter in study.space.parameters:
        for value in parameter.values:
            with contextlib.suppress(ZooError):  # a value that is possible beside certain others alone
                config = apply(study.base, {parameter.name: value}, given=study.manifest.get("given", ()))
                yield hparams.hyperparameters(config, **study.shown)


def _write_page(study: Study) -> None:
    try:
        page.write(study, study.path / "report.html")
    except plotting.PlotError as error:
        print(error, file=sys.stderr, flush=True)


def sweep_folder(plan: Plan, logdir: str | os.PathLike[str], name: str) -> pathlib.Path:
    """The folder of a sweep, named after its plan by default; `ConfigError` if `name` is not the name of a folder."""
    name = name or plan.name()
    if not isinstance(name, str) or not names_folder(name) or len(name) > 200:
        raise ConfigError(f"--name names a folder below {logdir}/{SWEEPS}, of at most 200 characters; "
                          f"received {name!r:.80}")
    return pathlib.Path(local_path(logdir, "logdir")) / SWEEPS / name


@contextlib.contextmanager
def hold(path: pathlib.Path) -> Iterator[None]:
    """Makes a sweep's folder and locks it for this process; `ConfigError` if another process leads the sweep."""
    make_folder(path)
    with locked(path, "sweeping"):
        yield


def move_aside(path: pathlib.Path) -> None:
    """Renames the folder of a sweep, so that a new one can have its name; `ConfigError` if it is in use."""
    if path.exists():
        with hold(path):
            path.rename(path.with_name(f"{path.name}-until-{time.strftime('%Y%m%d-%H%M%S')}"))


def open_or_create(path: pathlib.Path, manifest: dict[str, Any]) -> Study:
    """The sweep in `path`: the one that is there, or a new one.

    Raises:
        ConfigError: if the one that is there has another manifest, saying what differs.
    """
    if (path / "sweep.json").exists():
        study = load(path)
        _refuse_another(study, manifest)
        study.recover()
        return study
    write_json(path / "sweep.json", {**manifest, "keeps": BEST, "started": time.time()})
    return load(path)


def check(plan: Plan, scheduler: Scheduler | None, path: pathlib.Path, *, overwrite: bool) -> None:
    """What `--dry_run` checks beyond the plan; reads no data and connects to nothing.

    Raises:
        ConfigError: if the scheduler cannot be used, or the folder holds another sweep and would not be moved aside.
    """
    if scheduler:
        scheduler.security()
    if not overwrite and (path / "sweep.json").exists():
        _refuse_another(load(path), plan.record())


def _refuse_another(study: Study, manifest: dict[str, Any]) -> None:
    """`ConfigError` if a sweep has another manifest, saying what differs."""
    if found := _manifest_differences(study.manifest, manifest):
        changes = "; ".join(f"{name} was {old}, now {new}" for name, (old, new) in found.items())
        raise ConfigError(f"{study.path}: holds another sweep: {changes}. Choose another --name, or start again with "
                          "--overwrite, which moves this one aside")


def _manifest_differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs, of all that decides numbers: name to (old, new). Versions may differ; the leader notes them.

    Without "data" in the new one, data are not compared.
    """
    base_old, base_new = (RunConfig.from_config(manifest["base"]) for manifest in (old, new))
    found = decisive_differences(base_old, base_new)
    pairs = {name: (old[name], new[name]) for name in ("space", "tuner", "objective", "executions")}
    pairs |= {name: (old.get(name), new.get(name)) for name in ("start", "factor")}  # a factor: asha's alone
    pairs["model"] = (base_old.spec.name, base_new.spec.name)
    if "given" in old and "optimizer" in new["space"]:  # a given learning rate is kept, see `space.apply`
        kept_old, kept_new = ([name for name in manifest["given"] if name in DEPENDENT] for manifest in (old, new))
        pairs["given"] = (kept_old, kept_new)
    pairs.update({f"data: {name}": (old["data"].get(name), digest) for name, digest in new.get("data", {}).items()})
    found.update({name: pair for name, pair in pairs.items() if pair[0] != pair[1]})
    return found
