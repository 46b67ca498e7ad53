"""Checkpoints: arrays come back unchanged, and damaged files are refused."""

import numpy as np
import pytest

import fmnist_zoo
from trainers.running import checkpoints

ARRAYS: dict[str, np.ndarray] = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b/c": np.array(7, np.int64)}


@pytest.fixture
def path(tmp_path):
    checkpoints.save(tmp_path / "latest.npz", ARRAYS, {"epoch": 3, "best_loss": float("inf")})
    return tmp_path / "latest.npz"


def test_arrays_and_note_come_back_unchanged(path):
    arrays, note = checkpoints.load(path)
    assert note == {"epoch": 3, "best_loss": float("inf"), "version": fmnist_zoo.__version__}
    assert checkpoints.digest(arrays) == checkpoints.digest(ARRAYS)
    assert [array.dtype for array in arrays.values()] == [array.dtype for array in ARRAYS.values()]


@pytest.mark.parametrize("change", [dict(a=ARRAYS["a"] + 1), dict(a=ARRAYS["a"].T.copy()), {"d": ARRAYS["a"]},
                                    dict(a=ARRAYS["a"].astype(np.float64))])
def test_digest_depends_on_values_shapes_names_and_types(change):
    assert checkpoints.digest({**ARRAYS, **change}) != checkpoints.digest(ARRAYS)


def test_truncated_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(checkpoints.CheckpointError, match="latest.npz: damaged"):
        checkpoints.load(path)


def test_flipped_byte_is_refused_or_changes_nothing(path):
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1:])
        try:
            arrays, note = checkpoints.load(path)
        except checkpoints.CheckpointError:
            continue
        assert checkpoints.digest(arrays) == checkpoints.digest(ARRAYS) and note["epoch"] == 3


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "latest.npz", **{"note.json": np.array([{"evil": 1}], dtype=object)})
    with pytest.raises(checkpoints.CheckpointError, match="not a checkpoint"):
        checkpoints.load(tmp_path / "latest.npz")


def test_failed_write_keeps_the_old_checkpoint(path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError):
        checkpoints.save(path, {}, {})
    assert checkpoints.load(path)[1]["epoch"] == 3
    assert [entry.name for entry in path.parent.iterdir()] == ["latest.npz"]
