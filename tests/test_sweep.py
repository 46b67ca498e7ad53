"""`trainers.sweep`: what it tries, ranks and writes down, and that it goes on where it was."""

import json
import shutil

import pytest

from tests import helpers
from tests.sweeps import GRID, SPACE, rows_of, without_times
from trainers import sweep, train
from trainers.config import RunConfig
from trainers.running.folder import RunFolder
from trainers.tuning import oracle, plan, start, study as studies


def test_it_tries_what_was_asked_ranks_it_and_writes_it_down(finished_sweep):
    logdir, table = finished_sweep
    path = logdir / "sweeps" / "grid"
    assert {(row["dropout"], row["l2"]) for row in table} == {(0.0, 0.0), (0.0, 0.001), (0.5, 0.0), (0.5, 0.001)}
    assert [row["objective"] for row in table] == sorted(row["objective"] for row in table)
    written = rows_of(path)
    assert list(written[0]) == ["trial", "dropout", "l2", "objective", "objective_std", "epochs", "seed", "seconds",
                                "status", "reason"]
    assert {row["trial"]: float(row["objective"]) for row in written} == {
        row["trial"]: row["objective"] for row in table}
    best = json.loads((path / "best.json").read_text())
    assert best["trial"] == table[0]["trial"] and best["values"] == {name: table[0][name] for name in SPACE}
    assert (path / "objective.png").read_bytes()[:4] == b"\x89PNG"


def test_a_trial_is_ranked_by_images_that_chose_no_epoch(finished_sweep):
    logdir, table = finished_sweep
    folder = logdir / "sweeps" / "grid" / table[0]["trial"] / "0"
    record, result = json.loads((folder / "config.json").read_text()), json.loads((folder / "result.json").read_text())
    assert record["data"]["fit"] == 1800 and record["data"]["validation"] == record["data"]["ranking"] == 100
    assert table[0]["objective"] == result["final"]["ranking_loss"] != result["final"]["validation_loss"]
    final = helpers.scalars(folder)
    (shown,) = final["final/ranking_loss"].values()
    assert shown == pytest.approx(result["final"]["ranking_loss"], rel=1e-6)


def test_dropout_is_on_while_a_trial_trains(finished_sweep):
    logdir, table = finished_sweep
    losses = {(row["dropout"], row["l2"]): RunFolder(logdir / "sweeps" / "grid" / row["trial"] / "0").rows()[0]
              for row in table}
    assert losses[0.5, 0.0]["train_loss"] > losses[0.0, 0.0]["train_loss"] + 0.1


def test_the_same_command_finds_it_finished_and_runs_nothing_again(finished_sweep, inline_pool):
    logdir, table = finished_sweep
    assert sweep.sweep("4L", SPACE, logdir=logdir, name="grid", **GRID) == table
    assert not inline_pool.ran


def test_workers_and_the_order_of_results_change_no_number(finished_sweep, inline_pool, tmp_path):
    _, table = finished_sweep
    inline_pool.slots, inline_pool.order = 3, -1  # three at once, the last one ends first
    again = sweep.sweep("4L", SPACE, logdir=tmp_path, name="grid", **GRID)
    assert without_times(again) == without_times(table)
    assert inline_pool.ran[0] != "0000/0"


def test_what_was_lost_runs_again_and_what_stands_does_not(finished_sweep, inline_pool, tmp_path):
    """Killed after the third trial had begun; trials.csv and best.json are made again from the trials' own files."""
    logdir, table = finished_sweep
    shutil.copytree(logdir, tmp_path / "logs")
    path = tmp_path / "logs" / "sweeps" / "grid"
    for left in (path / "0003", path / "0002" / "0"):
        shutil.rmtree(left)
    (path / "0002" / "result.json").unlink()
    for torn in ("trials.csv", "best.json"):
        (path / torn).write_text("{")
    again = sweep.sweep("4L", SPACE, logdir=tmp_path / "logs", name="grid", **GRID)
    assert without_times(again) == without_times(table)
    assert inline_pool.ran == ["0002/0", "0003/0"]
    assert len(rows_of(path)) == 4 and json.loads((path / "best.json").read_text())["trial"] == table[0]["trial"]


def test_a_result_that_was_written_by_the_worker_alone_is_taken_up(finished_sweep, inline_pool, tmp_path):
    logdir, table = finished_sweep
    shutil.copytree(logdir, tmp_path / "logs")
    path = tmp_path / "logs" / "sweeps" / "grid" / "0001"
    (path / "result.json").unlink()  # the leader was killed before it wrote this
    before = (path / "0" / "metrics.csv").stat().st_mtime_ns
    again = sweep.sweep("4L", SPACE, logdir=tmp_path / "logs", name="grid", **GRID)
    assert without_times(again) == without_times(table)
    assert (path / "0" / "metrics.csv").stat().st_mtime_ns == before


def test_overwrite_moves_the_old_one_aside(finished_sweep, inline_pool, tmp_path):
    logdir, _ = finished_sweep
    shutil.copytree(logdir, tmp_path / "logs")
    table = sweep.sweep("2L", {"l2": [0]}, logdir=tmp_path / "logs", name="grid", overwrite=True, **GRID)
    assert len(table) == 1
    (aside,) = (tmp_path / "logs" / "sweeps").glob("grid-until-*")
    assert len(studies.load(aside).ended) == 4


def test_more_trials_go_on_from_those_that_stand(inline_pool, tmp_path):
    asked = dict(tuner="random", data="mini", epochs=1, logdir=tmp_path)
    two = sweep.sweep("softmax", "l2=log(1e-6..1e-2)", max_trials=2, **asked)
    three = sweep.sweep("softmax", "l2=log(1e-6..1e-2)", max_trials=3, **asked)
    assert inline_pool.ran == ["0000/0", "0001/0", "0002/0"]
    assert {row["trial"]: row["l2"] for row in two}.items() <= {row["trial"]: row["l2"] for row in three}.items()


def test_executions_have_seeds_of_their_own_and_their_mean_ranks(inline_pool, tmp_path):
    table = sweep.sweep("softmax", {"l2": [0, 0.1]}, executions=2, seed=5, tuner="grid", data="mini", epochs=1,
                        logdir=tmp_path, objective="val_accuracy")
    path = tmp_path / "sweeps" / "softmax-grid-seed5"
    for row in table:
        results = [json.loads((path / row["trial"] / run / "result.json").read_text())["final"] for run in "01"]
        scores = [result["ranking_accuracy"] for result in results]
        assert row["objective"] == pytest.approx(sum(scores) / 2)
        assert row["objective_std"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
        seeds = [json.loads((path / row["trial"] / run / "config.json").read_text())["config"]["seed"] for run in "01"]
        assert seeds == [5, 6] and row["seed"] == 5
    assert table[0]["objective"] >= table[1]["objective"]


def test_hyperband_goes_on_bit_for_bit(inline_pool, tmp_path):
    """A promoted trial equals the run of the same values that was trained at once."""
    table = sweep.sweep("softmax", "l2=0..0.001", tuner="hyperband", data="mini", epochs=3, logdir=tmp_path)
    path = tmp_path / "sweeps" / "softmax-hyperband-seed0"
    study = studies.load(path)
    promoted = next(trial for trial in study.trials.values() if trial.parent)
    assert promoted.epochs == 3 and len(table) == len(study.trials)
    folder = study.folder(promoted, 0)
    whole = train.train("softmax", l2=promoted.values["l2"], data="mini", epochs=3, logdir=tmp_path / "whole",
                        ranking=True, histogram_every=0, checkpoint_every=1)
    result = json.loads((folder / "result.json").read_text())
    assert result["weights_sha256"] == whole.result["weights_sha256"] and result["final"] == whole.result["final"]
    assert helpers.rows_without_times(folder) == helpers.rows_without_times(whole.folder)
    assert helpers.scalars(folder / "train")["loss"] == helpers.scalars(whole.folder / "train")["loss"]
    (start,) = helpers.summaries(folder)["_hparams_/session_start_info"]
    from tensorboard.plugins.hparams import metadata

    info = metadata.parse_session_start_info_plugin_data(start[1].metadata.plugin_data.content)
    assert info.hparams["epochs"].number_value == 3


def test_values_that_come_again_get_other_seeds(tmp_path):
    asked = plan.Plan("softmax", {"l2": [0, 0.1]}, tuner="bayesian", max_trials=4, objective="val_loss", executions=2,
                      data="mini")
    (tmp_path / "again").mkdir()
    study = start.open_or_create(tmp_path / "again", asked.manifest())
    seeds = [study.add(oracle.Proposal(f"{n:04}", {"l2": l2})).seed for n, l2 in enumerate((0.1, 0.0, 0.1, 0.1))]
    assert seeds == [0, 0, 2, 4]
    assert studies.load(tmp_path / "again").trials["0003"].seed == 4


def test_the_best_is_trained_in_full(finished_sweep, capsys, tmp_path):
    logdir, table = finished_sweep
    path = logdir / "sweeps" / "grid"
    assert train.main([f"--from_sweep={path}", f"--logdir={tmp_path}", "--run_name=best", "--epochs=1"]) == 0
    (record,) = tmp_path.glob("*/best/config.json")
    config = RunConfig.from_dict(json.loads(record.read_text())["config"])
    assert not config.ranking and config.recipe.epochs == 1 and config.seed == table[0]["seed"]
    assert (config.spec.dropout[:1] or (0.0,))[0] == table[0]["dropout"] and config.spec.l2 == table[0]["l2"]
    assert json.loads(record.read_text())["data"]["validation"] == 200
    assert train.main([f"--from_sweep={path / table[-1]['trial']}", "--dry_run"]) == 0
    assert f'"l2": {table[-1]["l2"]}' in capsys.readouterr().out
    assert train.main([f"--from_sweep={tmp_path}"]) == 2
    assert "holds no sweep" in capsys.readouterr().err
    assert train.main([f"--from_sweep={path}", "--model=4L"]) == 2
    assert "drop --model=4L, or drop --from_sweep" in capsys.readouterr().err
