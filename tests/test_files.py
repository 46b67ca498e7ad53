"""atomic_write: whole or not there."""

import os
import stat

import pytest

from fmnist_zoo.files import atomic_write


@pytest.fixture
def umask():
    """Sets the umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def test_a_new_file_is_written(tmp_path):
    with atomic_write(tmp_path / "new.bin") as file:
        file.write(b"\x00content")
    assert (tmp_path / "new.bin").read_bytes() == b"\x00content"
    assert os.listdir(tmp_path) == ["new.bin"]


def test_text_replaces_what_was_there(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("a long old content\n")
    with atomic_write(str(path), "w") as file:
        file.write("new\n")
    assert path.read_text() == "new\n"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_the_old_content_stands_until_the_block_ends(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with atomic_write(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_old_content_stays_when_the_block_raises(tmp_path, error):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with pytest.raises(error):
        with atomic_write(path, "w") as file:
            file.write("half of the n")
            raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_nothing_is_left_when_a_new_file_fails(tmp_path):
    with pytest.raises(ValueError, match="stop"):
        with atomic_write(tmp_path / "new.bin") as file:
            file.write(b"half")
            raise ValueError("stop")
    assert os.listdir(tmp_path) == []


def test_nothing_is_left_when_it_cannot_be_put_in_place(tmp_path):
    (tmp_path / "taken" / "by_a_folder").mkdir(parents=True)
    with pytest.raises(OSError):
        with atomic_write(tmp_path / "taken") as file:
            file.write(b"content")
    assert os.listdir(tmp_path) == ["taken"]


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_umask(tmp_path, umask, mask, mode):
    umask(mask)
    with atomic_write(tmp_path / "new.bin") as file:
        file.write(b"content")
    assert stat.S_IMODE((tmp_path / "new.bin").stat().st_mode) == mode
    assert os.umask(mask) == mask
