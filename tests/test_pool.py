"""Workers as real processes, killed and replaced; and what a worker does with a job."""

import concurrent.futures
import errno
import fcntl
import gc
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from fmnist_zoo.data import load_data
from tests import helpers
from tests.conftest import ROOT
from tests.sweeps import BATCH, make_job
from trainers import sweep, train
from trainers.config import resolve
from trainers.running import run
from trainers.running.folder import RunFolder
from trainers.running.table import MetricsTable
from trainers.tuning import local, pool, study, trial

EPOCHS = 40
SECONDS = 300  # far more than anything here takes on an idle machine
LONG = dict(model="2L", epochs=EPOCHS, dropout=0.2)


@pytest.fixture(scope="module")
def data():
    return load_data(data="mini")


@pytest.fixture
def job(tmp_path, data):
    """Makes jobs of a sweep in this test's folder."""
    return lambda name, **settings: make_job(tmp_path, data, name, **settings)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data):
    """The run folder and the outcome of the long trial, trained in this process without a break."""
    asked = make_job(tmp_path_factory.mktemp("undisturbed"), data, "long", **LONG)
    outcome = trial.run(asked)
    assert outcome["status"] == "COMPLETED"
    return RunFolder(asked["folder"]), outcome


@pytest.fixture(scope="module")
def parent(tmp_path_factory, data):
    """The folder of a completed run of two epochs, and `train`'s result for the same settings and three epochs."""
    asked = make_job(tmp_path_factory.mktemp("parent"), data, "parent", epochs=2, l2=0.001)
    assert trial.run(asked)["status"] == "COMPLETED"
    whole = train.train("softmax", l2=0.001, data="mini", epochs=3, batch_size=BATCH,
                        logdir=tmp_path_factory.mktemp("whole"), ranking=True, histogram_every=0, checkpoint_every=1)
    return RunFolder(asked["folder"]), whole


def wait_for(workers, count=1):
    outcomes, until = [], time.monotonic() + SECONDS
    while len(outcomes) < count:
        assert time.monotonic() < until
        outcomes += workers.wait(1.0)
    return outcomes


def kill_after_rows(folder, count):
    """Kills the process that trains in `folder`."""
    until = time.monotonic() + SECONDS
    while len(RunFolder(folder).rows()) < count:
        assert time.monotonic() < until
        time.sleep(0.02)
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
    monkeypatch.setattr(trial.threads, "use", asked.append)
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
        assert ("long", {"status": pool.DIED, "begun": True}) in (first := wait_for(workers))
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
        until = time.monotonic() + SECONDS
        while not workers._workers[0].ready:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert not sockets_of(pid) & listening()
        if os.geteuid() == 0:  # as another user: its pipes cannot be opened
            code = f"import os; os.setuid(65534); os.listdir('/proc/{pid}/fd')"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            assert "PermissionError" in done.stderr
    finally:
        workers.close()


def children_of(pid):
    return [int(child) for child in
            subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()]


@pytest.mark.long
@pytest.mark.parametrize("seconds", [1.0, 4.0])  # while Python starts, and while TensorFlow is imported
def test_workers_of_a_killed_leader_end_at_once(tmp_path, seconds):
    (tmp_path / "leader.py").write_text("import time\nfrom trainers.tuning import local\n"
                                        "if __name__ == '__main__':\n    pool = local.LocalPool(1, 2)\n"
                                        "    print(flush=True)\n    time.sleep(100)\n")
    leader = subprocess.Popen([sys.executable, tmp_path / "leader.py"], env={**os.environ, "PYTHONPATH": str(ROOT)},
                              stdout=subprocess.PIPE)
    leader.stdout.readline()
    time.sleep(seconds)
    children = children_of(leader.pid)
    leader.kill()
    leader.communicate()
    until = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{child}") for child in children):
        assert time.monotonic() < until
        time.sleep(0.1)
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


@pytest.mark.long
def test_trial_leaves_no_variables_or_graphs_in_memory(job):
    """TensorFlow itself keeps more, but nothing that Python can see."""
    def left(name):
        trial.run(job(name, model="2L", hidden=8, dropout=0.2, batch_size=256))
        return sum(1 for one in gc.get_objects() if type(one).__name__ in ("EagerTensor", "FuncGraph"))

    assert left("a") == left("b") == left("c")


def test_job_runs_once_nothing_prevents_it(job, tmp_path, monkeypatch):
    """Another leader, other data and a full disk are not the trial's fault: it is not failed, and runs later."""
    asked = job("one")
    assert trial.run({**asked, "leader": "another"})["status"] == "STOPPED"
    with pytest.raises(trial.TrialError, match="does not see .*elsewhere"):
        trial.run({**asked, "sweep": str(tmp_path / "elsewhere")})
    with pytest.raises(trial.TrialError, match="not those of the recorded run: sha256"):
        trial.run({**asked, "expected": {"sha256": "0", "split_sha256": "0"}})
    with monkeypatch.context() as full:
        error = OSError(errno.ENOSPC, "No space left on device")
        full.setattr(MetricsTable, "append", lambda self, row: (_ for _ in ()).throw(error))
        with pytest.raises(trial.TrialError, match="No space left on device.*make room"):
            trial.run(asked)
    assert trial.run(asked)["status"] == "COMPLETED"
    with pytest.raises(trial.TrialError, match="holds another run.*l2"):
        trial.run(job("one", l2=0.5))
    (tmp_path / trial.LEADER).unlink()
    assert trial.run({**asked, "folder": str(tmp_path / "two" / "0")})["status"] == "STOPPED"


@pytest.fixture
def stub(monkeypatch):
    """Replaces the training of a run by a function of its folder."""
    def replace(function):
        result = {"epochs": 1, "final": {}, "seconds": 0.0}

        def execute(folder, config, **settings):
            function(folder)
            return types.SimpleNamespace(result=result)

        monkeypatch.setattr(run, "execute", execute)

    return replace


def test_job_waits_for_a_worker_of_an_earlier_start_in_its_folder(job, stub, tmp_path):
    def take_the_lock(folder):
        with folder.locked():
            pass

    stub(take_the_lock)
    folder = tmp_path / "one" / "0"
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        timer = threading.Timer(1.0, lambda: fcntl.flock(held, fcntl.LOCK_UN))
        timer.start()
        began = time.monotonic()
        assert trial.run(job("one"))["status"] == "COMPLETED"
        assert time.monotonic() - began > 0.9
        timer.join()


def test_output_of_tensorflow_goes_to_the_log(job, stub, tmp_path, capfd):
    stub(lambda folder: os.write(2, b"from C++\n"))
    trial.run(job("one"))
    assert "from C++" in (tmp_path / "one" / "0" / "log.txt").read_text()
    assert "from C++" not in capfd.readouterr().err


def test_trial_that_raises_is_failed_with_a_log_and_shown_in_tensorboard(job, stub, tmp_path):
    def run_out(folder):
        raise ArithmeticError("out of\npatience")

    stub(run_out)
    outcome, log = trial.run(job("one")), tmp_path / "one" / "0" / "log.txt"
    assert outcome["status"] == "FAILED" and outcome["reason"] == f"ArithmeticError: out of (see {log})"
    assert "Traceback" in log.read_text()
    from trainers.board import events

    assert events.opened(log.parent)


def test_trial_that_is_not_finite_is_failed_with_the_whole_reason(job):
    outcome = trial.run(job("one", learning_rate=1e38))
    assert outcome["status"] == "FAILED" and "NaN or infinite" in outcome["reason"]
    assert "training stopped" not in outcome["reason"] and "(see" not in outcome["reason"]


def test_reason_of_a_failed_run_is_not_cut(job, stub):
    def end(folder):
        raise run.RunError("one; two; three") from ValueError("one; two")

    stub(end)
    assert trial.run(job("one"))["reason"] == "one; two"


def test_damaged_checkpoint_is_replaced_by_training_from_the_first_epoch(job, undisturbed, tmp_path):
    folder, expected = undisturbed
    shutil.copytree(folder.path, tmp_path / "long" / "0")
    copy = RunFolder(tmp_path / "long" / "0")
    copy.result.unlink()
    copy.checkpoint.write_bytes(copy.checkpoint.read_bytes()[:1000])
    assert trial.run(job("long", **LONG))["final"] == expected["final"]


@pytest.mark.parametrize("state", ["intact", "damaged", "without a checkpoint"])
def test_child_of_a_trial_equals_the_run_that_was_trained_at_once(job, parent, tmp_path, state):
    """It continues its parent's checkpoint if that can be read, else it trains from the first epoch."""
    folder, whole = parent
    shutil.copytree(folder.path, tmp_path / "parent" / "0")
    checkpoint = RunFolder(tmp_path / "parent" / "0").checkpoint
    if state == "damaged":
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    elif state != "intact":
        checkpoint.unlink()
    asked = job("child", epochs=3, l2=0.001, parent=str(tmp_path / "parent" / "0"))
    assert trial.run(asked)["status"] == "COMPLETED"
    child = RunFolder(asked["folder"])
    result = json.loads(child.result.read_text())
    assert result["weights_sha256"] == whole.result["weights_sha256"] and result["final"] == whole.result["final"]
    assert helpers.rows_without_times(child.path) == helpers.rows_without_times(whole.folder)
    assert helpers.scalars(child.path)["loss"] == helpers.scalars(whole.folder)["loss"]
    assert ("resumed" in (child.path / "log.txt").read_text()) == (state == "intact")
    (start,) = helpers.summaries(child.path)["_hparams_/session_start_info"]
    from tensorboard.plugins.hparams import metadata

    info = metadata.parse_session_start_info_plugin_data(start[1].metadata.plugin_data.content)
    assert info.hparams["epochs"].number_value == 3
