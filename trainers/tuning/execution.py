"""What a worker does: it runs one execution of a trial, and knows of it only the job.

The job names a folder that worker and leader share; the run's checkpoint in it is all that is needed to continue.
Importing this module must not import TensorFlow.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import pathlib
import re
import resource
import shutil
import sys
import textwrap
import threading
import time
import traceback
from typing import Any, Callable, Iterator, NamedTuple, TextIO

import fmnist_zoo
from fmnist_zoo import registry
from fmnist_zoo.data import DataError, load_data
from fmnist_zoo.errors import SpecError, ZooError
from trainers.config import ConfigError, RunConfig
from trainers.engine import process
from trainers.running.checkpoint import CheckpointError
from trainers.running.folder import LockedError, RunFolder, finished
from trainers.running.table import TableError

COMPLETED, FAILED = "COMPLETED", "FAILED"
STOPPED = "STOPPED"  # the job ended between two epochs, because its leader is gone
DIED = "DIED"  # of a job that a worker had begun: its pool says so
SECONDS_TO_WAIT = 600.0  # for a worker of a killed leader to finish its epoch
LOG = "log.txt"
LEADER = ".leader"  # a file with the name of the leader; workers of an earlier one stop
_data = functools.lru_cache(maxsize=1)(lambda **settings: load_data(**settings))  # read and verified once
_one_at_a_time = threading.Lock()
_done = 0


class TrialError(ZooError, RuntimeError):
    """No trial can run here, whatever its values: data are missing, or the disk is full."""


class PoolError(ZooError, RuntimeError):
    """No workers can be started or reached, or all of them are gone."""


class Job(NamedTuple):
    """One execution of a trial, as plain data."""

    config: dict[str, Any]  # of `RunConfig.get_config`
    folder: str
    sweep: str  # its folder
    leader: str  # content of its file `LEADER`
    data: dict[str, str]  # `sha256` and `split_sha256` that the data must have
    parent: str | None = None  # a run folder whose training this one continues
    shown: dict[str, Any] = {}  # what TensorBoard shows alike for all trials, see `Study.shown`
    modules: dict[str, str] = {}  # of the user's, that the model needs, with the digests of their source
    directory: str = ""  # where the leader finds them


def run(job: Job) -> dict[str, Any]:
    """Trains what `job` says, from its checkpoint if there is one.

    Returns:
        `status` COMPLETED (with `epochs`, `final`, `seconds`), FAILED (with `reason`) or STOPPED; `seed`; and of the
        worker `pid`, `trials` (that it has run), `memory_mb` (its peak), `began` and `ended` (Unix time, seconds).

    Raises:
        TrialError: if no trial can run here.
    """
    global _done
    with _one_at_a_time:
        began = time.time()
        outcome = _run(job)
        gc.collect()  # graphs and models refer to each other in cycles
        _done += 1
        return {**outcome, "seed": job.config["seed"], "pid": os.getpid(), "trials": _done,
                "memory_mb": peak_memory(), "began": began, "ended": time.time()}


def peak_memory() -> float:
    """The most memory that this process has taken so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@functools.cache
def warm(threads: int) -> None:
    """Imports what jobs need. Their runs use `threads`, which cannot be changed later."""
    process.start_tensorflow(threads)
    import trainers.running.session  # noqa: F401


def _run(job: Job) -> dict[str, Any]:
    folder, config = RunFolder(job.folder), RunConfig.from_config(job.config)
    if not pathlib.Path(job.sweep).is_dir():
        raise TrialError(f"the worker on {os.uname().nodename} does not see {job.sweep}; the sweep and its workers "
                         "need one folder that all of them see under the same name")
    try:
        if config.spec.build:
            _import_modules(config, job)
        return _train(folder, config, job)
    except (ConfigError, DataError) as error:
        raise TrialError(str(error)) from error
    except SpecError as error:  # of a function of the user's, with these values
        return {"status": FAILED, "reason": str(error)}
    except OSError as error:
        raise TrialError(f"{error.filename or folder.path}: {error.strerror or error}") from error
    except TrialError:
        raise
    except Exception as error:
        with contextlib.suppress(OSError):
            with _log(folder) as log:
                log.write(traceback.format_exc())
            _show_failure(folder, config, job.shown)
        text = re.sub(r"\{\{.*?\}\} ?", "", str(error))  # without the names of TensorFlow's nodes
        first = textwrap.shorten(text.split("\n", 1)[0], 140, placeholder=" ...")
        return {"status": FAILED, "reason": f"{type(error).__name__}: {first} (see {folder.path / LOG})"}


def _import_modules(config: RunConfig, job: Job) -> None:
    """Imports the module that registers a user's model; `TrialError` if it cannot, or the source is not the leader's.
    """
    name = next(iter(job.modules))
    try:
        if name != "__main__":
            if job.directory not in sys.path:
                sys.path.append(job.directory)  # for imports within the functions of the module
            registry.load_zoo_module(name, job.directory)
        here = config.spec.modules
    except SpecError as error:
        raise TrialError(str(error)) from error
    changed = [module for module, digest in job.modules.items() if here.get(module) != digest]
    if changed:
        raise TrialError(f"the source of {', '.join(changed)} on {os.uname().nodename} is not the one that this sweep "
                         "started with; put it back, or stop the sweep and start it again")


def _train(folder: RunFolder, config: RunConfig, job: Job) -> dict[str, Any]:
    """Trains in the folder as soon as it is free; from the first epoch if its checkpoint or table is damaged."""
    leader, parent, restarted = pathlib.Path(job.sweep) / LEADER, job.parent, False

    def should_stop() -> bool:
        try:
            return leader.read_text(encoding="utf-8") != job.leader
        except FileNotFoundError:
            return True

    deadline = time.monotonic() + SECONDS_TO_WAIT
    while True:
        try:
            _prepare(folder, parent)
            with _errors_into(folder.path / LOG):
                return _execute(folder, config, job, should_stop)
        except (CheckpointError, TableError):
            if restarted:
                raise
            # It may be a copy of the parent's. Training from the first epoch gives the same bits and needs neither.
            shutil.rmtree(folder.path)
            parent, restarted = None, True
        except LockedError as error:
            if should_stop():
                return {"status": STOPPED}
            if time.monotonic() > deadline:
                raise TrialError(str(error)) from None
            time.sleep(0.5)


def _prepare(folder: RunFolder, parent: str | None) -> None:
    """Makes the run's folder, unless it is there. One with a parent starts as a copy of the parent's."""
    if folder.path.exists():
        return
    folder.path.parent.mkdir(exist_ok=True)
    if not parent or not RunFolder(parent).checkpoint.exists():
        folder.path.mkdir()
        return
    beside = folder.path.with_name(f".{folder.path.name}.{os.getpid()}")
    shutil.copytree(parent, beside, ignore=shutil.ignore_patterns(".lock", "result.json", "weights", LOG))
    beside.rename(folder.path)


@contextlib.contextmanager
def _errors_into(path: pathlib.Path) -> Iterator[None]:
    """Sends standard error, also of TensorFlow's C++ code, to a trial's log."""
    with open(path, "ab") as log:
        before = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def _execute(folder: RunFolder, config: RunConfig, job: Job, should_stop: Callable[[], bool]) -> dict[str, Any]:
    from trainers.running import progress
    from trainers.running.run import RunError, execute, opened

    warm(config.threads)
    result = folder.read_result()
    if not finished(result, config):
        try:
            with _log(folder) as log, opened(folder) as found:
                result = execute(found, config, reporter=progress.Lines(log), should_stop=should_stop,
                                 expected={"data": job.data, "sweep": job.shown},
                                 data=_data(**config.data_settings)).result
        except RunError as error:
            cause = error.__cause__
            if isinstance(cause, OSError):
                raise TrialError(f"{cause.filename or folder.path}: cannot be written: {cause.strerror or cause}; make "
                                 "room, then the same command continues") from error
            return {"status": FAILED, "reason": str(cause or error)}
    return {"status": STOPPED} if result is None else \
        {"status": COMPLETED, **{name: result[name] for name in ("epochs", "final", "seconds")}}


def _log(folder: RunFolder) -> TextIO:
    """A trial's log, which takes names of folders that are not of the locale as escapes."""
    return open(folder.path / LOG, "a", encoding="utf-8", errors="backslashreplace")


def _show_failure(folder: RunFolder, config: RunConfig, shown: dict[str, Any]) -> None:
    """Lets TensorBoard show a trial that failed before it wrote any events."""
    from trainers.board import events, hparams

    if not events.opened(folder.path):
        writer = events.EventWriter(folder.path)
        batch_size = config.batch(len(_data(**config.data_settings)["fit"].labels))
        writer.summary(hparams.session_start(folder.path, config, batch_size, shown), 0)
        writer.summary(hparams.session_end(success=False), 0)
        writer.close()


def version() -> str:
    """The version with which a worker here would train."""
    return fmnist_zoo.__version__
