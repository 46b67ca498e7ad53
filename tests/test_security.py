"""Files that were made to harm: small ones that claim to be large, and records that hold less than they must."""

import gzip
import shutil
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from fmnist_zoo import idx
from fmnist_zoo.idx import DataError
from tests import helpers, runs
from trainers.running import checkpoints, verifying
from trainers.running.checkpoints import CheckpointError
from trainers.train import main, train

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def finished(tmp_path_factory, without_xla):
    """A run of one epoch."""
    return train("softmax", data="mini", epochs=1, logdir=tmp_path_factory.mktemp("logs"), histogram_every=0).folder


@pytest.fixture
def path(tmp_path):
    return tmp_path / "latest.npz"


def peak_of(call):
    """The most memory that Python and NumPy held at once while `call` ran, in bytes."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(path):
    with pytest.raises(CheckpointError) as error:
        checkpoints.load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_compressed_checkpoint_is_not_unpacked(path):
    np.savez_compressed(path, a=np.zeros(50 * MEGABYTE, np.uint8))
    assert path.stat().st_size < MEGABYTE
    assert peak_of(lambda: refused(path)) < MEGABYTE
    assert "it is compressed, or claims to hold more than its size" in refused(path)


def test_entries_of_a_checkpoint_that_share_their_bytes_are_refused(path):
    """A zip's directory may name one entry a thousand times, each time with other words."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", bytes(MEGABYTE))
        for number in range(100):
            archive.filelist.append(archive.filelist[0])
            archive.NameToInfo[f"{number}.npy"] = archive.filelist[0]
        archive._didModify = True
    assert path.stat().st_size < 2 * MEGABYTE
    assert "claims to hold more than its size" in refused(path)


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(10000000000000000000000000,)", "(-1,)", "(2,"])
def test_array_of_a_checkpoint_that_claims_more_than_there_is_is_refused(path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    assert "damaged, or not a checkpoint" in refused(path)


@pytest.mark.parametrize("name, value", [
    ("epoch", "2"), ("epoch", None), ("best_epoch", 9), ("best_loss", []), ("events", {"a": "b"}), ("events", [1]),
    ("identity", 3), ("seconds", True)])
def test_note_that_a_run_cannot_have_written_is_refused(finished, tmp_path, capsys, name, value):
    folder = shutil.copytree(finished, tmp_path / finished.parent.name / "copy")
    path = folder / "checkpoints" / "latest.npz"
    arrays, note = checkpoints.load(path)
    checkpoints.save(path, arrays, {**note, name: value})
    assert main([f"--resume={folder}", "--epochs=2"]) == 2
    error = capsys.readouterr().err
    assert "its note lacks what a run needs" in error and error.count("\n") == 1
    assert any("its note lacks" in problem for problem in verifying.problems(runs.RunFolder(folder)))


def test_checkpoint_without_the_best_weights_is_refused(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / finished.parent.name / "copy")
    path = folder / "checkpoints" / "latest.npz"
    arrays, note = checkpoints.load(path)
    for change in ({"best/kernel": None}, {name: array.astype(np.float64) for name, array in arrays.items()}):
        changed = {**arrays, **change}
        checkpoints.save(path, {name: changed[name] for name in arrays if name[:5] != "best/" or len(change) > 1}, note)
        assert main([f"--resume={folder}", "--epochs=2"]) == 2
        assert "belongs to another config" in capsys.readouterr().err


def test_rows_that_a_packed_file_honestly_claims_have_a_limit(tmp_path):
    path = tmp_path / "labels.gz"
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(">2I", idx.LABELS_MAGIC, idx.MOST_ROWS + 1) + bytes(idx.MOST_ROWS + 1))
    assert path.stat().st_size < MEGABYTE
    with pytest.raises(DataError, match="claims 10000001 rows; at most 10000000 are read"):
        list(idx.blocks(path, row=()))


def test_model_of_an_old_run_is_not_unpacked_where_it_is_a_bomb(tmp_path):
    folder = runs.make(tmp_path, "one")
    helpers.change(folder.result, lambda result: result.pop("files_sha256"))
    with zipfile.ZipFile(folder.model, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(50 * MEGABYTE))
    assert [problem for problem in verifying.problems(folder) if "it is compressed" in problem]
