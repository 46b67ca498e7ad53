"""Sweeps that cannot or must not continue: refused with a message, and nothing is lost. Nothing here trains."""

import importlib.metadata
import os
import re
import shutil

import pytest

from fmnist_zoo.files import write_json
from tests import helpers, idx_files, runs as finished_runs
from tests.sweeps import GRID, MODEL, SPACE, Pretending, replace_pool, rows_of
from trainers import runs, sweep
from trainers.config import ConfigError
from trainers.running import progress, provenance
from trainers.running.folder import locked
from trainers.tuning import execution, leader, plan, study, workers
from trainers.tuning.execution import PoolError
from trainers.tuning.leader import SweepError


def make_plan(space, **settings):
    defaults = dict(tuner="grid", objective="val_loss", max_trials=None, executions=1, data="mini")
    return plan.Plan("softmax", space, **{**defaults, **settings})


def execute(asked, logdir, should_stop=lambda: False, *, overwrite=False):
    return leader.execute(asked, logdir / "sweeps" / "one", workers=1, scheduler=None, max_failures=5, draw=False,
                          overwrite=overwrite, reporter=progress.Lines(), should_stop=should_stop)


def after(count):
    """A function that asks to stop at its call number `count`."""
    calls = iter(range(count))
    return lambda: next(calls, None) is None


@pytest.mark.parametrize("change, message", [
    (dict(space={"dropout": [0, 0.5], "l2": [0, 0.01]}), "space was dropout=0.0,0.5; l2=0.0,0.001, now"),
    (dict(epochs=3), "epochs was 2, now 3"),
    (dict(seed=1), "seed was 0, now 1"),
    (dict(model="3L"), "model was 2L, now 3L"),
    (dict(objective="val_accuracy"), "objective was val_loss, now val_accuracy"),
    (dict(executions=2), "executions was 1, now 2"),
    (dict(validation_size=0.2), "validation_size was 0.1, now 0.2"),
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


def test_sweep_whose_teacher_was_trained_anew_is_another_sweep(pretending_pool, tmp_path):
    teacher = finished_runs.make(tmp_path, "teacher")
    asked = dict(space="l2=0,0.1", teacher=f"4L,{teacher.path}")
    execute(make_plan(**asked), tmp_path, after(1))
    write_json(teacher.result, {**teacher.read_result(), "weights_sha256": "f" * 64})
    with pytest.raises(ConfigError, match=f"holds another sweep: sha256 of {teacher.path} was .*, now ffff"):
        execute(make_plan(**asked), tmp_path)
    assert pretending_pool.ran == ["0000/0"]


def test_sweep_continues_under_other_versions_with_a_note(pretending_pool, tmp_path, monkeypatch, capsys):
    asked = dict(space="l2=log(1e-6..1e-2)", tuner="random")
    execute(make_plan(**asked, max_trials=2), tmp_path)
    assert "versions" not in capsys.readouterr().out
    monkeypatch.setattr(provenance, "__version__", "99")
    continued = execute(make_plan(**asked, max_trials=3), tmp_path)
    assert continued.is_finished and pretending_pool.ran == ["0000/0", "0001/0", "0002/0"]
    (line,) = re.findall("^versions.*", capsys.readouterr().out, re.M)
    assert re.match(r"versions fmnist_zoo [\d.]+ -> 99 since the last start", line)
    first, second = study.load(continued.path).starts
    assert second["versions"]["fmnist_zoo"] == "99" != first["versions"]["fmnist_zoo"]
    assert "keras-tuner" in first["versions"] and {"commit", "modules", "started"} < set(first)


def test_sweep_records_tensorflow_that_is_installed_under_another_name(monkeypatch):
    def version(name, known=importlib.metadata.version):
        if name == "tensorflow":  # the package is tensorflow-cpu, say
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    asked = make_plan("l2=0,1", tuner="bayesian")
    expected = asked.environment()
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert asked.environment() == expected
    assert {"python", "tensorflow", "keras-tuner", "scikit-learn"} <= set(expected["versions"])


def test_recorded_values_are_the_truth(pretending_pool, tmp_path):
    """They may be those of another version of a library, or of another processor."""
    asked = dict(space="l2=0..1", tuner="random")
    found = execute(make_plan(**asked, max_trials=3), tmp_path)
    helpers.change(found.path / "0001" / "trial.json", lambda content: content.update(values={"l2": 0.25}))
    continued = execute(make_plan(**asked, max_trials=4), tmp_path)
    assert continued.trials["0001"].values == {"l2": 0.25} and pretending_pool.ran[3:] == ["0003/0"]


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
    with pytest.raises(SweepError, match="2 trials failed in this start, the last one 0001: .*the same command cont"):
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


def test_copy_of_a_trial_is_ignored_and_a_deleted_trial_runs_again(pretended_sweep, pretending_pool):
    logdir, table = pretended_sweep
    path = logdir / "sweeps" / "grid"
    shutil.copytree(path / "0003", path / "0003-backup")
    shutil.rmtree(path / "0001")
    assert sweep.sweep(MODEL, SPACE, logdir=logdir, name="grid", **GRID) == table
    assert pretending_pool.ran == ["0001/0"]
    assert [row["trial"] for row in rows_of(path)] == ["0000", "0001", "0002", "0003"]


def test_trial_whose_parent_is_gone_is_named(pretending_pool, tmp_path):
    sweep.sweep("softmax", "l2=0..1", tuner="asha", epochs=3, max_trials=3, data="mini", logdir=tmp_path, name="one")
    path = tmp_path / "sweeps" / "one"
    parent = study.load(path).trials["0003"].parent
    shutil.rmtree(path / parent)
    with pytest.raises(ConfigError, match=f"trial 0003 continues {parent}, which is gone: restore .*, or delete"):
        study.load(path)


def test_overwrite_moves_the_old_sweep_aside(pretended_sweep):
    logdir, _ = pretended_sweep
    assert len(sweep.sweep("2L", {"l2": [0]}, logdir=logdir, name="grid", overwrite=True, **GRID)) == 1
    (aside,) = (logdir / "sweeps").glob("grid-until-*")
    assert len(study.load(aside).ended) == 4


@pytest.mark.parametrize("overwrite", [False, True])
def test_trials_without_their_manifest_are_neither_mixed_with_new_ones_nor_trained_over(pretended_sweep, overwrite):
    logdir, _ = pretended_sweep
    (logdir / "sweeps" / "grid" / "sweep.json").unlink()
    before = sorted((logdir / "sweeps").glob("*/*"))
    with pytest.raises(ConfigError, match="holds .*, but no sweep.json; restore that file, or choose another --name"):
        sweep.sweep("2L", {"l2": [0]}, logdir=logdir, name="grid", overwrite=overwrite, **GRID)
    assert sorted((logdir / "sweeps").glob("*/*")) == before


def test_overwrite_moves_nothing_aside_before_the_workers_have_answered(pretended_sweep, monkeypatch):
    def make(workers, scheduler, threads):
        raise PoolError("no workers")

    logdir, _ = pretended_sweep
    monkeypatch.setattr(workers, "make", make)
    with pytest.raises(PoolError):
        sweep.sweep("2L", {"l2": [0]}, logdir=logdir, name="grid", overwrite=True, **GRID)
    assert [path.name for path in (logdir / "sweeps").iterdir()] == ["grid"]
    assert len(study.load(logdir / "sweeps" / "grid").ended) == 4


def test_overwrite_that_is_stopped_before_its_first_epoch_gives_the_name_back(pretended_sweep, capsys):
    logdir, _ = pretended_sweep
    shutil.copytree(logdir / "sweeps" / "grid", logdir / "sweeps" / "one")
    assert execute(make_plan("l2=0,0.1"), logdir, after(0), overwrite=True) is None
    assert sorted(path.name for path in (logdir / "sweeps").iterdir()) == ["grid", "one"]
    assert len(study.load(logdir / "sweeps" / "one").ended) == 4


def test_advice_after_overwrite_names_the_command_that_continues(pretended_sweep, capsys):
    logdir, _ = pretended_sweep
    flags = ["--model=softmax", "--data=mini", "--tuner=grid", "--space=learning_rate=1e30,1e29,0.1",
             "--max_failures=1", f"--logdir={logdir}", "--name=grid", "--page=false"]
    assert sweep.main([*flags, "--overwrite"]) == 1
    assert "the same command without --overwrite continues" in capsys.readouterr().err
    assert sweep.main(flags) == 1
    assert "the same command continues" in capsys.readouterr().err
    assert len(study.load(logdir / "sweeps" / "grid").ended) == 2


def test_sweep_that_is_stopped_before_its_first_epoch_leaves_nothing(pretending_pool, tmp_path):
    assert execute(make_plan("l2=0,0.1"), tmp_path / "logs", after(0)) is None
    assert not list(tmp_path.iterdir())


def test_page_of_a_stopped_sweep_is_not_drawn_and_a_page_that_fails_hides_nothing(tmp_path, monkeypatch, capsys):
    """Of a sweep that ends, it is drawn unless `page` says no."""
    drawn = []
    monkeypatch.setattr(leader, "write_page", lambda found: drawn.append(found.path.name))
    pool = replace_pool(monkeypatch, Pretending())
    asked = dict(tuner="grid", data="mini", logdir=tmp_path)
    real, pool.run = pool.run, lambda job: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep("softmax", {"l2": [0, 0.1]}, name="stopped", **asked)
    pool.run = real
    sweep.sweep("softmax", {"l2": [0, 0.1]}, name="without", page=False, **asked)
    assert not drawn
    sweep.sweep("softmax", {"l2": [0, 0.1]}, name="with", **asked)
    assert drawn == ["with"]


def test_folder_of_a_running_sweep_is_not_moved_aside(pretended_sweep):
    logdir, _ = pretended_sweep
    with locked(logdir / "sweeps" / "grid", "sweeping"):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} is sweeping in this folder"):
            sweep.sweep("softmax", "l2=0", tuner="grid", data="mini", logdir=logdir, name="grid", overwrite=True)
    assert [path.name for path in (logdir / "sweeps").iterdir()] == ["grid"]


def test_log_folder_that_cannot_be_written_is_named(pretending_pool, tmp_path, capsys):
    (tmp_path / "sweeps").write_text("a file where the folder of all sweeps belongs")
    assert sweep.main(["--model=softmax", "--data=mini", "--space=l2=0", f"--logdir={tmp_path}"]) == 1
    assert f"{tmp_path / 'sweeps'}" in capsys.readouterr().err


def test_home_folder_is_expanded(pretending_pool, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    sweep.sweep("softmax", "l2=0", tuner="grid", data="mini", logdir="~/logs", name="one")
    assert (tmp_path / "logs" / "sweeps" / "one" / "trials.csv").exists()


def test_data_that_have_moved_are_found_where_the_command_says(pretending_pool, tmp_path):
    """A sweep is continued on another machine, where its data are elsewhere; nothing else of it may differ."""
    for name in ("here", "there"):
        idx_files.copy_mini(tmp_path / name)
    asked = dict(tuner="random", data="fashion_mnist", allow_other_data=True, logdir=tmp_path, name="one")
    sweep.sweep("softmax", "l2=0..1", max_trials=1, data_dir=str(tmp_path / "here"), **asked)
    sweep.sweep("softmax", "l2=0..1", max_trials=2, data_dir=str(tmp_path / "there"), **asked)
    assert [job.config["data_dir"] for job in pretending_pool.jobs.values()] == [
        str(tmp_path / name) for name in ("here", "there")]
    assert study.retrain_config(tmp_path / "sweeps" / "one").data_dir == str(tmp_path / "there")


def test_leader_whose_sweep_another_process_leads_ends(pretending_pool, tmp_path, monkeypatch):
    real = pretending_pool.submit

    def submit(name, job):
        (tmp_path / "sweeps" / "one" / execution.LEADER).write_text("another")
        real(name, job)

    monkeypatch.setattr(pretending_pool, "submit", submit)
    with pytest.raises(SweepError, match="another process now leads this sweep"):
        sweep.sweep("softmax", "l2=0", tuner="grid", data="mini", logdir=tmp_path, name="one")


@pytest.mark.parametrize("wrong", [
    dict(space=3), dict(space=["dropout=1"]), dict(workers="2"), dict(workers=0), dict(workers=True),
    dict(workers=1000), dict(name=3), dict(name="a" * 300), dict(max_failures=0), dict(executions=0),
    dict(max_trials=0), dict(tuner="x"), dict(tuner="hyperband"), dict(seed=2**32),
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


@pytest.mark.parametrize("asked", [
    dict(space="l2=0,0.1,0.2,0.3,0.4,0.5"), dict(space="l2=0..1", tuner="random", max_trials=6),
    dict(space="l2=0..1", tuner="asha", max_trials=6, epochs=3)], ids=["grid", "random", "asha"])
def test_listing_tells_a_finished_sweep_from_one_with_work_left(asked, pretending_pool, tmp_path):
    asked, path = make_plan(**asked), str(tmp_path / "sweeps" / "one")
    execute(asked, tmp_path, after(2))
    line = runs.sweep_line(path)
    assert line.status == "interrupted" and line.epochs == 2 and line.planned_epochs >= 6
    found = execute(asked, tmp_path)
    line = runs.sweep_line(path)
    assert line.status == "finished" and line.epochs == line.planned_epochs == len(found.trials) >= 6


def test_values_that_are_impossible_together_fail_alone(tmp_path, pretending_pool, monkeypatch):
    """Each two of them are possible. The tables are complete before the sweep counts as finished; a missing page of a
    finished one is written."""
    finish, lines, pages = study.Study.finish, [], []
    monkeypatch.setattr(leader, "write_page", pages.append)
    monkeypatch.setattr(study.Study, "finish", lambda found: lines.extend(
        (found.path / "trials.csv").read_text(encoding="utf-8").splitlines()) or finish(found))
    asked = make_plan("schedule=cosine,constant; warmup=0.1,0; schedule_epochs=0,40", epochs=2)
    found = execute(asked, tmp_path)
    assert found.is_finished and len(found.ranked) == 7 and len(lines) == 1 + 8
    (failed,) = [trial for trial in found.ended if trial.status == execution.FAILED]
    assert failed.values == {"schedule": "constant", "warmup": 0.0, "schedule_epochs": 40}
    assert "schedule" in failed.reason and not pages
    again = leader.execute(asked, found.path, workers=1, scheduler=None, max_failures=5, draw=True, overwrite=False,
                           reporter=progress.Lines(), should_stop=lambda: False)
    assert pages == [again]
