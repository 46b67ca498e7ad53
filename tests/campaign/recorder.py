"""Records what a piece of work does to the files below a folder, call by call, by `strace`.

Python's own functions would not show all: HDF5 and TensorFlow write from C. `strace` is attached to this process, so
that the work runs in it, warm; the processes that it starts are followed. What is read is not recorded, because a
process that starts reads gigabytes: who reads and writes a file through one descriptor has to seek before a write.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import Any, Callable, Iterator, NamedTuple

from fmnist_zoo.errors import UsageError

CALLS = ("open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,fsync,fdatasync,rename,renameat,renameat2,"
         "unlink,unlinkat,mkdir,mkdirat,rmdir,ftruncate,truncate,fallocate,link,linkat,symlink,symlinkat,sendfile,"
         "copy_file_range,mmap")
# What would change a file below the folder in a way that is not recorded.
UNKNOWN = {"pwritev", "pwritev2", "fallocate", "link", "linkat", "symlink", "symlinkat", "sendfile", "copy_file_range",
           "creat", "open"}
LINE = re.compile(r"(\d+) +(?:(\w+)\((.*)|<\.\.\. \w+ resumed>(.*))$")
END = re.compile(r"(.*)\) += (-?\d+)(?:<(.*?)>)?(?: .*)?$")
DESCRIPTOR = re.compile(r"(-?\d+|AT_FDCWD)<(.*?)>$")
ANY_PROCESS = ctypes.c_ulong(-1)  # may trace this one; prctl's PR_SET_PTRACER
PR_SET_PTRACER = 0x59616D61


class Operation(NamedTuple):
    """A change of a file or folder, or a wait for the disk.

    Attributes:
        kind: create, folder, write, size, rename, remove, sync.
        path: below the folder that is watched; "" is this folder.
        other: the new path of `rename`.
        place: offset in bytes of `write`, -1: at the end; the new length of `size`.
        data: of `write`.
    """

    kind: str
    path: str
    other: str = ""
    place: int = 0
    data: bytes = b""


def record(work: Callable[[], Any], root: pathlib.Path) -> list[Operation]:
    """Does the work, and returns what it did below `root`, in order.

    Raises:
        UsageError: if there is no `strace`, or it may not be attached.
    """
    if not shutil.which("strace"):
        raise UsageError("crash points are recorded with strace, which is not installed: apt-get install strace")
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY_PROCESS, 0, 0, 0)
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "log")
        tracer = subprocess.Popen(["strace", "-f", "-y", "-xx", "-s", str(2**26), "-o", str(log), "-e",
                                   f"trace={CALLS}", "-p", str(os.getpid())],
                                  stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        try:
            said = tracer.stderr.readline()  # type: ignore[union-attr]
            if "attached" not in said:
                raise UsageError(f"strace cannot be attached to this process: {said.strip() or 'no reason given'}")
            work()
        finally:
            tracer.terminate()
            tracer.communicate()
        return list(Reader(root.resolve()).operations(log))


class Reader:
    """Reads a log of `strace -f -y -xx`."""

    def __init__(self, root: pathlib.Path):
        self._root = str(root)
        self._offsets: dict[tuple[str, str, str], int] = {}  # of a descriptor, by thread, number and path
        self._appending: set[str] = set()

    def operations(self, log: pathlib.Path) -> Iterator[Operation]:
        for thread, call, arguments, result, opened in completed(log):
            if result >= 0:
                yield from self._operation(thread, call, arguments, result, opened)

    def _operation(self, thread: str, call: str, arguments: list[str], result: int, opened: str) -> Iterator[Operation]:
        if call in UNKNOWN:
            if any(self._below(text(part)) is not None or self._of(part)[1] is not None for part in arguments):
                raise NotImplementedError(f"{call}({', '.join(arguments):.200})")
        elif call == "openat":
            yield from self._open(thread, arguments, result, self._below(text(opened)))
        elif call == "mmap":
            if self._of(arguments[4])[1] is not None and "MAP_SHARED" in arguments[3] and "PROT_WRITE" in arguments[2]:
                raise NotImplementedError(f"mmap({', '.join(arguments):.200})")
        elif call in ("write", "writev", "pwrite64", "lseek", "fsync", "fdatasync", "ftruncate"):
            number, path = self._of(arguments[0])
            if path is not None:
                yield from self._on_descriptor(thread, call, number, path, arguments, result)
        else:
            yield from self._on_names(call, arguments)

    def _open(self, thread: str, arguments: list[str], number: int, path: str | None) -> Iterator[Operation]:
        if path is None:
            return
        flags = arguments[2].split("|")
        self._offsets[thread, str(number), path] = 0
        self._appending.discard(path)
        if "O_APPEND" in flags:
            self._appending.add(path)
        if "O_CREAT" in flags:
            yield Operation("create", path)
        if "O_TRUNC" in flags:
            yield Operation("size", path)

    def _on_descriptor(self, thread: str, call: str, number: str, path: str, arguments: list[str], result: int
                       ) -> Iterator[Operation]:
        key = (thread, number, path)
        if call in ("fsync", "fdatasync"):
            yield Operation("sync", path)
        elif call == "ftruncate":
            yield Operation("size", path, place=int(arguments[1]))
        elif call == "lseek":
            self._offsets[key] = result
        elif call == "pwrite64":
            yield Operation("write", path, place=int(arguments[3]), data=content(arguments[1])[:result])
        else:
            place = -1 if path in self._appending else self._offsets[key]
            self._offsets[key] = self._offsets.get(key, 0) + result
            data = content(arguments[1]) if call == "write" else b"".join(
                content(part.partition("=")[2]) for part in arguments[1:] if "iov_base=" in part)
            yield Operation("write", path, place=place, data=data[:result])

    def _on_names(self, call: str, arguments: list[str]) -> Iterator[Operation]:
        names = []
        folder = "/"
        for part in arguments:
            if found := DESCRIPTOR.match(part):
                folder = text(found[2])
            elif part.startswith('"'):
                names.append(self._below(os.path.normpath(os.path.join(folder, text(part)))))
        if names[0] is None:
            return
        if call.startswith("rename"):
            if names[1] is None:
                raise NotImplementedError(f"{call}({', '.join(arguments):.200})")
            yield Operation("rename", names[0], names[1])
        elif call == "truncate":
            yield Operation("size", names[0], place=int(arguments[1]))
        else:
            yield Operation("folder" if call.startswith("mkdir") else "remove", names[0])

    def _below(self, path: str) -> str | None:
        """A path relative to the folder that is watched; None if it is elsewhere."""
        if path == self._root:
            return ""
        return path[len(self._root) + 1:] if path.startswith(f"{self._root}/") else None

    def _of(self, argument: str) -> tuple[str, str | None]:
        """A descriptor's number, and its path if it is below the folder."""
        found = DESCRIPTOR.match(argument)
        return (found[1], self._below(text(found[2]))) if found and found[1] != "AT_FDCWD" else ("", None)


def completed(log: pathlib.Path) -> Iterator[tuple[str, str, list[str], int, str]]:
    """The calls that returned: thread, name, arguments, result, and the path of a descriptor that it is."""
    begun: dict[str, tuple[str, str]] = {}
    with open(log) as lines:
        for line in lines:
            found = LINE.match(line.rstrip("\n"))
            if not found:
                continue  # a signal, or the end of a process
            thread, call, start, rest = found.groups()
            if start is not None and start.endswith(" <unfinished ...>"):
                begun[thread] = (call, start.removesuffix(" <unfinished ...>"))
                continue
            if start is None:
                if thread not in begun:
                    continue  # it began before strace was attached
                call, start = begun.pop(thread)
                start += rest
            ended = END.match(start)
            if ended:
                yield thread, call, ended[1].split(", "), int(ended[2]), ended[3] or ""


def content(argument: str) -> bytes:
    """The bytes of a string that `-xx` shows as `"\\x61\\x62"`."""
    if not argument.startswith('"') or argument.endswith("..."):
        raise NotImplementedError(f"a string that strace did not show whole: {argument:.80}")
    return bytes.fromhex(argument.strip('"').replace("\\x", ""))


def text(argument: str) -> str:
    """The same as text, with or without quotes; what is no such string is returned as it is."""
    plain = argument.strip('"')
    return os.fsdecode(bytes.fromhex(plain.replace("\\x", ""))) if plain.startswith("\\x") else plain
