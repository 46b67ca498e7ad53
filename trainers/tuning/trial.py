"""One execution of a trial, in a worker process: a job comes in as plain data, its outcome goes out as plain data.

A worker knows nothing of the sweep but this: the job names a folder that worker and sweep share, and the run's own
checkpoint in it is all that is needed to go on. TensorFlow is imported here, when the first job comes.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import pathlib
import re
import shutil
import sys
import textwrap
import threading
import time
import traceback
from typing import Any, Iterator

from fmnist_zoo.data import DataError, load_data
from fmnist_zoo.errors import ZooError
from trainers import config as configs
from trainers.config import ConfigError, RunConfig
from trainers.running import estimate, folder as folders
from trainers.running.checkpoints import CheckpointError
from trainers.running.folder import LockedError, RunFolder

SECONDS_TO_WAIT = 600.0  # for an orphan of a killed sweep to finish its epoch
LOG = "log.txt"
LEADER = ".leader"  # names the start of the sweep that leads; workers of an earlier one stop
_data = functools.lru_cache(maxsize=1)(lambda **settings: load_data(**settings))  # read and verified once
_one_at_a_time = threading.Lock()
_done = 0


class TrialError(ZooError, RuntimeError):
    """What keeps any trial from running here, such as missing data or a full disk: no fault of its values."""


def run(job: dict[str, Any], share: tuple[int, int] | None = None) -> dict[str, Any]:
    """Trains what `job` says, from its checkpoint if it has one.

    Args:
        job: `config` (a RunConfig as a dict), `folder`, `parent` (a run folder to go on from, or None), `expected`
            (digests of the data), `sweep` (its folder), `leader` (content of its LEADER file).
        share: which of how many workers of this host this one is, such as (0, 2); None: it has all cores.

    Returns:
        `status` COMPLETED (with `epochs`, `final`, `seconds`), FAILED (with `reason`) or STOPPED, and of the worker
        `pid`, `trials` (that this process has run), `memory_mb`, `began` and `ended` (Unix time, seconds).

    Raises:
        TrialError: if no trial could run here.
    """
    global _done
    with _one_at_a_time:
        began = time.time()
        _share_cores(share)
        outcome = _run(job)
        gc.collect()  # graphs and models hold each other in circles
        _done += 1
        return {**outcome, "seed": job["config"]["seed"], "pid": os.getpid(), "trials": _done,
                "memory_mb": _memory_mb(), "began": began, "ended": time.time()}


def warm(share: tuple[int, int] | None = None) -> None:
    """Imports what a job needs, before there is one."""
    with _one_at_a_time:
        _share_cores(share)
        import trainers.running.session  # noqa: F401


def _run(job: dict[str, Any]) -> dict[str, Any]:
    folder, config = RunFolder(job["folder"]), RunConfig.from_dict(job["config"])
    sweep = pathlib.Path(job["sweep"])

    def stopped() -> bool:
        try:
            return (sweep / LEADER).read_text() != job["leader"]
        except FileNotFoundError:
            return True

    if not sweep.is_dir():
        raise TrialError(f"{sweep} is not seen by the worker on {os.uname().nodename}; a sweep and its workers need "
                         "one folder that all of them see under one name")
    try:
        waited = time.monotonic()
        while True:
            try:
                _prepare(folder, config, job["parent"])
                with _errors_into(folder.path / LOG):
                    return _train(folder, config, job["expected"], stopped)
            except CheckpointError:  # it does not read; trained anew, the numbers are the same
                shutil.rmtree(folder.path)
            except LockedError as error:
                if stopped():
                    return {"status": "STOPPED"}
                if time.monotonic() - waited > SECONDS_TO_WAIT:
                    raise TrialError(str(error)) from None
                time.sleep(0.5)
    except TrialError:
        raise
    except (ConfigError, DataError) as error:
        raise TrialError(str(error)) from error
    except OSError as error:
        raise TrialError(f"{error.filename or folder.path}: {error.strerror or error}") from error
    except Exception as error:
        with contextlib.suppress(OSError):
            with open(folder.path / LOG, "a") as log:
                log.write(traceback.format_exc())
            _tell_failure(folder, config)
        first = re.sub(r"\{\{.*?\}\} ?", "", str(error)).split("\n", 1)[0]  # without TensorFlow's names of nodes
        first = textwrap.shorten(first, 140, placeholder=" ...")
        return {"status": "FAILED", "reason": f"{type(error).__name__}: {first} (see {folder.path / LOG})"}


def _tell_failure(folder: RunFolder, config: RunConfig) -> None:
    """TensorBoard is to know of a trial that failed before it had begun to write."""
    from trainers.board import events, hparams

    if not events.opened(folder.path):
        writer = events.EventWriter(folder.path)
        batch_size = config.batch(estimate.fit_images(config))
        writer.summary(hparams.session_start(hparams.hyperparameters(config, batch_size)), 0)
        writer.summary(hparams.session_end(success=False), 0)
        writer.close()


@contextlib.contextmanager
def _errors_into(path: pathlib.Path) -> Iterator[None]:
    """What TensorFlow prints on standard error, from C++ too, goes to a trial's log."""
    with open(path, "ab") as log:
        before = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def _prepare(folder: RunFolder, config: RunConfig, parent: str | None) -> None:
    """Makes the run's folder; a trial that goes on from another begins with all that one has."""
    if folder.path.exists():
        if folder.config.exists():
            other = configs.differences(RunConfig.from_dict(configs.read_record(folder.path)["config"]), config)
            if set(other) - {"data_dir", *(["epochs"] if parent else [])}:
                raise TrialError(f"{folder.path}: holds another run than the trial's: {', '.join(other)} differ")
        return
    folder.path.parent.mkdir(exist_ok=True)
    beside = folder.path.with_name(f".{folder.path.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    if parent is None:
        beside.mkdir()
    else:
        shutil.copytree(parent, beside, ignore=shutil.ignore_patterns(
            ".lock", "result.json", "model.keras", "weights", LOG))
    beside.rename(folder.path)


def _train(folder: RunFolder, config: RunConfig, expected: dict[str, Any], stopped: Any) -> dict[str, Any]:
    from trainers.running import progress
    from trainers.running.run import RunError, execute

    result = folder.read_result() if folders.finished(folder, config) else None
    if result is None:
        try:
            with open(folder.path / LOG, "a") as log:
                result = execute(folder, config, reporter=progress.Lines(log), should_stop=stopped, expected=expected,
                                 data=_data(**config.data_settings)).result
        except RunError as error:
            cause = error.__cause__
            if isinstance(cause, OSError):
                raise TrialError(f"{cause.filename or folder.path}: cannot be written: {cause.strerror or cause}; make "
                                 "room, then the same command goes on") from error
            return {"status": "FAILED", "reason": str(error).split(";", 1)[0]}
    if result is None:
        return {"status": "STOPPED"}
    return {"status": "COMPLETED", **{name: result[name] for name in ("epochs", "final", "seconds")}}


def _share_cores(share: tuple[int, int] | None) -> None:
    """This worker's cores, before TensorFlow is imported, whose threads inherit where this one may run.

    A worker that stays on its own cores trains a quarter faster than one that is moved about.
    """
    if share is None or share[1] < 2 or "tensorflow" in sys.modules or not hasattr(os, "sched_setaffinity"):
        return
    index, count = share
    cores = sorted(os.sched_getaffinity(0))
    mine = cores[index::count] or [cores[index % len(cores)]]
    os.sched_setaffinity(0, mine)


def _memory_mb() -> float:
    """Of this process now, in MB; 0 where the system does not tell."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def host() -> dict[str, str]:
    """This worker's host and what it would train with."""
    import fmnist_zoo

    return {"host": os.uname().nodename, "version": fmnist_zoo.__version__}
