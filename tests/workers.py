"""The worker processes of `benchmarks`, run within the process of the tests: starting one takes six seconds."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import pathlib

from benchmarks import command


def ask(arguments, what, python=None):
    """Stands in for `command.ask`: calls the module's `main`, and returns the last line that it prints, as JSON."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        output.reconfigure = lambda **unused: None
        assert importlib.import_module(arguments[0]).main(list(arguments[1:])) == 0, what
    return json.loads(output.getvalue().splitlines()[-1])


def in_process(monkeypatch):
    """Makes `benchmarks` start no process. This one has no PyTorch and no JAX."""
    monkeypatch.setattr(command, "ask", ask)
    monkeypatch.setattr(command, "OUTSIDE", pathlib.Path("no", "environment"))
