"""A run's folder that is damaged, half-written or on a full disk: refused or repaired, and never made worse."""

import contextlib
import os
import resource
import shutil
from collections import namedtuple

import pytest

from fmnist_zoo import tensors
from tests import helpers
from tests.sweeps import make_job
from trainers.config import ConfigError, resolve
from trainers.running import run
from trainers.running.folder import NewFolder, RunFolder, locked
from trainers.running.progress import Reporter
from trainers.running.table import TableError
from trainers.train import main, train
from trainers.tuning import execution

pytestmark = pytest.mark.usefixtures("without_xla")
SMALL = dict(hidden=(8,), data="mini", histogram_every=0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, without_xla):
    """A run of three epochs."""
    return train("2L", epochs=3, logdir=tmp_path_factory.mktemp("logs"), run_name="one", **SMALL).folder


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of that run, to damage."""
    return shutil.copytree(finished, tmp_path / finished.parent.name / "copy")


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"}


def changed(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new, 1))


def unsealed(change):
    """A change that a person made on purpose, who removed the digest."""
    return lambda path: helpers.change(path, change)


def resaved(change):
    """A checkpoint whose note is changed, with a digest of the change."""

    def resave(path):
        arrays, note = tensors.read_arrays(path)
        del note["sha256"]
        note.update(change)
        tensors.write_arrays(path, arrays, note)

    return resave


@pytest.mark.parametrize("name, damage, text", [
    ("checkpoints/latest.safetensors", lambda path: path.write_bytes(path.read_bytes()[:1000]),
     "damaged, or not a file of this zoo"),
    ("checkpoints/latest.safetensors", os.unlink, "is gone, and without it the run cannot continue"),
    ("checkpoints/latest.safetensors", resaved({"more": 1}), "not the checkpoint of a run"),
    ("checkpoints/latest.safetensors", resaved({"identity": ["{}", "", ""]}), "belongs to another config"),
    ("metrics.csv", os.unlink, "damaged: it has 0 rows"),
    ("metrics.csv", changed(",0.", ",0.9"), "not those that the run wrote"),
    ("config.json", changed('"seed": 0', '"seed": 7'), "its content does not fit its content_sha256"),
    ("config.json", unsealed(lambda record: record["config"].update(seed=7)), "one of the two was changed"),
    ("config.json", unsealed(lambda record: record.pop("starts")), "not the config.json of a run"),
])
def test_damage_is_refused_in_one_line_before_data_are_read(copy, name, damage, text, capsys, monkeypatch):
    damage(copy / name)
    before = snapshot(copy)
    monkeypatch.setattr(run, "load_data", lambda **settings: pytest.fail("the data were read"))
    assert text in helpers.refused(capsys, main, f"--resume={copy}", "--epochs=5") and snapshot(copy) == before


def test_damaged_result_is_written_again_and_partial_files_are_removed(finished, copy):
    changed('accuracy": 0.', 'accuracy": 0.9')(copy / "result.json")
    assert RunFolder(copy).read_result() is None
    partial = [copy / name for name in ("checkpoints/.latest.safetensors.abc", "saving.keras", ".metrics.csv.xyz")]
    for path in partial:
        path.write_text("half")
    assert main([f"--resume={copy / 'config.json'}"]) == 0
    assert (copy / "result.json").read_bytes() == (finished / "result.json").read_bytes()
    assert not any(path.exists() for path in partial)


def test_rows_of_a_finished_run_are_checked_without_its_checkpoint(copy):
    shutil.rmtree(copy / "checkpoints")
    assert len(RunFolder(copy).rows()) == 3
    changed(",0.", ",0.9")(copy / "metrics.csv")
    with pytest.raises(TableError, match="epochs 1 to 3 are not those that the run wrote"):
        RunFolder(copy).rows()


def test_name_of_a_run_that_was_killed_as_it_started_is_free(tmp_path):
    path = tmp_path / "2L,hidden=8" / "one"
    path.mkdir(parents=True)
    for name in (".lock", ".config.json.abc"):
        (path / name).write_text("")
    with locked(path, "training"):
        with pytest.raises(ConfigError, match="one exists already; for a new run choose another --run_name"):
            train("2L", logdir=tmp_path, run_name="one", **SMALL)
    config = resolve("2L", **SMALL)
    place = NewFolder(tmp_path, config, "one")
    (path / "notes.txt").write_text("of the user's")
    with pytest.raises(ConfigError, match="exists already"):
        train("2L", logdir=tmp_path, run_name="one", **SMALL)
    with pytest.raises(ConfigError, match="exists already"):  # another process was faster
        run.execute(place, config, reporter=Reporter(), should_stop=lambda: False)
    assert list(tmp_path.iterdir()) == [path.parent]
    (path / "notes.txt").unlink()
    assert train("2L", epochs=1, logdir=tmp_path, run_name="one", **SMALL).folder == path
    assert not (path / ".config.json.abc").exists()


@contextlib.contextmanager
def room_for(size):
    """No file may grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_lock_file_that_cannot_be_written_is_named(tmp_path):
    """Closing the file does not try again, and hide the path."""
    with room_for(0), pytest.raises(OSError) as found, locked(tmp_path, "training"):
        pass
    assert found.value.filename == str(tmp_path / ".lock")


@pytest.mark.long
def test_trial_with_damaged_rows_is_trained_again(tmp_path):
    """Its numbers are the same, and a sweep does not ask anybody to put a file back."""
    job = make_job(tmp_path, "0000", epochs=2)
    first = execution.run(job)
    (tmp_path / "0000" / "0" / "result.json").unlink()
    (tmp_path / "0000" / "0" / "metrics.csv").write_text("nothing\n")
    assert execution.run(job)["final"] == first["final"]
    assert len(RunFolder(tmp_path / "0000" / "0").rows()) == 2


def test_disk_without_room_for_the_model_is_reported_before_the_model_is_written(copy, monkeypatch, capsys):
    free = namedtuple("free", "f_bavail f_frsize")
    monkeypatch.setattr(os, "statvfs", lambda path: free(100, 4096))
    assert main([f"--resume={copy}", "--epochs=4"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    assert main([f"--resume={copy}"]) == 0


@pytest.mark.long
def test_full_disk_is_one_line_and_keeps_the_checkpoint(tmp_path):
    """In the middle of a run, and later it is not."""
    settings = dict(data="mini", seed=1, logdir=tmp_path, run_name="one", histogram_every=0)
    folder = train("3L", epochs=1, **settings).folder
    good = (folder / "checkpoints" / "latest.safetensors").read_bytes()
    with room_for(1 << 20):
        assert main([f"--resume={folder}", "--epochs=2"]) == 1
    assert (folder / "checkpoints" / "latest.safetensors").read_bytes() == good
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["latest.safetensors"]
    assert main([f"--resume={folder}", "--epochs=2"]) == 0
    whole = train("3L", epochs=2, **{**settings, "run_name": "whole"}).folder
    assert helpers.rows_without_times(folder) == helpers.rows_without_times(whole)
