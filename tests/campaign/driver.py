"""Tries the cases of the parts in turn, and remembers how far each has come.

A part is a stream of cases that follows from a seed. The state folder holds a file for each part and seed with the
number of cases done, so a campaign that was interrupted or killed continues with the next case.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import shutil
import tempfile
import time
import traceback
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from fmnist_zoo.errors import UsageError
from fmnist_zoo.files import read_json, write_json

REPORT_SECONDS = 60.0


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


@dataclasses.dataclass
class Progress:
    """How far a part has come with a seed; the content of its file in the state folder."""

    part: str
    seed: int
    cases: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = dataclasses.field(default_factory=dict)  # by the id of the case

    @classmethod
    def load(cls, state: pathlib.Path, part: str, seed: int) -> Progress:
        path = cls.path(state, part, seed)
        found: dict[str, Any] = read_json(path) if path.exists() else {"part": part, "seed": seed}
        return cls(**{field.name: found[field.name] for field in dataclasses.fields(cls) if field.name in found})

    @staticmethod
    def path(state: pathlib.Path, part: str, seed: int) -> pathlib.Path:
        return state / f"{part}-seed{seed}.json"

    def save(self, state: pathlib.Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        write_json(self.path(state, self.part, self.seed), dataclasses.asdict(self))

    def line(self) -> str:
        return (f"{self.part}, seed {self.seed}: {self.cases:,} tried in {self.seconds:,.0f} s, "
                f"{len(self.failures)} failed")


class Campaign:
    """Takes the parts in turn, always the one that has had the least time, until the time is over or all have ended."""

    def __init__(self, parts: Sequence[Part], seed: int, state: pathlib.Path, say: Callable[[str], None] = print):
        self.parts, self.seed, self.state, self.say = parts, seed, state, say
        self.progress = {part.name: Progress.load(state, part.name, seed) for part in parts}
        for part in parts:
            part.keep = state / part.name

    def run(self, seconds: float) -> bool:
        """Whether no case failed, in this call or before."""
        said = time.monotonic()
        until, used = said + seconds, dict.fromkeys((part.name for part in self.parts), 0.0)
        parts = {part.name: part for part in self.parts}
        streams = {name: itertools.islice(part.cases(self.seed), self.progress[name].cases, None)
                   for name, part in parts.items()} if seconds > 0 else {}
        while parts and time.monotonic() < until:
            name = min(parts, key=lambda name: used[name])
            start, progress = time.monotonic(), self.progress[name]
            case = next(streams[name], None)
            if case is None:
                del parts[name]
                self.say(f"{progress.line()}; that was all")
                continue
            failure = attempt(parts[name], case)
            took = time.monotonic() - start
            used[name] += took
            progress.cases += 1
            progress.seconds += took
            if failure:
                progress.failures[case.id] = failure
                self.say(f"FAILED {failure}; repeat it with --seed={self.seed} --case={case.id} {name}")
            progress.save(self.state)
            if time.monotonic() - said > REPORT_SECONDS:
                self.say(f"{time.strftime('%H:%M')}  " + "; ".join(one.line() for one in self.progress.values()))
                said = time.monotonic()
        return not any(one.failures for one in self.progress.values())

    def repeat(self, id: str) -> bool:
        """Tries one case again, of the first part that has it; one that holds now is no failure any longer."""
        for part in self.parts:
            case = part.find(self.seed, id)
            if case is None:
                continue
            failure, progress = attempt(part, case), self.progress[part.name]
            self.say(f"{part.name} {id}: {failure or 'held'}")
            if failure is None and progress.failures.pop(id, ""):
                progress.save(self.state)
            return failure is None
        raise UsageError(f"no part has a case {id!r} with seed {self.seed}")


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
