"""A sweep that cannot go on, or must not: refused or told in words, and nothing lost."""

import os
import shutil

import pytest

from tests.sweeps import GRID, SPACE, rows_of, without_times
from trainers import sweep
from trainers.config import ConfigError
from trainers.tuning import leader as search, plan, start, trial as trials


@pytest.mark.parametrize("change, told", [
    (dict(space={"dropout": [0, 0.5], "l2": [0, 0.01]}), "space was dropout=0.0,0.5; l2=0.0,0.001, now"),
    (dict(epochs=3), "epochs was 2, now 3"),
    (dict(seed=1), "seed was 0, now 1"),
    (dict(model="2L"), "model was 4L, now 2L"),
    (dict(objective="val_accuracy"), "objective was val_loss, now val_accuracy"),
    (dict(executions=2), "executions was 1, now 2"),
    (dict(validation_size=0.2), "split_sha256 was"),
    (dict(tuner="random"), "tuner was grid, now random"),
])
def test_another_sweep_in_the_same_folder_is_refused(finished_sweep, inline_pool, change, told):
    logdir, _ = finished_sweep
    asked = {"model": "4L", "space": SPACE, **GRID, **change}
    with pytest.raises(ConfigError, match="holds another sweep.*--overwrite") as caught:
        sweep.sweep(asked.pop("model"), asked.pop("space"), logdir=logdir, name="grid", **asked)
    assert told in str(caught.value)


def test_other_versions_are_refused_too(finished_sweep, inline_pool, monkeypatch):
    logdir, _ = finished_sweep
    monkeypatch.setattr(plan, "__version__", "99")
    with pytest.raises(ConfigError, match="versions: fmnist_zoo was .*, now 99"):
        sweep.sweep("4L", SPACE, logdir=logdir, name="grid", **GRID)


def test_a_trial_that_is_not_finite_or_raises_is_failed_never_ranked_and_not_run_again(inline_pool, tmp_path):
    asked = dict(tuner="grid", data="mini", epochs=1, logdir=tmp_path, batch_size=200)
    space = {"learning_rate": [0.01, 1e30], "hidden": ["10", "none"]}
    path = tmp_path / "sweeps" / "2L-grid-seed0"
    with pytest.MonkeyPatch.context() as broken:
        real = trials._train

        def train_or_raise(folder, config, *rest):
            if config.spec.hidden == () and config.recipe.learning_rate == 0.01:
                raise ArithmeticError("out of\npatience")
            return real(folder, config, *rest)

        broken.setattr(trials, "_train", train_or_raise)
        table = sweep.sweep("2L", space, **asked)
    status = {(row["learning_rate"], row["hidden"]): row for row in table}
    assert status[0.01, "10"] == table[0] and table[0]["status"] == "COMPLETED"
    assert "NaN or infinite" in status[1e30, "10"]["reason"] and status[1e30, "10"]["objective"] is None
    raised = status[0.01, "none"]
    log = path / raised["trial"] / "0" / "log.txt"
    assert raised["reason"] == f"ArithmeticError: out of (see {log})" and "Traceback" in log.read_text()
    ran = len(inline_pool.ran)
    assert sweep.sweep("2L", space, **asked) == table and len(inline_pool.ran) == ran
    from trainers.board import events as summaries

    assert summaries.opened(log.parent)  # TensorBoard knows of it


def test_too_many_failures_end_it_and_the_next_start_goes_on_with_the_others(inline_pool, tmp_path):
    asked = dict(tuner="grid", data="mini", epochs=1, logdir=tmp_path, batch_size=200, max_failures=2)
    space = {"learning_rate": [1e30, 1e29, 1e28, 0.01]}
    with pytest.raises(search.SweepError, match="2 trials failed in this start, the last one 0001: .*NaN"):
        sweep.sweep("softmax", space, **asked)
    table = sweep.sweep("softmax", space, **asked)
    assert [row["status"] for row in table] == ["COMPLETED", *["FAILED"] * 3]
    assert inline_pool.ran == ["0000/0", "0001/0", "0002/0", "0003/0"]


def test_a_trial_whose_worker_dies_goes_on_and_fails_only_where_it_keeps_dying(inline_pool, tmp_path):
    inline_pool.lose = ["0000/0", "0000/0", "0001/0", "0001/0", "0001/0"]
    table = sweep.sweep("softmax", {"l2": [0, 0.1]}, tuner="grid", data="mini", epochs=1, logdir=tmp_path)
    assert [(row["trial"], row["status"]) for row in table] == [("0000", "COMPLETED"), ("0001", "FAILED")]
    assert "died 3 times in epoch 1" in table[1]["reason"]


@pytest.mark.parametrize("name, content, told", [
    ("result.json", "{", "0001/result.json: does not read"),
    ("result.json", "[]", "0001/result.json: not what a sweep wrote"),
    ("result.json", "{}", "0001/result.json: lacks status"),
    ("result.json", '{"status": "COMPLETED"}', "0001/result.json: lacks reason"),
    ("proposal.json", '{"x": 1}', "0001/proposal.json: not the proposal of a trial"),
    ("../sweep.json", "", "sweep.json: does not read.*start anew with --overwrite"),
    ("../sweep.json", "{}", "sweep.json: not the manifest of a sweep"),
])
def test_a_damaged_file_is_named(finished_sweep, inline_pool, tmp_path, capsys, name, content, told):
    logdir, _ = finished_sweep
    shutil.copytree(logdir, tmp_path / "logs")
    path = tmp_path / "logs" / "sweeps" / "grid"
    (path / "0001" / name).write_text(content)
    with pytest.raises(ConfigError, match=told):
        sweep.sweep("4L", SPACE, logdir=tmp_path / "logs", name="grid", **GRID)
    assert sweep.main([f"--show={path}"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_copy_beside_a_trial_is_no_trial_and_one_that_is_gone_runs_again(finished_sweep, inline_pool, tmp_path):
    logdir, table = finished_sweep
    shutil.copytree(logdir, tmp_path / "logs")
    path = tmp_path / "logs" / "sweeps" / "grid"
    shutil.copytree(path / "0003", path / "0003-backup")
    shutil.rmtree(path / "0001")
    again = sweep.sweep("4L", SPACE, logdir=tmp_path / "logs", name="grid", **GRID)
    assert without_times(again) == without_times(table) and inline_pool.ran == ["0001/0"]
    assert [row["trial"] for row in rows_of(path)] == ["0000", "0001", "0002", "0003"]


def test_what_an_oracle_learned_is_not_made_up(inline_pool, tmp_path):
    asked = dict(tuner="hyperband", data="mini", epochs=3, logdir=tmp_path)
    sweep.sweep("softmax", "l2=0..0.001", **asked)
    path = tmp_path / "sweeps" / "softmax-hyperband-seed0"
    (path / "0000" / "result.json").rename(tmp_path / "kept")
    with pytest.raises(search.SweepError, match="the result of a trial is gone.*--overwrite"):
        sweep.sweep("softmax", "l2=0..0.001", **asked)
    (tmp_path / "kept").rename(path / "0000" / "result.json")
    shutil.rmtree(path / "0001")
    with pytest.raises(search.SweepError, match="is gone.*--overwrite"):
        sweep.sweep("softmax", "l2=0..0.001", **asked)


def test_a_folder_that_is_led_is_not_moved_away(inline_pool, tmp_path):
    asked = dict(tuner="grid", data="mini", epochs=1, logdir=tmp_path, name="one")
    with start.hold(tmp_path / "sweeps" / "one"):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} is sweeping in this folder"):
            sweep.sweep("softmax", "l2=0", overwrite=True, **asked)
    assert [path.name for path in (tmp_path / "sweeps").iterdir()] == ["one"]


def test_a_leader_that_lost_its_folder_says_so(inline_pool, tmp_path, monkeypatch):
    real = inline_pool.submit

    def taken_over(name, job):
        (tmp_path / "sweeps" / "one" / trials.LEADER).write_text("another")
        real(name, job)

    monkeypatch.setattr(inline_pool, "submit", taken_over)
    with pytest.raises(search.SweepError, match="another sweep took this folder over"):
        sweep.sweep("softmax", "l2=0", tuner="grid", data="mini", epochs=3, logdir=tmp_path, name="one")


@pytest.mark.parametrize("wrong", [
    dict(space=3), dict(space=["dropout=1"]), dict(workers="2"), dict(workers=0), dict(workers=True), dict(name=3),
    dict(name="a" * 300), dict(max_failures=0), dict(executions=0), dict(max_trials=0), dict(tuner="x"),
])
def test_python_is_told_in_words_too(inline_pool, tmp_path, wrong):
    asked = {"space": "l2=0", "data": "mini", "logdir": tmp_path, **wrong}
    with pytest.raises(ConfigError, match="received"):
        sweep.sweep("softmax", asked.pop("space"), **asked)
    assert not list(tmp_path.iterdir())
