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
from trainers.running.folder import LOCK, SWEEPS, LockedError, RunFolder, finished, in_use, is_empty, locked

CHECKPOINT, EMPTY, MOVED = "checkpoints of finished runs", "empty folders", "sweeps moved aside by --overwrite"
KINDS = (CHECKPOINT, EMPTY, MOVED)
MOVED_ASIDE = re.compile(r".+-until-\d{8}-\d{6}")
EMPTY_FOR = 3600.0  # seconds: a run that starts makes its folder, and holds it a moment later


class Removable(NamedTuple):
    """A folder of a run or a sweep, what of it can be removed, and how many bytes that has."""

    folder: pathlib.Path
    kind: str
    bytes: int

    @property
    def path(self) -> pathlib.Path:
        return RunFolder(self.folder).checkpoint.parent if self.kind == CHECKPOINT else self.folder


def find(logdir: str | os.PathLike[str]) -> list[Removable]:
    """All that can be removed below a log folder; `ConfigError` if there is none.

    Trials of sweeps are left alone: a sweep itself removes what it no longer needs.
    """
    paths = [pathlib.Path(path) for path in (*(path for _, path in listing.folders(logdir)), *listing.sweeps(logdir))]
    found = [Removable(path, kind, 0) for path in paths if (kind := _kind(path)) and not in_use(path)]
    return [one._replace(bytes=sum(file.lstat().st_size for file in one.path.rglob("*") if not file.is_dir()))
            for one in found]


def remove(one: Removable) -> bool:
    """Removes it, unless a process has begun to use it; returns whether it did. `OSError` if it cannot be removed."""
    try:
        with locked(one.folder, "at work"):
            if _kind(one.folder) != one.kind:
                return False
            shutil.rmtree(one.path)
    except (FileNotFoundError, LockedError):
        return False
    if one.kind == EMPTY:
        with contextlib.suppress(OSError):  # other runs of the model are there
            one.folder.parent.rmdir()
    return True


def _kind(path: pathlib.Path) -> str:
    """What of a folder can be removed, by one of `KINDS`; empty if nothing can."""
    if path.is_symlink():
        return ""
    if path.parent.name == SWEEPS:
        return MOVED if MOVED_ASIDE.fullmatch(path.name) else ""
    if is_empty(path):  # a run of ours took it, for its lock is there, and left nothing else in it an hour ago
        return EMPTY if (path / LOCK).is_file() and time.time() - path.stat().st_mtime >= EMPTY_FOR else ""
    folder, result = RunFolder(path), RunFolder(path).read_result()
    if result is None or not folder.checkpoint.exists() or not folder.weight_file(result["weights"]).is_file():
        return ""
    try:
        return CHECKPOINT if finished(result, read_run(folder.config)[1]) else ""
    except ConfigError:
        return ""
