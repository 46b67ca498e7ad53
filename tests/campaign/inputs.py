"""Inputs that were damaged: what makes them, what tries one, and the corpus of those that failed once."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import random
import signal
import traceback
import warnings
from typing import Any, Iterator

ROOT = pathlib.Path(__file__).parents[2]
CORPUS = pathlib.Path(__file__).parent / "corpus"
SECONDS = 1.0  # of the processor, for an input


class TooSlow(BaseException):
    """An input took more than its second; no handler of `Exception` may hide it."""


class Target:
    """One thing that reads what it does not trust.

    Attributes:
        batch: inputs of a batch, of which one takes a few seconds.
    """

    name: str
    batch = 2000

    def prepare(self, folder: pathlib.Path) -> None:
        """Makes what `check` needs, in an empty folder that is the working folder."""

    def make(self, rng: random.Random) -> bytes:
        """An input."""
        raise NotImplementedError

    def check(self, content: bytes) -> None:
        """Raises anything if the input is neither refused in one line nor taken with the right meaning."""
        raise NotImplementedError


def targets() -> dict[str, Target]:
    from tests.campaign.targets import files, records, words

    return {target.name: target for target in (*files.TARGETS, *records.TARGETS, *words.TARGETS)}


def generator(name: str, seed: int, batch: int, index: int) -> random.Random:
    return random.Random(f"{name} {seed} {batch} {index}")


def failure(target: Target, content: bytes) -> str | None:
    """What went wrong with an input, in one line."""
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            target.check(content)
    except (Exception, SystemExit, TooSlow) as error:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        places = [place for place in traceback.extract_tb(error.__traceback__) if place.filename != __file__]
        last = next((place for place in reversed(places) if str(ROOT) in place.filename), places[-1])
        said = " ".join(str(error).split())
        return f"{type(error).__name__}: {said:.200} ({pathlib.Path(last.filename).name}:{last.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


def failures(target: Target, seed: int, batch: int, note: Any = None) -> Iterator[tuple[int, str, bytes]]:
    """The inputs of a batch that fail; `note` receives the index of each input before that is tried."""
    for index in range(target.batch):
        content = target.make(generator(target.name, seed, batch, index))
        if note:
            note(index)
        if found := failure(target, content):
            yield index, found, content


@contextlib.contextmanager
def prepared(target: Target, folder: pathlib.Path) -> Iterator[None]:
    """The folder is the working folder, and a slow input ends."""
    def end(*_: Any) -> None:
        raise TooSlow(f"took more than {SECONDS:g} s of the processor")

    before, handler = os.getcwd(), signal.signal(signal.SIGVTALRM, end)
    os.chdir(folder)
    try:
        target.prepare(folder)
        yield
    finally:
        os.chdir(before)
        signal.signal(signal.SIGVTALRM, handler)


def keep(folder: pathlib.Path, target: str, said: str, content: bytes) -> None:
    """Adds an input to the corpus."""
    folder.mkdir(exist_ok=True)
    with open(folder / f"{target}.jsonl", "a") as file:
        file.write(json.dumps({"why": said, "input": base64.b85encode(content).decode()}) + "\n")


def corpus() -> Iterator[tuple[str, str, bytes]]:
    """What failed once: target, reason and input."""
    for path in sorted(CORPUS.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            found = json.loads(line)
            yield path.stem, found["why"], base64.b85decode(found["input"])
