"""`fmnist_zoo.tensors`: arrays and a note in one safetensors file, and every change of a byte of it refused."""

import numpy as np
import pytest

from fmnist_zoo.errors import DamagedFileError
from fmnist_zoo.tensors import read_arrays, write_arrays

ARRAYS = {"state/step": np.asarray(7, np.int64), "b": np.arange(6, dtype=np.float32).reshape(2, 3).T,
          "empty": np.zeros((0, 4), np.float16), "flags": np.array([True, False]), "seed": np.array([2**63], np.uint64)}


@pytest.fixture
def file(tmp_path):
    write_arrays(tmp_path / "x.safetensors", ARRAYS, {"epoch": 3, "events": {"a": 0.1}})
    return tmp_path / "x.safetensors"


def test_arrays_and_note_are_read_back_and_equal_content_makes_equal_files(file):
    whole = file.read_bytes()
    arrays, note = read_arrays(file)
    assert {name: array.dtype for name, array in arrays.items()} == {name: one.dtype for name, one in ARRAYS.items()}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
    digest = note.pop("sha256")
    assert note == {"epoch": 3, "events": {"a": 0.1}}
    assert write_arrays(file, arrays, note) == digest and file.read_bytes() == whole


def test_each_damaged_byte_and_each_length_is_refused_by_the_name_of_the_file(file):
    content = file.read_bytes()
    damaged = [content[:place] + bytes([content[place] ^ 1]) + content[place + 1:] for place in range(len(content))]
    for one in [*damaged, *(content[:length] for length in range(len(content)))]:
        file.write_bytes(one)
        with pytest.raises(DamagedFileError, match="x.safetensors: "):
            read_arrays(file)


def test_a_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        read_arrays(tmp_path / "nowhere")
