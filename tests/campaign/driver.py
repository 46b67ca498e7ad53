"""Tries the cases of the parts in turn, and remembers how far each has come.

A part is a stream of cases that follows from a seed. The state folder holds a file for each part and seed with the
number of cases done, so a campaign that was interrupted or killed continues with the next case.
"""

from __future__ import annotations

import itertools
import pathlib
import shutil
import tempfile
import time
import traceback
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from fmnist_zoo.errors import UsageError
from fmnist_zoo.files import read_json, write_json


class Case(NamedTuple):
    """One thing to try: `id` names it within its part and seed, without spaces; `content` is what the part needs."""

    id: str
    content: Any = None


class Part:
    """A part of the campaign: a stream of cases, and how to try one.

    Attributes:
        name: as it is given on the command line.
        about: a line for `--help`.
        keep: a folder for what takes long to make; a campaign sets it. It may not exist.
    """

    name: str
    about: str
    keep: pathlib.Path = pathlib.Path()

    def cases(self, seed: int) -> Iterator[Case]:
        """The cases of a seed, in an order that follows from the seed alone."""
        raise NotImplementedError

    def run(self, case: Case, folder: pathlib.Path) -> str | None:
        """Tries a case in an empty folder: None if all held, else in one line what did not.

        Any exception counts as a failure, too, but `KeyboardInterrupt`: raise it if a command says that it was
        interrupted, and the case is tried again next time.
        """
        raise NotImplementedError

    def find(self, seed: int, id: str) -> Case | None:
        """The case of that id."""
        return next((case for case in self.cases(seed) if case.id == id), None)


class Campaign:
    """Takes the parts in turn, always the one that has had the least time, until the time is over or all have ended.

    Attributes:
        progress: by part, how many cases were tried in how many seconds, and what failed, by the id of the case.
    """

    def __init__(self, parts: Sequence[Part], seed: int, state: pathlib.Path, say: Callable[[str], None] = print):
        self.parts, self.seed, self.say = {part.name: part for part in parts}, seed, say
        self._files = {part.name: state / f"{part.name}-seed{seed}.json" for part in parts}
        self.progress: dict[str, dict[str, Any]] = {
            name: read_json(path) if path.exists() else {"cases": 0, "seconds": 0.0, "failures": {}}
            for name, path in self._files.items()}
        state.mkdir(parents=True, exist_ok=True)
        for part in parts:
            part.keep = state / part.name

    def run(self, seconds: float) -> bool:
        """Whether no case failed, in this call or before."""
        until, used = time.monotonic() + seconds, dict.fromkeys(self.parts, 0.0)
        streams = {name: itertools.islice(part.cases(self.seed), self.progress[name]["cases"], None)
                   for name, part in self.parts.items()} if seconds > 0 else {}
        while streams and time.monotonic() < until:
            name = min(streams, key=lambda name: used[name])
            start, progress = time.monotonic(), self.progress[name]
            case = next(streams[name], None)
            if case is None:
                del streams[name]
                continue
            if failure := attempt(self.parts[name], case):
                progress["failures"][case.id] = failure
                self.say(f"FAILED {failure}; repeat it with --seed={self.seed} --case={case.id} {name}")
            took = time.monotonic() - start
            used[name] += took
            progress["seconds"] += took
            progress["cases"] += 1
            self._save(name)
        return not any(progress["failures"] for progress in self.progress.values())

    def repeat(self, id: str) -> bool:
        """Tries one case again, of the first part that has it; one that holds now is no failure any longer."""
        for name, part in self.parts.items():
            if case := part.find(self.seed, id):
                failure = attempt(part, case)
                self.say(f"{name} {id}: {failure or 'held'}")
                if failure is None and self.progress[name]["failures"].pop(id, ""):
                    self._save(name)
                return failure is None
        raise UsageError(f"no part has a case {id!r} with seed {self.seed}")

    def lines(self) -> str:
        """How far each part has come."""
        return "\n".join(f"{name}, seed {self.seed}: {found['cases']:,} tried in {found['seconds']:,.0f} s, "
                         f"{len(found['failures'])} failed" for name, found in self.progress.items())

    def _save(self, name: str) -> None:
        write_json(self._files[name], self.progress[name])


def attempt(part: Part, case: Case) -> str | None:
    """Tries a case in a folder of its own, which is removed; an exception is a failure, told with its last place."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        return part.run(case, folder)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {' '.join(str(error).split())} ({place.filename}:{place.lineno})"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
