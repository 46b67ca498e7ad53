"""What finished runs can do without: their checkpoints, from which only a longer run would continue.

Only what this package made is removed: the records of the run read, and have their digest.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import NamedTuple

from fmnist_zoo.files import DIGEST, opened, require_regular
from trainers.config import ConfigError, read_run
from trainers.running import listing
from trainers.running.folder import LockedError, RunFolder, finished, in_use, locked


class Removable(NamedTuple):
    """A finished run's folder, and how many bytes its checkpoint has."""

    folder: RunFolder
    bytes: int


def find(logdir: str | os.PathLike[str]) -> list[Removable]:
    """The checkpoints of all finished runs below a log folder, sweeps aside; `ConfigError` if there is none."""
    folders = [RunFolder(path) for _, path in listing.folders(logdir)]
    return [Removable(folder, folder.checkpoint.stat().st_size) for folder in folders
            if _is_removable(folder) and not in_use(folder.path)]


def remove(one: Removable) -> bool:
    """Removes it, unless a process has begun to use the run; returns whether it did. `OSError` if it cannot."""
    try:
        with locked(one.folder.path, "at work"):
            if not _is_removable(one.folder):
                return False
            one.folder.remove_partial_files()
            one.folder.checkpoint.unlink()
            with contextlib.suppress(OSError):  # files of somebody are there
                one.folder.checkpoint.parent.rmdir()
    except (FileNotFoundError, LockedError):
        return False
    return True


def _is_removable(folder: RunFolder) -> bool:
    if folder.path.is_symlink() or folder.checkpoint.parent.is_symlink() or not folder.checkpoint.is_file():
        return False
    result = folder.read_result()
    try:
        return (result is not None and _is_sealed(folder.config) and _is_sealed(folder.result)
                and finished(result, read_run(folder.config)[1]) and folder.weight_file(result["weights"]).is_file())
    except ConfigError:
        return False


def _is_sealed(path: pathlib.Path) -> bool:
    """Whether a file is a record of ours that nobody has changed."""
    try:
        require_regular(path)
        record = json.loads(path.read_bytes())
        return DIGEST in record and bool(opened(record))
    except (OSError, ValueError, TypeError):
        return False
