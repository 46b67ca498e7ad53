"""`load_data`: the splits, their sizes and order; what it refuses, with the file's name."""

import gzip
import hashlib

import numpy as np
import pytest

from fmnist_zoo import sources
from fmnist_zoo.data import DataError, load_data, validation_mask
from tests.idx_files import copy_mini, damage, payload, write, write_set

SPLITS = ("fit", "validation", "test")
MINI_SHA256 = "ba8939c1c9637def183490818a403dc1753c16fbc1e63529f8df2e92b2de01c9"
MINI_SPLIT_SHA256 = "77b89cab23b127ed66dca797e227cbda8cd7f131df35873f9747afee7c21c69d"
TEST_FILES = (sources.TEST_IMAGES, sources.TEST_LABELS)
TRAIN_FILES = (sources.TRAIN_IMAGES, sources.TRAIN_LABELS)


@pytest.fixture(scope="module")
def mini():
    """All splits of the mini set."""
    return load_data(SPLITS, data="mini")


@pytest.fixture
def folder(tmp_path):
    """A set of noise under the usual names."""
    return write_set(tmp_path / "data")


def mini_array(name, header):
    """The mini file's content, read without the package's reader."""
    return np.frombuffer(gzip.decompress((sources.MINI_FOLDER / f"{name}.gz").read_bytes()), np.uint8)[header:]


def refused(folder, **options):
    with pytest.raises(DataError) as caught:
        load_data(SPLITS, data_dir=folder, **options)
    return str(caught.value)


def test_splits_are_rows_of_784_bytes_with_their_labels_in_the_order_of_the_file(mini):
    images, labels = mini_array(sources.TRAIN_IMAGES, 16).reshape(-1, 784), mini_array(sources.TRAIN_LABELS, 8)
    test_images, test_labels = mini_array(sources.TEST_IMAGES, 16).reshape(-1, 784), mini_array(sources.TEST_LABELS, 8)
    held_out = validation_mask(labels, 0.1)
    for split, expected in (("fit", (images[~held_out], labels[~held_out])), ("test", (test_images, test_labels)),
                            ("validation", (images[held_out], labels[held_out]))):
        for found, array in zip(mini[split], expected, strict=True):
            np.testing.assert_array_equal(found, array, strict=True)
    for part, count in ((labels, 200), (mini.validation.labels, 20), (test_labels, 50)):
        np.testing.assert_array_equal(np.bincount(part), [count] * 10)


@pytest.mark.parametrize("splits", [SPLITS, ("validation",)])
def test_the_split_never_changes_whatever_is_asked_for(mini, splits):
    found = load_data(splits, data="mini")
    assert (found.name, found.folder) == ("mini", sources.MINI_FOLDER)
    assert (found.sha256, found.split_sha256) == (MINI_SHA256, MINI_SPLIT_SHA256)
    np.testing.assert_array_equal(found.validation.images, mini.validation.images)
    held_out = np.flatnonzero(validation_mask(mini_array(sources.TRAIN_LABELS, 8), 0.1))
    assert hashlib.sha256(held_out.astype("<i8").tobytes()).hexdigest() == MINI_SPLIT_SHA256


@pytest.mark.parametrize("options, complaint", [
    ({"splits": ("fit", "train")}, r"received \('fit', 'train'\)"), ({"splits": "fit"}, "received 'fit'"),
    ({"splits": ()}, r"received \(\)"), ({"data": "cifar"}, "fashion_mnist, mini; received 'cifar'"),
    ({"data": "mini", "data_dir": "/data"}, "data=mini comes with the package"),
    ({"data": "mini", "allow_other_data": True}, "data=mini comes with the package"),
    ({"allow_other_data": True}, r"allow_other_data needs data_dir \(or FMNIST_ZOO_DATA\)"),
])
def test_contradictory_arguments_are_refused(options, complaint):
    with pytest.raises(DataError, match=complaint):
        load_data(**options)


def test_splits_have_names():
    data = load_data(("test", "fit"), data="mini")
    assert (len(data.test.labels), len(data["fit"].labels)) == (500, 1800)
    with pytest.raises(DataError, match="'validation'.*only test, fit"):
        data.validation


def test_validation_is_not_unpacked_as_keras_test_images_are():
    with pytest.raises(TypeError, match="validation, not test") as raised:
        (images, labels), (test_images, test_labels) = load_data(data="mini")
    data = load_data(data="mini")
    with pytest.raises(DataError, match="no split 0 was loaded, .*; splits are fit, validation, test$"):
        data[0]
    line = str(raised.value).partition("Write ")[2].partition("; ")[2]
    exec(line, {"data": data}, found := {})
    assert found["fit_images"] is data.fit.images and found["validation_labels"] is data.validation.labels


@pytest.mark.parametrize("splits, counts, missing, suffix", [
    (("fit", "validation"), [36, 4], TEST_FILES, ""), (("fit", "validation"), [36, 4], TEST_FILES, ".gz"),
    (("test",), [20], TRAIN_FILES, ".gz")])
def test_files_are_not_opened_unless_asked_for(tmp_path, splits, counts, missing, suffix):
    folder = write_set(tmp_path, suffix=suffix)
    for name in missing:
        (folder / f"{name}{suffix}").unlink()
    data = load_data(splits, data_dir=folder, allow_other_data=True)
    assert [len(split.labels) for split in data.splits.values()] == counts
    assert f"{missing[1]}.gz: no such file" in refused(folder, allow_other_data=True)


def test_other_data_have_the_digests_of_what_was_read_in_the_documented_order(folder):
    other = load_data(SPLITS, data_dir=folder, allow_other_data=True)
    assert (other.name, other.folder) == ("other", folder)
    joined = "".join(sources.payload_sha256(folder / f"{name}.gz") for name in (*TRAIN_FILES, *TEST_FILES))
    assert other.sha256 == hashlib.sha256(joined.encode()).hexdigest()
    np.testing.assert_array_equal(other["test"].labels, np.arange(20) % 10)
    write(folder / f"{sources.TEST_LABELS}.gz", payload(np.zeros(20)))
    changed = load_data(SPLITS, data_dir=folder, allow_other_data=True)
    assert changed.sha256 != other.sha256 and changed.split_sha256 == other.split_sha256


@pytest.mark.parametrize("name", sources.MINI)
def test_every_file_is_verified_unless_other_data_are_allowed(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sources, "FASHION_MNIST", sources.MINI)
    folder = copy_mini(tmp_path)
    assert load_data(SPLITS, data_dir=folder).sha256 == MINI_SHA256
    damage(folder, name)
    complaint = refused(folder)
    assert f"{folder / name}.gz: not Fashion-MNIST's" in complaint and "allow_other_data" in complaint
    digest = sources.payload_sha256(folder / f"{name}.gz")
    assert f"payload SHA-256 {digest}, expected {sources.MINI[name]}" in complaint


@pytest.mark.parametrize("name, content, complaint", [
    (sources.TRAIN_LABELS, payload(np.full(40, 10)), "a label of 10"),
    (sources.TEST_LABELS, payload(np.zeros(0)), "no labels in it"),
    (sources.TRAIN_IMAGES, payload(np.zeros((41, 28, 28))), "41 images for 40 labels"),
    (sources.TEST_IMAGES, payload(np.zeros((20, 28, 28)))[:-1], "cut short"),
])
def test_a_damaged_file_is_named(folder, name, content, complaint):
    write(folder / f"{name}.gz", content)
    received = refused(folder, allow_other_data=True)
    assert received.startswith(f"{folder / name}.gz: ") and complaint in received
