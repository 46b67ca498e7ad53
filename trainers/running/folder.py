"""A run's folder, `<logdir>/<model>/<run>/`: its files, who may write to them, and what a resumed run removes.

    config.json  metrics.csv  result.json  failure.json  model.keras  weights/  checkpoints/latest.npz
    train/  validation/  evaluation/
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import sys
import time
from typing import IO, Any, Collection, Iterator

from fmnist_zoo import files
from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import lock, make_folder, naming, publish, quoted, read_json, sha256_of, write_json
from fmnist_zoo.spec import ARRAYS
from trainers.config import ConfigError, RunConfig, read_run
from trainers.running import saving
from trainers.running.table import MetricsTable

SWEEPS = "sweeps"
ENSEMBLES = "ensembles"  # their evaluations: <logdir>/ensembles/<name>/evaluation
EVALUATION = "evaluation.json"
SHIPPED = ("shipped", "shipped-mini")  # folders for evaluations of the package's trained models, beside the runs
LOCK = ".lock"
EVENTS = "events.out.tfevents.*"
PRODUCTS = ("model.keras", "weights/*.weights.h5", EVENTS, f"train/{EVENTS}", f"validation/{EVENTS}")
PARTIAL_FILES = (".config.json.*", ".metrics.csv.*", ".result.json.*", ".failure.json.*", ".latest.npz.*", "saving.*")


class LockedError(ConfigError):
    """Another process holds the folder."""


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self.config, self.table = self.path / "config.json", MetricsTable(self.path / "metrics.csv")
        self.result, self.failure = self.path / "result.json", self.path / "failure.json"
        self.model, self.weights = self.path / "model.keras", self.path / "weights"
        self.checkpoint, self.evaluation = self.path / "checkpoints" / "latest.npz", self.path / "evaluation"

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Holds the folder for this process."""
        return locked(self.path, "training")

    def rows(self) -> list[dict[str, Any]]:
        """`metrics.csv` with its numbers read back; `TableError` if it is damaged, or not what a finished run wrote."""
        result = self.read_result() or {}
        if "metrics_sha256" in result:  # not in results of version 0.2 and earlier
            self.table.check(result["epochs"], result["metrics_sha256"])
        return self.table.rows()

    def read_result(self) -> dict[str, Any] | None:
        """`result.json` of a finished run; None if it is missing or damaged (resuming the run writes it again)."""
        try:
            result = read_json(self.result)
            types = ((result["epochs"], int), (result["stopped_early"], bool), (result["final"]["epoch"], int),
                     (result["seconds"], float), (result["weights_sha256"], str))
            whole = all(isinstance(value, kind) for value, kind in types)
            return result if whole and _are_within(result.get("files_sha256", {})) else None
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            return None

    def result_problem(self) -> str:
        """What is wrong with `result.json`; empty if nothing is, or there is none."""
        if self.read_result() or not self.result.exists():
            return ""
        return (f"{self.result}: damaged or changed; it is written again by python -m trainers.train "
                f"--resume={quoted(self.path)}")

    def digests(self) -> dict[str, str]:
        """SHA-256 of the model, the weights and the event files, by their paths in the folder."""
        return {path.relative_to(self.path).as_posix(): sha256_of(path)
                for pattern in PRODUCTS for path in sorted(self.path.glob(pattern)) if path.is_file()}

    def write_failure(self, reason: str) -> None:
        """Marks the run as one that would fail again, so that `latest_unfinished` does not choose it."""
        write_json(self.failure, {"reason": reason})

    def read_failure(self) -> str:
        """Why the run failed; empty if it did not, or if that does not read."""
        try:
            return str(read_json(self.failure)["reason"])
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            return ""

    def check_no_loss(self, checkpoint_every: int) -> None:
        """`ConfigError` if the run, which has no checkpoint, trained long enough to have written one."""
        if self.result.exists() or saving.was_due(checkpoint_every, self.table):
            raise ConfigError(f"{self.checkpoint}: is gone, and without it the run cannot continue; train it again in "
                              f"another folder with --config={quoted(self.config)}")

    def checkpoint_problem(self, checkpoint_every: int) -> ZooError | None:
        """Why the run cannot continue from its checkpoint; None if it can."""
        from trainers.running import checkpoints

        try:
            if self.checkpoint.exists():
                checkpoints.load(self.checkpoint)
            else:
                self.check_no_loss(checkpoint_every)
        except ZooError as error:
            return error
        return None

    def save_weights(self, model: Any, name: str) -> None:
        """Writes `weights/<name>.weights.h5`."""
        beside = self.path / "saving.weights.h5"
        model.save_weights(beside)
        make_folder(self.weights)
        publish(beside, self.weights / f"{name}.weights.h5")

    def save_model(self, model: Any) -> Exception | None:
        """Writes `model.keras`. Returns the error of Keras, which raises anything for a layer that it cannot describe.

        There is then no such file. `OSError` if it cannot be written.
        """
        beside = self.path / "saving.keras"
        try:
            model.save(beside)
        except OSError:
            raise
        except Exception as error:
            beside.unlink(missing_ok=True)
            self.model.unlink(missing_ok=True)
            return error
        publish(beside, self.model)
        return None

    def remove_partial_files(self) -> None:
        """Removes the files that a killed process did not finish. Call it while holding the lock."""
        for folder in (self.path, self.checkpoint.parent):
            for pattern in PARTIAL_FILES:
                for path in folder.glob(pattern):
                    path.unlink()


def _are_within(digests: Any) -> bool:
    """Whether these are digests by paths below a folder."""
    return isinstance(digests, dict) and all(
        isinstance(digest, str) and not os.path.isabs(name) and ".." not in name.split("/")
        for name, digest in digests.items())


@contextlib.contextmanager
def locked(folder: pathlib.Path, doing: str) -> Iterator[None]:
    """Holds a folder for this process. The lock ends with the process, so no stale lock is ever left.

    Raises:
        LockedError: if another process holds it, naming that process.
    """
    with open(folder / LOCK, "a+b", buffering=0) as file:  # closing a buffer would write again what the disk refused
        if not any(_hold(file, wait) for wait in (0, 0.02, 0.04)):  # `in_use` holds it for microseconds
            file.seek(0)
            raise LockedError(f"{folder}: process {file.read().decode().strip() or 'unknown'} is {doing} in this "
                              "folder; wait for it to end")
        with naming(folder / LOCK):
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield


def _hold(file: IO, wait: float) -> bool:
    time.sleep(wait)
    return lock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, os.path.dirname(file.name))


def in_use(folder: str | os.PathLike[str]) -> bool:
    """Whether a process holds a folder by `locked`; changes nothing in it."""
    try:
        with open(os.path.join(folder, LOCK), encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # nobody ever held it, or it cannot be read
        pass
    return False


def check_writable(path: str | os.PathLike[str], advice: str) -> None:
    """`ConfigError` with the advice unless files can be made in a folder, or in the nearest one above it that exists.

    So what takes long is not computed for nothing.
    """
    path = pathlib.Path(os.path.abspath(os.path.expanduser(path)))
    above = next(one for one in (path, *path.parents) if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{above}: cannot be written; {advice}")


def names_folder(name: str) -> bool:
    """Whether `name` is a plain folder name: one path component, printable, not hidden."""
    return os.sep not in name and name.isprintable() and name.strip() == name and not name.startswith(".")


def check_name(logdir: str | os.PathLike[str], config: RunConfig, run_name: str) -> None:
    """`ConfigError` if `run_name` cannot name the folder of a run; empty is right."""
    if run_name and (not names_folder(run_name) or run_name in ("train", "validation", *SHIPPED)):
        raise ConfigError(f"--run_name names a folder below {logdir}/{config.spec.folder}, received {run_name!r}; "
                          f"{', '.join(SHIPPED)} are for the trained models of the package")


def create(logdir: str | os.PathLike[str], config: RunConfig, run_name: str = "") -> RunFolder:
    """A new folder for a run, by default named after the time and the seed.

    A name is free if its folder holds no more than a process leaves that is killed as it starts.

    Raises:
        ConfigError: if the name is not a folder name or is taken, or the folder cannot be made.
    """
    check_name(logdir, config, run_name)
    parent = pathlib.Path(logdir) / config.spec.folder
    name = run_name or f"{time.strftime('%Y%m%d-%H%M%S')}-seed{config.seed}"
    names = [name] if run_name else [name, *(f"{name}-{number}" for number in range(2, 100))]
    for path in (parent / one for one in names):
        try:
            make_folder(path, exist_ok=False)
            return RunFolder(path)
        except FileExistsError:
            if run_name and is_empty(path) and not in_use(path):
                return RunFolder(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be made: {error.strerror}; "
                              "choose another --logdir or --run_name") from error
    advice = "choose another --run_name"
    if (parent / name / "config.json").exists():
        advice = f"continue that run with --resume={quoted(parent / name)}, or {advice}"
    raise ConfigError(f"{parent / name} exists already: {advice}")


def is_empty(path: pathlib.Path, *, without: Collection[str] = ()) -> bool:
    """Whether a folder holds nothing but the folders `without`, and what a run leaves that is killed as it starts."""
    try:
        return all(name in without or name == LOCK or name.startswith(".config.json.") for name in os.listdir(path))
    except OSError:
        return False


def remove_if_unused(folder: RunFolder) -> None:
    """Removes a new run's folder if training never began in it, so that wrong data leave no empty run behind."""
    if not folder.config.exists() and not in_use(folder.path):  # another process may have taken the same name
        shutil.rmtree(folder.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.path.parent.rmdir()


def finished(folder: RunFolder, config: RunConfig) -> bool:
    """Whether a run trained to its end under this config."""
    return ends(folder.read_result(), config)


def ends(result: dict[str, Any] | None, config: RunConfig) -> bool:
    """Whether what `read_result` returned is of a run that trained to its end under this config."""
    return result is not None and (result["stopped_early"] or result["epochs"] >= config.recipe.epochs)


def read_evaluation(folder: pathlib.Path, *, weights_sha256: str, data_sha256: str) -> dict[str, Any] | None:
    """The report in the folder of an evaluation; None if there is none, it is damaged, or of other weights or data."""
    try:
        report = read_json(folder / EVALUATION)
        matrix = report["confusion"]
        right = sum(row[label] for label, row in enumerate(matrix))
        same = report["weights_sha256"] == weights_sha256 and report["data"]["sha256"] == data_sha256
        whole = sum(map(sum, matrix)) == report["images"] and report["accuracy"] == right / report["images"]
        return report if same and whole and isinstance(report["nll"] + report["ece"], float) else None
    except (OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return None


def _started(record: pathlib.Path) -> float:
    """When a run started, by its record, which is not checked: of many thousands few are needed. 0 if it is damaged."""
    try:
        files.require_regular(record)
        return float(json.loads(record.read_bytes()).get("started", 0.0))
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return 0.0


def latest_unfinished(logdir: str | os.PathLike[str], model: str | None = None) -> RunFolder:
    """The newest unfinished run below `logdir`, of `model` if one is named, that can continue.

    Runs of sweeps, those that failed or are training, and those on arrays that were given in Python do not count. One
    whose checkpoint is damaged or gone is passed over with a line on standard error.

    Raises:
        ConfigError: if there is none.
    """
    found = [(_started(path), str(path)) for path in pathlib.Path(logdir).glob(f"{model or '*'}/*/config.json")
             if path.parts[-3] != SWEEPS]
    reason = ""
    for _, name in sorted(found, reverse=True):
        try:
            config, folder = read_run(name)[1], RunFolder(os.path.dirname(name))
        except ConfigError:  # a damaged record must not keep other runs from being resumed
            continue
        if finished(folder, config):
            continue
        if folder.failure.exists():
            reason = reason or (f" but a run that failed ({folder.read_failure() or 'for an unknown reason'}); to try "
                                f"it again all the same, name it: --resume={quoted(folder.path)}")
        elif in_use(folder.path):
            reason = reason or f" but {folder.path}, which is training"
        elif config.data == ARRAYS:
            reason = reason or f" but {folder.path}, whose images were given in Python as arrays: continue it there"
        elif problem := folder.checkpoint_problem(config.checkpoint_every):
            print(f"passed over: {problem}", file=sys.stderr, flush=True)
        else:
            return folder
    of_model = f" of {model}" if model else ""
    raise ConfigError(f"no unfinished run{of_model} below {logdir}: nothing to resume{reason}")
