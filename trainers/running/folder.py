"""A run's folder: `<logdir>/<model>/<run>/`. Who may write it, what lies where, and what is cut off on resume.

    config.json  metrics.csv  result.json  model.keras  weights/  checkpoints/latest.npz  train/  validation/
    evaluation/
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import pathlib
import shutil
import time
from typing import Any, Iterator

from fmnist_zoo.files import atomic_write
from trainers.config import ConfigError, RunConfig, read_record

COLUMNS = ("epoch", "step", "seconds", "images_per_second", "learning_rate", "train_loss", "train_penalty",
           "train_objective", "train_accuracy", "train_loss_eval", "validation_loss", "validation_accuracy",
           "train_accuracy_eval", "validation_penalty", "validation_rounded_accuracy")
SWEEPS = "sweeps"
SHIPPED = ("shipped", "shipped-mini")  # where evaluations of the package's trained models go, in place of a run


class LockedError(ConfigError):
    """Another process holds the folder."""


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self.config, self.metrics = self.path / "config.json", self.path / "metrics.csv"
        self.result, self.model = self.path / "result.json", self.path / "model.keras"
        self.weights, self.checkpoint = self.path / "weights", self.path / "checkpoints" / "latest.npz"
        self.evaluation = self.path / "evaluation"

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Holds the folder for this process."""
        return locked(self.path, "training")

    def read_result(self) -> dict[str, Any] | None:
        """`result.json` of a run that ended; None if there is none, or it does not read (ending again mends it)."""
        try:
            result = json.loads(self.result.read_text())
            types = ((result["epochs"], int), (result["stopped_early"], bool), (result["final"]["epoch"], int),
                     (result["seconds"], float), (result["weights_sha256"], str))
            return result if all(isinstance(value, kind) for value, kind in types) else None
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            return None

    def rows(self) -> list[dict[str, Any]]:
        """`metrics.csv` with its numbers read back; an empty cell is None."""
        if not self.metrics.exists():
            return []
        with open(self.metrics, newline="") as file:
            return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]

    def append_row(self, row: dict[str, Any]) -> None:
        """Adds an epoch's row and sees it to the disk."""
        with open(self.metrics, "a", newline="") as file:
            if file.tell() == 0:
                file.write(",".join(COLUMNS) + "\n")
            file.write(",".join("" if row[name] is None else repr(row[name]) for name in COLUMNS) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _lines(self, count: int) -> list[str]:
        """Head and first `count` rows as text, none if there are no rows."""
        if not count or not self.metrics.exists():
            return []
        return self.metrics.read_text(errors="replace").splitlines(keepends=True)[:count + 1]

    def check_rows(self, count: int) -> None:
        """`ConfigError` unless `metrics.csv` begins with the rows of the epochs 1 to `count`."""
        lines = self._lines(count)
        epochs = [line.split(",", 1)[0] for line in lines[1:]]
        complete = all(line.count(",") == len(COLUMNS) - 1 and line.endswith("\n") for line in lines)
        if epochs != [str(epoch + 1) for epoch in range(count)] or not complete:
            raise ConfigError(f"{self.metrics}: the checkpoint stands after epoch {count}, and the rows of these "
                              "epochs are not all there; put the file back, or train anew with "
                              f"--config={self.config}")

    def cut_rows(self, count: int) -> None:
        """Leaves the first `count` rows; whatever came after, torn lines included, goes."""
        if self.metrics.exists():
            lines = self._lines(count)
            with atomic_write(self.metrics, "w") as file:
                file.writelines(lines)

    def check_no_loss(self, checkpoint_every: int) -> None:
        """`ConfigError` if a run without a checkpoint has more to lose than a first checkpoint's epochs."""
        rows = len(self.metrics.read_bytes().splitlines()) - 1 if self.metrics.exists() else 0
        if self.result.exists() or rows > checkpoint_every:
            raise ConfigError(f"{self.checkpoint}: is gone, and without it the run cannot go on; train it anew in "
                              f"another folder with --config={self.config}")

    def remove_partial_files(self) -> None:
        """Removes what a killed process left half-written. Call it under the lock."""
        for folder in (self.path, self.checkpoint.parent):
            for pattern in (".config.json.*", ".metrics.csv.*", ".result.json.*", ".latest.npz.*", "saving.*"):
                for left in folder.glob(pattern):
                    left.unlink()


@contextlib.contextmanager
def locked(folder: pathlib.Path, doing: str) -> Iterator[None]:
    """Holds a folder for this process; the lock dies with it, so that none is ever stale.

    Raises:
        LockedError: if another process holds it, naming that process.
    """
    with open(folder / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise LockedError(f"{folder}: process {file.read().strip() or 'unknown'} is {doing} in this "
                              "folder; wait for it to end") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _number(text: str) -> Any:
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        return float(text)


def names_folder(name: str) -> bool:
    """Whether `name` names a folder that a person would expect, and no path."""
    return os.sep not in name and name.isprintable() and name.strip() == name and not name.startswith(".")


def create(logdir: str | os.PathLike[str], config: RunConfig, run_name: str = "") -> RunFolder:
    """A new folder for a run; without a name, the time and the seed make one.

    Raises:
        ConfigError: if the name is no folder's name or is taken, or the folder cannot be made.
    """
    if run_name and (not names_folder(run_name) or run_name in ("train", "validation", *SHIPPED)):
        raise ConfigError(f"--run_name names a folder below {logdir}/{config.spec.name}, received {run_name!r}; "
                          f"{', '.join(SHIPPED)} are for the trained models of the package")
    parent = pathlib.Path(logdir) / config.spec.name
    name = run_name or f"{time.strftime('%Y%m%d-%H%M%S')}-seed{config.seed}"
    for path in [parent / name] if run_name else [parent / name, *(parent / f"{name}-{n}" for n in range(2, 100))]:
        try:
            path.mkdir(parents=True)
            return RunFolder(path)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"{path}: cannot be made: {error.strerror}; "
                              "choose another --logdir or --run_name") from error
    raise ConfigError(f"{parent / name} exists already: go on with --resume={parent / name}, "
                      "or choose another --run_name")


def remove_if_unused(folder: RunFolder) -> None:
    """Removes a new run's folder if training never began in it, so that wrong data leave no empty run behind."""
    if not folder.config.exists():
        shutil.rmtree(folder.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.path.parent.rmdir()


def finished(folder: RunFolder, config: RunConfig) -> bool:
    """Whether a run came to its end under this config."""
    result = folder.read_result()
    return result is not None and (result["stopped_early"] or result["epochs"] >= config.recipe.epochs)


def latest_unfinished(logdir: str | os.PathLike[str], model: str | None = None) -> RunFolder:
    """The newest run below `logdir` that did not come to its end; of `model`, if one is named; sweeps aside.

    Raises:
        ConfigError: if there is none.
    """
    found = []
    for path in pathlib.Path(logdir).glob(f"{model or '*'}/*/config.json"):
        if path.parts[-3] == SWEEPS:
            continue
        try:
            record, folder = read_record(path), RunFolder(path.parent)
        except ConfigError:  # a folder that cannot be resumed must not keep others from it
            continue
        if not finished(folder, RunConfig.from_dict(record["config"])):
            found.append((record.get("started", 0.0), str(path), folder))
    if not found:
        raise ConfigError(f"no unfinished run{f' of {model}' if model else ''} below {logdir}: nothing to resume")
    return max(found, key=lambda entry: entry[:2])[2]
