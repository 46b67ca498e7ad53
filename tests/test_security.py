"""Files that were made to harm: small ones that claim to be large, and records that hold less than they must."""

import gzip
import shutil
import struct

import numpy as np
import pytest

from fmnist_zoo import idx, tensors
from fmnist_zoo.idx import DataError
from trainers.running import run
from trainers.train import main, train

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def finished(tmp_path_factory, without_xla):
    """A run of one epoch."""
    return train("softmax", data="mini", epochs=1, logdir=tmp_path_factory.mktemp("logs"), histogram_every=0).folder


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / finished.parent.name / "copy")


def resaved(folder, change):
    """The checkpoint of a run, changed, and with a digest of the change."""
    path = folder / "checkpoints" / "latest.safetensors"
    arrays, note = tensors.read_arrays(path)
    change(arrays, note)
    del note["sha256"]
    tensors.write_arrays(path, arrays, note)


@pytest.mark.parametrize("change, text", [
    (lambda arrays, note: note.update(more=1), "not the checkpoint of a run"),
    (lambda arrays, note: note.update(identity=["{}", "", ""]), "belongs to another config"),
    (lambda arrays, note: note.update(metrics_sha256="0"), "not those that the run wrote"),
    (lambda arrays, note: arrays.pop("best/logits/kernel"), "other arrays than the model"),
    (lambda arrays, note: arrays.update({name: array.astype(np.float64) for name, array in arrays.items()}),
     "other arrays than the model"),
])
def test_checkpoint_of_something_else_is_refused(copy, capsys, change, text):
    resaved(copy, change)
    assert main([f"--resume={copy}", "--epochs=2"]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1


@pytest.mark.parametrize("change", [lambda content: content[:-40], lambda content: content[:9] + b"x" + content[10:],
                                    lambda content: content[:-1] + bytes([content[-1] ^ 1]), lambda content: b""])
def test_damaged_checkpoint_is_refused_before_data_are_read(copy, capsys, monkeypatch, change):
    path = copy / "checkpoints" / "latest.safetensors"
    path.write_bytes(change(path.read_bytes()))
    monkeypatch.setattr(run, "load_data", lambda **settings: pytest.fail("the data were read"))
    assert main([f"--resume={copy}", "--epochs=2"]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and error.count("\n") == 1


def test_what_a_packed_file_may_hold_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "LARGEST", 30 * MEGABYTE)
    path = tmp_path / "labels.gz"
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(">2I", idx.LABELS_MAGIC, 31 * MEGABYTE) + bytes(31 * MEGABYTE))
    assert path.stat().st_size < MEGABYTE
    with pytest.raises(DataError, match="labels.gz: holds more than 31"):
        idx.read(path, row=())
