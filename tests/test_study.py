"""The folder of a sweep: the runs of its trials, the table, the ranking, and the files that it keeps."""

import csv
import json
import pathlib
import shutil

import pytest

from tests.sweeps import Pretending, made, replace_pool
from trainers import evaluate, sweep, train
from trainers.config import ConfigError, find_sweep, resolve
from trainers.running.folder import RunFolder
from trainers.tuning import study
from trainers.tuning.space import NAMES, Parameter, Space

VALUES = {  # of each hyper-parameter, as `--space` takes them
    "hidden": "30_10_10,20_20_20", "dropout": "0,0.25,0.3_0.2_0.1", "dropout.2": "0.0,0.5", "l1": "0,1e-5",
    "l2": "0,1e-05", "initializer": "he_normal,glorot_uniform", "activation": "relu,gelu",
    "normalization": "none,batch,layer", "epochs": "6,12,24", "batch_size": "32,full", "optimizer": "adam,sgd,adamw",
    "learning_rate": "0.001,0.1", "weight_decay": "0,0.01", "schedule": "constant,cosine,one_cycle", "warmup": "0,0.1",
    "schedule_epochs": "40,50", "label_smoothing": "0,0.1", "ema": "0,0.99", "clip_norm": "0,1", "shift": "0,2",
    "flip": "true,false", "erase": "0,5", "mixup": "0,0.2", "teacher": "softmax,2L", "teacher_weight": "0.1,0.9",
    "teacher_temperature": "1,2"}
LISTED = [pytest.param(name, id=name) for name in VALUES]


def listed(path, name, model="4L"):
    """A sweep over the values of one hyper-parameter, whose trials have all ended."""
    given = {"teacher": "softmax"} if name.startswith("teacher_") else {"schedule": "cosine"} if "warm" in name else {}
    given |= {"schedule": "linear"} if name == "schedule_epochs" else {}
    plan = sweep.Plan(model, f"{name}={VALUES[name]}", tuner="grid", max_trials=None, objective="val_loss",
                      executions=2, data="mini", **given)
    values = [[value] for value in plan.space.parameters[0].values]
    found = made(path, plan.space.text, values, lambda values, seed: 0.1 + seed / 3, model=model, tuner="grid", seeds=2,
                 epochs=None, **given)
    return found, given


def test_every_searchable_setting_is_tried_here():
    assert set(VALUES) == {*NAMES, "dropout.2"}


@pytest.mark.parametrize("name", LISTED)
def test_trial_is_the_run_that_train_is_with_its_values(name, tmp_path):
    for model in ("4L", "4N_512"):  # the second one has a schedule, whose length is that of the run
        if name == "normalization" and model == "4N_512":
            continue
        found, given = listed(tmp_path / model, name, model)
        for trial in found.trials.values():
            value = trial.values[name]
            hidden = resolve(model).spec.hidden
            changed = {name: value} if name != "dropout.2" else {
                "dropout": [value if layer == 1 else (resolve(model).spec.dropout or [0.0] * len(hidden))[layer]
                            for layer in range(len(hidden))]}
            text = {one: _plain(one, what) for one, what in changed.items()}
            run = resolve(model, data="mini", ranking=True, histogram_every=0, **given, **text)
            assert found.config(trial, 0) == run
            assert found.run_config(trial) == resolve(model, data="mini", **given, **text)


def _plain(name, value):
    """A value as a person gives it to `train`."""
    return study.apply(resolve("4L"), {name: value}).spec.hidden if name == "hidden" else \
        [float(rate) for rate in value.split("_")] if name == "dropout" and isinstance(value, str) else \
        value == "true" if name == "flip" else value


@pytest.mark.parametrize("name", LISTED)
def test_table_reads_back_as_it_was_written(name, tmp_path):
    found, _ = listed(tmp_path / "s", name)
    found.add({name: found.space.parameters[0].values[0]})  # it runs
    found.fail(found.add({name: found.space.parameters[0].values[1]}), 'a "reason", in\nlines')
    found.write_tables()
    for one in (found, study.load(found.path)):
        rows = [one.row(trial) for trial in one.trials.values()]
        assert study.read_rows(found.path / "trials.csv", one.space) == rows
        assert [type(row.values[name]) for row in rows] == [type(value) for value in (
            row.values[name] for row in study.read_rows(found.path / "trials.csv", one.space))]
    with open(found.path / "trials.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["trial", name, "objective", "objective_std", "trained_epochs", "seed", "seconds", "status",
                             "reason"]
    for row, trial in zip(read, found.trials.values(), strict=True):
        assert None not in row and row[name] == str(trial.values[name]) and row["status"] == trial.status


def test_searched_epochs_and_trained_epochs_are_two_columns(tmp_path):
    found = made(tmp_path / "s", "epochs=5,9", [(5,), (9,)], lambda values, seed: 1 / values["epochs"], epochs=None,
                 tuner="grid", lengths=[None, None])
    for row in found.rows():
        assert row["epochs"] in (5, 9) and row["trained_epochs"] == 30
    found.write_tables()
    best = json.loads((found.path / "best.json").read_text())
    assert (best["epochs"], best["trained_epochs"], best["values"]) == (9, 30, {"epochs": 9})


def test_best_of_halving_is_that_of_the_longest_rung_and_is_trained_in_full(tmp_path):
    """The trial of three epochs had more luck than the one that continues it."""
    found = made(tmp_path / "sweeps" / "s", "l2=0..1", [(0.1,), (0.2,), (0.3,), (0.4,)],
                 lambda values, seed: {0.1: 0.1, 0.2: 0.4, 0.3: 0.2, 0.4: 0.3}[values["l2"]], tuner="asha",
                 schedule="cosine", epochs=9, lengths=[3, 1, 9, 9])
    assert [trial.name for trial in found.ranked] == ["0002", "0003", "0000", "0001"]
    config = study.retrain_config(found.path)
    assert config.recipe.epochs == config.recipe.horizon == 9 and config.spec.l2 == 0.3
    assert study.retrain_config(found.path / "0001").recipe.epochs == 9
    for name in ("s", "sweeps/s", found.path):
        assert find_sweep(name, tmp_path) == str(found.path)
    assert find_sweep("s/0001", tmp_path) == str(found.path / "0001") and find_sweep("t", tmp_path) == "t"
    rung = found.config(found.trials["0001"], 0).recipe
    assert (rung.epochs, rung.horizon) == (1, 9)  # the first part of the whole schedule


def test_values_that_are_proposed_again_get_other_seeds(tmp_path):
    found = made(tmp_path / "s", "l2=0,0.1", [(0.1,), (0.0,), (0.1,), (0.1,)], lambda values, seed: 0.5,
                 tuner="bayesian", seeds=2, seed=2**32 - 4)
    seeds = [2**32 - 4, 2**32 - 4, 2**32 - 2, 0]  # after the largest comes the smallest
    assert [trial.seed for trial in found.trials.values()] == seeds
    assert [trial.seed for trial in study.load(found.path).trials.values()] == seeds
    assert [found.config(found.trials["0002"], execution).seed for execution in (0, 1)] == [2**32 - 2, 2**32 - 1]


def test_trial_10000_follows_trial_9999(tmp_path):
    found = made(tmp_path / "s", "l2=0..1", [(0.5,)], lambda values, seed: 0.5)
    names = ["9998", "9999", "10000", "10001"]
    for name in names:
        shutil.copytree(found.path / "0000", found.path / name)
    shutil.rmtree(found.path / "0000")
    again = study.load(found.path)
    assert list(again.trials) == [trial.name for trial in again.ranked] == names
    again.write_tables()
    assert json.loads((found.path / "best.json").read_text())["trial"] == "9998"
    assert again.next_number == 0 and again.add({"l2": 0.1}).name == "0000"
    assert list(again.trials) == ["0000", *names] and again.next_number == 1


@pytest.mark.parametrize("name, content, message", [
    ("0001/trial.json", "{", "0001/trial.json: not the record of a trial"),
    ("0001/trial.json", "[]", "0001/trial.json: not the record of a trial"),
    ("0001/trial.json", '{"x": 1}', "0001/trial.json: not the record of a trial"),
    ("0001/trial.json", '{"values": {"l2": 1}, "seed": 0}', "0001/trial.json: .*it has values of l2"),
    ("sweep.json", "", "sweep.json: not the manifest of a sweep.*start again with --overwrite"),
    ("sweep.json", "{}", "sweep.json: not the manifest of a sweep"),
])
def test_damaged_file_is_named(pretended_sweep, capsys, name, content, message):
    path = pretended_sweep[0] / "sweeps" / "grid"
    (path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        study.load(path)
    assert sweep.main([f"--show={path}"]) == 2 and "Traceback" not in capsys.readouterr().err


def test_record_that_was_changed_is_refused(pretended_sweep):
    path = pretended_sweep[0] / "sweeps" / "grid" / "0001" / "trial.json"
    path.write_text(path.read_text().replace('"score": 0.', '"score": 1.'))
    with pytest.raises(ConfigError, match="0001/trial.json.*does not fit its content_sha256"):
        study.load(path.parent.parent)


class Writing(Pretending):
    """Also writes the files of a run.

    Attributes:
        checkpoint_of_parent: for each trial that continues another, whether that one's checkpoint was there.
        most: how many checkpoints there were at most.
    """

    def __init__(self, **settings):
        super().__init__(**settings)
        self.checkpoint_of_parent, self.most = [], 0

    def run(self, job):
        if job.parent:
            self.checkpoint_of_parent.append(RunFolder(job.parent).checkpoint.exists())
        folder = RunFolder(job.folder)
        for path in (folder.config, folder.table.path, folder.model, folder.weight_file("best"), folder.checkpoint):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        self.most = max(self.most, len(having(pathlib.Path(job.sweep), "checkpoint")))
        return super().run(job)


@pytest.fixture
def writing(monkeypatch):
    return replace_pool(monkeypatch, Writing())


def having(path, what):
    """Names of the trials, all of whose executions have a file, or none of which has it."""
    found = {}
    for one in path.glob("*/?/config.json"):
        found.setdefault(one.parent.parent.name, set()).add(getattr(RunFolder(one.parent), what).exists())
    assert all(len(states) == 1 for states in found.values())
    return {name for name, states in found.items() if True in states}


@pytest.mark.parametrize("objective", ["val_loss", "val_accuracy"])
def test_weights_of_the_best_trials_are_kept_and_records_of_all(writing, tmp_path, objective):
    space = {"l2": [index / 100 for index in (7, 1, 12, 3, 9, 0, 11, 2, 13, 4, 10, 5, 8, 6)]}
    table = sweep.sweep("softmax", space, tuner="grid", data="mini", logdir=tmp_path, objective=objective, executions=2)
    path = tmp_path / "sweeps" / "softmax-grid-seed0"
    best = {row["trial"] for row in table[:study.BEST]}
    assert having(path, "weights") == having(path, "model") == best and len(best) == 10
    assert not having(path, "checkpoint") and len(having(path, "config")) == 14


def test_failed_trial_keeps_its_record_alone(writing, tmp_path):
    sweep.sweep("softmax", {"learning_rate": [0.1, 1e30]}, tuner="grid", data="mini", logdir=tmp_path, executions=2)
    path = tmp_path / "sweeps" / "softmax-grid-seed0"
    assert having(path, "weights") == {"0000"} and having(path, "config") == {"0000", "0001"}
    assert not having(path, "checkpoint")


def test_what_a_killed_leader_did_not_remove_goes_at_the_next_start(writing, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "BEST", 1)
    asked = dict(tuner="random", data="mini", logdir=tmp_path)
    sweep.sweep("softmax", "l2=0..1", max_trials=3, **asked)
    path = tmp_path / "sweeps" / "softmax-random-seed0"
    (best,) = having(path, "weights")
    for name in {"0000", "0001", "0002"} - {best}:
        shutil.copytree(path / best / "0" / "weights", path / name / "0" / "weights")
    (path / "0002" / "0" / "checkpoints").mkdir(exist_ok=True)
    table = sweep.sweep("softmax", "l2=0..1", max_trials=4, **asked)
    assert having(path, "weights") == {table[0]["trial"]}
    assert not (path / "0002" / "0" / "checkpoints").exists()


@pytest.mark.parametrize("slots", [1, 3])
def test_trial_that_continues_another_finds_its_checkpoint(writing, tmp_path, slots, monkeypatch):
    monkeypatch.setattr(study, "BEST", 3)
    writing.slots = slots
    table = sweep.sweep("softmax", "l2=0..0.001", tuner="asha", data="mini", epochs=9, logdir=tmp_path)
    path = tmp_path / "sweeps" / "softmax-asha-seed0"
    assert len(table) > 40 and len(having(path, "weights")) == 3 and not having(path, "checkpoint")
    assert len(writing.checkpoint_of_parent) > 10 and all(writing.checkpoint_of_parent)
    assert writing.most < len(table) / 2


@pytest.mark.long
def test_trial_without_weights_says_how_it_is_trained_again(inline_pool, tmp_path, monkeypatch, capsys, without_xla):
    monkeypatch.setattr(study, "BEST", 1)
    table = sweep.sweep("softmax", {"l2": [0, 0.1]}, tuner="grid", data="mini", epochs=1, logdir=tmp_path)
    path = tmp_path / "sweeps" / "softmax-grid-seed0"
    best, other = (path / row["trial"] for row in table)
    assert evaluate.main([f"--run={best / '0'}"]) == 0
    capsys.readouterr()
    assert evaluate.main([f"--run={other / '0'}"]) == 2
    error = capsys.readouterr().err
    assert f"train it again with python -m trainers.train --from_sweep={other}\n" in error
    assert train.main([f"--from_sweep={other}", f"--logdir={tmp_path}"]) == 0
    assert study.load(path).rows() == table
    assert sum(one.stat().st_size for one in other.rglob("*") if one.is_file()) < 100_000


def test_empty_text_is_read_back_beside_no_value(tmp_path):
    space = Space((Parameter("hp.activation", ("", "relu")), Parameter("rate", (0.1, 0.5), "linear")))
    rows = [study.Row(f"{number:04}", {"hp.activation": kind, "rate": 0.25}, 0.5, None, 2.0, 0, 1.5, "COMPLETED", "")
            for number, kind in enumerate(("", "relu", None))]
    study.write_rows(tmp_path / "trials.csv", space, rows)
    assert study.read_rows(tmp_path / "trials.csv", space) == rows
