"""Part `crash_points`: a crash of the machine within a piece of work, and all that the disk may then hold."""

from __future__ import annotations

import functools
import pathlib
import random
import tempfile
from typing import Any, Iterator

from tests import helpers
from tests.campaign import disk, work

ABOUT = "states of the disk after a crash, of " + ", ".join(f"`{name}`" for name in work.ALL)


def ids(seed: int) -> Iterator[str]:
    """A piece of work, a moment of it, and what of the disk was lost; drawn."""
    dice = random.Random(seed)
    while True:
        name = dice.choice(list(work.ALL))
        watched, _ = recording(name)
        moment = dice.randrange(len(watched.moments))
        yield f"{name}:{moment}:{dice.choice(list(watched.states(moment)))}"


def attempt(seed: int, id: str, folder: pathlib.Path) -> str | None:
    name, moment, variant = id.split(":")
    watched, expected = recording(name)
    disk.write_tree(watched.states(int(moment))[variant], folder)
    with work.quiet_engine():
        again = work.ALL[name].again(folder)
        return again or helpers.difference(expected, helpers.plain(work.ALL[name].outcome(folder)))


@functools.cache
def recording(name: str) -> tuple[disk.Disk, Any]:
    """What the disk may hold while a piece of work is done, and the outcome of that."""
    one = work.ALL[name]
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder, work.quiet_engine():
        root = pathlib.Path(folder).resolve()
        one.prepare(root)
        watched = disk.Disk(root)
        with watched.watched():
            answer = one.command(root)
        assert answer.code == 0, answer.error
        return watched, helpers.plain(one.outcome(root))
