"""Starts or continues a sweep: locks its folder, checks its manifest, starts the workers, and runs the leader.

What needs TensorFlow, dask or matplotlib is imported where it is used, after all that can be refused was refused.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from multiprocessing import process
from typing import Any, Callable, Iterator

from fmnist_zoo.files import write_json
from trainers import config as configs
from trainers.config import ConfigError, RunConfig
from trainers.running.folder import SWEEPS, locked, names_folder
from trainers.tuning import oracle as oracles, study as studies
from trainers.tuning.plan import Plan, require_counts
from trainers.tuning.study import Study


def execute(plan: Plan, *, workers: int, scheduler: str, max_failures: int, logdir: str | os.PathLike[str], name: str,
            overwrite: bool, verbose: bool, should_stop: Callable[[], bool]) -> tuple[Study, bool]:
    """Runs a sweep in `<logdir>/sweeps/<name>`, from where it was left.

    Args:
        workers, scheduler, max_failures, logdir, name, overwrite: as the flags of `trainers.sweep`.
        verbose: print progress on standard output.
        should_stop: asked about once a second; True ends the sweep after the running epochs.

    Returns:
        The sweep, and whether it is finished.

    Raises:
        ConfigError: if the settings are invalid, or the folder holds another sweep or is in use.
        SweepError, TrialError, PoolError: if the sweep cannot continue; finished trials are kept.
    """
    if getattr(process.current_process(), "_inheriting", False):
        raise ConfigError("a worker imports your script, which starts the sweep again: put what is to run once under "
                          "if __name__ == '__main__':")
    require_counts(workers=workers, max_failures=max_failures)
    name = name or plan.name()
    if not isinstance(name, str) or not names_folder(name) or len(name) > 200:
        raise ConfigError(f"--name names a folder below {logdir}/{SWEEPS}, of at most 200 characters; "
                          f"received {name!r:.80}")
    path, manifest = pathlib.Path(logdir) / SWEEPS / name, plan.manifest()
    from trainers.tuning import pool as pools

    if overwrite:
        move_aside(path)
    with hold(path):
        study = open_or_create(path, manifest)
        try:
            workers_pool = pools.make(workers, scheduler)
        except pools.PoolError:
            if should_stop():
                return study, False
            raise
        try:
            ended = _lead(study, plan, workers_pool, max_failures, logdir, verbose, should_stop)
        finally:
            workers_pool.close()
    return study, ended


def _lead(study: Study, plan: Plan, pool: Any, max_failures: int, logdir: str | os.PathLike[str], verbose: bool,
          should_stop: Callable[[], bool]) -> bool:
    from trainers.board import hparams
    from trainers.running import progress
    from trainers.tuning import leader as search

    hparams.declare(pathlib.Path(logdir))
    reporter = progress.for_output() if verbose else progress.Reporter()
    try:
        reporter.note(f"sweep    {study.path}: {len(study.ended)} of {plan.max_trials} trials done")
        reporter.note(f"space    {study.space.text}")
        oracle = oracles.Oracle(plan.tuner, study.space, lower_is_better=study.lower_is_better, seed=study.base.seed,
                                epochs=study.base.recipe.epochs)
        leader = search.Leader(study, pool, oracle, max_trials=plan.max_trials, max_failures=max_failures,
                               reporter=reporter)
        return leader.run(should_stop)
    except BrokenPipeError:  # the reader of our output closed it; the disk is not full
        raise
    except OSError as error:
        raise search.SweepError(f"{error.filename or study.path}: cannot be written: {error.strerror or error}; make "
                                "room, then the same command goes on") from error
    finally:
        reporter.close()
        with contextlib.suppress(OSError):  # on a full disk, the error that is being raised says so already
            _draw(study)


def _draw(study: Study) -> None:
    """Writes the tables and the plot."""
    from trainers.tuning import figures

    if study.ranked:
        study.write_tables()
        parameters = study.space.parameters
        figures.sweep(study.path / "objective.png", [study.row(trial) for trial in study.ranked],
                      {one.name: one.values if one.kind == "choice" else () for one in parameters},
                      study.manifest["objective"], logarithmic=[one.name for one in parameters if one.kind == "log"])


@contextlib.contextmanager
def hold(path: pathlib.Path) -> Iterator[None]:
    """Makes a sweep's folder and locks it for this process; `ConfigError` if that is not possible."""
    with contextlib.ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path, "sweeping"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
        yield


def move_aside(path: pathlib.Path) -> None:
    """Renames the folder of a sweep, so that a new one can have its name; `ConfigError` if it is in use."""
    if path.exists():
        with hold(path):
            path.rename(path.with_name(f"{path.name}-until-{time.strftime('%Y%m%d-%H%M%S')}"))


def open_or_create(path: pathlib.Path, manifest: dict[str, Any]) -> Study:
    """The sweep in `path`, new or gone on with.

    Raises:
        ConfigError: if another sweep stands there, saying what differs.
    """
    if (path / "sweep.json").exists():
        study = studies.load(path)
        differing = differences(study.manifest, manifest)
        if differing:
            told = "; ".join(f"{name} was {old}, now {new}" for name, (old, new) in differing.items())
            raise ConfigError(f"{path}: holds another sweep: {told}. Choose another --name, or start anew with "
                              "--overwrite, which moves this one aside")
        return study
    try:
        write_json(path / "sweep.json", {**manifest, "started": time.time()})
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return studies.load(path)


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two manifests differ in, of all that decides numbers: name to (old, new)."""
    found = configs.decisive_differences(*(RunConfig.from_dict(manifest["base"]) for manifest in (old, new)))
    if old["base"]["spec"]["name"] != new["base"]["spec"]["name"]:
        found["model"] = (old["base"]["spec"]["name"], new["base"]["spec"]["name"])
    for name in ("space", "tuner", "objective", "executions", "data", "versions"):
        if old[name] != new[name]:
            if isinstance(new[name], dict):
                found.update({f"{name}: {part}": (old[name].get(part), value) for part, value in new[name].items()
                              if old[name].get(part) != value})
            else:
                found[name] = (old[name], new[name])
    return found
