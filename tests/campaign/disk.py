"""What a disk may hold after a crash of the machine, before each operation that syncs, renames, removes or makes.

A system may keep changes in memory and write them in any order; only `fsync` of a file makes its content durable, and
only `fsync` of a folder its entries: new names, renames, removals (Pillai et al. 2014). So of what was not synced, a
disk may hold all, nothing, or a part: contents without their names, names without their contents.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
from typing import Any, Callable, Iterator, NamedTuple
from unittest import mock

Tree = dict[str, bytes | None]  # path to content; None is a folder
CHANGING = ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "ftruncate", "fsync")


class Content(NamedTuple):
    """Names: entries of each folder, by number (inode); bytes: contents of each file, by number."""

    names: dict[int, dict[str, int]]
    bytes: dict[int, bytes]


class Disk:
    """Watches a folder while this process works in it; what is there at first counts as synced.

    Attributes:
        moments: before each operation, what the folder held, and what of it was durable.
    """

    def __init__(self, root: pathlib.Path):
        self.root, self.moments = root, list[tuple[Content, Content]]()
        self._number = os.stat(root).st_ino
        self._open: dict[int, int] = {}  # numbers of files that are held open, so that no other file gets their number
        self._known: dict[bytes, bytes] = {}  # equal contents are kept once
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        self._durable = self._look()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block, operations of this process on files, wherever they are, are moments of a crash."""
        with contextlib.ExitStack() as stack:
            for name in CHANGING:
                stack.enter_context(mock.patch.object(os, name, self._before(getattr(os, name), name == "fsync")))
            yield
        self._note()
        for descriptor in self._open.values():
            os.close(descriptor)

    def _before(self, real: Callable[..., Any], syncs: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._note()
            found = real(*arguments, **options)
            if syncs:
                self.synced(arguments[0])
            return found

        return call

    def _note(self) -> None:
        self.moments.append((self._look(), Content(dict(self._durable.names), dict(self._durable.bytes))))

    def synced(self, descriptor: int) -> None:
        """A file or a folder is durable as it is now."""
        number, now = os.fstat(descriptor).st_ino, self._look()
        if number in now.names:
            self._durable.names[number] = now.names[number]
        if number in now.bytes:
            self._durable.bytes[number] = now.bytes[number]

    def _look(self) -> Content:
        now = Content({}, {})
        for folder, folders, files in os.walk(self.root):
            entries = {name: os.stat(os.path.join(folder, name)).st_ino for name in sorted(folders + files)}
            now.names[os.stat(folder).st_ino] = entries
            for name in files:
                path = pathlib.Path(folder, name)
                content = path.read_bytes()
                now.bytes[entries[name]] = self._known.setdefault(content, content)
                if entries[name] not in self._open:
                    self._open[entries[name]] = os.open(path, os.O_RDONLY)
        return now

    def states(self, moment: int) -> dict[str, Tree]:
        """All that the disk may hold at a moment, by names that say what of it was lost."""
        now, durable = self.moments[moment]
        contents = durable.bytes | now.bytes
        longer = {number: (durable.bytes.get(number, b""), content) for number, content in now.bytes.items()}
        found = {
            "whole": now, "synced-alone": durable, "names-before-contents": Content(now.names, durable.bytes),
            "contents-before-names": Content(durable.names, contents),
            "sizes-before-contents": Content(now.names, {
                number: kept[:len(content)].ljust(len(content), b"\0") for number, (kept, content) in longer.items()}),
            "torn": Content(now.names, {
                number: content[:(len(kept) + len(content)) // 2] for number, (kept, content) in longer.items()})}
        for place, (number, entries) in enumerate(now.names.items()):
            if entries != durable.names.get(number):
                found[f"lost-names-{place}"] = Content(now.names | {number: durable.names.get(number, {})}, contents)
        for place, (number, (kept, content)) in enumerate(longer.items()):
            if kept != content:
                found[f"lost-content-{place}"] = now._replace(bytes=now.bytes | {number: kept})
        folders = {*now.names, *durable.names}
        return {name: dict(_walk(content, folders, self._number, "")) for name, content in found.items()}


def _walk(content: Content, folders: set[int], folder: int, path: str) -> Iterator[tuple[str, bytes | None]]:
    for name, number in content.names.get(folder, {}).items():
        below = f"{path}{name}"
        yield below, None if number in folders else content.bytes.get(number, b"")
        yield from _walk(content, folders, number, f"{below}/")


def write_tree(tree: Tree, folder: pathlib.Path) -> None:
    """Makes a folder hold it."""
    for path, data in tree.items():
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)
