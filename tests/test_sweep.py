"""`trainers.sweep.sweep`: what it tries, ranks and writes, and that it continues where it was."""

import json
import shutil

import pytest

from fmnist_zoo.files import read_json, write_json
from tests import helpers
from tests.sweeps import GRID, MODEL, SPACE, rows_of, without_times
from trainers import sweep, train
from trainers.config import RunConfig
from trainers.running.folder import RunFolder
from trainers.tuning import workers

pytestmark = pytest.mark.usefixtures("without_xla")


def test_grid_tries_what_was_asked_ranks_it_and_writes_tables(finished_sweep):
    logdir, table = finished_sweep
    path = logdir / "sweeps" / "grid"
    assert {(row["dropout"], row["l2"]) for row in table} == {(0.0, 0.0), (0.0, 0.001), (0.5, 0.0), (0.5, 0.001)}
    assert [row["objective"] for row in table] == sorted(row["objective"] for row in table)
    written = rows_of(path)
    assert list(written[0]) == ["trial", "dropout", "l2", "objective", "objective_std", "trained_epochs", "seed",
                                "seconds", "status", "reason"]
    assert {row["trial"]: float(row["objective"]) for row in written} == {
        row["trial"]: row["objective"] for row in table}
    best = json.loads((path / "best.json").read_text())
    assert best["trial"] == table[0]["trial"] and best["values"] == {name: table[0][name] for name in SPACE}


def test_trials_are_ranked_by_images_that_chose_no_epoch(finished_sweep):
    logdir, table = finished_sweep
    folder = logdir / "sweeps" / "grid" / table[0]["trial"] / "0"
    record, result = json.loads((folder / "config.json").read_text()), json.loads((folder / "result.json").read_text())
    assert record["data"]["fit"] == 1800 and record["data"]["validation"] == record["data"]["ranking"] == 100
    assert table[0]["objective"] == result["final"]["ranking_loss"] != result["final"]["val_loss"]
    *_, shown = helpers.scalars(folder)["selected/objective"].values()
    assert shown == pytest.approx(result["final"]["ranking_loss"], rel=1e-6)  # TensorBoard stores float32


def test_dropout_is_on_while_a_trial_trains(finished_sweep):
    logdir, table = finished_sweep
    losses = {(row["dropout"], row["l2"]): RunFolder(logdir / "sweeps" / "grid" / row["trial"] / "0").rows()[0]
              for row in table}
    assert losses[0.5, 0.0]["loss"] > losses[0.0, 0.0]["loss"] + 0.1


@pytest.mark.long
def test_number_of_workers_and_order_of_results_change_no_number(finished_sweep, inline_pool, tmp_path):
    _, table = finished_sweep
    inline_pool.slots, inline_pool.order = 2, -1  # the trial that began last ends first
    again = sweep.sweep(MODEL, {**SPACE, "dropout": [0.5]}, logdir=tmp_path, name="grid", **GRID)
    assert inline_pool.ran == ["0001/0", "0000/0"]
    expected = [row for row in without_times(table) if row["dropout"] == 0.5]
    assert [{**row, "trial": None} for row in without_times(again)] == [{**row, "trial": None} for row in expected]


def test_same_command_finds_a_finished_sweep_and_starts_no_worker(finished_sweep, monkeypatch):
    logdir, table = finished_sweep
    monkeypatch.delattr(workers, "make")
    assert sweep.sweep(MODEL, SPACE, logdir=logdir, name="grid", **GRID) == table


def running_again(path):
    """The record of a trial as it is before its result: the leader was killed then."""
    content = read_json(path / "trial.json")
    write_json(path / "trial.json", {name: content[name] for name in ("values", "seed", "epochs", "parent")})


def test_result_that_only_the_worker_wrote_is_used(finished_sweep, inline_pool, tmp_path):
    logdir, table = finished_sweep
    shutil.copytree(logdir, tmp_path / "logs")
    path = tmp_path / "logs" / "sweeps" / "grid" / "0001"
    running_again(path)
    before = (path / "0" / "metrics.csv").stat().st_mtime_ns
    again = sweep.sweep(MODEL, SPACE, logdir=tmp_path / "logs", name="grid", **GRID)
    assert without_times(again) == without_times(table)
    assert (path / "0" / "metrics.csv").stat().st_mtime_ns == before


def test_continued_sweep_runs_what_is_missing_and_nothing_else(pretended_sweep, pretending_pool):
    """Killed after the third trial had begun. `trials.csv` and `best.json` are made from the trials' own files."""
    logdir, table = pretended_sweep
    path = logdir / "sweeps" / "grid"
    shutil.rmtree(path / "0003")
    running_again(path / "0002")
    for torn in ("trials.csv", "best.json"):
        (path / torn).write_text("{")
    assert sweep.sweep(MODEL, SPACE, logdir=logdir, name="grid", **GRID) == table
    assert pretending_pool.ran == ["0002/0", "0003/0"]
    assert len(rows_of(path)) == 4 and json.loads((path / "best.json").read_text())["trial"] == table[0]["trial"]


def test_more_trials_continue_a_sweep(pretending_pool, tmp_path):
    asked = dict(tuner="random", data="mini", epochs=1, logdir=tmp_path)
    two = sweep.sweep("softmax", "l2=log(1e-6..1e-2)", max_trials=2, **asked)
    three = sweep.sweep("softmax", "l2=log(1e-6..1e-2)", max_trials=3, **asked)
    assert pretending_pool.ran == ["0000/0", "0001/0", "0002/0"]
    assert {row["trial"]: row["l2"] for row in two}.items() <= {row["trial"]: row["l2"] for row in three}.items()


def test_executions_have_their_own_seeds_and_their_mean_ranks(pretending_pool, tmp_path):
    table = sweep.sweep("softmax", {"l2": [0, 0.1]}, executions=2, seed=5, tuner="grid", data="mini", epochs=1,
                        logdir=tmp_path, objective="val_accuracy")
    for row in table:
        result = json.loads((tmp_path / "sweeps" / "softmax-grid-seed5" / row["trial"] / "trial.json").read_text())
        scores = [one["final"]["ranking_accuracy"] for one in result["executions"]]
        assert row["objective"] == pytest.approx(sum(scores) / 2)
        assert row["objective_std"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
        assert row["seed"] == 5 and scores[0] != scores[1]
        seeds = [pretending_pool.jobs[f"{row['trial']}/{number}"].config["seed"] for number in (0, 1)]
        assert seeds == [one["seed"] for one in result["executions"]] == [5, 6]
    assert table[0]["objective"] > table[1]["objective"]


@pytest.mark.parametrize("tuner", ["bayesian", "grid", "random", "asha"])
def test_after_the_largest_seed_comes_the_smallest(pretending_pool, tmp_path, tuner):
    sweep.sweep("softmax", {"l2": [0, 0.1]}, executions=2, seed=2**32 - 1, tuner=tuner, data="mini", epochs=2,
                max_trials=None if tuner == "grid" else 2, logdir=tmp_path)
    seeds = {job.config["seed"] for job in pretending_pool.jobs.values()}
    assert seeds == {2**32 - 1, 0}


def test_best_trial_is_trained_in_full(finished_sweep, capsys, tmp_path):
    logdir, table = finished_sweep
    path = logdir / "sweeps" / "grid"
    assert train.main([f"--from_sweep={path}", f"--logdir={tmp_path}", "--run_name=best", "--epochs=1"]) == 0
    (record,) = tmp_path.glob("*/best/config.json")
    config = RunConfig.from_config(json.loads(record.read_text())["config"])
    assert not config.ranking and config.recipe.epochs == 1 and config.seed == table[0]["seed"]
    assert (config.spec.dropout[:1] or (0.0,))[0] == table[0]["dropout"] and config.spec.l2 == table[0]["l2"]
    assert json.loads(record.read_text())["data"]["validation"] == 200
    assert train.main([f"--from_sweep={path / table[-1]['trial']}", "--dry_run"]) == 0
    assert f'"l2": {table[-1]["l2"]}' in capsys.readouterr().out
    assert train.main([f"--from_sweep={tmp_path}"]) == 2
    assert "holds no sweep" in capsys.readouterr().err
    assert train.main([f"--from_sweep={path}", "--model=4L"]) == 2
    assert "drop --model=4L or --from_sweep" in capsys.readouterr().err
