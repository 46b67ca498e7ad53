"""`fmnist_zoo.files`: a file is written whole or not at all."""

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys

import pytest

from fmnist_zoo import files
from fmnist_zoo.files import atomic_write, write_json
from fmnist_zoo.version import __version__
from tests.conftest import ROOT


@pytest.mark.parametrize("mode, old, new", [("wb", None, b"\x00new"), ("w", "a long old content\n", "new\n")])
def test_content_is_replaced_when_the_block_ends(tmp_path, mode, old, new):
    path = tmp_path / "notes.txt"
    if old:
        path.write_text(old)
    with atomic_write(str(path), mode) as file:
        file.write(new)
        file.flush()
        assert path.read_text() == old if old else not path.exists()
    assert path.read_bytes() == (new if mode == "wb" else new.encode())
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_the_old_content_is_kept_and_nothing_is_left_beside(tmp_path, error):
    (tmp_path / "notes.txt").write_text("old")
    for name in ("notes.txt", "new.txt"):
        with pytest.raises(error):
            with atomic_write(tmp_path / name, "w") as file:
                file.write("half of the n")
                raise error
    (tmp_path / "taken" / "by_a_folder").mkdir(parents=True)
    with pytest.raises(OSError):
        with atomic_write(tmp_path / "taken"):
            pass
    with pytest.raises(FileNotFoundError) as caught:
        with atomic_write(tmp_path / "missing" / "new.bin"):
            pass
    assert caught.value.filename == str(tmp_path / "missing")
    assert (tmp_path / "notes.txt").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["notes.txt", "taken"]


def test_the_mode_follows_the_umask_which_is_never_changed(tmp_path, monkeypatch):
    """Another thread would create its files with the umask of that moment."""
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
            with atomic_write(tmp_path / "new.bin"):
                pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.bin").stat().st_mode) == 0o640


@pytest.mark.parametrize("old, new", [("0.25", "0.26"), ("score", "scare"), ("first", "worst"), ('"3"', '"4"')])
def test_record_that_was_changed_is_refused(tmp_path, old, new):
    path = tmp_path / "record.json"
    write_json(path, {"score": 0.25, "of": {3: ["first", None]}, "version": "an earlier one"})
    record = files.read_json(path)
    assert record == {"score": 0.25, "of": {"3": ["first", None]}, "version": __version__}
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))  # another order and other spaces
    assert files.read_json(path) == record
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match="its content does not fit its content_sha256"):
        files.read_json(path)
    changed = json.loads(path.read_text())
    write_json(path, changed)  # written again, with the digest that it now has
    assert files.read_json(path)
    path.write_text(json.dumps({"one": 1}))  # a person's own, without a digest
    assert files.read_json(path) == {"one": 1}


def test_exclusive_on_a_file_system_without_locks_says_so(tmp_path, monkeypatch, capsys):
    def refuse(*arguments):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with files.exclusive(tmp_path):
        pass
    assert capsys.readouterr().err == (f"{tmp_path}: cannot be locked (Bad file descriptor); let only one process at a "
                                       "time write there\n")


def test_folders_are_made_and_synced_into_those_above(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "sync", synced.append)
    files.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir() and synced == [tmp_path, tmp_path / "a"]
    files.make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2
    with pytest.raises(FileExistsError):
        files.make_folder(tmp_path / "a", exist_ok=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        files.make_folder(tmp_path / "file")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_file_system_that_syncs_no_folders_is_used(tmp_path, monkeypatch, number):
    """CIFS, sshfs and shared folders of virtual machines."""
    kinds = [stat.S_ISDIR]

    def fsync(descriptor):
        if any(kind(os.fstat(descriptor).st_mode) for kind in kinds):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    files.make_folder(tmp_path / "a" / "b")
    files.write_json(tmp_path / "a" / "b" / "x.json", {})
    files.append(tmp_path / "a" / "b" / "x.csv", "x\n")
    kinds.append(stat.S_ISREG)
    with pytest.raises(OSError, match="x.json"):
        files.sync(tmp_path / "a" / "b" / "x.json")


def test_text_is_utf8_in_any_locale(tmp_path):
    """A name that the locale cannot read is written as the system gave it."""
    code = ("import sys\nfrom fmnist_zoo.files import atomic_write\n"
            "with atomic_write(sys.argv[1], 'w') as file:\n    file.write('\\u00b1 ' + sys.argv[1])\n")
    path = tmp_path / "möbel"
    subprocess.run([sys.executable, "-c", code, path], check=True, cwd=tmp_path, env={
        **os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)})
    assert path.read_text(encoding="utf-8") == f"± {path}"
