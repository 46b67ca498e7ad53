"""What a log folder can do without: checkpoints of finished runs, folders of runs that never began, old sweeps.

Only what this package made is removed. Each is checked again, and held, before it is removed.
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
from trainers.running.folder import LOCK, LockedError, RunFolder, finished, in_use, is_empty, locked

CHECKPOINT, EMPTY, MOVED = "checkpoints of finished runs", "empty folders", "sweeps moved aside by --overwrite"
KINDS = (CHECKPOINT, EMPTY, MOVED)
MOVED_ASIDE = re.compile(r".+-until-\d{8}-\d{6}")
EMPTY_FOR = 3600.0  # seconds: a run that starts makes its folder, and holds it a moment later


class Removable(NamedTuple):
    """A folder that can be removed, why, and how many bytes its files have."""

    path: pathlib.Path
    kind: str
    bytes: int


def find(logdir: str | os.PathLike[str]) -> list[Removable]:
    """All that can be removed below a log folder; `ConfigError` if there is none.

    Trials of sweeps are left alone: a sweep itself removes what it no longer needs.
    """
    found = []
    for _, name in listing.folders(logdir):
        folder = RunFolder(name)
        if _needs_no_checkpoint(folder):
            found.append((folder.checkpoint.parent, CHECKPOINT))
        elif _never_began(folder.path):
            found.append((folder.path, EMPTY))
    found += [(path, MOVED) for path in map(pathlib.Path, listing.sweeps(logdir))
              if MOVED_ASIDE.fullmatch(path.name) and not path.is_symlink() and not in_use(path)]
    return [Removable(path, kind, sum(one.lstat().st_size for one in path.rglob("*") if not one.is_dir()))
            for path, kind in found]


def remove(one: Removable) -> bool:
    """Removes it, unless a process has begun to use it; returns whether it did. `OSError` if it cannot be removed."""
    held = one.path.parent if one.kind == CHECKPOINT else one.path
    try:
        with locked(held, "at work"):
            if one.kind == CHECKPOINT and not _needs_no_checkpoint(RunFolder(held)):
                return False
            if one.kind == EMPTY and not is_empty(held):
                return False
            shutil.rmtree(one.path)
    except (FileNotFoundError, LockedError):
        return False
    if one.kind == EMPTY:
        with contextlib.suppress(OSError):  # other runs of the model are there
            one.path.parent.rmdir()
    return True


def _needs_no_checkpoint(folder: RunFolder) -> bool:
    """Whether a run is finished, has its weights, and has a checkpoint."""
    if not folder.checkpoint.exists():
        return False
    try:
        _, config = read_run(folder.config)
    except ConfigError:
        return False
    weights = folder.weight_file(config.recipe.weights)
    return finished(folder, config) and weights.is_file() and weights.stat().st_size > 0


def _never_began(path: pathlib.Path) -> bool:
    """Whether a run of ours took a folder, for its lock is there, and left nothing else in it an hour ago."""
    return (not path.is_symlink() and (path / LOCK).is_file() and is_empty(path) and not in_use(path)
            and time.time() - path.stat().st_mtime >= EMPTY_FOR)
