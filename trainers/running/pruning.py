"""What a log folder can do without: checkpoints of finished runs, folders of runs that never began, old sweeps.

Only what this package made is removed: its records read and have their digest, and a folder that holds other files too
is left alone. Each is checked again, and held, before it is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import time
from typing import NamedTuple

from fmnist_zoo import registry
from fmnist_zoo.errors import SpecError
from fmnist_zoo.files import DIGEST, opened, require_regular
from trainers.config import ConfigError, read_run
from trainers.running import listing
from trainers.running.folder import LOCK, SWEEPS, LockedError, RunFolder, finished, in_use, is_empty, locked

CHECKPOINT, EMPTY, MOVED = "checkpoints of finished runs", "empty folders", "sweeps moved aside by --overwrite"
KINDS = (CHECKPOINT, EMPTY, MOVED)
MOVED_ASIDE = re.compile(r".+-until-\d{8}-\d{6}")
OF_SWEEP = re.compile(r"""
    (\.?\d+(\.\d+)?/)*                                  # of a trial, of an execution of it
    (\.lock | \.leader | \.[\w.]+\.[0-9a-f]{8} |        # the last ones are half-written
     (sweep | best | trial | config | result | failure)\.json |
     (trials | metrics)\.csv | report\.html | (effects | combinations)\.png | log\.txt |
     (model | saving)\.keras | (weights | checkpoints)/\.?\w+\.safetensors(\.[0-9a-f]{8})? |
     (train/ | test/)?events\.out\.tfevents\.[\w.]+ |
     test/(evaluation\.json | \w+\.(png | tsv | pbtxt)))""", re.VERBOSE)
EMPTY_FOR = 3600.0  # seconds: a run that starts makes its folder, and holds it a moment later


class Removable(NamedTuple):
    """A folder of a run or a sweep, what of it can be removed, and how many bytes that has."""

    folder: pathlib.Path
    kind: str
    bytes: int

    @property
    def files(self) -> list[pathlib.Path]:
        """What is removed, with the folders that it leaves empty."""
        if self.kind == CHECKPOINT:
            return [RunFolder(self.folder).checkpoint]
        return [path for path in self.folder.rglob("*") if path.is_symlink() or not path.is_dir()]


def find(logdir: str | os.PathLike[str]) -> list[Removable]:
    """All that can be removed below a log folder; `ConfigError` if there is none.

    Trials of sweeps are left alone: a sweep itself removes what it no longer needs.
    """
    paths = [pathlib.Path(path) for path in (*(path for _, path in listing.folders(logdir)), *listing.sweeps(logdir))]
    found = [Removable(path, kind, 0) for path in paths if (kind := _kind(path)) and not in_use(path)]
    return [one._replace(bytes=sum(file.lstat().st_size for file in one.files)) for one in found]


def remove(one: Removable) -> bool:
    """Removes it, unless a process has begun to use it; returns whether it did. `OSError` if it cannot be removed."""
    try:
        with locked(one.folder, "at work"):
            if _kind(one.folder) != one.kind:
                return False
            if one.kind == CHECKPOINT:
                folder = RunFolder(one.folder)
                folder.remove_partial_files()
                folder.checkpoint.unlink()
                with contextlib.suppress(OSError):  # files of somebody are there
                    folder.checkpoint.parent.rmdir()
            else:
                shutil.rmtree(one.folder)
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
        moved = MOVED_ASIDE.fullmatch(path.name) and _is_sealed(path / "sweep.json") and _is_all_of_sweep(path)
        return MOVED if moved else ""
    if is_empty(path):  # a run of ours took it, and left nothing but its process's number in it an hour ago
        old = time.time() - path.stat().st_mtime >= EMPTY_FOR
        return EMPTY if old and _holder(path).isdecimal() and _is_model(path.parent.name) else ""
    folder, result = RunFolder(path), RunFolder(path).read_result()
    if result is None or not folder.checkpoint.is_file() or folder.checkpoint.parent.is_symlink():
        return ""
    if not (_is_sealed(folder.config) and _is_sealed(folder.result)):
        return ""
    try:
        over = finished(result, read_run(folder.config)[1]) and folder.weight_file(result["weights"]).is_file()
        return CHECKPOINT if over else ""
    except ConfigError:
        return ""


def _is_sealed(path: pathlib.Path) -> bool:
    """Whether a file is a record of ours that nobody has changed."""
    try:
        require_regular(path)
        record = json.loads(path.read_bytes())
        return DIGEST in record and bool(opened(record))
    except (OSError, ValueError, TypeError):
        return False


def _is_all_of_sweep(path: pathlib.Path) -> bool:
    return all(OF_SWEEP.fullmatch(file.relative_to(path).as_posix()) and not file.is_symlink()
               for file in Removable(path, MOVED, 0).files)


def _holder(path: pathlib.Path) -> str:
    """What the process that held a folder last has left in its lock."""
    try:
        return (path / LOCK).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _is_model(name: str) -> bool:
    try:
        return bool(registry.get_spec(name))
    except SpecError:
        return False
