"""Workers as real processes: most of them pretend to train, so that they start without TensorFlow."""

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
from trainers.config import read_run, resolve
from trainers.running.folder import RunFolder
from trainers.tuning import study, workers
from trainers.tuning.execution import DIED, TrialError

SIGNALS = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}


def pretend(leader, threads):
    """Stands in for a worker's life: a job says what happens to the worker; at first the environment does."""
    marker = pathlib.Path(os.environ["MARKER"])
    if starts := marker.read_text():
        marker.write_text(starts[1:])
        end(starts[0])
    leader.send(workers.READY)
    while True:
        job = leader.recv()
        end(job["end"]) if "end" in job else leader.send(TrialError("no disk") if "error" in job else {
            "memory_mb": 0.0, **job, "pid": os.getpid(), "threads": os.environ["TF_NUM_INTRAOP_THREADS"],
            "cores": os.sched_getaffinity(0), "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ())})


def end(how):
    os.kill(os.getpid(), signal.SIGKILL) if how == "9" else os._exit(int(how))


@pytest.fixture
def pool(monkeypatch, tmp_path):
    """Makes a pool of processes that pretend; `starts` says how the first ones end, one character each: see `end`."""
    made = []

    def make(count=1, threads=1, starts=""):
        (tmp_path / "marker").write_text(starts)
        made.append(workers.LocalPool(threads, count))
        return made[0]

    monkeypatch.setattr(workers, "_work", pretend)
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    yield make
    for one in made:
        one.close()


def wait_for(pool, count=1):
    outcomes = []
    until(lambda: outcomes.extend(pool.wait(1.0)) or len(outcomes) >= count)
    return outcomes


def run(pool, name="one", **job):
    pool.submit(name, job)
    ((found, outcome),) = wait_for(pool)
    assert found == name
    return outcome


@pytest.mark.long
def test_worker_that_grew_is_replaced(pool):
    one = pool()
    pids = [run(one, memory_mb=memory)["pid"] for memory in (700.0, 1000.0, 1300.0, 2000.0, 1300.0)]
    assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4]  # it may grow after its first job


def test_workers_have_the_threads_of_the_runs_and_their_cores_and_hear_no_ctrl_c(pool):
    """All from their first moment, in which they import the user's script; the leader's own stay as they were."""
    def here():
        return os.environ.get("TF_NUM_INTRAOP_THREADS"), os.sched_getaffinity(0), signal.pthread_sigmask(0, ())

    before, cores = here(), sorted(os.sched_getaffinity(0))
    both = pool(count=2, threads=3)
    both.submit("a", {})
    both.submit("b", {})
    found = [outcome for _, outcome in wait_for(both, 2)]
    assert here() == before and found[0]["pid"] != found[1]["pid"]
    assert {frozenset(one["cores"]) for one in found} == {
        frozenset(cores[index % len(cores)::2]) for index in (0, 1)}
    assert all(one["threads"] == "3" and SIGNALS <= one["blocked"] for one in found)


@pytest.mark.long
def test_job_whose_worker_died_says_how_and_the_next_one_runs(pool):
    one = pool()
    assert run(one, end="9") == {"status": DIED, "reason": "killed by signal 9, probably out of memory"}
    assert run(one, end="7") == {"status": DIED, "reason": "ended with exit code 7"}
    assert "pid" in run(one)
    with pytest.raises(TrialError, match="no disk"):
        run(one, error=True)


@pytest.mark.long
def test_worker_that_is_killed_while_it_starts_is_replaced_with_its_job(pool):
    assert "pid" in run(pool(starts="99"))


@pytest.mark.parametrize("starts, message", [
    pytest.param("999", "killed by signal 9, probably out of memory before .* fewer --workers", marks=pytest.mark.long),
    ("1", "exit code 1 before it took a trial; its output above says why")])
def test_workers_that_cannot_start_are_given_up_with_the_reason(pool, starts, message):
    one = pool(starts=starts)
    with pytest.raises(workers.PoolError, match=message):
        until(lambda: one.wait(1.0))


@pytest.mark.long
def test_workers_train_in_their_share_of_the_cores_and_a_killed_one_loses_nothing(job, undisturbed, tmp_path):
    pool = workers.LocalPool(resolve("2L").threads, 2)
    try:
        pool.submit("long", job("long", **LONG))
        pool.submit("other", job("other", **LONG, seed=1))
        until(lambda: pool.wait(0.1) or len(RunFolder(tmp_path / "long" / "0").rows()) >= 3)
        os.kill(int((tmp_path / "long" / "0" / ".lock").read_text()), signal.SIGKILL)
        first = wait_for(pool)
        first += [] if "long" in dict(first) else wait_for(pool)  # the other may have ended before
        assert dict(first)["long"]["status"] == DIED
        assert 3 <= len(RunFolder(tmp_path / "long" / "0").rows()) < EPOCHS
        pool.submit("long", job("long", **LONG))
        outcomes = dict([*first, *wait_for(pool, 3 - len(first))])
    finally:
        pool.close()
    folder, expected = undisturbed
    assert outcomes["long"]["final"] == expected["final"] and outcomes["other"]["status"] == "COMPLETED"
    assert outcomes["long"]["memory_mb"] > 100 and outcomes["long"]["pid"] != outcomes["other"]["pid"]
    assert helpers.rows_without_times(tmp_path / "long" / "0") == helpers.rows_without_times(folder.path)
    cores = sorted(os.sched_getaffinity(0))
    for name in ("long", "other"):
        environment = read_run(tmp_path / name / "0")[0]["starts"][-1]["environment"]
        assert environment["cores"] in {len(cores[index % len(cores)::2]) for index in (0, 1)}
        # On one core too: the numbers of a trial are those of a run.
        assert environment["threads"]["intra_op"] == resolve("2L").threads


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


def test_worker_can_be_reached_by_its_leader_alone(pool):
    pid = run(pool())["pid"]
    assert not sockets_of(pid) & listening()
    if os.geteuid() == 0:  # as another user: its pipes cannot be opened
        code = f"import os; os.setuid(65534); os.listdir('/proc/{pid}/fd')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "PermissionError" in done.stderr


def has_ended(pid):
    try:
        return "\nState:\tZ" in pathlib.Path("/proc", str(pid), "status").read_text()
    except OSError:
        return True


@pytest.mark.long
@pytest.mark.parametrize("loading", ["python", "tensorflow"])
def test_workers_of_a_killed_leader_end(tmp_path, loading):
    (tmp_path / "leader.py").write_text("from trainers.tuning import workers\n"
                                        "if __name__ == '__main__':\n    pool = workers.LocalPool(1, 2)\n"
                                        "    print(flush=True)\n    input()\n")
    leader = subprocess.Popen([sys.executable, tmp_path / "leader.py"], env={**os.environ, "PYTHONPATH": str(ROOT)},
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    leader.stdout.readline()
    children = children_of(leader.pid)
    until(lambda: sum(loading in pathlib.Path("/proc", str(child), "maps").read_text() for child in children) >= 2)
    leader.kill()
    leader.communicate()
    until(lambda: all(map(has_ended, children)))
    assert len(children) == 3  # two workers, and multiprocessing's tracker


SCRIPT = """
import fmnist_zoo
from trainers.sweep import sweep
def mine():
    import keras
    return keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)])
fmnist_zoo.register("mine", build=mine)
"""
CALL = "sweep('{model}', 'learning_rate=0.001', data='mini', epochs=1, logdir='logs', max_trials=1)\n"


GUARD = "if __name__ == '__main__':\n    "


@pytest.mark.long
@pytest.mark.parametrize("script, guard, model, error", [
    ("script.py", GUARD, "mine", ""), ("script.py", "", "softmax", GUARD.split("\n")[0]),
    ("-", "", "softmax", ""), ("-", GUARD, "mine", "move it into a module")])
def test_script_that_sweeps_works_or_says_once_what_is_missing(tmp_path, script, guard, model, error):
    """From standard input there is nothing that a worker could import, and nothing to guard."""
    code = SCRIPT + guard + CALL.format(model=model)
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
                          input=code * (script == "-"), capture_output=True, text=True, timeout=SECONDS)
    if error:
        assert done.returncode
        assert sum("Error: " in line and error in line for line in done.stderr.splitlines()) == 1
        assert not (tmp_path / "logs").exists()
    else:
        assert done.returncode == 0, done.stderr
        assert len(study.load(tmp_path / "logs" / "sweeps" / f"{model}-random-seed0").ranked) == 1


def test_number_of_workers_is_that_of_cores_and_jobs_and_has_a_limit(monkeypatch):
    for cores, jobs, expected in ((2, 12, 2), (8, 3, 3), (64, 1000, workers.MOST), (2, 0, 1)):
        monkeypatch.setattr(workers.processor, "cores", lambda: cores)
        assert workers.usual(jobs) == expected
