"""The worker processes of `benchmarks`, run within the process of the tests: starting one takes six seconds."""

from __future__ import annotations

import contextlib
import importlib
import io
import pathlib

from benchmarks import command


def run(arguments, what, python=None):
    """Stands in for `command.run`: calls the module's `main` and returns what it prints."""
    output = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(output):
        code = importlib.import_module(arguments[0]).main(list(arguments[1:]))
    if code:
        raise command.WorkerError(f"{what} failed")
    output.seek(0)
    return output.read()


def in_process(monkeypatch):
    """Makes `benchmarks` start no process. This process keeps its number of threads, and has no PyTorch and no JAX."""
    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command, "OUTSIDE", pathlib.Path("no", "environment"))
    monkeypatch.setattr(command, "free_threads", lambda environment=None: environment or {})
