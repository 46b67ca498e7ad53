"""Compiled programs, kept between processes, so that the second run of an architecture begins at once.

XLA's persistent cache keeps them as files. They are machine code: one for another processor must never be loaded, XLA
trusts what it finds, and fails on a damaged file. So there is a folder in the user's cache for each version of
TensorFlow, processor, number of threads and set of XLA's flags. It is used only if it is the user's alone, and the disk
has room. A process gets a folder of its own in it, with links to the programs whose content has the SHA-256 that their
names say. What it compiles is added when its run has ended; the oldest programs go when there are too many.

Set FMNIST_ZOO_COMPILE_CACHE=0 to compile in each process. Must not import TensorFlow, which reads the flag when it is
imported.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import stat
import sys
import tempfile
from typing import Iterator

from fmnist_zoo.backend import environment
from fmnist_zoo.files import cache_folder, sha256_of
from trainers.engine.processor import features

VARIABLE = "FMNIST_ZOO_COMPILE_CACHE"
FLAGS = "TF_XLA_FLAGS"
FLAG = "--tf_xla_persistent_cache_directory"
LARGEST = 128 << 20  # bytes of all programs; one of 4L takes 2.5 MB
ROOM = 256 << 20  # free bytes that the disk must have
PROCESS = "process-"  # how the folder of a process begins
_own: list[pathlib.Path] = []  # the folder of this process, if it uses the cache


@contextlib.contextmanager
def enabled(threads: int) -> Iterator[None]:
    """Lets the TensorFlow that is imported within the block keep its compiled programs; without effect later.

    Args:
        threads: of TensorFlow within an operation.
    """
    given = os.environ.get(FLAGS, "")
    folder = None
    if "tensorflow" not in sys.modules and FLAG not in given and os.environ.get(VARIABLE) != "0":
        with contextlib.suppress(OSError, importlib.metadata.PackageNotFoundError):
            folder = _folder(threads)
    if folder is None:
        yield
        return
    with environment(FLAGS, f"{given} {FLAG}={folder}".strip()):
        yield


def add() -> None:
    """Adds the programs that this process compiled to those that later ones find."""
    for folder in _own:
        for program in folder.glob("*.pb"):
            with contextlib.suppress(OSError):
                if program.stat().st_nlink == 1:
                    os.link(program, folder.parent / f"{program.stem}.{sha256_of(program)}")


def _folder(threads: int) -> pathlib.Path | None:
    """The folder of this process, with what is known; None if none can be trusted. `OSError` if none can be made."""
    known = features()
    if not known:
        return None
    flags = [os.environ.get(name, "") for name in ("XLA_FLAGS", FLAGS)]
    key = hashlib.sha256("\n".join((known, *flags)).encode()).hexdigest()[:16]
    root = cache_folder() / "programs"
    shared = root / f"{importlib.metadata.version('tensorflow')}-{threads}-{key}"
    for path in (root, shared):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return None
    if " " in str(shared) or shutil.disk_usage(shared).free < ROOM:
        return None
    _clean(root)
    own = pathlib.Path(tempfile.mkdtemp(prefix=PROCESS, dir=shared))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    fcntl.flock(os.open(own, os.O_RDONLY), fcntl.LOCK_SH)  # until the process ends
    for program in shared.glob("*.*"):
        name, _, digest = program.name.rpartition(".")
        if sha256_of(program) == digest:
            with contextlib.suppress(FileExistsError):
                os.link(program, own / f"{name}.pb")
        else:
            program.unlink(missing_ok=True)
    _own.append(own)
    return own


def _clean(root: pathlib.Path) -> None:
    """Removes the folders of processes that were killed, and the oldest programs beyond `LARGEST` bytes."""
    for left in root.glob(f"*/{PROCESS}*"):
        with contextlib.suppress(OSError):  # one that is in use is locked
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)
    programs = [(path.stat().st_mtime, path.stat().st_size, path) for path in root.glob("*/*.*") if path.is_file()]
    total = 0
    for _, size, path in sorted(programs, reverse=True):
        total += size
        if total > LARGEST:
            path.unlink(missing_ok=True)
