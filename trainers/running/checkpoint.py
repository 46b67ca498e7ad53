"""The checkpoint of a run: one file with everything that an exact resume needs, written whole or not at all; and when.

It is a file of `fmnist_zoo.tensors`: safetensors, in which nothing can execute, with a SHA-256 of all that it holds.
This module knows neither engines nor models. The numbers of a run do not depend on when it writes checkpoints. One of a
large model takes as long as a short epoch, and a process that is killed loses what it trained since the last one.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Mapping

import numpy as np
import numpy.typing as npt

from fmnist_zoo import tensors
from fmnist_zoo.errors import DamagedFileError, ZooError
from trainers.config import RunConfig
from trainers.running.table import MetricsTable

_ADVICE = "put a copy back, or train the run again with --config and its config.json"
_STATE, _BEST = "state/", "best/"
SECONDS = 60.0


class CheckpointError(ZooError, ValueError):
    """A checkpoint that cannot be used; says which file and why."""


@dataclasses.dataclass
class Checkpoint:
    """What a run is after an epoch.

    Attributes:
        epoch: how many are done.
        best_epoch, best_loss: the epoch (from 1) with the lowest validation loss so far; 0 and infinity at first.
        seconds: of training, so far.
        learning_rate: that of the next epoch, where a callback has set it.
        stopped: a callback has ended the training.
        events: lengths in bytes of the event files, by their paths in the run's folder.
        identity: as the function of that name returns it.
        metrics_sha256: of the first `epoch` rows of `metrics.csv`.
        state: all variables of the engine by name; `best`: the model's arrays after `best_epoch`.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = float("inf")
    seconds: float = 0.0
    learning_rate: float | None = None
    stopped: bool = False
    events: dict[str, int] = dataclasses.field(default_factory=dict)
    identity: list[str] = dataclasses.field(default_factory=list)
    metrics_sha256: str = ""
    state: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    best: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def save(self, path: pathlib.Path) -> None:
        """Writes it as one file, atomically; `OSError` if that fails."""
        note = {name: value for name, value in vars(self).items() if name not in ("state", "best")}
        arrays = {_STATE + name: array for name, array in self.state.items()}
        tensors.write_arrays(path, arrays | {_BEST + name: array for name, array in self.best.items()}, note)


def load(path: pathlib.Path) -> Checkpoint:
    """The checkpoint in a file; `CheckpointError` if that is damaged, is no checkpoint, or cannot be read."""
    try:
        arrays, note = tensors.read_arrays(path)
        note.pop("sha256")
        return Checkpoint(**note, state=_named(arrays, _STATE), best=_named(arrays, _BEST))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; {_ADVICE}") from error
    except DamagedFileError as error:
        raise CheckpointError(f"{error}; {_ADVICE}") from error
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not the checkpoint of a run: {error}; {_ADVICE}") from error


def identity(config: RunConfig, data_sha256: str, split_sha256: str) -> list[str]:
    """What makes two runs the same: the settings that decide their numbers, their images, and which are held out."""
    return [config.identity, data_sha256, split_sha256]


def fits(arrays: dict[str, np.ndarray], needed: Mapping[str, npt.ArrayLike]) -> bool:
    """Whether `arrays` has the names in `needed`, with the same shapes and dtypes."""
    return arrays.keys() == needed.keys() and all(
        (arrays[name].shape, arrays[name].dtype) == (np.shape(one), np.asarray(one).dtype)
        for name, one in needed.items())


def _named(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


class Due:
    """Asked at the end of each epoch whether a checkpoint is due; it then counts as written.

    Args:
        every: epochs between checkpoints; 0: one after the first epoch that ends `SECONDS` or more after the last one,
            or after the start.
    """

    def __init__(self, every: int):
        self._every, self._last = every, time.monotonic()

    def __call__(self, epoch: int) -> bool:
        if self._every:
            return epoch % self._every == 0
        due = time.monotonic() - self._last >= SECONDS
        if due:
            self._last = time.monotonic()
        return due


def was_due(every: int, table: MetricsTable) -> bool:
    """Whether a run with this table has written a checkpoint; `TableError` if the table is damaged.

    The last row does not count: the process may have been killed between the row and the checkpoint.
    """
    if every:
        return table.row_count() > every
    return sum(row["seconds"] or 0.0 for row in table.rows()[:-1]) >= SECONDS
