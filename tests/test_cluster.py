"""Sweeps on a dask.distributed cluster: within this process with trials made up, and as processes with TLS."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.helpers import SECONDS, free_port, listens, until
from tests.sweeps import BATCH, make_job
from trainers import sweep
from trainers.config import ConfigError
from trainers.running.folder import RunFolder
from trainers.tuning import cluster, execution, study
from trainers.tuning.cluster import Scheduler
from trainers.tuning.execution import DIED, PoolError

pytestmark = pytest.mark.filterwarnings("default")  # dask's own


@contextlib.contextmanager
def cluster_here(count):
    """A scheduler and `count` workers in this process."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=count, threads_per_worker=1, processes=False, protocol="tcp",
                                  host="127.0.0.1", dashboard_address="127.0.0.1:0") as made:
        yield made


def complete(job):
    return {"status": "COMPLETED", "job": job}


def fail(job):
    raise execution.TrialError("no disk")


@pytest.fixture
def pool(monkeypatch):
    """Makes a cluster of so many workers in this process that run a function instead of `execution.run`, and its pool.
    """
    with contextlib.ExitStack() as held:
        def make(count, function=complete):
            monkeypatch.setattr(execution, "run", function)
            made = held.enter_context(cluster_here(count))
            return made, held.enter_context(contextlib.closing(cluster.ClusterPool(Scheduler(made.scheduler_address))))

        yield make


def gather(workers, count):
    outcomes = {}
    until(lambda: outcomes.update(workers.wait(0.5)) or len(outcomes) >= count)
    return outcomes


@pytest.mark.long
def test_jobs_run_on_workers_that_join_and_leave(pool):
    made, workers = pool(1)
    assert workers.slots == 1
    made.scale(2)
    until(lambda: workers.slots == 2)
    for number in range(3):
        workers.submit(f"{number:04}/0", {"number": number})
    assert gather(workers, 3) == {
        f"{number:04}/0": {"status": "COMPLETED", "job": {"number": number}} for number in range(3)}
    made.scale(1)
    until(lambda: workers.slots == 1)


def test_error_of_a_job_is_raised(pool):
    _, workers = pool(1, fail)
    workers.submit("0000/0", {})
    with pytest.raises(execution.TrialError, match="no disk"):
        gather(workers, 1)


@pytest.mark.long
def test_scheduler_without_a_worker_is_named_while_a_stop_is_heard(pool, monkeypatch):
    monkeypatch.setattr(cluster, "FIRST_WORKER", 2.0)
    _, workers = pool(0)
    assert workers.slots == 0  # at once
    with pytest.raises(PoolError, match="no worker has joined .* `dask worker tcp://"):
        until(lambda: workers.slots)


def test_worker_of_another_version_is_named(pool, monkeypatch):
    _, workers = pool(1)
    monkeypatch.setattr(execution, "version", lambda: "0.0")
    with pytest.raises(PoolError, match="has fmnist_zoo 0.0, .*install the same version everywhere"):
        until(lambda: workers.slots)


@pytest.mark.long
def test_unreachable_scheduler_is_named(tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(PoolError, match="is a scheduler running at tcp://127.0.0.1:9"):
        sweep.sweep("softmax", "l2=0", data="mini", logdir=tmp_path, scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize("address", ["tcp://10.0.0.5:8786", "10.0.0.5:8786", "tcp://cluster:8786", "ws://cluster:8786",
                                     "tcp://[2001:db8::1]:8786"])
def test_unprotected_scheduler_on_another_host_is_refused_unless_the_network_is_trusted(address, tmp_path, capsys):
    pytest.importorskip("distributed")
    with pytest.raises(ConfigError, match="neither encrypted nor authenticated.*trust_network"):
        sweep.sweep("softmax", "l2=0", data="mini", logdir=tmp_path, scheduler=address)
    flags = ["--model=softmax", "--space=l2=0", "--data=mini", f"--scheduler={address}", f"--logdir={tmp_path}"]
    assert [sweep.main([*flags, *more]) for more in ([], ["--dry_run"], ["--dry_run", "--trust_network"])] == [2, 2, 0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "127.0.0.2:8786", "localhost:8786", "tcp://[::1]:8786"])
def test_unprotected_scheduler_of_this_machine_is_accepted(address):
    pytest.importorskip("distributed")
    assert Scheduler(address).security() is None


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


def test_scheduler_without_dask_is_refused_before_a_folder_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if it were not installed
    flags = ["--model=softmax", "--data=mini", "--scheduler=tls://a:1", f"--logdir={tmp_path}"]
    for more in ([], ["--dry_run"]):
        assert sweep.main([*flags, *more]) == 2
        assert "pip install 'fmnist_zoo[distributed]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


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
        until(lambda: listens(port))
        with pytest.raises(ConfigError, match="--tls_ca is missing"):
            cluster.ClusterPool(Scheduler(address))
        table = sweep.sweep("softmax", {"l2": [0, 0.001]}, tuner="grid", data="mini", epochs=2, batch_size=BATCH,
                            logdir=tmp_path, scheduler=address, **given)
        workers = cluster.ClusterPool(Scheduler(address, **given))
        if killed:
            asked = make_job(tmp_path / "one", "0000", model="2L", hidden=(16,), epochs=60)
            folder = RunFolder(asked.folder)
            workers.submit("0000/0", asked)
            until(lambda: folder.table.row_count() >= 3)
            os.kill(int((folder.path / ".lock").read_text()), signal.SIGKILL)
            assert gather(workers, 1)["0000/0"]["status"] == DIED
            workers.submit("0000/0", asked)
            assert gather(workers, 1)["0000/0"]["status"] == "COMPLETED"
            assert "resumed" in (folder.path / "log.txt").read_text()
        processes[0].kill()
        with pytest.raises(PoolError, match="the scheduler at .* is gone"):
            until(lambda: not workers.slots)
        workers.close()
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(SECONDS)
    assert [row["status"] for row in table] == ["COMPLETED"] * 2
    trials = study.load(tmp_path / "sweeps" / "softmax-grid-seed0").trials.values()
    pids = {one["pid"] for done in trials for one in done.executions}
    assert os.getpid() not in pids and len(pids) == 1
