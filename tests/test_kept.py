"""What a sweep keeps on disk of trials that have ended."""

import pathlib
import shutil

import pytest

from tests.sweeps import Pretending, replace_pool
from trainers import evaluate, sweep, train
from trainers.running.folder import RunFolder
from trainers.tuning import kept, start, study

HYPERBAND = dict(space="l2=0..0.001", tuner="hyperband", data="mini", epochs=9)


class Writing(Pretending):
    """Also writes the files of a run.

    Attributes:
        checkpoint_of_parent: for each trial that continues another, whether that one's checkpoint was there.
    """

    def __init__(self, **settings):
        super().__init__(**settings)
        self.checkpoint_of_parent = []

    def run(self, job):
        if job.parent:
            self.checkpoint_of_parent.append(RunFolder(job.parent).checkpoint.exists())
        folder = RunFolder(job.folder)
        for path in (folder.config, folder.table.path, folder.model, folder.weight_file("best"),
                     folder.checkpoint):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
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
    best = {row["trial"] for row in table[:kept.BEST]}
    assert having(path, "weights") == having(path, "model") == best and len(best) == 10
    assert not having(path, "checkpoint") and len(having(path, "config")) == 14
    assert all((path / row["trial"] / "1" / "metrics.csv").exists() for row in table)


def test_failed_trial_keeps_its_record_alone(writing, tmp_path):
    sweep.sweep("softmax", {"learning_rate": [0.1, 1e30]}, tuner="grid", data="mini", logdir=tmp_path, executions=2)
    path = tmp_path / "sweeps" / "softmax-grid-seed0"
    assert having(path, "weights") == {"0000"} and having(path, "config") == {"0000", "0001"}
    assert not having(path, "checkpoint")


def test_what_a_killed_leader_did_not_remove_goes_at_the_next_start(writing, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "BEST", 1)
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
    monkeypatch.setattr(kept, "HALF_FROM", 2)
    writing.slots = slots
    most = []
    submit = writing.submit

    def count(name, job):
        path = pathlib.Path(job.sweep)
        most.append(len(having(path, "checkpoint")))
        submit(name, job)

    monkeypatch.setattr(writing, "submit", count)
    table = sweep.sweep("softmax", logdir=tmp_path, **HYPERBAND)
    path = tmp_path / "sweeps" / "softmax-hyperband-seed0"
    assert len(table) > 15 and len(having(path, "weights")) == 10 and not having(path, "checkpoint")
    assert len(writing.checkpoint_of_parent) > 3 and all(writing.checkpoint_of_parent)
    assert max(most) < len(table) / 2


@pytest.mark.long
def test_trial_without_weights_says_how_it_is_trained_again(inline_pool, tmp_path, monkeypatch, capsys, without_xla):
    monkeypatch.setattr(start, "BEST", 1)
    table = sweep.sweep("softmax", {"l2": [0, 0.1]}, tuner="grid", data="mini", epochs=1, logdir=tmp_path)
    path = tmp_path / "sweeps" / "softmax-grid-seed0"
    best, other = (path / row["trial"] for row in table)
    assert evaluate.main([f"--run={best / '0'}"]) == 0
    capsys.readouterr()
    assert evaluate.main([f"--run={other / '0'}"]) == 2
    error = capsys.readouterr().err
    assert f"has no weights, because a sweep keeps those of its best trials alone; train it again with " \
           f"python -m trainers.train --from_sweep={other}\n" in error
    assert train.main([f"--from_sweep={other}", f"--logdir={tmp_path}"]) == 0
    assert sweep.main([f"--show={path}"]) == 0
    assert study.load(path).rows() == table
    sizes = sum(one.stat().st_size for one in other.rglob("*") if one.is_file())
    assert sizes < 100_000
