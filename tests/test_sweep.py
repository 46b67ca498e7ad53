"""`python -m trainers.sweep`: what it prints, writes and refuses; that it goes on after anything."""

import csv
import json
import os
import pathlib
import shutil

import pytest

from tests import helpers
from trainers import oracle, plan, pool as pools, search, study as studies, sweep, train, trial as trials
from trainers.config import ConfigError, RunConfig
from trainers.folder import RunFolder

SPACE = {"dropout": [0, 0.5], "l2": [0, 0.001]}
GRID = dict(tuner="grid", data="mini", epochs=2)


class Inline:
    """A pool without processes: jobs run here, when they are waited for; `lose` are jobs whose worker dies."""

    def __init__(self, slots=1, lose=(), order=1):
        self.slots, self.jobs, self.lose, self.order, self.ran = slots, {}, list(lose), order, []

    def submit(self, name, job):
        assert len(self.jobs) < self.slots
        self.jobs[name] = job

    def wait(self, timeout):
        name = list(self.jobs)[:: self.order][0]
        job = self.jobs.pop(name)
        self.ran.append(name)
        if name in self.lose:
            self.lose.remove(name)
            return [(name, {"status": pools.DIED, "begun": True})]
        return [(name, trials.run(job))]

    def close(self):
        pass


@pytest.fixture
def inline(monkeypatch):
    """Sweeps of this test run in this process, in the pool that is returned."""
    pool = Inline()
    monkeypatch.setattr(pools, "make", lambda workers, scheduler: pool)
    return pool


def rows_of(path):
    with open(pathlib.Path(path) / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The log folder of a finished grid of four named `grid`, run in a child process, and the table it returned."""
    logdir = tmp_path_factory.mktemp("logs")
    return logdir, sweep.sweep("4L", SPACE, logdir=logdir, name="grid", **GRID)


def test_it_tries_what_was_asked_ranks_it_and_writes_it_down(finished):
    logdir, table = finished
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


def test_a_trial_is_ranked_by_images_that_chose_no_epoch(finished):
    logdir, table = finished
    folder = logdir / "sweeps" / "grid" / table[0]["trial"] / "0"
    record, result = json.loads((folder / "config.json").read_text()), json.loads((folder / "result.json").read_text())
    assert record["data"]["fit"] == 1800 and record["data"]["validation"] == record["data"]["ranking"] == 100
    assert table[0]["objective"] == result["final"]["ranking_loss"] != result["final"]["validation_loss"]
    final = helpers.scalars(folder)
    (shown,) = final["final/ranking_loss"].values()
    assert shown == pytest.approx(result["final"]["ranking_loss"], rel=1e-6)


def test_dropout_is_on_while_a_trial_trains(finished):
    logdir, table = finished
    losses = {(row["dropout"], row["l2"]): RunFolder(logdir / "sweeps" / "grid" / row["trial"] / "0").rows()[0]
              for row in table}
    assert losses[0.5, 0.0]["train_loss"] > losses[0.0, 0.0]["train_loss"] + 0.1


def test_the_same_command_finds_it_finished_and_runs_nothing_again(finished, inline):
    logdir, table = finished
    assert sweep.sweep("4L", SPACE, logdir=logdir, name="grid", **GRID) == table
    assert not inline.ran


def test_workers_and_the_order_of_results_change_no_number(finished, inline, tmp_path):
    _, table = finished
    inline.slots, inline.order = 3, -1  # three at once, the last one ends first
    again = sweep.sweep("4L", SPACE, logdir=tmp_path, name="grid", **GRID)
    assert without_times(again) == without_times(table)
    assert inline.ran[0] != "0000/0"


def test_what_was_lost_runs_again_and_what_stands_does_not(finished, inline, tmp_path):
    """Killed after the third trial had begun; trials.csv and best.json are made again from the trials' own files."""
    logdir, table = finished
    shutil.copytree(logdir, tmp_path / "logs")
    path = tmp_path / "logs" / "sweeps" / "grid"
    for left in (path / "0003", path / "0002" / "0"):
        shutil.rmtree(left)
    (path / "0002" / "result.json").unlink()
    for torn in ("trials.csv", "best.json"):
        (path / torn).write_text("{")
    again = sweep.sweep("4L", SPACE, logdir=tmp_path / "logs", name="grid", **GRID)
    assert without_times(again) == without_times(table)
    assert inline.ran == ["0002/0", "0003/0"]
    assert len(rows_of(path)) == 4 and json.loads((path / "best.json").read_text())["trial"] == table[0]["trial"]


def test_a_result_that_was_written_by_the_worker_alone_is_taken_up(finished, inline, tmp_path):
    logdir, table = finished
    shutil.copytree(logdir, tmp_path / "logs")
    path = tmp_path / "logs" / "sweeps" / "grid" / "0001"
    (path / "result.json").unlink()  # the leader was killed before it wrote this
    before = (path / "0" / "metrics.csv").stat().st_mtime_ns
    again = sweep.sweep("4L", SPACE, logdir=tmp_path / "logs", name="grid", **GRID)
    assert without_times(again) == without_times(table)
    assert (path / "0" / "metrics.csv").stat().st_mtime_ns == before


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
def test_another_sweep_in_the_same_folder_is_refused(finished, inline, change, told):
    logdir, _ = finished
    asked = {"model": "4L", "space": SPACE, **GRID, **change}
    with pytest.raises(ConfigError, match="holds another sweep.*--overwrite") as caught:
        sweep.sweep(asked.pop("model"), asked.pop("space"), logdir=logdir, name="grid", **asked)
    assert told in str(caught.value)


def test_other_versions_are_refused_too(finished, inline, monkeypatch):
    logdir, _ = finished
    monkeypatch.setattr(plan, "__version__", "99")
    with pytest.raises(ConfigError, match="versions: fmnist_zoo was .*, now 99"):
        sweep.sweep("4L", SPACE, logdir=logdir, name="grid", **GRID)


def test_overwrite_moves_the_old_one_aside(finished, inline, tmp_path):
    logdir, _ = finished
    shutil.copytree(logdir, tmp_path / "logs")
    table = sweep.sweep("2L", {"l2": [0]}, logdir=tmp_path / "logs", name="grid", overwrite=True, **GRID)
    assert len(table) == 1
    (aside,) = (tmp_path / "logs" / "sweeps").glob("grid-until-*")
    assert len(studies.load(aside).ended) == 4


def test_more_trials_go_on_from_those_that_stand(inline, tmp_path):
    asked = dict(tuner="random", data="mini", epochs=1, logdir=tmp_path)
    two = sweep.sweep("softmax", "l2=log(1e-6..1e-2)", max_trials=2, **asked)
    three = sweep.sweep("softmax", "l2=log(1e-6..1e-2)", max_trials=3, **asked)
    assert inline.ran == ["0000/0", "0001/0", "0002/0"]
    assert {row["trial"]: row["l2"] for row in two}.items() <= {row["trial"]: row["l2"] for row in three}.items()


def test_executions_have_seeds_of_their_own_and_their_mean_ranks(inline, tmp_path):
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


def test_a_trial_that_is_not_finite_or_raises_is_failed_never_ranked_and_not_run_again(inline, tmp_path):
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
    ran = len(inline.ran)
    assert sweep.sweep("2L", space, **asked) == table and len(inline.ran) == ran
    from trainers import summaries

    assert summaries.opened(log.parent)  # TensorBoard knows of it


def test_too_many_failures_end_it_and_the_next_start_goes_on_with_the_others(inline, tmp_path):
    asked = dict(tuner="grid", data="mini", epochs=1, logdir=tmp_path, batch_size=200, max_failures=2)
    space = {"learning_rate": [1e30, 1e29, 1e28, 0.01]}
    with pytest.raises(search.SweepError, match="2 trials failed in this start, the last one 0001: .*NaN"):
        sweep.sweep("softmax", space, **asked)
    table = sweep.sweep("softmax", space, **asked)
    assert [row["status"] for row in table] == ["COMPLETED", *["FAILED"] * 3]
    assert inline.ran == ["0000/0", "0001/0", "0002/0", "0003/0"]


def test_a_trial_whose_worker_dies_goes_on_and_fails_only_where_it_keeps_dying(inline, tmp_path):
    inline.lose = ["0000/0", "0000/0", "0001/0", "0001/0", "0001/0"]
    table = sweep.sweep("softmax", {"l2": [0, 0.1]}, tuner="grid", data="mini", epochs=1, logdir=tmp_path)
    assert [(row["trial"], row["status"]) for row in table] == [("0000", "COMPLETED"), ("0001", "FAILED")]
    assert "died 3 times in epoch 1" in table[1]["reason"]


def test_hyperband_goes_on_bit_for_bit(inline, tmp_path):
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
    study = plan.open_or_create(tmp_path / "again", asked.manifest())
    seeds = [study.add(oracle.Proposal(f"{n:04}", {"l2": l2})).seed for n, l2 in enumerate((0.1, 0.0, 0.1, 0.1))]
    assert seeds == [0, 0, 2, 4]
    assert studies.load(tmp_path / "again").trials["0003"].seed == 4


@pytest.mark.parametrize("name, content, told", [
    ("result.json", "{", "0001/result.json: does not read"),
    ("result.json", "[]", "0001/result.json: not what a sweep wrote"),
    ("result.json", "{}", "0001/result.json: lacks status"),
    ("result.json", '{"status": "COMPLETED"}', "0001/result.json: lacks reason"),
    ("proposal.json", '{"x": 1}', "0001/proposal.json: not the proposal of a trial"),
    ("../sweep.json", "", "sweep.json: does not read.*start anew with --overwrite"),
    ("../sweep.json", "{}", "sweep.json: not the manifest of a sweep"),
])
def test_a_damaged_file_is_named(finished, inline, tmp_path, capsys, name, content, told):
    logdir, _ = finished
    shutil.copytree(logdir, tmp_path / "logs")
    path = tmp_path / "logs" / "sweeps" / "grid"
    (path / "0001" / name).write_text(content)
    with pytest.raises(ConfigError, match=told):
        sweep.sweep("4L", SPACE, logdir=tmp_path / "logs", name="grid", **GRID)
    assert sweep.main([f"--show={path}"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_copy_beside_a_trial_is_no_trial_and_one_that_is_gone_runs_again(finished, inline, tmp_path):
    logdir, table = finished
    shutil.copytree(logdir, tmp_path / "logs")
    path = tmp_path / "logs" / "sweeps" / "grid"
    shutil.copytree(path / "0003", path / "0003-backup")
    shutil.rmtree(path / "0001")
    again = sweep.sweep("4L", SPACE, logdir=tmp_path / "logs", name="grid", **GRID)
    assert without_times(again) == without_times(table) and inline.ran == ["0001/0"]
    assert [row["trial"] for row in rows_of(path)] == ["0000", "0001", "0002", "0003"]


def test_what_an_oracle_learned_is_not_made_up(inline, tmp_path):
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


def test_a_folder_that_is_led_is_not_moved_away(inline, tmp_path):
    asked = dict(tuner="grid", data="mini", epochs=1, logdir=tmp_path, name="one")
    with plan.hold(tmp_path / "sweeps" / "one"):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} is sweeping in this folder"):
            sweep.sweep("softmax", "l2=0", overwrite=True, **asked)
    assert [path.name for path in (tmp_path / "sweeps").iterdir()] == ["one"]


def test_a_leader_that_lost_its_folder_says_so(inline, tmp_path, monkeypatch):
    real = inline.submit

    def taken_over(name, job):
        (tmp_path / "sweeps" / "one" / trials.LEADER).write_text("another")
        real(name, job)

    monkeypatch.setattr(inline, "submit", taken_over)
    with pytest.raises(search.SweepError, match="another sweep took this folder over"):
        sweep.sweep("softmax", "l2=0", tuner="grid", data="mini", epochs=3, logdir=tmp_path, name="one")


@pytest.mark.parametrize("wrong", [
    dict(space=3), dict(space=["dropout=1"]), dict(workers="2"), dict(workers=0), dict(workers=True), dict(name=3),
    dict(name="a" * 300), dict(max_failures=0), dict(executions=0), dict(max_trials=0), dict(tuner="x"),
])
def test_python_is_told_in_words_too(inline, tmp_path, wrong):
    asked = {"space": "l2=0", "data": "mini", "logdir": tmp_path, **wrong}
    with pytest.raises(ConfigError, match="received"):
        sweep.sweep("softmax", asked.pop("space"), **asked)
    assert not list(tmp_path.iterdir())


def test_the_best_is_trained_in_full(finished, capsys, tmp_path):
    logdir, table = finished
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
