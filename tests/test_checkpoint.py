"""When a run writes checkpoints, and that its numbers do not depend on it."""

import os

import pytest

from tests import helpers
from trainers.config import ConfigError
from trainers.running import checkpoint, run
from trainers.running.checkpoint import Checkpoint
from trainers.running.folder import RunFolder
from trainers.running.table import MetricsTable
from trainers.train import main, train

SMALL = dict(hidden=(8,), data="mini", epochs=4, histogram_every=0)
pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture
def saved(monkeypatch):
    """The epochs after which a checkpoint was written."""
    found, real = [], Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda self, path: (found.append(self.epoch), real(self, path)))
    return found


@pytest.mark.parametrize("every, seconds, expected", [(None, 60.0, [4]), (None, 1e-9, [1, 2, 3, 4]), (3, 1e-9, [3, 4]),
                                                      (1, 60.0, [1, 2, 3, 4])])
def test_epochs_after_which_a_checkpoint_is_written(saved, tmp_path, monkeypatch, every, seconds, expected):
    monkeypatch.setattr(checkpoint, "SECONDS", seconds)
    folder = train("2L", logdir=tmp_path, checkpoint_every=every, **SMALL).folder
    assert saved == expected
    monkeypatch.undo()
    whole = train("2L", logdir=tmp_path, **SMALL).folder
    helpers.assert_equal_runs(folder, whole)


def test_a_minute_is_from_the_last_checkpoint_or_the_start(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    due, found = checkpoint.Due(0), []
    for epoch in range(1, 9):
        now[0] += 25.0
        if due(epoch):
            found.append(epoch)
    assert found == [3, 6]
    assert [epoch for epoch in range(1, 9) if checkpoint.Due(4)(epoch)] == [4, 8]


@pytest.mark.parametrize("every, seconds, was_due", [
    (0, [], False), (0, [70.0], False), (0, [70.0, 1.0], True), (0, [20.0] * 3, False), (0, [20.0] * 4, True),
    (3, [1.0] * 3, False), (3, [1.0] * 4, True),
])
def test_a_checkpoint_is_missed_if_the_run_trained_long_enough_to_write_one(tmp_path, every, seconds, was_due):
    table = MetricsTable(tmp_path / "metrics.csv")
    for epoch, one in enumerate(seconds, start=1):
        table.append({"epoch": epoch, "step": epoch, "seconds": one})
    assert checkpoint.was_due(every, table) == was_due


def test_run_killed_before_its_first_checkpoint_starts_again(saved, tmp_path):
    """A fresh start loses nothing but time; after a minute of training the missing checkpoint is an error."""

    def killed(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt  # ends the process without saving

    with pytest.raises(KeyboardInterrupt):
        train("2L", logdir=tmp_path, run_name="one", on_epoch=killed, **SMALL)
    folder = RunFolder(tmp_path / "2L,hidden=8" / "one")
    assert not saved and len(folder.rows()) == 2
    assert main([f"--resume={folder.path}"]) == 0 and saved == [4]
    folder.result.unlink()
    folder.checkpoint.unlink()
    with run.opened(folder):  # it did not train for a minute
        pass
    helpers.change(folder.config, lambda record: record["config"].update(checkpoint_every=1))
    with pytest.raises(ConfigError, match="is gone, and without it the run cannot continue"), run.opened(folder):
        pass


def test_what_a_run_has_written_is_durable_when_a_checkpoint_says_so(tmp_path, monkeypatch):
    """Files by their length at the last fsync; folders, because a file is lost with the name of a folder above it."""
    synced, at_checkpoints, real, save = {}, [], os.fsync, Checkpoint.save

    def fsync(descriptor):
        real(descriptor)
        synced[os.readlink(f"/proc/self/fd/{descriptor}")] = os.fstat(descriptor).st_size

    def observe(self, path):
        at_checkpoints.append({name: synced.get(str(path.parents[1] / name)) == size
                               for name, size in self.events.items()})
        save(self, path)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Checkpoint, "save", observe)
    folder = train("2L", logdir=tmp_path / "new" / "logs", checkpoint_every=1, **SMALL).folder
    assert len(at_checkpoints) == 4 and all(len(one) == 3 and all(one.values()) for one in at_checkpoints)
    for path in folder.rglob("*"):
        if path.name != ".lock" and not path.suffix == ".keras" and path.parent.name not in ("weights", "checkpoints"):
            assert path.is_dir() or path.stat().st_size in (synced.get(str(path)), *_renamed(path, synced)), path
    for path in (folder, folder / "train", folder / "checkpoints", folder / "weights", folder.parent, tmp_path / "new",
                 tmp_path):
        assert str(path) in synced


def _renamed(path, synced):
    """Lengths of files that were synced under the name that `atomic_write` gives them."""
    return [size for name, size in synced.items() if name.startswith(str(path.with_name(f".{path.name}.")))]
