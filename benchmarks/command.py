"""What the benchmarks share: flags that are lists, worker processes, and the environment of PyTorch and JAX.

PyTorch and JAX are not installed beside the product: they pin NumPy and thread pools in ways of their own, and nobody
who trains needs them. `benchmarks/requirements.txt` says how to make their environment.

Imports neither TensorFlow nor NumPy, so that the process that starts the workers stays small and idle.
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
from fmnist_zoo import get_spec
from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write
from fmnist_zoo.spec import FULL_BATCH

ROOT = pathlib.Path(__file__).resolve().parents[1]
OUTSIDE = ROOT / "benchmarks" / ".venv"
DATA = ("fashion_mnist", "mini")


class WorkerError(ZooError, RuntimeError):
    """A worker process failed; the message has its last line."""


def outside_python() -> pathlib.Path:
    """The interpreter of PyTorch's and JAX's environment, which may not exist."""
    return OUTSIDE / "bin" / "python"


def free_threads(environment: MutableMapping[str, str] = os.environ) -> MutableMapping[str, str]:
    """Removes the number of threads that `trainers` asks TensorFlow for, unless the user gave it; returns the rest.

    Call it before a peer imports TensorFlow: those compared with us have their own defaults.
    """
    if not trainers.THREADS_GIVEN:
        environment.pop(trainers.THREADS_VARIABLE, None)
    return environment


def run(arguments: Sequence[str], what: str, python: str | pathlib.Path = sys.executable) -> str:
    """What `python -m arguments` prints in a new process; `WorkerError` with `what` it did if it fails."""
    done = subprocess.run([str(python), "-m", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, env=free_threads(dict(os.environ)))
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}, no message"]
        raise WorkerError(f"{what} failed: {lines[-1]}")
    return done.stdout


def ask(arguments: Sequence[str], what: str, python: str | pathlib.Path = sys.executable) -> Any:
    """`run`, for a worker whose last line is its answer as JSON."""
    return json.loads(run(arguments, what, python).splitlines()[-1])


def peak_memory_mb() -> float:
    """The largest memory of this process so far, in MB (2**20 bytes); 0 where the system does not say.

    `resource.getrusage` would include the process that started this one.
    """
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def make_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"python -m {module}", description=description, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def list_of(parse: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """The parser of a flag with values between commas; each value counts once."""
    return lambda text: list(dict.fromkeys(map(parse, text.split(","))))


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, received {text!r}")
    return int(text)


def batch(text: str) -> int | str:
    """Images an update; `full` for all of them."""
    if text != FULL_BATCH and (not text.isdecimal() or int(text) < 1):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, or {FULL_BATCH!r}, received {text!r}")
    return text if text == FULL_BATCH else int(text)


def models(text: str) -> list[str]:
    """Names of models. A word with `=` changes the model before it: `4L,l2=1e-05,2L` are two."""
    names: list[str] = []
    for word in text.split(","):
        if "=" in word and names:
            names[-1] += f",{word}"
        else:
            names.append(word)
    try:
        return list(dict.fromkeys(get_spec(name).name for name in names))
    except ZooError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def replace_between(page: pathlib.Path, begin: str, end: str, text: str) -> None:
    """Puts `text` between two marks in a page, in place of what is there."""
    content = page.read_text()
    with atomic_write(page, "w") as file:
        file.write(f"{content.split(begin)[0]}{begin}\n{text}\n{end}{content.split(end)[1]}")


def json_path(text: str) -> pathlib.Path:
    """A file to write, in a folder that exists: better refused now than after the last round."""
    path = pathlib.Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder" if path.is_dir() else f"{path.parent} is not a folder")
    return path
