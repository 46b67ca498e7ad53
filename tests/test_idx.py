"""`fmnist_zoo.idx`: files are read to the bit, and refused with their name if they are damaged."""

import gzip
import hashlib
import re
import struct
import tracemalloc

import numpy as np
import pytest

from fmnist_zoo import idx
from fmnist_zoo.idx import DataError, read
from tests.idx_files import payload, write

IMAGES = np.random.default_rng(1).integers(0, 256, (30, 28, 28)).astype(np.uint8)
WHOLE = payload(IMAGES)
SUFFIXES = pytest.mark.parametrize("suffix", ["", ".gz"])


def refused(path, row=(28, 28)):
    """The error message for a file, which names it."""
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        read(path, row=row)
    return str(caught.value)


@SUFFIXES
@pytest.mark.parametrize("array", [IMAGES, IMAGES[:0], (np.arange(3_000_000) % 251).astype(np.uint8)],
                         ids=["images", "none", "labels"])
def test_rows_and_digest_are_those_of_the_payload(tmp_path, suffix, array):
    rows, digest = read(write(tmp_path / f"x{suffix}", payload(array)), row=array.shape[1:])
    np.testing.assert_array_equal(rows, array)
    assert rows.dtype == np.uint8 and digest == hashlib.sha256(payload(array)).hexdigest()


@SUFFIXES
@pytest.mark.parametrize("content, complaint", [
    (b"", "cut short"), (WHOLE[:7], "cut short"), (WHOLE[:16], "cut short"),
    (WHOLE[:-1], "cut short: the payload ends 1 bytes early"), (WHOLE + b"\0", "more bytes than the 30 rows"),
    (b"<!DOCTYPE html><html>not here</html>", "it starts with 0x3c21444f instead of 0x00000803"),
    (payload(np.arange(30)), "instead of 0x00000803"),
    (struct.pack(">I", 0xD03) + WHOLE[4:], "it starts with 0x00000d03 instead of 0x00000803"),
    (payload(np.zeros((3, 28, 27))), r"rows of shape \(28, 27\), expected \(28, 28\)"),
], ids=["empty", "half a header", "header alone", "a byte short", "a byte long", "a web page", "labels", "floats",
        "narrow"])
def test_wrong_content_is_refused(tmp_path, suffix, content, complaint):
    assert re.search(complaint, refused(write(tmp_path / f"images{suffix}", content)))


def test_images_are_not_taken_for_labels(tmp_path):
    assert "not an IDX file of labels" in refused(write(tmp_path / "labels.gz", WHOLE), row=())


@SUFFIXES
def test_a_header_that_claims_too_much_takes_no_memory(tmp_path, suffix):
    path = write(tmp_path / f"images{suffix}", struct.pack(">4I", 0x803, 2**32 - 1, 28, 28) + IMAGES.tobytes())
    tracemalloc.start()
    try:
        assert "cut short" in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_what_a_packed_file_may_hold_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "LARGEST", 30 << 20)
    content = struct.pack(">2I", idx.LABELS_MAGIC, 31 << 20) + bytes(31 << 20)
    (tmp_path / "labels.gz").write_bytes(gzip.compress(content, 1))
    assert "holds more than 31" in refused(tmp_path / "labels.gz", row=())


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    assert "cannot be read: No such file" in refused(tmp_path / "images.gz")
    assert "cannot be read: Is a directory" in refused(tmp_path)
