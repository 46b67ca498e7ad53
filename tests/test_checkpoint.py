"""When a run writes checkpoints, and that its numbers do not depend on it."""

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


@pytest.fixture(scope="module")
def whole(tmp_path_factory, without_xla):
    return train("2L", logdir=tmp_path_factory.mktemp("logs"), **SMALL).folder


@pytest.mark.parametrize("every, seconds, expected", [(None, 60.0, [4]), (None, 1e-9, [1, 2, 3, 4]), (3, 1e-9, [3, 4])])
def test_epochs_after_which_a_checkpoint_is_written(whole, saved, tmp_path, monkeypatch, every, seconds, expected):
    monkeypatch.setattr(checkpoint, "SECONDS", seconds)
    folder = train("2L", logdir=tmp_path, checkpoint_every=every, **SMALL).folder
    assert saved == expected
    helpers.assert_equal_runs(folder, whole)


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
