"""The checkpoint of a run: one file with everything that an exact resume needs, written whole or not at all.

It is an `.npz` of plain arrays, in which nothing can execute, and of a JSON note with a SHA-256 over the arrays. This
module knows neither engines nor models.
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
from fmnist_zoo.files import atomic_write, require_regular
from fmnist_zoo.version import __version__

_NOTE = "note.json"
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
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        note = json.loads(arrays.pop(_NOTE).tobytes())
        intact = note.pop("sha256") == digest(arrays)
    except (OSError, EOFError, ValueError, TypeError, LookupError, RuntimeError, zipfile.BadZipFile,
            zlib.error) as error:
        raise CheckpointError(f"{path}: damaged, or not a checkpoint: {error}; {_ADVICE}") from error
    if not intact:
        raise CheckpointError(f"{path}: its content does not fit its SHA-256; it was damaged or changed; {_ADVICE}")
    return arrays, note
