"""What the tests share: commands, pools, runs on the mini set, trained weights."""

import contextlib
import functools
import os
import pathlib
import subprocess
import sys

import pytest

from fmnist_zoo import custom, registry
from tests import helpers, sweeps
from trainers.tuning import leader

ROOT = pathlib.Path(__file__).parent.parent
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")  # as a run's default, whichever test starts TensorFlow
os.environ["XDG_CACHE_HOME"] = str(ROOT / ".pytest_cache" / "xdg")  # compiled programs, for all workers and sessions
# TensorFlow asks the processor whether oneDNN computes bfloat16, not oneDNN: limited to AVX2, that ends the process.
computes_bfloat16 = pytest.mark.skipif("AVX2" in os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
                                       reason="under ONEDNN_MAX_CPU_ISA=AVX2 oneDNN refuses bfloat16")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Where continuous integration runs, a test that is skipped has failed, but for those that need what it lacks."""
    report = yield
    if report.skipped and os.environ.get("FMNIST_ZOO_CI") and not item.get_closest_marker("optional"):
        report.outcome, report.longrepr = "failed", f"skipped in continuous integration: {report.longrepr[2]}"
    return report


@pytest.fixture(autouse=True)
def _no_data_of_the_developer(monkeypatch):
    """A data folder named in the environment must not change what is tested."""
    monkeypatch.delenv("FMNIST_ZOO_DATA", raising=False)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """Undoes what a test registers."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    monkeypatch.setattr(custom, "_BUILDERS", dict(custom._BUILDERS))


@pytest.fixture(autouse=True)
def _determinism_ends_with_a_test():
    """TensorFlow's switch is the process's, and tests of the process expect it as it is at first."""
    yield
    if config := sys.modules.get("tensorflow.python.framework.config"):
        config.disable_op_determinism()


@pytest.fixture(autouse=True)
def _no_page_of_a_sweep(request, monkeypatch):
    """Sweeps draw nothing when they end, which takes longer than their trials; tests marked `page` are about it."""
    if not request.node.get_closest_marker("page"):
        monkeypatch.setattr(leader, "write_page", lambda study: None)


@contextlib.contextmanager
def tape_without_xla():
    """`--trainer=tape` trains by TensorFlow's own kernels, as it does where batches are large.

    XLA compiles every new network for one to three seconds, and a test trains for less.
    """
    from trainers import config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "LARGEST_XLA_BATCH", 0)
        yield


@pytest.fixture(scope="module")
def without_xla():
    """The runs that a module trains in this process are not compiled; for modules that compare none with other runs."""
    with tape_without_xla():
        yield


@pytest.fixture
def command():
    """Runs `python -m MODULE ARGUMENTS...` in the checkout; returns the finished process with its output as text."""

    def run(*arguments, timeout=helpers.SECONDS, **options):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=options.pop("cwd", ROOT), text=True,
                              timeout=timeout, capture_output=True, env=environment, **options)

    return run


@pytest.fixture
def inline_pool(monkeypatch):
    """Sweeps of this test train in this process, in the pool that is returned."""
    return sweeps.replace_pool(monkeypatch, sweeps.Inline())


@pytest.fixture
def pretending_pool(monkeypatch):
    """Sweeps of this test train nothing; the pool that is returned makes results up."""
    return sweeps.replace_pool(monkeypatch, sweeps.Pretending())


@pytest.fixture
def job(tmp_path):
    """Makes jobs of a sweep in this test's folder."""
    return functools.partial(sweeps.make_job, tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The run folder and the outcome of the long trial, trained in this process without a break."""
    from trainers.running.folder import RunFolder
    from trainers.tuning import execution

    asked = sweeps.make_job(tmp_path_factory.mktemp("undisturbed"), "long", **sweeps.LONG)
    outcome = execution.run(asked)
    assert outcome["status"] == "COMPLETED"
    return RunFolder(asked.folder), outcome


@pytest.fixture(scope="session")
def finished_sweep(tmp_path_factory):
    """The log folder of a finished grid of four named `grid`, trained in this process, and the table it returned."""
    from trainers.sweep import sweep

    logdir = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as monkeypatch, tape_without_xla():
        sweeps.replace_pool(monkeypatch, sweeps.Inline())
        monkeypatch.setattr(leader, "write_page", lambda study: None)
        return logdir, sweep(sweeps.MODEL, sweeps.SPACE, logdir=logdir, name="grid", **sweeps.GRID)


@pytest.fixture
def pretended_sweep(tmp_path, pretending_pool):
    """The log folder of the same grid with results made up, and its table. Sweeps of this test train nothing."""
    from trainers.sweep import sweep

    table = sweep(sweeps.MODEL, sweeps.SPACE, logdir=tmp_path / "logs", name="grid", **sweeps.GRID)
    pretending_pool.ran.clear()
    return tmp_path / "logs", table


@pytest.fixture(scope="session")
def scored(tmp_path_factory):
    """What `trainers.results` wrote for two seeds of softmax: flags, the table's path, the log folder."""
    from trainers import results

    folder = tmp_path_factory.mktemp("results")
    flags = ["--test", "--data=mini", "--models=softmax", f"--out={folder / 'table.csv'}",
             f"--logdir={folder / 'logs'}"]
    with tape_without_xla():
        assert results.main([*flags, "--seeds=0,1"]) == 0
    return flags, folder / "table.csv", folder / "logs"


@pytest.fixture
def scored_run(scored):
    """The finished run of seed 0."""
    from trainers.running.folder import RunFolder

    (path,) = (scored[2] / "softmax").glob("*-seed0")
    return RunFolder(path)
