"""Writes files whole or not at all: each is written under another name, synced, then renamed.

Records are JSON with a digest of their content, so that one that was changed is not taken for what was written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shlex
import stat
import sys
from typing import IO, Any, Iterator

from fmnist_zoo.errors import SpecError
from fmnist_zoo.version import __version__

NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # of file systems that cannot sync a folder
Record = dict[str, Any]  # what a JSON file of ours holds, or a part of it
DIGEST = "content_sha256"  # the key of a record under which it holds the SHA-256 of all its other keys


def cache_folder() -> pathlib.Path:
    """`$XDG_CACHE_HOME/fmnist_zoo`, by default `~/.cache/fmnist_zoo`; `OSError` for a user who has no home folder."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if folder.startswith("~"):
        raise OSError(errno.ENOENT, "this user has no home folder", folder)
    return pathlib.Path(folder, "fmnist_zoo")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb", *, synced: bool = True) -> Iterator[IO]:
    """A file object; when the block ends without an error, its content replaces `path`.

    After a crash at any moment, `path` holds its old content or all of the new one; without `synced`, after a crash of
    the process alone, not of the machine. After an error, the temporary file is removed. Permissions are 0o666 less the
    umask, which the system applies when it creates the file; to read the umask, a process has to change it for a
    moment, in all of its threads.

    Raises:
        OSError: with the path in question, also where the system does not name one (a full disk); with that of the
            folder if no file can be made in it.
    """
    path = pathlib.Path(path)
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        # Exclusive: never another writer's file. Names of files that are not of the locale are written as they are.
        encoding, errors = (None, None) if "b" in mode else ("utf-8", "surrogateescape")
        file = open(beside, mode.replace("w", "x"), encoding=encoding, errors=errors)
    except OSError as error:  # nobody knows the temporary name
        raise OSError(error.errno, error.strerror, str(path.parent)) from error
    try:
        with file:
            yield file
        if synced:
            publish(beside, path)
        else:
            os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_json(path: str | os.PathLike[str], content: Record, *, synced: bool = True) -> None:
    """Writes a record, `sealed`, as indented JSON, whole or not at all."""
    with atomic_write(path, "w", synced=synced) as file:
        file.write(json.dumps(sealed(content), indent=2) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file, `opened`; `OSError` or `ValueError` if it cannot be read."""
    require_regular(path)
    return opened(json.loads(pathlib.Path(path).read_bytes()))


def require_regular(path: str | os.PathLike[str]) -> None:
    """`OSError` unless `path` is a regular file: reading a pipe may never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(content: Record) -> Record:
    """A record as it is written: "version" says which version of the code did, and `DIGEST` is of all the rest."""
    record = json.loads(json.dumps({**content, "version": __version__}))  # a key that is a number becomes text
    record.pop(DIGEST, None)
    return {**record, DIGEST: _digest(record)}


def opened(record: Any) -> Any:
    """A record without its digest, which a person who edits it removes; `ValueError` if that is of another content."""
    if not isinstance(record, dict) or DIGEST not in record:
        return record
    content = {name: value for name, value in record.items() if name != DIGEST}
    if record[DIGEST] != _digest(content):
        raise ValueError(f"its content does not fit its {DIGEST}: it was damaged or changed (if you changed it on "
                         "purpose, remove that line)")
    return content


def _digest(content: Record) -> str:
    """Of content that JSON has made, in the order of names: independent of spaces and of the order in the file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def publish(beside: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Renames a finished file to `path`, on the same file system, and syncs both: a power cut cannot tear it."""
    sync(beside)
    os.replace(beside, path)
    sync(pathlib.Path(path).parent)


def make_folder(path: str | os.PathLike[str], *, exist_ok: bool = True) -> None:
    """Makes a folder, and those above it that are missing; a power cut cannot lose one that is made.

    A file that is synced is lost all the same if the name of a folder above it was never synced.
    """
    path = pathlib.Path(path)
    try:
        try:
            path.mkdir()
        except FileNotFoundError:
            make_folder(path.parent)
            path.mkdir()
    except FileExistsError:
        if not exist_ok or not path.is_dir():
            raise
    else:
        sync(path.parent)


@contextlib.contextmanager
def exclusive(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Waits until no other process or thread holds `folder` through this function, then holds it for the block.

    Use it around reading, changing and writing back a file in that folder. The lock is on the folder itself (`flock`),
    so it leaves no file behind and ends with its process.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, fcntl.LOCK_EX, folder)
        yield
    finally:
        os.close(descriptor)


_UNLOCKED: set[pathlib.Path] = set()


def lock(descriptor: int, operation: int, folder: str | os.PathLike[str]) -> bool:
    """`flock`; False if another process holds the lock. Where there are no locks, it says so and returns True.

    NFS may have none, and locks only what is open for writing, which a folder never is. A process says so once, for a
    folder and those within.
    """
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        path = pathlib.Path(folder).absolute()
        if not _UNLOCKED.intersection((path, *path.parents)):
            _UNLOCKED.add(path)
            print(f"{folder}: cannot be locked ({error.strerror}); let only one process at a time write there",
                  file=sys.stderr, flush=True)
    return True


def local_path(path: str | os.PathLike[str], name: str = "") -> str:
    """A path on this machine with `~` expanded; `name` is that of the setting that it is the value of.

    Raises:
        SpecError: for an address, as of a bucket.
    """
    path = os.path.expanduser(path)
    if re.match(r"[A-Za-z][\w+.-]*:/", path):  # pathlib makes one slash of two
        raise SpecError(f"{name}={path}".removeprefix("=") + ": is an address; name a file or folder on this machine, "
                        "such as one where a bucket is mounted")
    return path


def quoted(path: str | os.PathLike[str]) -> str:
    """A path as a shell reads it, for commands that a person may copy."""
    return shlex.quote(os.fspath(path))


def require_space(folder: str | os.PathLike[str], needed: int) -> None:
    """Raises `OSError` (ENOSPC) unless `needed` bytes are free: for writers that crash on a full disk, such as HDF5."""
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def append(path: str | os.PathLike[str], text: str) -> None:
    """Appends a text to a file and syncs it: all of it, or nothing; `OSError` with the path if the disk does not."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        try:
            with naming(path), open(descriptor, "a", encoding="utf-8", closefd=False) as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
        except OSError:  # after the file is closed, which writes once more what it still holds
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
        if not size:
            sync(pathlib.Path(path).parent)
    finally:
        os.close(descriptor)


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until the disk holds a file's content, or a folder's entries; `OSError` with the path if it cannot.

    Some file systems (CIFS, sshfs, shared folders of virtual machines) have no such operation for folders.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Gives errors of the block the path, where the system raises them without one: a full disk, or a broken one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
