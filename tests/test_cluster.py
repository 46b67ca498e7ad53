"""Sweeps on a dask.distributed cluster: within this process with trials made up, and as processes with TLS."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tests.conftest import ROOT
from tests.helpers import free_port, until
from tests.sweeps import BATCH, make_job
from trainers import sweep
from trainers.config import ConfigError, resolve
from trainers.running.folder import RunFolder
from trainers.tuning import cluster, pool, study, trial
from trainers.tuning.scheduler import Scheduler

pytestmark = pytest.mark.filterwarnings("default")  # dask's own


@contextlib.contextmanager
def cluster_here(count):
    """A scheduler and `count` workers in this process."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=count, threads_per_worker=1, processes=False, protocol="tcp",
                                  host="127.0.0.1", dashboard_address="127.0.0.1:0") as made:
        yield made


BEGUN: list[dict] = []
PROCEED = threading.Event()


def complete(job):
    BEGUN.append(job)
    PROCEED.wait(60)
    return {"status": "COMPLETED", "job": job}


def fail(job):
    raise trial.TrialError("no disk")


@pytest.fixture
def pretend(monkeypatch):
    """Makes workers in this process pretend: the function takes the place of `trial.run`."""
    def replace(function):
        monkeypatch.setattr(trial, "warm", lambda threads: None)
        monkeypatch.setattr(trial, "take_share", lambda index, count: None)
        monkeypatch.setattr(trial, "run", function)

    return replace


def gather(workers, count):
    outcomes = {}
    until(lambda: outcomes.update(workers.wait(0.5)) or len(outcomes) >= count)
    return outcomes


def gather_after_kill(workers, folder):
    """Kills the process that trains in `folder` after three epochs."""
    workers.wait(0)
    until(lambda: RunFolder(folder).table.row_count() >= 3)
    os.kill(int((folder / ".lock").read_text()), signal.SIGKILL)
    return gather(workers, 1)


def test_jobs_are_sent_together_and_late_workers_are_used_with_new_shares(pretend, monkeypatch):
    pretend(complete)
    with cluster_here(1) as made, contextlib.closing(
            cluster.ClusterPool(Scheduler(made.scheduler_address), 1)) as workers:
        until(lambda: workers.slots == 1)
        assert list(workers._shares.values()) == [(0, 1)]
        made.scale(3)
        until(lambda: workers.slots == 3)
        assert sorted(workers._shares.values()) == [(0, 3), (1, 3), (2, 3)]
        for number in range(3):
            workers.submit(f"{number:04}/0", {"number": number})
        assert not BEGUN
        workers.wait(0)
        until(lambda: len(BEGUN) == 3)
        PROCEED.set()
        assert gather(workers, 3) == {
            f"{number:04}/0": {"status": "COMPLETED", "job": {"number": number}} for number in range(3)}
        made.scale(1)
        until(lambda: workers.slots == 1)
        assert list(workers._shares.values()) == [(0, 1)]


def test_error_of_a_job_is_raised(pretend):
    pretend(fail)
    with cluster_here(1) as made, contextlib.closing(
            cluster.ClusterPool(Scheduler(made.scheduler_address), 1)) as workers:
        workers.submit("0000/0", {})
        with pytest.raises(trial.TrialError, match="no disk"):
            gather(workers, 1)


def test_scheduler_without_a_worker_is_named_while_a_stop_is_heard(pretend, monkeypatch):
    with cluster_here(0) as made, contextlib.closing(
            cluster.ClusterPool(Scheduler(made.scheduler_address), 1)) as workers:
        assert workers.slots == 0  # at once
        monkeypatch.setattr(cluster, "FIRST_WORKER", 0.0)
        with pytest.raises(pool.PoolError, match="no worker has joined .* `dask worker tcp://"):
            until(lambda: workers.slots)


def test_worker_of_another_version_is_named(pretend, monkeypatch):
    pretend(None)
    monkeypatch.setattr(trial, "host", lambda: {"host": "far", "version": "0.0"})
    with cluster_here(1) as made, contextlib.closing(
            cluster.ClusterPool(Scheduler(made.scheduler_address), 1)) as workers:
        with pytest.raises(pool.PoolError, match="has fmnist_zoo 0.0, .*install the same version everywhere"):
            until(lambda: workers.slots)


@pytest.mark.long
def test_unreachable_scheduler_is_named(tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(pool.PoolError, match="is a scheduler running at tcp://127.0.0.1:9"):
        sweep.sweep("softmax", "l2=0", data="mini", logdir=tmp_path, scheduler="tcp://127.0.0.1:9")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Paths of a certificate that signs itself, and of its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "sweep.crt", folder / "sweep.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=sweep",
                    "-keyout", key, "-out", cert], check=True, capture_output=True)
    return str(cert), str(key)


@pytest.mark.parametrize("given, message", [
    ({}, "tls://127.0.0.1:9 needs certificates, and --tls_ca is missing: give --tls_ca, --tls_cert and --tls_key"),
    ({"tls_ca": "here"}, "--tls_cert is missing"),
    ({"tls_ca": "nowhere.crt", "tls_cert": "here"}, "nowhere.crt is no file that can be read"),
    ({"tls_ca": "here", "tls_cert": "here"}, "not certificates in PEM format"),
    ({"scheduler": "tcp://127.0.0.1:9", "tls_ca": "here"}, "--tls_ca is for --scheduler=tls://"),
    ({"scheduler": "", "tls_key": "here"}, "--tls_key is for --scheduler=tls://"),
    ({"scheduler": "host"}, "--scheduler is an address with a port, such as tls://host:8786; received 'host'"),
    ({"scheduler": "ftp://host:1"}, "--scheduler is an address with a port"),
])
@pytest.mark.parametrize("more", [[], ["--dry_run"]])
def test_scheduler_that_cannot_be_used_is_refused_in_one_line(given, message, more, tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("not a certificate")
    flags = {"scheduler": "tls://127.0.0.1:9", **given}
    assert sweep.main(["--model=softmax", "--space=l2=0", "--data=mini", *more,
                       *(f"--{name}={value}" for name, value in flags.items())]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("killed", [
    pytest.param(False, marks=pytest.mark.long), pytest.param(True, marks=pytest.mark.slow)])
def test_sweep_over_tls_with_workers_that_share_only_a_folder(certificate, tmp_path, killed):
    """As on several hosts: a scheduler and its workers are started by hand, and the sweep knows their address."""
    pytest.importorskip("distributed")
    cert, key = certificate
    port = free_port()
    address, tls = f"tls://127.0.0.1:{port}", ["--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key]
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--protocol", "tls", "--host", "127.0.0.1",
             "--port", str(port), "--no-dashboard", *tls]
    work = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--host", "127.0.0.1", "--nthreads", "1",
            "--no-dashboard", "--local-directory", str(tmp_path / "dask"), *tls]
    environment = {"PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    options = dict(env={**os.environ, **environment}, cwd=tmp_path, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    processes = [subprocess.Popen(command, **options) for command in (start, work)]
    given = dict(tls_ca=cert, tls_cert=cert, tls_key=key)
    try:
        def listens():
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", port), timeout=1).close() or True

        until(listens)
        with pytest.raises(ConfigError, match="--tls_ca is missing"):
            cluster.ClusterPool(Scheduler(address), 1)
        table = sweep.sweep("softmax", {"l2": [0, 0.001]}, tuner="grid", data="mini", epochs=2, batch_size=BATCH,
                            logdir=tmp_path, scheduler=address, **given)
        workers = cluster.ClusterPool(Scheduler(address, **given), resolve("2L").threads)
        until(lambda: workers.slots)
        if killed:
            job = make_job(tmp_path / "one", "0000", model="2L", hidden=(16,), epochs=20)
            workers.submit("0000/0", job)
            assert gather_after_kill(workers, tmp_path / "one" / "0000" / "0") == {
                "0000/0": {"status": pool.DIED, "begun": True}}
            workers.submit("0000/0", job)
            assert gather(workers, 1)["0000/0"]["status"] == "COMPLETED"
            assert "resumed" in (tmp_path / "one" / "0000" / "0" / "log.txt").read_text()
        processes[0].kill()
        with pytest.raises(pool.PoolError, match="the scheduler is gone"):
            until(lambda: not workers.slots)
        workers.close()
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)
    assert [row["status"] for row in table] == ["COMPLETED"] * 2
    trials = study.load(tmp_path / "sweeps" / "softmax-grid-seed0").trials.values()
    pids = {one["pid"] for done in trials for one in done.result["executions"]}
    assert os.getpid() not in pids and len(pids) == 1
