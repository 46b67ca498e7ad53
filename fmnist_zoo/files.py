"""Files that are whole or not there: written beside, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import tempfile
from typing import IO, Any, Iterator


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO]:
    """A file object whose content replaces `path` when the block ends well, and leaves no trace when it does not.

    After a crash at any moment, `path` holds its old content or the new one, never a part.
    """
    path = pathlib.Path(path)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode) as file:
            yield file
        os.chmod(beside, 0o666 & ~_umask())
        publish(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say where
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """`content` as indented JSON, whole or not there."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def publish(beside: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Renames a finished file over `path`, in the same folder's file system, so that a power cut cannot tear it."""
    _sync(beside)
    os.replace(beside, path)
    _sync(pathlib.Path(path).parent)


def require_space(folder: str | os.PathLike[str], needed: int) -> None:
    """`OSError` (ENOSPC) unless `needed` bytes are free: for writers that crash on a full disk, such as HDF5's."""
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _sync(path: str | os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
