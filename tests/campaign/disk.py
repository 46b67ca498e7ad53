"""What a disk may hold after a crash, given the operations before it.

The model is that of ALICE (Pillai et al. 2014). A system may keep changes in memory and write them in any order; only
`fsync` of a file makes its content durable, and only `fsync` of a folder its entries: new names, renames, removals.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import random
from typing import Iterator, NamedTuple, Sequence, Union

from tests.campaign.recorder import Operation

Tree = dict[str, bytes | None]  # path to content; None is a folder
Node = Union[bytes, dict[str, int]]  # a file, or a folder with the numbers of its entries


class Step(NamedTuple):
    """An operation on nodes instead of paths, so that it means the same if others before it are lost.

    Attributes:
        kind: write, size, enter (a name into a folder), remove, move, sync.
        node: the file or folder that changes; of `move` the old folder.
        name: the entry; of `move` the old one.
        entry: the node behind the entry.
        target: of `move`, the new folder and name.
    """

    kind: str
    node: int
    name: str = ""
    entry: int = 0
    target: tuple[int, str] = (0, "")
    place: int = 0
    data: bytes = b""

    @property
    def on_content(self) -> bool:
        return self.kind in ("write", "size")


class State(NamedTuple):
    """What the disk may hold: `variant` says what of the first operations, `after` so many, it lacks."""

    after: int
    variant: str
    tree: Tree


class Disk:
    """The folder before the operations, and the operations as steps."""

    def __init__(self, before: Tree, operations: Sequence[Operation]):
        self._nodes: dict[int, Node] = {0: {}}
        for path in sorted(before):
            self._put(path, before[path])
        start = _copy(self._nodes)
        self.steps: list[Step] = []
        for operation in operations:
            if step := self._step(operation):
                self.steps.append(step)
                _apply(self._nodes, step)
        bare: dict[int, Node] = {number: b"" if isinstance(node, bytes) else {} for number, node in self._nodes.items()}
        self._start = bare | start

    def _put(self, path: str, data: bytes | None) -> None:
        folder, name = self._parent(path)
        number = len(self._nodes)
        self._nodes[number] = {} if data is None else data
        self._folder(folder)[name] = number

    def _folder(self, number: int) -> dict[str, int]:
        node = self._nodes[number]
        assert isinstance(node, dict)
        return node

    def _find(self, path: str) -> int | None:
        number: int | None = 0
        for name in path.split("/") if path else ():
            node = self._nodes[number] if number is not None else b""
            number = node.get(name) if isinstance(node, dict) else None
        return number

    def _parent(self, path: str) -> tuple[int, str]:
        above, _, name = path.rpartition("/")
        number = self._find(above)
        assert number is not None, f"{path}: its folder was not made"
        return number, name

    def _step(self, operation: Operation) -> Step | None:
        kind, path = operation.kind, operation.path
        number = self._find(path)
        if kind in ("create", "folder"):
            if number is not None:
                return None
            self._nodes[len(self._nodes)] = {} if kind == "folder" else b""
            return Step("enter", *self._parent(path), entry=len(self._nodes) - 1)
        assert number is not None, f"{kind} of {path}, which was not made"
        if kind == "write":
            node = self._nodes[number]
            place = operation.place if operation.place >= 0 else len(node)
            return Step("write", number, place=place, data=operation.data)
        if kind == "size":
            return Step("size", number, place=operation.place)
        if kind == "sync":
            return Step("sync", number)
        if kind == "remove":
            return Step("remove", *self._parent(path))
        return Step("move", *self._parent(path), entry=number, target=self._parent(operation.other))

    def tree(self, steps: Sequence[Step] | None = None) -> Tree:
        """What the disk holds after `steps`; None: after all."""
        nodes = _copy(self._start)
        for step in self.steps if steps is None else steps:
            _apply(nodes, step)
        return dict(_walk(nodes, 0, ""))

    def states(self) -> Iterator[State]:
        """All that the disk may hold after a crash, for each operation at which it may come; equal ones once."""
        seen = set()
        for count in range(len(self.steps) + 1):
            for variant, steps in self._variants(count):
                tree = self.tree(steps)
                if (name := _name(tree)) not in seen:
                    seen.add(name)
                    yield State(count, variant, tree)

    def sample(self, dice: random.Random, most: int) -> Iterator[State]:
        """So many different states, of points and variants that are drawn."""
        seen: set[int] = set()
        while len(seen) < most:
            after = dice.randrange(len(self.steps) + 1)
            variant, steps = dice.choice(list(self._variants(after)))
            tree = self.tree(steps)
            if (name := _name(tree)) not in seen:
                seen.add(name)
                yield State(after, variant, tree)

    def unrooted(self) -> list[str]:
        """Folders that were synced, and whose own name, or that of a folder above, was not when the work went on."""
        named: dict[int, tuple[int, int, str]] = {}  # where, in which folder, as what
        found = []
        for place, step in enumerate(self.steps):
            if step.kind in ("enter", "move"):
                folder, name = (step.node, step.name) if step.kind == "enter" else step.target
                named[step.entry] = (place, folder, name)
            if step.kind in ("sync", "move"):
                continue
            just = itertools.takewhile(lambda one: one.kind in ("sync", "move"), reversed(self.steps[:place]))
            for node in {one.node for one in just if one.kind == "sync" and isinstance(self._nodes[one.node], dict)}:
                while node in named:
                    since, folder, name = named[node]
                    if not any(one.kind == "sync" and one.node == folder for one in self.steps[since:place]):
                        found.append(name)
                    node = folder
        return list(dict.fromkeys(found))

    def state(self, count: int, variant: str) -> Tree | None:
        """One of the states; None if there is none of that name."""
        steps = next((steps for name, steps in self._variants(count) if name == variant), None)
        return None if steps is None else self.tree(steps)

    def _variants(self, count: int) -> Iterator[tuple[str, list[Step]]]:
        done = self.steps[:count]
        yield "whole", done
        if done and done[-1].kind == "write":
            last = done[-1]
            for size in sorted({1, len(last.data) // 2, len(last.data) - 1} - {0, len(last.data)}):
                yield f"torn-{size}", [*done[:-1], last._replace(data=last.data[:size])]
        lost = self._not_durable(done)
        if not lost:
            return

        def without(gone: set[int]) -> list[Step]:
            return [step for place, step in enumerate(done) if place not in gone]

        contents = {place for place in lost if done[place].on_content}
        yield "synced-alone", without(lost)
        yield "names-before-contents", without(contents)
        yield "contents-before-names", without(lost - contents)
        yield "sizes-before-contents", [
            step._replace(data=bytes(len(step.data))) if place in contents and step.kind == "write" else step
            for place, step in enumerate(done)]
        for place in sorted(lost - contents):
            yield f"lost-{place}", without({place})
        for node in sorted({done[place].node for place in contents}):
            yield f"lost-content-{node}", without({place for place in contents if done[place].node == node})

    @staticmethod
    def _not_durable(done: Sequence[Step]) -> set[int]:
        """Places of the steps that no later sync has made durable. A move is durable if one of its folders is."""
        synced: set[int] = set()
        lost = set()
        for place in range(len(done) - 1, -1, -1):
            step = done[place]
            if step.kind == "sync":
                synced.add(step.node)
            elif not synced & {step.node, *({step.target[0]} if step.kind == "move" else ())}:
                lost.add(place)
        return lost


def _copy(nodes: dict[int, Node]) -> dict[int, Node]:
    return {number: dict(node) if isinstance(node, dict) else node for number, node in nodes.items()}


def _apply(nodes: dict[int, Node], step: Step) -> None:
    node = nodes[step.node]
    if step.kind == "write":
        assert isinstance(node, bytes)
        nodes[step.node] = node[:step.place].ljust(step.place, b"\0") + step.data + node[step.place + len(step.data):]
    elif step.kind == "size":
        assert isinstance(node, bytes)
        nodes[step.node] = node[:step.place].ljust(step.place, b"\0")
    elif step.kind != "sync":
        assert isinstance(node, dict)
        if step.kind == "enter":
            node[step.name] = step.entry
        else:
            node.pop(step.name, None)
        if step.kind == "move":
            target = nodes[step.target[0]]
            assert isinstance(target, dict)
            target[step.target[1]] = step.entry


def _walk(nodes: dict[int, Node], number: int, path: str) -> Iterator[tuple[str, bytes | None]]:
    node = nodes[number]
    assert isinstance(node, dict)
    for name, entry in node.items():
        below, found = f"{path}{name}", nodes[entry]
        yield below, found if isinstance(found, bytes) else None
        if not isinstance(found, bytes):
            yield from _walk(nodes, entry, f"{below}/")


def _name(tree: Tree) -> int:
    """Equal for equal names and contents. The process id in a lock does not count: no lock outlives its process.

    Python's own hash, because it is computed once for bytes that many states share.
    """
    return hash(frozenset((path, b"" if path.endswith("/.lock") else data) for path, data in tree.items()))


def read_tree(folder: pathlib.Path) -> Tree:
    """What a folder holds."""
    return {os.path.relpath(path, folder): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))}


def write_tree(tree: Tree, folder: pathlib.Path) -> None:
    """Makes a folder hold it."""
    for path in sorted(tree):
        data = tree[path]
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)
