"""Commands as a person starts them: in processes of their own, imports included."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Callable, Iterator, Mapping, Sequence

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


def wait(over: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not over():
        time.sleep(min(0.005, max(0.0, until - time.monotonic())))


@contextlib.contextmanager
def cluster(folder: pathlib.Path) -> Iterator[str]:
    """A scheduler of dask with one worker; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, output, here = f"tcp://127.0.0.1:{port}", folder / "dask.txt", ["--host=127.0.0.1", "--no-dashboard"]
    processes = [started("distributed.cli.dask_scheduler", [*here, f"--port={port}"], output),
                 started("distributed.cli.dask_worker", [address, *here, "--nthreads=1", "--no-nanny",
                                                         f"--local-directory={folder / 'dask'}"], output)]
    try:
        wait(lambda: "Registered to" in output.read_text(), SECONDS)
        yield address
    finally:
        for process in processes:
            kill(process)
