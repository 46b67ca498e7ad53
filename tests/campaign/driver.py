"""Runs the parts of the campaign in turn, and remembers how far each has come.

A part is a stream of cases that follows from a seed. The state folder holds a file for each part and seed with the
number of cases done, so a campaign that was interrupted or killed continues with the next case.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import shutil
import sys
import tempfile
import time
import traceback
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from fmnist_zoo.card import counted
from fmnist_zoo.errors import UsageError, ZooError
from fmnist_zoo.files import read_json, write_json
from trainers.engine.processor import machine

SAVE_SECONDS, REPORT_SECONDS = 1.0, 60.0
HEAD = ("part", "what is tried", "tried", "failed", "mended since", "seeds", "hours", "processor")


class Case(NamedTuple):
    """One thing to try.

    Attributes:
        id: names it within its part and seed, without spaces.
        content: what `Part.run` needs.
        tries: how many inputs it stands for, where a case is a batch of small ones.
    """

    id: str
    content: Any = None
    tries: int = 1


class Part:
    """A part of the campaign: a stream of cases, and how to try one.

    Attributes:
        name: as it is given on the command line.
        about: a line for the page.
        keep: a folder for what takes long to make; a campaign sets it. It may not exist.
    """

    name: str
    about: str
    keep: pathlib.Path = pathlib.Path()

    def cases(self, seed: int) -> Iterator[Case]:
        """The cases of a seed, finite or endless, in an order that follows from the seed alone."""
        raise NotImplementedError

    def run(self, case: Case, folder: pathlib.Path) -> str | None:
        """Tries a case in an empty folder: None if all held, else in one line what did not.

        Any exception counts as a failure, too, but `KeyboardInterrupt`: raise it if a command says that it was
        interrupted (exit code 130), and the case is tried again next time.
        """
        raise NotImplementedError

    def find(self, seed: int, id: str) -> Case | None:
        """The case of that id; an endless part may know a shorter way than looking at all."""
        return next((case for case in self.cases(seed) if case.id == id), None)


PARTS: dict[str, Part] = {}


def register(part: Part) -> None:
    """Makes a part known to the command."""
    if part.name in PARTS:
        raise ValueError(f"there are two parts named {part.name}")
    PARTS[part.name] = part


@dataclasses.dataclass
class Progress:
    """How far a part has come with a seed; the content of its file in the state folder."""

    part: str
    seed: int
    cases: int = 0
    tries: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = dataclasses.field(default_factory=dict)  # by the id of the case
    mended: list[str] = dataclasses.field(default_factory=list)  # failed once, and held when they were repeated
    processor: str = ""

    @classmethod
    def load(cls, state: pathlib.Path, part: str, seed: int) -> Progress:
        path = cls.path(state, part, seed)
        if not path.exists():
            return cls(part, seed)
        names = {field.name for field in dataclasses.fields(cls)}
        try:
            return cls(**{name: value for name, value in read_json(path).items() if name in names})
        except (ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: not the state of a campaign: {error}; remove it to begin again") from None

    @staticmethod
    def path(state: pathlib.Path, part: str, seed: int) -> pathlib.Path:
        return state / f"{part}-seed{seed}.json"

    def save(self, state: pathlib.Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        write_json(self.path(state, self.part, self.seed), {**dataclasses.asdict(self), "processor": machine()["cpu"]})

    def add(self, case: Case, failure: str | None, seconds: float) -> None:
        self.cases += 1
        self.tries += case.tries
        self.seconds += seconds
        if failure:
            self.failures[case.id] = failure

    def line(self) -> str:
        failed = f", {counted(len(self.failures), 'failure')}" if self.failures else ""
        return f"{self.part}, seed {self.seed}: {self.tries:,} tried in {self.seconds:,.0f} s{failed}"


class Campaign:
    """Takes the parts in turn, always the one that has had the least time, until the time is over or all have ended."""

    def __init__(self, parts: Sequence[Part], seed: int, state: pathlib.Path, say: Callable[[str], None] = print):
        self.parts, self.seed, self.state, self.say = parts, seed, state, say
        self.progress = {part.name: Progress.load(state, part.name, seed) for part in parts}
        self._saved = self._said = time.monotonic()
        for part in parts:
            part.keep = state / part.name

    def run(self, seconds: float) -> bool:
        """Whether no case failed, in this call or before; saves, and raises it, after a `KeyboardInterrupt`."""
        until, used = time.monotonic() + seconds, dict.fromkeys((part.name for part in self.parts), 0.0)
        streams: dict[str, Iterator[Case]] = {}
        parts = {part.name: part for part in self.parts}
        try:
            while parts and time.monotonic() < until:
                name = min(parts, key=lambda name: used[name])
                start = time.monotonic()
                if name not in streams:
                    streams[name] = itertools.islice(parts[name].cases(self.seed), self.progress[name].cases, None)
                case = next(streams[name], None)
                if case is None:
                    del parts[name]
                    self.say(f"{self.progress[name].line()}; that was all")
                    continue
                failure = attempt(parts[name], case)
                used[name] += time.monotonic() - start
                self.progress[name].add(case, failure, time.monotonic() - start)
                self._tell(name, case, failure)
        finally:
            self._save()
        return not any(one.failures for one in self.progress.values())

    def _tell(self, name: str, case: Case, failure: str | None) -> None:
        """Says what failed at once; otherwise writes the state each second, and a line a minute."""
        now = time.monotonic()
        if failure:
            self.say(f"FAILED {failure}; repeat it with --seed={self.seed} --case={case.id} {name}")
        if failure or now - self._saved > SAVE_SECONDS:
            self._save()
            self._saved = now
        if now - self._said > REPORT_SECONDS:
            self.say(f"{time.strftime('%H:%M')}  " + "; ".join(one.line() for one in self.progress.values()))
            self._said = now

    def _save(self) -> None:
        for one in self.progress.values():
            if one.cases:
                one.save(self.state)

    def repeat(self, id: str) -> bool:
        """Tries one case again, of the first part that has it; a failure that is gone counts as mended."""
        for part in self.parts:
            case = part.find(self.seed, id)
            if case is None:
                continue
            failure, progress = attempt(part, case), self.progress[part.name]
            self.say(f"{part.name} {id}: {failure or 'held'}")
            if failure is None and progress.failures.pop(id, ""):
                progress.mended.append(id)
                progress.save(self.state)
            return failure is None
        raise UsageError(f"no part has a case {id!r} with seed {self.seed}")


def attempt(part: Part, case: Case) -> str | None:
    """A case in a folder of its own, which is removed; an exception is a failure, told with its last place."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        return part.run(case, folder)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {' '.join(str(error).split())} ({place.filename}:{place.lineno})"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(state: pathlib.Path, before: str = "") -> str:
    """What a state folder holds, as Markdown: a row a part, all of its seeds together.

    Rows of the table `before` are kept, if they are of parts that the state folder does not hold.
    """
    found: dict[str, list[Progress]] = {}
    for path in sorted(state.glob("*-seed*.json")):
        name, _, seed = path.stem.rpartition("-seed")
        found.setdefault(name, []).append(Progress.load(state, name, int(seed)))
    rows = {line.split("`")[1]: tuple(line.strip("| ").split(" | ")) for line in before.splitlines()
            if line.startswith("| `")}
    for name, ones in found.items():
        rows[name] = (
            f"`{name}`", PARTS[name].about if name in PARTS else "", f"{sum(one.tries for one in ones):,}",
            str(sum(len(one.failures) for one in ones)), str(sum(len(one.mended) for one in ones)),
            ", ".join(str(seed) for seed in sorted(one.seed for one in ones)),
            f"{sum(one.seconds for one in ones) / 3600:.2f}", ", ".join(sorted({one.processor for one in ones})))
    lines = [HEAD, ("---", "---", *["---:"] * (len(HEAD) - 3), "---"), *(rows[name] for name in sorted(rows))]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def run(body: Callable[[], bool]) -> int:
    """The exit code of the command: 1 when a case failed, 2 for a mistake of the caller's, 130 after Ctrl-C."""
    try:
        return 0 if body() else 1
    except ZooError as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
