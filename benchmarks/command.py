"""What the benchmarks share: values of flags, worker processes, and the environment of PyTorch and JAX.

PyTorch and JAX are not installed beside the product: they pin NumPy and thread pools in ways of their own, and nobody
who trains needs them. `benchmarks/requirements.txt` says how to make their environment.

Imports neither TensorFlow nor NumPy, so that the process that starts the workers stays small and idle.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
from typing import Any, Sequence

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


def ask(arguments: Sequence[str], what: str, python: str | pathlib.Path = sys.executable) -> Any:
    """The answer of `python -m arguments` in a new process: its last line, as JSON.

    `WorkerError` with `what` it did if it fails.
    """
    done = subprocess.run([str(python), "-m", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}, no message"]
        raise WorkerError(f"{what} failed: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory_mb() -> float:
    """The largest memory of this process so far, in MB (2**20 bytes); 0 where the system does not say.

    `resource.getrusage` would include the process that started this one.
    """
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def make_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"python -m {module}", description=description, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, received {text!r}")
    return int(text)


def batch(text: str) -> int | str:
    """Images an update; `full` for all of them."""
    return text if text == FULL_BATCH else count(text)


def model(text: str) -> str:
    """The name of a model of the zoo, or of a changed one."""
    try:
        return get_spec(text).name
    except ZooError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def file_to_write(text: str) -> pathlib.Path:
    """A file in a folder that exists: better refused now than after the last round."""
    path = pathlib.Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder" if path.is_dir() else f"{path.parent} is not a folder")
    return path


def show(table: str, page: pathlib.Path | None, name: str) -> None:
    """Prints a table, and puts it into a page between its two marks, in place of what is there."""
    print(table)
    if page:
        begin, end = f"<!-- {name} -->", f"<!-- /{name.split(':')[0]} -->"
        content = page.read_text(encoding="utf-8")
        with atomic_write(page, "w") as file:
            file.write(f"{content.split(begin)[0]}{begin}\n{table}\n{end}{content.split(end)[1]}")
