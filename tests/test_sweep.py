"""`trainers.sweep.sweep`: what it tries, ranks and writes, and that it continues where it was."""

import json
import shutil

import pytest

from tests import helpers
from tests.sweeps import GRID, MODEL, SPACE, rows_of, without_times
from trainers import sweep, train
from trainers.config import RunConfig
from trainers.running.folder import RunFolder
from trainers.tuning import page, start, study, workers
from trainers.tuning.oracle import Proposal
from trainers.tuning.plan import Plan

pytestmark = pytest.mark.usefixtures("without_xla")


def test_grid_tries_what_was_asked_ranks_it_and_writes_tables(finished_sweep):
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


def test_trials_are_ranked_by_images_that_chose_no_epoch(finished_sweep):
    logdir, table = finished_sweep
    folder = logdir / "sweeps" / "grid" / table[0]["trial"] / "0"
    record, result = json.loads((folder / "config.json").read_text()), json.loads((folder / "result.json").read_text())
    assert record["data"]["fit"] == 1800 and record["data"]["validation"] == record["data"]["ranking"] == 100
    assert table[0]["objective"] == result["final"]["ranking_loss"] != result["final"]["val_loss"]
    final = helpers.scalars(folder)
    (shown,) = final["final/ranking_loss"].values()
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


def test_result_that_only_the_worker_wrote_is_used(finished_sweep, inline_pool, tmp_path):
    logdir, table = finished_sweep
    shutil.copytree(logdir, tmp_path / "logs")
    path = tmp_path / "logs" / "sweeps" / "grid" / "0001"
    (path / "result.json").unlink()  # the leader was killed before it wrote this
    before = (path / "0" / "metrics.csv").stat().st_mtime_ns
    again = sweep.sweep(MODEL, SPACE, logdir=tmp_path / "logs", name="grid", **GRID)
    assert without_times(again) == without_times(table)
    assert (path / "0" / "metrics.csv").stat().st_mtime_ns == before


def test_continued_sweep_runs_what_is_missing_and_nothing_else(pretended_sweep, pretending_pool):
    """Killed after the third trial had begun. `trials.csv` and `best.json` are made from the trials' own files."""
    logdir, table = pretended_sweep
    path = logdir / "sweeps" / "grid"
    shutil.rmtree(path / "0003")
    (path / "0002" / "result.json").unlink()
    for torn in ("trials.csv", "best.json"):
        (path / torn).write_text("{")
    assert sweep.sweep(MODEL, SPACE, logdir=logdir, name="grid", **GRID) == table
    assert pretending_pool.ran == ["0002/0", "0003/0"]
    assert len(rows_of(path)) == 4 and json.loads((path / "best.json").read_text())["trial"] == table[0]["trial"]


def test_overwrite_moves_the_old_sweep_aside(pretended_sweep):
    logdir, _ = pretended_sweep
    table = sweep.sweep("2L", {"l2": [0]}, logdir=logdir, name="grid", overwrite=True, **GRID)
    assert len(table) == 1
    (aside,) = (logdir / "sweeps").glob("grid-until-*")
    assert len(study.load(aside).ended) == 4


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
        result = json.loads((tmp_path / "sweeps" / "softmax-grid-seed5" / row["trial"] / "result.json").read_text())
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


def test_values_that_are_proposed_again_get_other_seeds(tmp_path):
    plan = Plan("softmax", {"l2": [0, 0.1]}, tuner="bayesian", max_trials=4, objective="val_loss", executions=2,
                data="mini")
    (tmp_path / "again").mkdir()
    new = start.open_or_create(tmp_path / "again", plan.manifest())
    seeds = [new.add(Proposal(f"{number:04}", {"l2": l2})).seed for number, l2 in enumerate((0.1, 0.0, 0.1, 0.1))]
    assert seeds == [0, 0, 2, 4]
    new.journal.commit()
    assert study.load(tmp_path / "again").trials["0003"].seed == 4


def test_trial_10000_follows_trial_9999(tmp_path):
    plan = Plan("softmax", "l2=0..1", tuner="random", max_trials=None, objective="val_loss", executions=1, data="mini")
    (tmp_path / "long").mkdir()
    long = start.open_or_create(tmp_path / "long", plan.manifest())
    names = ["9998", "9999", "10000", "10001"]
    for name in names:
        long.add(Proposal(name, {"l2": float(name) / 1e5}))
    outcome = {"epochs": 1, "seconds": 1.0, "final": {"ranking_loss": 0.5, "ranking_accuracy": 0.5}}
    for name in names[1:]:
        long.complete(long.trials[name], [outcome])
    long.journal.close()
    long.write_tables()
    for found in (long, study.load(tmp_path / "long")):
        assert list(found.trials) == names
        assert [trial.name for trial in found.ranked] == names[1:]  # equal ones in the order of proposal
        assert [row["trial"] for row in found.rows()] == [*names[1:], "9998"]
    assert [row["trial"] for row in rows_of(tmp_path / "long")] == names
    assert json.loads((tmp_path / "long" / "best.json").read_text())["trial"] == "9999"


def test_plot_of_listed_epochs_when_trials_stop_early(tmp_path):
    plan = Plan("softmax", "epochs=5,9", tuner="grid", max_trials=None, objective="val_loss", executions=1, data="mini")
    (tmp_path / "early").mkdir()
    early = start.open_or_create(tmp_path / "early", plan.manifest())
    trial = early.add(Proposal("0000", {"epochs": 9}))
    early.complete(trial, [{"epochs": 7, "seconds": 1.0, "final": {"ranking_loss": 0.5, "ranking_accuracy": 0.5}}])
    page.write(early, early.path / "report.html")
    assert (early.path / "effects.png").read_bytes()[:4] == b"\x89PNG" and early.rows()[0]["epochs"] == 7


def test_keys_that_a_later_version_adds_to_a_proposal_are_ignored(pretended_sweep):
    logdir, table = pretended_sweep
    proposal = logdir / "sweeps" / "grid" / "0001" / "proposal.json"
    helpers.change(proposal, lambda content: content.update(version="9", new=1))
    assert study.load(logdir / "sweeps" / "grid").rows() == table


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
