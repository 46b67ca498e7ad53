"""Workers as they are: real processes, killed and renewed; and what one of them does with a job."""

import errno
import fcntl
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from fmnist_zoo.data import load_data
from tests import helpers
from tests.conftest import ROOT
from trainers import config as configs, sweep
from trainers.running import run
from trainers.running.folder import RunFolder
from trainers.running.table import MetricsTable
from trainers.tuning import pool as pools, study as studies, trial as trials

EPOCHS = 30


@pytest.fixture
def make_job(tmp_path):
    """Jobs of a sweep whose folder is `tmp_path`."""
    (tmp_path / trials.LEADER).write_text("me")
    data = load_data(data="mini")

    def make(name, *, model="2L", parent=None, **settings):
        settings = {"epochs": 1, "data": "mini", "histogram_every": 0, "checkpoint_every": 1, **settings}
        config = configs.resolve(model, ranking=True, **settings)
        return {"config": config.to_dict(), "folder": str(tmp_path / name / "0"), "parent": parent,
                "expected": {"sha256": data.sha256, "split_sha256": data.split_sha256},
                "sweep": str(tmp_path), "leader": "me"}

    return make


def wait_for(pool, count=1, seconds=120):
    outcomes, until = [], time.monotonic() + seconds
    while len(outcomes) < count:
        assert time.monotonic() < until
        outcomes += pool.wait(1.0)
    return outcomes


def wait_for_rows(folder, count):
    until = time.monotonic() + 60
    while len(RunFolder(folder).rows()) < count:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def whole(make_job):
    """The result of the long trial that nobody disturbs, trained in this process."""
    outcome = trials.run(make_job("whole", epochs=EPOCHS, dropout=0.2))
    assert outcome["status"] == "COMPLETED"
    return outcome


def test_a_child_is_renewed_and_a_killed_one_gives_its_trial_back(make_job, whole, monkeypatch, tmp_path):
    monkeypatch.setattr(pools, "TRIALS_A_WORKER", 2)  # warming counts as one
    pool = pools.ChildPool()
    try:
        pids = []
        for name in ("a", "b"):
            pool.submit(name, make_job(name))
            ((ended, outcome),) = wait_for(pool)
            assert (ended, outcome["status"]) == (name, "COMPLETED")
            pids.append(outcome["pid"])
        assert len({os.getpid(), *pids}) == 3 and outcome["memory_mb"] > 100
        pool.submit("long", make_job("long", epochs=EPOCHS, dropout=0.2))
        wait_for_rows(tmp_path / "long" / "0", 3)
        os.kill(int((tmp_path / "long" / "0" / ".lock").read_text()), signal.SIGKILL)
        assert wait_for(pool) == [("long", {"status": pools.DIED, "begun": True})]
        rows = len(RunFolder(tmp_path / "long" / "0").rows())
        assert 3 <= rows < EPOCHS
        pool.submit("long", make_job("long", epochs=EPOCHS, dropout=0.2))
        ((_, outcome),) = wait_for(pool)
        assert outcome["final"] == whole["final"]
        long, undisturbed = (helpers.rows_without_times(tmp_path / name / "0") for name in ("long", "whole"))
        assert long == undisturbed
    finally:
        pool.close()


def test_dask_workers_share_the_cores_and_a_killed_one_loses_nothing(make_job, whole, tmp_path):
    pool = pools.DaskPool(workers=2)
    try:
        assert pool.slots == 2 and pool.shares == {"0": (0, 2), "1": (1, 2)}
        assert pool._client.scheduler.address.startswith("tls://127.0.0.1:")
        jobs = {"long": make_job("long", epochs=EPOCHS, dropout=0.2), "short": make_job("short")}
        for name, job in jobs.items():
            pool.submit(name, job)
        wait_for_rows(tmp_path / "long" / "0", 3)
        os.kill(int((tmp_path / "long" / "0" / ".lock").read_text()), signal.SIGKILL)
        outcomes = dict(wait_for(pool, 2))
        assert outcomes["long"]["status"] == pools.DIED
        for name in [name for name, outcome in outcomes.items() if outcome["status"] == pools.DIED]:
            pool.submit(name, jobs[name])  # a short one too, if it was waiting behind the long one
            outcomes.update(wait_for(pool))
        assert outcomes["long"]["final"] == whole["final"] and outcomes["short"]["status"] == "COMPLETED"
        log = (tmp_path / "long" / "0" / "config.json").read_text()
        environment, cores = json.loads(log)["environment"], sorted(os.sched_getaffinity(0))
        assert environment["cores"] in (len(cores[::2]), len(cores[1::2]))
        assert environment["threads"]["intra_op"] == 2  # on one core too: the numbers of a trial are those of a run
    finally:
        pool.close()


def test_workers_of_a_scheduler_that_share_only_a_folder(tmp_path):
    """As on several machines: a scheduler and its workers are started by hand, and the sweep knows their address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    address = f"tcp://127.0.0.1:{port}"
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port),
             "--no-dashboard"]
    work = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--host", "127.0.0.1", "--nthreads", "1",
            "--nworkers", "2", "--no-dashboard", "--local-directory", str(tmp_path / "dask")]
    options = dict(env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    processes = [subprocess.Popen(command, **options) for command in (start, work)]
    try:
        pool = pools.DaskPool(address=address)
        table = sweep.sweep("softmax", {"l2": [0, 0.001, 0.01]}, tuner="grid", data="mini", epochs=2, logdir=tmp_path,
                            scheduler=address)
        processes[0].kill()
        with pytest.raises(pools.PoolError, match="the scheduler is gone"):
            for _ in range(100):
                time.sleep(0.2)
                assert pool.slots
        pool.close()
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)
    assert [row["status"] for row in table] == ["COMPLETED"] * 3
    study = studies.load(tmp_path / "sweeps" / "softmax-grid-seed0")
    pids = {one["pid"] for trial in study.trials.values() for one in trial.result["executions"]}
    assert os.getpid() not in pids and 1 <= len(pids) <= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_script_without_its_guard_is_told_and_no_trial_is_lost(tmp_path, workers):
    call = ("from trainers.sweep import sweep\n"
            f"sweep('softmax', 'l2=0', data='mini', epochs=1, logdir={str(tmp_path)!r}, workers={workers})\n")
    (tmp_path / "script.py").write_text(call)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode and "trainers.tuning.pool.PoolError" in done.stderr.splitlines()[-1] + done.stderr
    assert "if __name__ == '__main__':" in done.stderr
    study = studies.load(tmp_path / "sweeps" / "softmax-random-seed0")
    assert not study.ended


def test_a_run_that_is_gone_leaves_its_memory(make_job):
    """Nothing of a trial stays but what TensorFlow itself keeps: no images, no variables."""
    def left(name):
        trials.run(make_job(name, model="4L", dropout=0.2))
        return sum(1 for one in gc.get_objects() if type(one).__name__ in ("EagerTensor", "FuncGraph"))

    assert left("a") == left("b") == left("c")


def test_no_scheduler_is_one_line_that_names_it(tmp_path):
    with pytest.raises(pools.PoolError, match="is a scheduler running at tcp://127.0.0.1:9"):
        sweep.sweep("softmax", "l2=0", data="mini", logdir=tmp_path, scheduler="tcp://127.0.0.1:9")


def test_a_job_stops_when_another_leads(make_job, tmp_path):
    job = make_job("one", epochs=3)
    assert trials.run({**job, "leader": "another"})["status"] == "STOPPED"
    assert trials.run(job)["status"] == "COMPLETED"
    (tmp_path / trials.LEADER).unlink()
    assert trials.run(make_job("two"))["status"] == "STOPPED"


def test_a_job_waits_for_the_orphan_that_holds_its_folder(make_job, tmp_path):
    folder = tmp_path / "one" / "0"
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        timer = threading.Timer(1.5, lambda: fcntl.flock(held, fcntl.LOCK_UN))
        timer.start()
        began = time.monotonic()
        assert trials.run(make_job("one"))["status"] == "COMPLETED"
        assert time.monotonic() - began > 1.4
        timer.join()


@pytest.mark.parametrize("error, told", [
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device.*make room"),
])
def test_a_full_disk_is_no_fault_of_the_trial(make_job, monkeypatch, error, told):
    monkeypatch.setattr(MetricsTable, "append", lambda self, row: (_ for _ in ()).throw(error))
    with pytest.raises(trials.TrialError, match=told):
        trials.run(make_job("one"))
    monkeypatch.undo()
    assert trials.run(make_job("one"))["status"] == "COMPLETED"


def test_a_job_refuses_what_it_cannot_see_or_what_is_not_its_own(make_job, tmp_path):
    with pytest.raises(trials.TrialError, match="is not seen by the worker"):
        trials.run({**make_job("one"), "sweep": str(tmp_path / "elsewhere")})
    with pytest.raises(trials.TrialError, match="not those of the recorded run: sha256"):
        trials.run({**make_job("one"), "expected": {"sha256": "0", "split_sha256": "0"}})
    assert trials.run(make_job("one"))["status"] == "COMPLETED"
    with pytest.raises(trials.TrialError, match="holds another run.*l2"):
        trials.run(make_job("one", l2=0.5))


def test_a_damaged_checkpoint_is_trained_anew(make_job, whole, tmp_path):
    job = make_job("whole", epochs=EPOCHS, dropout=0.2)
    folder = RunFolder(job["folder"])
    folder.result.unlink()
    folder.checkpoint.write_bytes(folder.checkpoint.read_bytes()[:1000])
    assert trials.run(job)["final"] == whole["final"]


def test_what_tensorflow_prints_goes_to_the_log(make_job, monkeypatch, tmp_path, capfd):
    real = run.execute

    def noisy(*arguments, **settings):
        os.write(2, b"from C++\n")
        return real(*arguments, **settings)

    monkeypatch.setattr(run, "execute", noisy)
    trials.run(make_job("one"))
    assert "from C++" in (tmp_path / "one" / "0" / "log.txt").read_text()
    assert "from C++" not in capfd.readouterr().err
