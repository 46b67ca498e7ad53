"""Sweeps whose leader and workers are killed at random: their tables equal those of an undisturbed sweep."""

import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.sweeps import BATCH, rows_of, without_times
from trainers import sweep
from trainers.running.table import MetricsTable

KILLS = 10
SECONDS = 1200  # far more than a step here takes on an idle machine
SWEEPS = {  # with two workers the promotions of asha depend on which trial ends first
    "random": dict(space="l2=log(1e-6..1e-2); learning_rate=log(1e-4..1e-2)", max_trials=24, epochs=3, workers=2),
    "grid": dict(space="l2=0,1e-5,1e-4,1e-3; learning_rate=1e-4,3e-4,1e-3,3e-3,0.01,0.03", epochs=3, workers=2),
    "asha": dict(space="dropout=0..0.5; learning_rate=log(1e-4..1e-2)", max_trials=27, epochs=9, workers=1),
}


def epochs_in(path):
    return sum(MetricsTable(one).row_count() for one in path.glob("*/0/metrics.csv"))


def workers_in_trials(path, leader):
    """Processes of the leader that train: their ids, with the trial."""
    children = subprocess.run(["pgrep", "-P", str(leader.pid)], capture_output=True, text=True).stdout.split()
    found = {}
    for lock in path.glob("*/0/.lock"):
        if not (lock.parent.parent / "result.json").exists() and (pid := lock.read_text()) in children:
            found[int(pid)] = lock.parent.parent.name
    return found


def kill_one(path, leader, dice, died):
    """Kills the leader, or a worker of a trial whose workers were not killed twice before; says which of them."""
    workers = {pid: name for pid, name in workers_in_trials(path, leader).items() if died[name] < 2}
    if workers and dice.random() < 0.5:
        pid = dice.choice(sorted(workers))
        died[workers[pid]] += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return "worker"
    leader.kill()
    leader.wait()
    return "leader"


def disturbed(command, path, dice):
    """Runs a sweep to its end, and kills something `KILLS` times on the way; returns how often which."""
    killed, died, leader = collections.Counter(), collections.Counter(), None
    try:
        while killed.total() < KILLS:
            if leader is None:
                leader = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)},
                                          stdout=subprocess.DEVNULL)
            aim, until = epochs_in(path) + dice.randint(1, 3), time.monotonic() + SECONDS
            while epochs_in(path) < aim:
                assert leader.poll() is None and time.monotonic() < until
                time.sleep(0.02)
            time.sleep(0.1 * dice.random())
            killed[kill_one(path, leader, dice, died)] += 1
            if leader.poll() is not None:
                leader = None
        leader = leader or subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)},
                                            stdout=subprocess.DEVNULL)
        assert leader.wait(SECONDS) == 0
        return killed
    finally:
        if leader:
            leader.kill()
            leader.wait()


@pytest.mark.slow
@pytest.mark.parametrize("tuner", SWEEPS)
def test_ten_kills_change_nothing(tuner, tmp_path, inline_pool):
    asked = {**SWEEPS[tuner], "tuner": tuner, "data": "mini", "batch_size": BATCH, "name": "one"}
    flags = [f"--{name}={value}" for name, value in asked.items()]
    command = [sys.executable, "-m", "trainers.sweep", "--model=2L", f"--logdir={tmp_path / 'killed'}", *flags]
    path = tmp_path / "killed" / "sweeps" / "one"
    killed = disturbed(command, path, random.Random(tuner))
    assert set(killed) == {"leader", "worker"}
    space = asked.pop("space")
    sweep.sweep("2L", space, **asked, logdir=tmp_path / "calm")
    table, calm = (without_times(rows_of(tmp_path / name / "sweeps" / "one")) for name in ("killed", "calm"))
    assert table == calm and {row["status"] for row in table} == {"COMPLETED"}
