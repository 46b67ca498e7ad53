"""Commands as a person starts them, each in a process of its own; and runs that are forked when TensorFlow is there."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Mapping, Protocol, Sequence

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SECONDS = 1800  # far more than most take on an idle machine
BIG = 1200  # a batch that is not compiled by XLA


class Process(Protocol):
    """What is used of a `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


class Ready:
    """A process that has imported TensorFlow, and forks one `trainers.train` after another.

    TensorFlow starts its threads with its first operation, and so not here.
    """

    CODE = """
import os, sys, traceback
import trainers, tensorflow, keras
from trainers import train
print("ready", flush=True)
for line in sys.stdin:
    output, *arguments = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if not child:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(file, 1), os.dup2(file, 2)
        code = 70
        try:
            code = train.main(arguments)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", self.CODE], cwd=ROOT, env=ENVIRONMENT, bufsize=0,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._line()

    def start(self, arguments: Sequence[str], output: pathlib.Path) -> Forked:
        """The next run; the one before must have ended."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\t".join([str(output), *arguments]).encode() + b"\n")
        return Forked(int(self._line()), self._process.stdout)

    def _line(self) -> bytes:
        assert self._process.stdout
        return self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Forked:
    """A run that a `Ready` process forked.

    Args:
        answers: has a line with the exit code, as `subprocess` says it, when the run has ended.
    """

    def __init__(self, pid: int, answers: Any):
        self.pid, self._answers = pid, answers
        self._code: int | None = None

    def poll(self) -> int | None:
        return self._read(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._read(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("trainers.train", timeout or 0.0)
        return code

    def _read(self, seconds: float | None) -> int | None:
        if self._code is None and select.select([self._answers], [], [], seconds)[0]:
            self._code = int(self._answers.readline())
        return self._code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def started(module: str, arguments: Sequence[str], output: pathlib.Path) -> subprocess.Popen[bytes]:
    """A command in a group of its own."""
    with open(output, "ab") as file:
        return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, env=ENVIRONMENT, stdout=file,
                                stderr=file, stdin=subprocess.DEVNULL, start_new_session=True)


def kill(process: Process) -> None:
    """Ends a command at once, with what is left of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ended(process: Process, seconds: float = SECONDS) -> int:
    """The exit code; what is left of its group is killed."""
    try:
        return process.wait(seconds)
    finally:
        kill(process)


def wait(over: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not over():
        time.sleep(min(0.005, max(0.0, until - time.monotonic())))
