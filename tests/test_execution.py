"""What a worker does with a job: a trial is trained, failed, continued, or left to another worker."""

import errno
import fcntl
import gc
import json
import os
import pathlib
import shutil
import types

import pytest

from tests import helpers
from tests.sweeps import BATCH, LONG, make_job
from trainers import train
from trainers.running import run
from trainers.running.folder import RunFolder
from trainers.running.table import MetricsTable
from trainers.tuning import execution


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """The folder of a completed run of two epochs, and `train`'s result for the same settings and three epochs."""
    asked = make_job(tmp_path_factory.mktemp("parent"), "parent", epochs=2, l2=0.001)
    assert execution.run(asked)["status"] == "COMPLETED"
    whole = train.train("softmax", l2=0.001, data="mini", epochs=3, batch_size=BATCH,
                        logdir=tmp_path_factory.mktemp("whole"), ranking=True, histogram_every=0, checkpoint_every=1)
    return RunFolder(asked.folder), whole


@pytest.mark.long
def test_trial_leaves_no_variables_or_graphs_in_memory(job):
    """TensorFlow itself keeps more, but nothing that Python can see."""
    def left(name):
        execution.run(job(name, model="2L", hidden=8, dropout=0.2, batch_size=256))
        return sum(1 for one in gc.get_objects() if type(one).__name__ in ("EagerTensor", "FuncGraph"))

    assert left("a") == left("b") == left("c")


def test_job_runs_once_nothing_prevents_it(job, tmp_path, monkeypatch):
    """Another leader, other data and a full disk are not the trial's fault: it is not failed, and runs later."""
    asked = job("one")
    assert execution.run(asked._replace(leader="another"))["status"] == "STOPPED"
    with pytest.raises(execution.TrialError, match="does not see .*elsewhere"):
        execution.run(asked._replace(sweep=str(tmp_path / "elsewhere")))
    with pytest.raises(execution.TrialError, match="not those of the recorded run: sha256"):
        execution.run(asked._replace(data={"sha256": "0", "split_sha256": "0"}))
    with monkeypatch.context() as full:
        error = OSError(errno.ENOSPC, "No space left on device")
        full.setattr(MetricsTable, "append", lambda self, row: (_ for _ in ()).throw(error))
        with pytest.raises(execution.TrialError, match="No space left on device.*make room"):
            execution.run(asked)
    assert execution.run(asked)["status"] == "COMPLETED"
    (tmp_path / execution.LEADER).unlink()
    assert execution.run(asked._replace(folder=str(tmp_path / "two" / "0")))["status"] == "STOPPED"


@pytest.fixture
def stub(monkeypatch):
    """Replaces the training of a run by a function of its folder."""
    def replace(function):
        result = {"epochs": 1, "final": {}, "seconds": 0.0}

        def execute(found, config, **settings):
            function(found.folder)
            return types.SimpleNamespace(result=result)

        monkeypatch.setattr(run, "execute", execute)

    return replace


def test_job_waits_for_a_worker_of_an_earlier_start_in_its_folder(job, stub, tmp_path, monkeypatch):
    stub(lambda folder: None)
    folder = tmp_path / "one" / "0"
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waits = []
        monkeypatch.setattr(execution.time, "sleep", lambda seconds: waits.append(fcntl.flock(held, fcntl.LOCK_UN)))
        assert execution.run(job("one"))["status"] == "COMPLETED" and len(waits) == 1


def test_output_of_tensorflow_goes_to_the_log(job, stub, tmp_path, capfd):
    stub(lambda folder: os.write(2, b"from C++\n"))
    execution.run(job("one"))
    assert "from C++" in (tmp_path / "one" / "0" / "log.txt").read_text()
    assert "from C++" not in capfd.readouterr().err


def test_trial_that_raises_is_failed_with_a_log_and_shown_in_tensorboard(job, stub, tmp_path):
    def run_out(folder):
        raise ArithmeticError("out of\npatience")

    stub(run_out)
    outcome, log = execution.run(job("one")), tmp_path / "one" / "0" / "log.txt"
    assert outcome["status"] == "FAILED" and outcome["reason"] == f"ArithmeticError: out of (see {log})"
    assert "Traceback" in log.read_text()
    from trainers.board import events

    assert events.opened(log.parent)


def test_trial_that_is_not_finite_is_failed_with_the_whole_reason(job):
    outcome = execution.run(job("one", learning_rate=1e38))
    assert outcome["status"] == "FAILED" and "NaN or infinite" in outcome["reason"]
    assert "training stopped" not in outcome["reason"] and "(see" not in outcome["reason"]


def test_reason_of_a_failed_run_is_not_cut(job, stub):
    def end(folder):
        raise run.RunError("one; two; three") from ValueError("one; two")

    stub(end)
    assert execution.run(job("one"))["reason"] == "one; two"


@pytest.mark.long
def test_damaged_checkpoint_is_replaced_by_training_from_the_first_epoch(job, undisturbed, tmp_path):
    folder, expected = undisturbed
    shutil.copytree(folder.path, tmp_path / "long" / "0")
    copy = RunFolder(tmp_path / "long" / "0")
    copy.result.unlink()
    copy.checkpoint.write_bytes(copy.checkpoint.read_bytes()[:1000])
    assert execution.run(job("long", **LONG))["final"] == expected["final"]


@pytest.mark.parametrize("state", ["intact", "damaged", pytest.param("without a checkpoint", marks=pytest.mark.long)])
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
    assert execution.run(asked)["status"] == "COMPLETED"
    child = RunFolder(asked.folder)
    result = json.loads(child.result.read_text())
    assert result["weights_sha256"] == whole.result["weights_sha256"] and result["final"] == whole.result["final"]
    assert helpers.rows_without_times(child.path) == helpers.rows_without_times(whole.folder)
    assert helpers.scalars(child.path)["loss"] == helpers.scalars(whole.folder)["loss"]
    assert ("resumed" in (child.path / "log.txt").read_text()) == (state == "intact")
    (start,) = helpers.summaries(child.path)["_hparams_/session_start_info"]
    from tensorboard.plugins.hparams import metadata

    info = metadata.parse_session_start_info_plugin_data(start[1].metadata.plugin_data.content)
    assert info.hparams["epochs"].number_value == 3


def test_folder_whose_name_is_not_of_the_locale_is_used(job, tmp_path):
    name = os.fsdecode(b"m\xff")
    asked = job(name)
    assert execution.run(asked)["status"] == "COMPLETED"
    assert r"m\udcff" in pathlib.Path(asked.folder, execution.LOG).read_text(encoding="utf-8")
    assert train.train("softmax", data="mini", epochs=1, logdir=tmp_path / name, batch_size=BATCH).result


def test_memory_is_in_megabytes_on_either_system(monkeypatch):
    """Linux counts in units of 1024 bytes, macOS in bytes."""
    for system, unit in (("linux", 1 << 10), ("darwin", 1)):
        monkeypatch.setattr(execution.sys, "platform", system)
        used = types.SimpleNamespace(ru_maxrss=(300 << 20) // unit)
        monkeypatch.setattr(execution.resource, "getrusage", lambda who: used)
        assert execution.peak_memory() == 300
