"""What is read is read with the right meaning or refused in one line, whatever was done to it: by hypothesis."""

import csv
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fmnist_zoo import files, get_spec, idx
from fmnist_zoo.errors import ZooError
from tests import idx_files
from trainers.config import ConfigError, resolve
from trainers.running.table import COLUMNS, MetricsTable, TableError
from trainers.tuning import space

BASE = resolve("4L", data="mini")
CELL = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
PLAIN = st.recursive(CELL, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
                     max_leaves=20)
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@st.composite
def damage(draw):
    """A function that changes some bytes of a content: flips, cuts, repeats, inserts."""
    kind, place = draw(st.sampled_from(("flip", "cut", "repeat", "insert"))), draw(st.floats(0, 1, exclude_max=True))
    size, bits = draw(st.integers(1, 40)), draw(st.integers(1, 255))
    extra = draw(st.binary(min_size=1, max_size=8))

    def change(content):
        at = int(place * len(content))
        if kind == "flip":
            return content[:at] + bytes([content[at] ^ bits]) + content[at + 1:]
        if kind == "cut":
            return content[:at] + content[at + size:]
        return content[:at] + (content[at:at + size] if kind == "repeat" else extra) + content[at:]

    return change


def assert_one_line(error):
    assert str(error).strip() and "\n" not in str(error)


# Names and spaces.

@pytest.mark.long
@given(st.text(max_size=60))
@settings(deadline=None, max_examples=30)
def test_any_text_is_a_model_or_refused(text):
    try:
        spec = get_spec(text)
    except ZooError as error:
        assert_one_line(error)
    else:
        assert get_spec(spec.name) == spec


@pytest.mark.long
@given(st.dictionaries(st.sampled_from(("dropout", "l2", "learning_rate", "label_smoothing")),
                       st.lists(st.floats(1e-30, 0.99), min_size=1, max_size=4, unique=True), min_size=1))
@settings(deadline=None)
def test_space_reads_back_from_its_text(values):
    found = space.parse(values, BASE)
    assert space.parse(found.text, BASE) == found
    assert {one.name: list(one.values) for one in found.parameters} == values


@given(st.text("droputhielna2=.,;() _1e-0log", max_size=40))
@settings(deadline=None)
def test_any_text_is_a_space_or_refused(text):
    try:
        found = space.parse(text, BASE)
    except ConfigError as error:
        assert_one_line(error)
    else:
        assert space.parse(found.text, BASE) == found


# Files.

@given(st.dictionaries(st.text(), PLAIN, max_size=5), damage())
@settings(deadline=None)
def test_damaged_record_is_refused_or_holds_the_same(folder, content, change):
    path = folder / "record.json"
    files.write_json(path, content)
    whole, kept = files.read_json(path), path.read_bytes()
    assert {name: value for name, value in whole.items() if name in content and name != "version"} \
        == {name: value for name, value in content.items() if name not in ("version", files.DIGEST)}
    path.write_bytes(change(kept))
    try:
        found = files.read_json(path)
    except (OSError, ValueError) as error:
        assert_one_line(error)
    else:
        assert found == whole or f'"{files.DIGEST}"'.encode() not in path.read_bytes()


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1), st.none() | st.floats(0, 9)), min_size=1, max_size=5),
       damage())
@settings(deadline=None)
def test_damaged_rows_are_refused_by_the_name_of_the_file(folder, values, change):
    path = pathlib.Path(tempfile.mkdtemp(dir=folder)) / "metrics.csv"
    table = MetricsTable(path)
    for epoch, (loss, accuracy, val_loss) in enumerate(values, start=1):
        table.append({**dict.fromkeys(COLUMNS, 0.0), "epoch": epoch, "loss": loss, "accuracy": accuracy,
                      "val_loss": val_loss})
    rows, digest, content = table.rows(), table.sha256(len(values)), path.read_bytes()
    assert [(row["loss"], row["accuracy"], row["val_loss"]) for row in rows] == values
    with open(path, encoding="utf-8", newline="") as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == [loss for loss, _, _ in values]
    path.write_bytes(change(content))
    try:
        table.check(len(values), digest)
    except TableError as error:
        assert str(path) in str(error)
        assert_one_line(error)
    else:
        table.cut(len(values))  # whatever follows goes, as in a run that is resumed
        assert table.rows() == rows


@given(st.integers(0, 20), damage(), st.sampled_from(("images.gz", "images")))
@settings(deadline=None)
def test_damaged_images_are_refused_or_are_the_same(folder, rows, change, name):
    images = np.random.default_rng(rows).integers(0, 256, (rows, 28, 28), np.uint8)
    path = idx_files.write(folder / name, idx_files.payload(images))
    assert idx.read(path, row=(28, 28))[0].tobytes() == images.tobytes()
    path.write_bytes(change(path.read_bytes()))
    try:
        found = idx.read(path, row=(28, 28))[0].tobytes()
    except ZooError as error:
        assert name in str(error)
        assert_one_line(error)
    else:  # plain files hold no checksum: other pixels are other images
        assert found == images.tobytes() or name == "images" and len(found) == images.nbytes
