"""What the benchmarks' commands share: flags that are lists, and workers that answer with a line of JSON.

Imports neither TensorFlow nor NumPy: the process that starts the others should be idle and small.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
from typing import Any, Callable, MutableMapping, Sequence

import trainers
from fmnist_zoo import SpecError, get_spec
from fmnist_zoo.spec import FULL_BATCH

ROOT = pathlib.Path(__file__).resolve().parents[1]


class WorkerError(RuntimeError):
    """A process that failed: says which, and the last it said."""


def free_threads(environment: MutableMapping[str, str] = os.environ) -> MutableMapping[str, str]:
    """Takes back the number of threads that `trainers` asks of TensorFlow, before a peer imports it: those who are
    compared to us, and the limit, have their own defaults, or what the person asked for. Returns the environment."""
    if not trainers.THREADS_GIVEN:
        environment.pop(trainers.THREADS_VARIABLE, None)
    return environment


def ask(arguments: Sequence[str], what: str, python: str | pathlib.Path = sys.executable) -> dict[str, Any]:
    """The answer of `python -m arguments` in a fresh process; `WorkerError` about `what` if there is none."""
    done = subprocess.run([str(python), "-m", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, env=free_threads(dict(os.environ)))
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}, and it said nothing"]
        raise WorkerError(f"{what} failed: {said[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def interruptible(main: Callable[[], int]) -> int:
    """The exit code of a command; Ctrl-C is a line, not a traceback."""
    try:
        return main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def words(text: str) -> list[str]:
    """Between commas, each once."""
    return list(dict.fromkeys(text.split(",")))


def models(text: str) -> list[str]:
    """Names of the registry; one that is no list may be a changed model, such as `4L,l2=1e-05`."""
    names: list[str] = []
    for word in text.split(","):
        if "=" in word and names:
            names[-1] += f",{word}"
        else:
            names.append(word)
    try:
        return list(dict.fromkeys(get_spec(name).name for name in names))
    except SpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def model(text: str) -> str:
    """One name of the registry."""
    names = models(text)
    if len(names) > 1:
        raise argparse.ArgumentTypeError(f"must be one model, received {text!r}")
    return names[0]


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, received {text!r}")
    return int(text)


def counts(text: str) -> list[int]:
    """Whole numbers of at least 1, each once."""
    return [count(word) for word in words(text)]


def batches(text: str) -> list[int | str]:
    """Images an update; `full` for all of them."""
    try:
        return [word if word == FULL_BATCH else count(word) for word in words(text)]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers of at least 1, or {FULL_BATCH!r}, received {text!r}") from None


def batch(text: str) -> int | str:
    """One batch size."""
    found = batches(text)
    if len(found) > 1:
        raise argparse.ArgumentTypeError(f"must be one batch size, received {text!r}")
    return found[0]


def json_path(text: str) -> pathlib.Path:
    """A file to be written, in a folder that is there: better known now than after the last round."""
    path = pathlib.Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder" if path.is_dir() else f"{path.parent} is no folder")
    return path
