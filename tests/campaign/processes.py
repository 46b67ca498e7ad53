"""Commands as a person starts them: in processes of their own, imports included."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, Mapping, Sequence

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SECONDS = 1800  # far more than most take on an idle machine
BIG = 1200  # a batch that is not compiled by XLA


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def started(module: str, arguments: Sequence[str], output: pathlib.Path) -> subprocess.Popen[bytes]:
    """A command in a group of its own."""
    with open(output, "ab") as file:
        return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, env=ENVIRONMENT, stdout=file,
                                stderr=file, stdin=subprocess.DEVNULL, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a command at once, with what is left of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ended(process: subprocess.Popen[bytes], seconds: float = SECONDS) -> int:
    """The exit code; what is left of its group is killed."""
    try:
        return process.wait(seconds)
    finally:
        kill(process)
