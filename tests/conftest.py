"""What the tests share: runs on the mini set, and ways to look at what a run left."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import sweeps

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _no_data_of_the_developer(monkeypatch):
    """A data folder named in the environment must not change what is tested."""
    monkeypatch.delenv("FMNIST_ZOO_DATA", raising=False)


@pytest.fixture
def command():
    """Runs `python -m MODULE ARGUMENTS...` in the checkout; returns the finished process, output as text."""

    def run(*arguments, timeout=180, **options):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=options.pop("cwd", ROOT), text=True,
                              timeout=timeout, capture_output=True, env=environment, **options)

    return run


@pytest.fixture
def inline_pool(monkeypatch):
    """Sweeps of this test run in this process, in the pool that is returned."""
    from trainers import pool as pools

    pool = sweeps.Inline()
    monkeypatch.setattr(pools, "make", lambda workers, scheduler: pool)
    return pool


@pytest.fixture(scope="session")
def finished_sweep(tmp_path_factory):
    """The log folder of a finished grid of four named `grid`, run in a child process, and the table it returned."""
    from trainers.sweep import sweep

    logdir = tmp_path_factory.mktemp("logs")
    return logdir, sweep("4L", sweeps.SPACE, logdir=logdir, name="grid", **sweeps.GRID)
