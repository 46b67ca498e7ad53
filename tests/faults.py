"""Makes operations on files fail, as a disk does that is full, broken, or mounted read-only.

Python's own functions are replaced, so what HDF5 writes from C does not fail here; on a small tmpfs it does.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import pathlib
from typing import Any, Callable, Iterator
from unittest import mock

# What fails with which error. A full disk still removes and cuts files.
GROWING = {"write", "open", "mkdir", "sync", "rename"}
FAILING = {"ENOSPC": GROWING, "EIO": {"write", "sync", "rename", "truncate"},
           "EROFS": GROWING | {"remove", "truncate"}}


class Faults:
    """Counts the operations below a folder that an error could hit, and raises it at the `first` of them.

    Args:
        error: a key of `FAILING`.
        first: 1 is the first one.
        forever: also at all later ones.
    """

    def __init__(self, root: pathlib.Path, error: str, first: int = 1, *, forever: bool = False):
        self._root, self._error, self._first, self._forever = str(root.resolve()), error, first, forever
        self._count = 0

    def fails(self, action: str, path: Any) -> bool:
        """Whether this operation fails."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        path = os.path.abspath(os.fsdecode(path))
        if not f"{path}/".startswith(f"{self._root}/") or action not in FAILING[self._error]:
            return False
        self._count += 1
        return self._count == self._first or self._forever and self._count > self._first

    def error(self, path: Any = None) -> OSError:
        """The error as the system raises it: without a path, if the call had none."""
        number = getattr(errno, self._error)
        named = () if path is None or isinstance(path, int) else (os.fspath(path),)
        return OSError(number, os.strerror(number), *named)


class _Raw(io.FileIO):
    faults: Faults

    def write(self, data: Any) -> int:
        if self.faults.fails("write", self.fileno()):
            view = memoryview(data).cast("B")
            super().write(view[:len(view) // 2])  # a disk takes what it has room for
            raise self.faults.error()
        return super().write(data)


@contextlib.contextmanager
def injected(faults: Faults) -> Iterator[None]:
    """Within the block, files are opened and changed through `faults`."""
    real_open = builtins.open

    def opened(file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
               newline: Any = None, closefd: bool = True, opener: Any = None) -> Any:
        if not set(mode) & set("wax+"):
            return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not isinstance(file, int) and faults.fails("open", file):
            raise faults.error(file)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        raw.faults = faults
        if not buffering:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffer
        text = io.TextIOWrapper(buffer, encoding, errors, newline)
        text.mode = mode  # type: ignore[misc]
        return text

    def checked(real: Callable[..., Any], action: str) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **more: Any) -> Any:
            if action != "open" or rest[0] & (os.O_WRONLY | os.O_RDWR):
                if faults.fails(action, path):
                    raise faults.error(path)
            return real(path, *rest, **more)

        return call

    names = {"open": "open", "fsync": "sync", "replace": "rename", "rename": "rename", "mkdir": "mkdir",
             "unlink": "remove", "remove": "remove", "rmdir": "remove", "truncate": "truncate", "ftruncate": "truncate"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(builtins, "open", opened))
        stack.enter_context(mock.patch.object(io, "open", opened))
        for name, action in names.items():
            stack.enter_context(mock.patch.object(os, name, checked(getattr(os, name), action)))
        yield
