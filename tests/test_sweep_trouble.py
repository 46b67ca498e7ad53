"""Sweeps that cannot or must not continue: refused with a message, and nothing is lost. Nothing here trains."""

import importlib.metadata
import json
import os
import re
import shutil

import pytest

from tests import helpers
from tests.sweeps import GRID, MODEL, SPACE, Pretending, replace_pool, rows_of
from trainers import runs, sweep
from trainers.config import ConfigError
from trainers.running import provenance
from trainers.tuning import execution, oracle, plan, start
from trainers.tuning.leader import SweepError

HYPERBAND = dict(space="l2=0..0.001", tuner="hyperband", data="mini", epochs=3)
HYPERBAND_PATH = "sweeps/softmax-hyperband-seed0"


def make_plan(space, **settings):
    defaults = dict(tuner="grid", objective="val_loss", max_trials=None, executions=1, data="mini")
    return plan.Plan("softmax", space, **{**defaults, **settings})


def execute(asked, logdir, should_stop=lambda: False):
    return start.execute(asked, workers=1, scheduler=None, max_failures=5, logdir=logdir, name="one", overwrite=False,
                         verbose=True, should_stop=should_stop)


@pytest.mark.parametrize("change, message", [
    (dict(space={"dropout": [0, 0.5], "l2": [0, 0.01]}), "space was dropout=0.0,0.5; l2=0.0,0.001, now"),
    (dict(epochs=3), "epochs was 2, now 3"),
    (dict(seed=1), "seed was 0, now 1"),
    (dict(model="3L"), "model was 2L, now 3L"),
    (dict(objective="val_accuracy"), "objective was val_loss, now val_accuracy"),
    (dict(executions=2), "executions was 1, now 2"),
    (dict(validation_size=0.2), "split_sha256 was"),
    (dict(tuner="random"), "tuner was grid, now random"),
])
def test_another_sweep_in_the_same_folder_is_refused(pretended_sweep, change, message):
    logdir, _ = pretended_sweep
    asked = {"model": MODEL, "space": SPACE, **GRID, **change}
    with pytest.raises(ConfigError, match="holds another sweep.*--overwrite") as caught:
        sweep.sweep(asked.pop("model"), asked.pop("space"), logdir=logdir, name="grid", **asked)
    assert message in str(caught.value)


@pytest.mark.parametrize("change, code", [
    ([], 0), (["--space=l2=0,0.02"], 2), (["--space=l2=0,0.02", "--overwrite"], 0), (["--seed=1"], 2)])
def test_dry_run_refuses_the_name_of_another_sweep(pretended_sweep, monkeypatch, capsys, change, code):
    logdir, _ = pretended_sweep
    monkeypatch.setattr("fmnist_zoo.data.load_data", None)  # it reads no data
    assert sweep.main(["--model=2L", "--space=dropout=0,0.5; l2=0,0.001", "--tuner=grid", "--data=mini", "--epochs=2",
                       "--name=grid", "--dry_run", f"--logdir={logdir}", *change]) == code
    assert ("holds another sweep" in capsys.readouterr().err) == bool(code)


def test_sweep_continues_under_other_versions_with_a_note(pretending_pool, tmp_path, monkeypatch, capsys):
    asked = dict(space="l2=log(1e-6..1e-2)", tuner="random")
    execute(make_plan(**asked, max_trials=2), tmp_path)
    assert "versions" not in capsys.readouterr().out
    monkeypatch.setattr(provenance, "__version__", "99")
    continued, ended = execute(make_plan(**asked, max_trials=3), tmp_path)
    assert ended and len(continued.ranked) == 3 and pretending_pool.ran == ["0000/0", "0001/0", "0002/0"]
    (line,) = re.findall("^versions.*", capsys.readouterr().out, re.M)
    assert re.match(r"versions fmnist_zoo [\d.]+ -> 99 since the last start", line)
    starts = json.loads((continued.path / "starts.json").read_text())["starts"]
    assert [one["versions"]["fmnist_zoo"] for one in starts] == [continued.manifest["versions"]["fmnist_zoo"], "99"]
    for one in starts:
        assert set(one) == {"started", "versions", "commit", "modules", "trials"} and "keras-tuner" in one["versions"]
    execute(make_plan(**asked, max_trials=3), tmp_path)
    assert "versions" not in capsys.readouterr().out


def test_sweep_records_tensorflow_that_is_installed_under_another_name(monkeypatch):
    def version(name, known=importlib.metadata.version):
        if name == "tensorflow":  # the package is tensorflow-cpu, say
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    expected = plan.environment("bayesian")
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert plan.environment("bayesian") == expected
    assert {"python", "tensorflow", "keras-tuner", "scikit-learn"} <= set(expected["versions"])


@pytest.mark.parametrize("tuner, libraries", [("random", ["keras-tuner"]),
                                              ("bayesian", ["keras-tuner", "scikit-learn", "scipy"])])
def test_oracle_that_proposes_something_else_is_refused_with_its_versions(pretending_pool, tmp_path, tuner, libraries):
    done, _ = execute(make_plan("l2=0..1", tuner=tuner, max_trials=2), tmp_path)
    helpers.change(done.path / "starts.json",
                   lambda content: content["starts"][0]["versions"].update({"keras-tuner": "1.0"}))
    helpers.change(done.path / "0001" / "proposal.json",
                   lambda content: content.update(values={"l2": 0.25}))  # as 1.0 proposed it
    with pytest.raises(SweepError, match=r"0001: the oracle proposes .*not \{'l2': 0.25\}.*--overwrite") as caught:
        execute(make_plan("l2=0..1", tuner=tuner, max_trials=3), tmp_path)
    assert "keras-tuner was 1.0 and is 1." in str(caught.value)
    assert re.findall(r"([a-z-]+) was", str(caught.value)) == libraries
    assert len(json.loads((done.path / "starts.json").read_text())["starts"]) == 1  # this one did not start


def test_hyperband_refuses_a_listed_space_that_is_too_small(tmp_path, capsys):
    assert sweep.main(["--model=softmax", "--tuner=hyperband", "--dry_run"]) == 2
    message = capsys.readouterr().err
    assert "draws 62 different combinations for --epochs=30, and --space has 16 (l1=0.0,1e-06" in message
    assert "ranges" in message and "fewer --epochs" in message and "another --tuner" in message
    with pytest.raises(ConfigError, match="draws 17 .* has 16"):
        make_plan({"l2": [index / 100 for index in range(16)]}, tuner="hyperband", epochs=9)
    assert make_plan({"l2": [index / 100 for index in range(17)]}, tuner="hyperband", epochs=9).max_trials == 23


def test_hyperband_with_two_workers_continues_after_any_interruption(pretending_pool, tmp_path):
    pretending_pool.slots = 2
    asked = make_plan({"l2": [index / 100 for index in range(17)]}, tuner="hyperband", epochs=9)
    ended, starts = False, 0
    while not ended:
        calls = iter(range(5))
        found, ended = execute(asked, tmp_path, should_stop=lambda: next(calls) == 4)
        starts += 1
    assert starts > 5 and [one.status for one in found.trials.values()] == ["COMPLETED"] * 23
    for one in found.trials.values():
        parent = pretending_pool.jobs[f"{one.name}/0"].parent
        assert parent == (str(found.path / one.parent / "0") if one.parent else None)


def test_failed_trial_is_never_ranked_and_not_run_again(pretending_pool, tmp_path):
    asked = dict(space={"learning_rate": [0.01, 1e30], "l2": [0, 0.1]}, tuner="grid", data="mini", logdir=tmp_path)
    table = sweep.sweep("softmax", **asked)
    assert [row["status"] for row in table] == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]
    assert table[2]["reason"] == "NaN or infinite objective" and table[2]["objective"] is None
    ran = list(pretending_pool.ran)
    assert sweep.sweep("softmax", **asked) == table and pretending_pool.ran == ran


def test_too_many_failures_end_a_start_and_the_next_one_runs_the_others(pretending_pool, tmp_path):
    asked = dict(space={"learning_rate": [1e30, 1e29, 1e28, 0.01]}, tuner="grid", data="mini", logdir=tmp_path,
                 max_failures=2)
    with pytest.raises(SweepError, match="2 trials failed in this start, the last one 0001: .*NaN"):
        sweep.sweep("softmax", **asked)
    table = sweep.sweep("softmax", **asked)
    assert [row["status"] for row in table] == ["COMPLETED", *["FAILED"] * 3]
    assert pretending_pool.ran == ["0000/0", "0001/0", "0002/0", "0003/0"]


def test_trial_whose_worker_dies_runs_again_and_fails_after_three_deaths_in_an_epoch(pretending_pool, tmp_path):
    pretending_pool.lose = ["0000/0", "0000/0", "0001/0", "0001/0", "0001/0"]
    table = sweep.sweep("softmax", {"l2": [0, 0.1]}, tuner="grid", data="mini", logdir=tmp_path)
    assert [(row["trial"], row["status"]) for row in table] == [("0000", "COMPLETED"), ("0001", "FAILED")]
    assert "died 3 times in epoch 1" in table[1]["reason"]


class Restarting(Pretending):
    """A pool without a worker at first: all of them are restarting."""

    def __init__(self):
        self.upcoming = [0, 1]
        super().__init__()

    @property
    def slots(self):
        return self.upcoming.pop(0) if len(self.upcoming) > 1 else self.upcoming[0]

    @slots.setter
    def slots(self, value):
        pass


def test_sweep_waits_while_all_workers_restart(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    replace_pool(monkeypatch, Restarting())
    table = sweep.sweep("softmax", {"l2": [0, 0.1, 0.2]}, tuner="grid", data="mini", logdir=tmp_path)
    assert [row["status"] for row in table] == ["COMPLETED"] * 3


@pytest.mark.parametrize("name, content, message", [
    ("result.json", "{", "0001/result.json: cannot be read"),
    ("result.json", "[]", "0001/result.json: not what a sweep wrote"),
    ("result.json", "{}", "0001/result.json: not the result of a trial: it lacks status"),
    ("result.json", '{"status": "COMPLETED"}', "0001/result.json: not the result of a trial: it lacks reason"),
    ("proposal.json", '{"x": 1}', "0001/proposal.json: not the proposal of a trial"),
    ("../sweep.json", "", "sweep.json: cannot be read.*start again with --overwrite"),
    ("../sweep.json", "{}", "sweep.json: not the manifest of a sweep"),
    ("../starts.json", "{", "starts.json: cannot be read.*delete"),
])
def test_damaged_file_is_named(pretended_sweep, capsys, name, content, message):
    logdir, _ = pretended_sweep
    path = logdir / "sweeps" / "grid"
    (path / "0001" / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        sweep.sweep(MODEL, SPACE, logdir=logdir, name="grid", **GRID)
    assert sweep.main([f"--show={path}"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_copy_of_a_trial_is_ignored_and_a_deleted_trial_runs_again(pretended_sweep, pretending_pool):
    logdir, table = pretended_sweep
    path = logdir / "sweeps" / "grid"
    shutil.copytree(path / "0003", path / "0003-backup")
    shutil.rmtree(path / "0001")
    assert sweep.sweep(MODEL, SPACE, logdir=logdir, name="grid", **GRID) == table
    assert pretending_pool.ran == ["0001/0"]
    assert [row["trial"] for row in rows_of(path)] == ["0000", "0001", "0002", "0003"]


def test_hyperband_without_a_result_or_a_trial_it_learned_from_is_refused(pretending_pool, tmp_path):
    sweep.sweep("softmax", **HYPERBAND, logdir=tmp_path)
    path = tmp_path / HYPERBAND_PATH
    (path / "0000" / "result.json").rename(tmp_path / "kept")
    with pytest.raises(SweepError, match="the result of a trial is missing.*--overwrite"):
        sweep.sweep("softmax", **HYPERBAND, logdir=tmp_path)
    (tmp_path / "kept").rename(path / "0000" / "result.json")
    shutil.rmtree(path / "0001")
    with pytest.raises(SweepError, match="the folder of trial 0001 is missing.*--overwrite"):
        sweep.sweep("softmax", **HYPERBAND, logdir=tmp_path)


def test_folder_of_a_running_sweep_is_not_moved_aside(pretending_pool, tmp_path):
    with start.hold(tmp_path / "sweeps" / "one"):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} is sweeping in this folder"):
            sweep.sweep("softmax", "l2=0", tuner="grid", data="mini", logdir=tmp_path, name="one", overwrite=True)
    assert [path.name for path in (tmp_path / "sweeps").iterdir()] == ["one"]


def test_log_folder_that_cannot_be_written_is_named(pretending_pool, tmp_path, capsys):
    (tmp_path / "sweeps").write_text("a file where the folder of all sweeps belongs")
    assert sweep.main(["--model=softmax", "--data=mini", "--space=l2=0", f"--logdir={tmp_path}"]) == 1
    assert f"{tmp_path / 'sweeps'}" in capsys.readouterr().err


def test_leader_whose_sweep_another_process_leads_ends(pretending_pool, tmp_path, monkeypatch):
    real = pretending_pool.submit

    def submit(name, job):
        (tmp_path / "sweeps" / "one" / execution.LEADER).write_text("another")
        real(name, job)

    monkeypatch.setattr(pretending_pool, "submit", submit)
    with pytest.raises(SweepError, match="another process now leads this sweep"):
        sweep.sweep("softmax", "l2=0", tuner="grid", data="mini", logdir=tmp_path, name="one")


@pytest.mark.parametrize("wrong", [
    dict(space=3), dict(space=["dropout=1"]), dict(workers="2"), dict(workers=0), dict(workers=True), dict(name=3),
    dict(name="a" * 300), dict(max_failures=0), dict(executions=0), dict(max_trials=0), dict(tuner="x"),
])
def test_wrong_arguments_in_python_are_named(pretending_pool, tmp_path, wrong):
    asked = {"space": "l2=0", "data": "mini", "logdir": tmp_path, **wrong}
    with pytest.raises(ValueError, match="received"):
        sweep.sweep("softmax", asked.pop("space"), **asked)
    assert not list(tmp_path.iterdir())


def test_start_is_a_part_of_the_sweep(pretending_pool, tmp_path):
    asked = dict(space="l2=0..1", tuner="random", max_trials=3, data="mini", logdir=tmp_path)
    table = sweep.sweep("softmax", **asked, start="l2=0.25")
    assert {row["trial"]: row["l2"] for row in table}["0000"] == 0.25
    assert sweep.sweep("softmax", **asked, start=[{"l2": 0.25}]) == table
    with pytest.raises(ConfigError, match=r"start was \['l2=0.25'\], now \[\]"):
        sweep.sweep("softmax", **asked)
    with pytest.raises(ConfigError, match="a grid tries every combination: drop it"):
        sweep.sweep("softmax", **{**asked, "space": "l2=0,1", "tuner": "grid"}, start="l2=0")


def listed(logdir):
    line = runs.sweep_line(str(logdir / "sweeps" / "one"))
    return line.status, line.epochs, line.planned_epochs


def test_sweep_is_listed_with_all_trials_that_it_will_have(pretending_pool, tmp_path, monkeypatch):
    asked, calls = make_plan("l2=0,0.1,0.2,0.3,0.4,0.5"), iter([False, False])
    execute(asked, tmp_path / "grid", should_stop=lambda: next(calls, True))
    assert listed(tmp_path / "grid") == ("interrupted", 2, 6)
    execute(asked, tmp_path / "grid")
    assert listed(tmp_path / "grid") == ("finished", 6, 6)
    # An oracle that proposes no more has finished, too.
    real, more = oracle.Oracle.propose, iter([True, True])
    monkeypatch.setattr(oracle.Oracle, "propose", lambda self: real(self) if next(more, False) else "done")
    execute(make_plan("l2=0..1", tuner="random", max_trials=3), tmp_path)
    assert listed(tmp_path) == ("finished", 2, 2)
