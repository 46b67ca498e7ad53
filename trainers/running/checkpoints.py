"""The checkpoint of a run: one file that holds all that an exact resume needs, whole or not there.

An `.npz` of plain arrays (nothing in it can execute) and a JSON note, with a SHA-256 over the arrays. It knows neither
engines nor models: arrays and a note in, the same out.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write
from fmnist_zoo.version import __version__

_NOTE = "note.json"


class CheckpointError(ZooError, ValueError):
    """A checkpoint that cannot be used; says which file and why."""


def digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of names: of arrays, since zip files hold times."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def save(path: pathlib.Path, arrays: dict[str, np.ndarray], note: dict[str, Any]) -> None:
    """Writes `arrays` and the JSON-able `note` as one file, atomically; `OSError` if the disk does not take it.

    The note gets the key "version": the version of the code that wrote the file.
    """
    text = json.dumps({**note, "version": __version__, "sha256": digest(arrays)})
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **{_NOTE: np.frombuffer(text.encode(), np.uint8), **arrays})


def load(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and note of a checkpoint.

    Raises:
        CheckpointError: if the file is damaged or is no checkpoint.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        note = json.loads(arrays.pop(_NOTE).tobytes())
        intact = note.pop("sha256") == digest(arrays)
    except (OSError, EOFError, ValueError, TypeError, LookupError, RuntimeError, zipfile.BadZipFile,
            zlib.error) as error:
        raise CheckpointError(f"{path}: damaged, or not a checkpoint: {error}") from error
    if not intact:
        raise CheckpointError(f"{path}: its content does not fit its SHA-256; it was damaged or changed")
    return arrays, note
