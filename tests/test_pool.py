"""Workers as real processes, killed and replaced."""

import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests import helpers
from tests.conftest import ROOT
from tests.helpers import SECONDS, children_of, until
from tests.sweeps import EPOCHS, LONG
from trainers import sweep
from trainers.config import resolve
from trainers.running.folder import RunFolder
from trainers.tuning import local, pool, study, trial


def wait_for(workers, count=1):
    outcomes = []
    until(lambda: outcomes.extend(workers.wait(1.0)) or len(outcomes) >= count)
    return outcomes


def kill_after_rows(folder, count):
    """Kills the process that trains in `folder`."""
    until(lambda: len(RunFolder(folder).rows()) >= count)
    os.kill(int((folder / ".lock").read_text()), signal.SIGKILL)


class Executor:
    """Stands in for the one of a worker, without a process: `futures` are of the jobs that it was given."""

    made: list["Executor"] = []

    def __init__(self, *arguments, **options):
        self.futures, self.ended, self.intra_op = [], False, ""
        self.made.append(self)

    def submit(self, *arguments):
        self.intra_op = os.environ.get("TF_NUM_INTRAOP_THREADS")
        self.futures.append(concurrent.futures.Future())
        return self.futures[-1]

    def shutdown(self, wait):
        self.ended = True


@pytest.fixture
def executors(monkeypatch):
    """The executors that pools of this test make."""
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", Executor)
    monkeypatch.setattr(Executor, "made", [])
    return Executor.made


def test_local_worker_that_grew_is_replaced(executors):
    workers = local.LocalPool(1)
    for count, memory_mb in ((1, 700.0), (1, 1000.0), (2, 1300.0), (2, 2000.0)):  # it may grow after its first job
        workers.submit("one", {})
        executors[-1].futures[-1].set_result(outcome := {"status": "COMPLETED", "memory_mb": memory_mb})
        assert workers.wait(1.0) == [("one", outcome)] and len(executors) == count
    assert [one.ended for one in executors] == [True, False]


def test_worker_inherits_the_threads_of_the_runs(executors, monkeypatch):
    """Its first import is the user's script, which may load TensorFlow before `trainers` asks for anything."""
    for before in (None, "1"):
        monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
        if before:
            monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", before)
        local.LocalPool(3)
        assert executors.pop().intra_op == "3" and os.environ.get("TF_NUM_INTRAOP_THREADS") == before


def test_workers_import_tensorflow_with_the_threads_of_the_runs(monkeypatch, tmp_path):
    asked = []

    def make(workers, scheduler, threads):
        asked.append(threads)
        raise pool.PoolError("no workers")

    monkeypatch.setattr(pool, "make", make)
    monkeypatch.setattr(trial.process, "start_tensorflow", asked.append)
    assert sweep.main(["--model=softmax", "--data=mini", "--threads=3", f"--logdir={tmp_path}"]) == 1
    trial.warm(3)
    assert asked == [3, 3]


@pytest.mark.long
def test_local_workers_share_the_cores_and_a_killed_one_loses_nothing(job, undisturbed, tmp_path):
    workers = local.LocalPool(resolve("2L").threads, 2)
    try:
        assert workers.slots == 2
        workers.submit("long", job("long", **LONG))
        workers.submit("other", job("other", **LONG, seed=1))
        kill_after_rows(tmp_path / "long" / "0", 3)
        first = wait_for(workers)
        first += [] if "long" in dict(first) else wait_for(workers)  # the other may have ended before
        killed = {"status": pool.DIED, "begun": True, "reason": "killed by signal 9, probably out of memory"}
        assert ("long", killed) in first
        assert 3 <= len(RunFolder(tmp_path / "long" / "0").rows()) < EPOCHS
        workers.submit("long", job("long", **LONG))
        outcomes = dict([*first, *wait_for(workers, 3 - len(first))])
        folder, expected = undisturbed
        assert outcomes["long"]["final"] == expected["final"] and outcomes["other"]["status"] == "COMPLETED"
        assert outcomes["long"]["memory_mb"] > 100 and outcomes["long"]["pid"] != outcomes["other"]["pid"]
        assert helpers.rows_without_times(tmp_path / "long" / "0") == helpers.rows_without_times(folder.path)
        cores = sorted(os.sched_getaffinity(0))
        expected = [{"cores": len(cores[index::2] or cores[:1])} for index in (0, 1)]
        for name in ("long", "other"):  # the replaced one has its share, too
            starts = json.loads((tmp_path / name / "0" / "config.json").read_text())["starts"]
            assert {"cores": starts[-1]["environment"]["cores"]} in expected
            # On one core too: the numbers of a trial are those of a run.
            assert starts[-1]["environment"]["threads"]["intra_op"] == resolve("2L").threads
    finally:
        workers.close()


def sockets_of(pid):
    """The inodes of the sockets that a process has open."""
    found = (os.readlink(entry) for entry in pathlib.Path("/proc", str(pid), "fd").iterdir())
    return {name[8:-1] for name in found if name.startswith("socket:")}


def listening():
    """The inodes of the sockets of this machine on which somebody can call."""
    def rows(name):
        return map(str.split, pathlib.Path("/proc/net", name).read_text().splitlines())

    return {row[9] for name in ("tcp", "tcp6") for row in rows(name) if row[3] == "0A"} | {
        row[6] for row in rows("unix") if row[3] == "00010000"}


@pytest.mark.long
def test_worker_of_this_machine_can_be_reached_by_its_leader_alone():
    workers = local.LocalPool(1)
    try:
        (pid,) = workers._workers[0]._executor._processes
        until(lambda: workers._workers[0].ready)
        assert not sockets_of(pid) & listening()
        if os.geteuid() == 0:  # as another user: its pipes cannot be opened
            code = f"import os; os.setuid(65534); os.listdir('/proc/{pid}/fd')"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            assert "PermissionError" in done.stderr
    finally:
        workers.close()


def ended(pid):
    try:
        return "\nState:\tZ" in pathlib.Path("/proc", str(pid), "status").read_text()
    except OSError:
        return True


@pytest.mark.long
@pytest.mark.parametrize("loading", ["python", "tensorflow"])
def test_workers_of_a_killed_leader_end(tmp_path, loading):
    (tmp_path / "leader.py").write_text("from trainers.tuning import local\n"
                                        "if __name__ == '__main__':\n    pool = local.LocalPool(1, 2)\n"
                                        "    print(flush=True)\n    input()\n")
    leader = subprocess.Popen([sys.executable, tmp_path / "leader.py"], env={**os.environ, "PYTHONPATH": str(ROOT)},
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    leader.stdout.readline()
    children = children_of(leader.pid)
    until(lambda: sum(loading in pathlib.Path("/proc", str(child), "maps").read_text() for child in children) >= 2)
    leader.kill()
    leader.communicate()
    until(lambda: all(map(ended, children)))
    assert len(children) == 3  # two workers, and multiprocessing's tracker


def test_share_of_the_cores_can_change_and_binds_threads_that_run():
    code = """
import os, threading
from trainers.tuning import trial
threading.Thread(target=threading.Event().wait, daemon=True).start()
cores = sorted(os.sched_getaffinity(0))
for index, count in [(0, 2), (1, 2), (0, 1), (len(cores), len(cores) + 1)]:
    trial.take_share(index, count)
    expected = set(cores[index::count]) or {cores[0]}
    assert {frozenset(os.sched_getaffinity(int(one))) for one in os.listdir("/proc/self/task")} == {
        frozenset(expected)}
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_script_without_a_main_guard_gets_a_message_and_no_trial_is_lost(tmp_path, workers):
    call = ("from trainers.sweep import sweep\n"
            f"sweep('softmax', 'l2=0', data='mini', epochs=1, logdir={str(tmp_path)!r}, workers={workers})\n")
    (tmp_path / "script.py").write_text(call)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode and "trainers.tuning.workers.PoolError" in done.stderr
    assert "if __name__ == '__main__':" in done.stderr
    assert not study.load(tmp_path / "sweeps" / "softmax-random-seed0").ended
