"""`fmnist_zoo.sources`: where data are found and how they are fetched. Mini files stand in for the real; no network."""

import http.client
import os
import re
import socket
import threading
import types
import urllib.request

import pytest

from fmnist_zoo import sources
from fmnist_zoo.data import DataError, load_data
from tests.idx_files import copy_mini, damage, write_set

FILES = sorted(f"{name}.gz" for name in sources.MINI)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The three folders that are searched, all missing, and an empty mirror."""
    def no_package(folder):
        raise DataError("no package\nhere")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(sources, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setattr(sources, "FASHION_MNIST", sources.MINI)
    monkeypatch.setattr(sources, "MIRRORS", ((tmp_path / "mirror").as_uri() + "/",))
    monkeypatch.setattr(sources, "_from_debian", no_package)
    return types.SimpleNamespace(cache=tmp_path / "xdg" / "fmnist_zoo", debian=tmp_path / "debian",
                                 keras=tmp_path / "keras" / "datasets" / "fashion-mnist", mirror=tmp_path / "mirror")


def test_places_in_a_fresh_home(monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(map(str, sources.places())) == [
        f"{tmp_path}/.cache/fmnist_zoo", f"{tmp_path}/.keras/datasets/fashion-mnist",
        "/usr/share/datasets/fashion-mnist"]


def test_folders_are_searched_in_order(places):
    for folder in (places.debian, places.keras, places.cache):
        copy_mini(folder)
        loaded = load_data()
        assert (loaded.name, loaded.folder, len(loaded["fit"].labels)) == ("fashion_mnist", folder, 1800)


def test_an_incomplete_folder_is_skipped(places):
    copy_mini(places.cache)
    (places.cache / f"{sources.TEST_LABELS}.gz").unlink()
    copy_mini(places.debian)
    assert load_data().folder == places.debian


@pytest.mark.parametrize("break_it", [damage, lambda folder: (folder / FILES[2]).write_bytes(b"no")])
def test_a_wrong_file_is_skipped_with_a_warning(places, break_it):
    break_it(copy_mini(places.cache))
    copy_mini(places.keras)
    with pytest.warns(UserWarning, match=f"skipped: {re.escape(str(places.cache))}/train-") as warned:
        assert load_data().folder == places.keras
    assert len(warned) == 1 and warned[0].filename == __file__


def test_the_environment_names_the_folder(places, tmp_path, monkeypatch):
    copy_mini(places.cache)
    named = copy_mini(tmp_path / "named")
    monkeypatch.setenv("FMNIST_ZOO_DATA", str(named))
    assert load_data().folder == named
    assert load_data(data="mini").folder == sources.MINI_FOLDER
    assert load_data(data_dir=places.cache).folder == places.cache
    monkeypatch.setenv("FMNIST_ZOO_DATA", str(write_set(tmp_path / "other")))
    assert load_data(allow_other_data=True).name == "other"


def test_a_user_without_a_home_has_the_other_folders(places, tmp_path, monkeypatch):
    """Neither HOME nor an entry in the system's list of users: as in a container with a user of its own."""
    copy_mini(places.debian)
    for name in ("XDG_CACHE_HOME", "KERAS_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    assert load_data().folder == places.debian
    (places.debian / FILES[0]).unlink()
    with pytest.raises(DataError, match="no home folder; set XDG_CACHE_HOME.*--data=mini"):
        load_data()
    assert not (tmp_path / "~").exists()


def test_no_other_folder_is_searched_if_one_is_named(places, tmp_path):
    copy_mini(places.cache)
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'empty' / sources.TRAIN_LABELS}.gz: no such file")):
        load_data(data_dir=tmp_path / "empty")
    named = copy_mini(tmp_path / "named")
    damage(named)
    with pytest.raises(DataError, match=re.escape(str(named))):
        load_data(data_dir=named)


def test_files_of_a_mirror_enter_the_cache_once_and_replace_damaged_ones(places, capsys):
    copy_mini(places.mirror)
    assert load_data().folder == places.cache
    assert sorted(os.listdir(places.cache)) == FILES
    assert f"into {places.cache}" in capsys.readouterr().err
    assert load_data().folder == places.cache
    assert capsys.readouterr().err == ""  # not fetched twice
    damage(places.cache)
    with pytest.warns(UserWarning, match="skipped"):
        load_data()
    assert load_data().folder == places.cache


@pytest.mark.parametrize("break_it", [
    lambda folder: damage(folder, sources.TEST_LABELS), lambda folder: (folder / FILES[0]).unlink(),
    lambda folder: (folder / FILES[3]).write_bytes(b"<html>sign in first</html>"),
], ids=["a label", "missing", "a web page"])
def test_wrong_files_never_enter_the_cache(places, break_it):
    break_it(copy_mini(places.mirror))
    with pytest.raises(DataError, match="every source failed") as caught:
        load_data()
    assert os.listdir(places.cache) == []
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines[1:-1]] == [
        f"  {places.mirror.as_uri()}/", "  Debian's package dataset-fashion-mnist"]
    assert lines[2].endswith("no package here") and "--data_dir" in lines[-1] and "--data=mini" in lines[-1]


def test_the_next_source_is_used_after_a_wrong_one(places, tmp_path, monkeypatch):
    wrong = copy_mini(tmp_path / "wrong")
    damage(wrong, sources.TEST_IMAGES)
    monkeypatch.setattr(sources, "MIRRORS", ((tmp_path / "nobody").as_uri() + "/", wrong.as_uri() + "/"))
    monkeypatch.setattr(sources, "_from_debian", copy_mini)
    assert load_data(("test",)).folder == places.cache
    assert sorted(os.listdir(places.cache)) == FILES


def test_an_endless_answer_is_cut(places, monkeypatch):
    copy_mini(places.mirror)
    monkeypatch.setattr(sources, "LARGEST_DOWNLOAD", 10_000)
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz is larger than 10000 bytes"):
        load_data()
    assert os.listdir(places.cache) == []


def test_a_cache_that_cannot_be_made_is_named(places, tmp_path):
    (tmp_path / "xdg").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=f"cache {re.escape(str(places.cache))} cannot be written.*XDG_CACHE_HOME"):
        load_data()


def test_a_mirror_that_never_answers_is_given_up(places, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system takes connections, and nobody answers
        silent_mirror = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(sources, "SECONDS", 0.1)
        monkeypatch.setattr(sources, "MIRRORS", (silent_mirror, *sources.MIRRORS))
        with pytest.raises(DataError, match=f"every source failed:\n  {silent_mirror}: .*time[sd]? ?out|no answer"):
            load_data()
        copy_mini(places.mirror)
        monkeypatch.setattr(sources, "SECONDS", 5.0)
        monkeypatch.setattr(sources, "MIRRORS", sources.MIRRORS[1:])
        assert load_data().folder == places.cache


@pytest.mark.parametrize("complaint", ["IncompleteRead", "no answer within 0.1 seconds"])
def test_an_answer_that_breaks_off_or_never_comes_is_a_failed_source(places, monkeypatch, complaint):
    """Looking up a name that nobody resolves has no timeout of its own."""
    ended = threading.Event()

    def answer(*arguments, **options):
        if complaint == "IncompleteRead":
            raise http.client.IncompleteRead(b"")
        ended.wait()

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setattr(sources, "SECONDS", 0.1)
    try:
        with pytest.raises(DataError, match=f"every source failed:\n.*{complaint}"):
            load_data()
    finally:
        ended.set()


def test_a_wrong_validation_size_is_not_reported_as_a_wrong_folder(places):
    copy_mini(places.cache)
    with pytest.raises(DataError, match="validation_size=60000 of 60000 training images leaves none to fit"):
        load_data(validation_size=60_000)


def test_a_folder_with_an_impossible_name_is_named(places, tmp_path):
    with pytest.raises(DataError, match="x" * 300):
        load_data(data_dir=tmp_path / ("x" * 300))
