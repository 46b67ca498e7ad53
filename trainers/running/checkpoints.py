"""The checkpoint of a run: one file with everything that an exact resume needs, written whole or not at all.

It is an `.npz` of plain arrays, in which nothing can execute, and of a JSON note with a SHA-256 over the arrays.
Nothing in it is compressed, so that it takes no more memory than its size says. This module knows neither engines nor
models.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import zipfile
from typing import Any

import numpy as np

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write, require_regular, require_stored
from fmnist_zoo.version import __version__

_NOTE = "note.json"
_OF_A_RUN = {"epoch": int, "best_epoch": int, "best_loss": float, "seconds": float, "events": dict, "identity": str}
_ADVICE = "put a copy back, or train the run again with --config and its config.json"


class CheckpointError(ZooError, ValueError):
    """A checkpoint that cannot be used; says which file and why."""


def digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of names. Files cannot be hashed: zips hold times."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def save(path: pathlib.Path, arrays: dict[str, np.ndarray], note: dict[str, Any]) -> None:
    """Writes `arrays` and the note, which JSON can hold, as one file, atomically; `OSError` if that fails.

    The note gets the key "version": the version of the code that wrote the file.
    """
    text = json.dumps({**note, "version": __version__, "sha256": digest(arrays)})
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **{_NOTE: np.frombuffer(text.encode(), np.uint8), **arrays})


def load(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and note of a checkpoint.

    Raises:
        CheckpointError: if the file is damaged or is not a checkpoint.
    """
    try:
        require_regular(path)
        size = path.stat().st_size
        with open(path, "rb") as file:
            with zipfile.ZipFile(file) as archive:
                require_stored(archive, size)
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        note = json.loads(arrays.pop(_NOTE).tobytes())
        intact = note.pop("sha256") == digest(arrays)
    except CheckpointError:
        raise
    except Exception as error:  # NumPy and zipfile raise anything for a damaged file
        said = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: damaged, or not a checkpoint: {said:.200}; {_ADVICE}") from error
    if not intact:
        raise CheckpointError(f"{path}: its content does not fit its SHA-256; it was damaged or changed; {_ADVICE}")
    return arrays, note


def holds(arrays: dict[str, np.ndarray], needed: dict[str, np.ndarray]) -> bool:
    """Whether `arrays` has an array of each name in `needed`, with the same shape and dtype."""
    return all(name in arrays and (arrays[name].shape, arrays[name].dtype) == (array.shape, array.dtype)
               for name, array in needed.items())


def check_note(path: pathlib.Path, note: dict[str, Any]) -> None:
    """`CheckpointError` unless a note holds what a run notes of itself."""
    wrong = [name for name, kind in _OF_A_RUN.items() if not isinstance(note.get(name), kind)]
    if wrong or not 0 <= note["best_epoch"] <= note["epoch"] or not all(
            isinstance(length, int) for length in note["events"].values()):
        what = ", ".join(wrong) or "epochs that can be, or lengths of event files"
        raise CheckpointError(f"{path}: its note lacks what a run needs: {what}; {_ADVICE}")
