"""Files of named arrays with a note: safetensors, in which nothing can execute, with a SHA-256 of all that they hold.

Checkpoints, weights of runs and the weights that come with the package are such files. The note is JSON in the
header's metadata, so other programs that read safetensors read the arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import Any, Mapping

import numpy as np

from fmnist_zoo.errors import DamagedFileError
from fmnist_zoo.files import atomic_write, require_regular

_NOTE, _DIGEST = "note", "sha256"


def digest_of(arrays: Mapping[str, np.ndarray], note: Mapping[str, Any] | None = None) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of arrays, in the order of names, and of a note."""
    total = hashlib.sha256(json.dumps(note or {}, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], note: Mapping[str, Any]) -> str:
    """Writes arrays (NumPy's numbers and bools, any shape) and a note that JSON can hold, whole or not at all.

    Returns:
        Their SHA-256, which the file holds and `read_arrays` checks. Equal arrays and notes make equal files.

    Raises:
        OSError: if the file cannot be written.
    """
    import safetensors.numpy

    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    note = json.loads(json.dumps(note))  # as it is read back: tuples are lists
    digest = digest_of(plain, note)
    # One entry of metadata: safetensors writes several in no fixed order.
    content = safetensors.numpy.save(plain, {_NOTE: json.dumps({**note, _DIGEST: digest})})
    with atomic_write(path) as file:
        file.write(content)
    return digest


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays by name and the note of a file that `write_arrays` wrote; the note's "sha256" is of all the rest.

    Raises:
        OSError: if the file cannot be read.
        DamagedFileError: if it is damaged, was changed, or is another kind of file.
    """
    import safetensors.numpy

    require_regular(path)
    content = pathlib.Path(path).read_bytes()
    try:
        arrays = safetensors.numpy.load(content)
        header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
        note = json.loads(header["__metadata__"][_NOTE])
        rest = {name: value for name, value in note.items() if name != _DIGEST}
        intact = note[_DIGEST] == digest_of(arrays, rest)
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DamagedFileError(f"{path}: damaged, or not a file of this zoo: {said:.200}") from error
    if not intact:
        raise DamagedFileError(f"{path}: its content does not fit its SHA-256: it was damaged or changed")
    return arrays, note
