"""What a log folder can do without: checkpoints of finished runs, empty folders, sweeps that were moved aside.

Each is checked again, and held, before it is removed.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import time
from typing import NamedTuple

from trainers.config import ConfigError, read_run
from trainers.running import listing
from trainers.running.folder import SWEEPS, LockedError, RunFolder, finished, in_use, is_empty, locked

CHECKPOINT, EMPTY, MOVED = "checkpoints of finished runs", "empty folders", "sweeps moved aside by --overwrite"
KINDS = (CHECKPOINT, EMPTY, MOVED)
MOVED_ASIDE = re.compile(r".+-until-\d{8}-\d{6}")
EMPTY_FOR = 3600.0  # seconds: a run that starts makes its folder, and holds it only when TensorFlow is imported


class Removable(NamedTuple):
    """A folder that can be removed, why, and how many bytes its files have."""

    path: pathlib.Path
    kind: str
    bytes: int


def find(logdir: str | os.PathLike[str]) -> list[Removable]:
    """All that can be removed below a log folder; `ConfigError` if there is none.

    Trials of sweeps are left alone: a sweep itself removes what it no longer needs.
    """
    found = [Removable(folder.checkpoint.parent, CHECKPOINT, size(folder.checkpoint.parent))
             for _, path in listing.folders(logdir) if _needs_no_checkpoint(folder := RunFolder(path))]
    for parent in (pathlib.Path(entry.path) for entry in listing.within(logdir)):
        empty = [path for path in map(pathlib.Path, listing.within(parent)) if is_empty(path) and _is_at_rest(path)]
        if parent.name != SWEEPS and is_empty(parent, without=[path.name for path in empty]) and _is_at_rest(parent):
            empty.append(parent)
        found += [Removable(path, EMPTY, size(path)) for path in empty]
    found += [Removable(path, MOVED, size(path)) for path in map(pathlib.Path, listing.sweeps(logdir))
              if MOVED_ASIDE.fullmatch(path.name) and not path.is_symlink() and not in_use(path)]
    return found


def remove(one: Removable) -> bool:
    """Removes it, unless a process has begun to use it; returns whether it did. `OSError` if it cannot be removed."""
    try:
        if one.kind == CHECKPOINT:
            folder = RunFolder(one.path.parent)
            with folder.locked():
                if not _needs_no_checkpoint(folder):
                    return False
                shutil.rmtree(one.path)
        else:
            with locked(one.path, "at work"):
                if one.kind == EMPTY and not is_empty(one.path):
                    return False
                shutil.rmtree(one.path)
    except (FileNotFoundError, LockedError):
        return False
    return True


def _needs_no_checkpoint(folder: RunFolder) -> bool:
    """Whether a run is finished, has its weights, and has a checkpoint."""
    if not folder.checkpoint.exists():
        return False
    try:
        _, config = read_run(folder.config)
    except ConfigError:
        return False
    weights = folder.weights / f"{config.recipe.weights}.weights.h5"
    return finished(folder, config) and weights.is_file() and weights.stat().st_size > 0


def _is_at_rest(path: pathlib.Path) -> bool:
    """Whether no process holds an empty folder, or has just made it."""
    return not path.is_symlink() and not in_use(path) and time.time() - path.stat().st_mtime >= EMPTY_FOR


def size(path: pathlib.Path) -> int:
    """Bytes of all files in a folder, links not followed."""
    total = 0
    for parent, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):  # gone meanwhile
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
