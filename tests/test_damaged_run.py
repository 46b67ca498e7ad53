"""A run's folder that was damaged, half-written or ran out of disk: refused or mended, and never made worse."""

import os
import resource

import pytest

from tests import helpers
from trainers.train import main, train


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"}


def shorter(path):
    path.write_bytes(path.read_bytes()[:1000])


def without_rows(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


def other_seed(path):
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))


@pytest.mark.parametrize("name, damage, text", [
    ("checkpoints/latest.npz", shorter, "damaged, or not a checkpoint"),
    ("checkpoints/latest.npz", os.unlink, "is gone, and without it the run cannot go on"),
    ("metrics.csv", os.unlink, "the rows of these epochs are not all there"),
    ("metrics.csv", without_rows, "the rows of these epochs are not all there"),
    ("metrics.csv", lambda path: path.write_bytes(bytes(range(256)) * 9), "the rows of these epochs are not all there"),
    ("config.json", other_seed, "one of the two was changed"),
    ("config.json", lambda path: path.write_text('{"config": {}}'), "not the config.json of a run"),
    ("config.json", lambda path: path.write_text("[" * 100_000), "not the config.json of a run"),
])
def test_a_damaged_folder_is_refused_and_left_as_it_is(tmp_path, name, damage, text, capsys):
    folder = train("2L", data="mini", epochs=3, logdir=tmp_path, histogram_every=0).folder
    damage(folder / name)
    before = snapshot(folder)
    assert main([f"--resume={folder}", "--epochs=5"]) == 2
    captured = capsys.readouterr()
    assert text in captured.err and captured.err.count("\n") == 1
    assert snapshot(folder) == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"epochs": "3"}'])
def test_a_result_that_does_not_read_is_made_again(tmp_path, content):
    folder = train("2L", data="mini", epochs=2, logdir=tmp_path, histogram_every=0).folder
    before = (folder / "result.json").read_text()
    (folder / "result.json").write_text(content)
    assert main([f"--resume={folder}"]) == 0
    assert (folder / "result.json").read_text() == before


def test_what_a_killed_process_left_half_written_is_swept(tmp_path):
    folder = train("2L", data="mini", epochs=1, logdir=tmp_path, histogram_every=0).folder
    for left in ("checkpoints/.latest.npz.abc", "saving.keras", ".metrics.csv.xyz"):
        (folder / left).write_text("half")
    assert main([f"--resume={folder / 'config.json'}", "--epochs=2"]) == 0
    assert not [path.name for path in folder.rglob("*") if path.is_file() and path.read_bytes() == b"half"]


def test_a_disk_too_full_for_the_model_is_told_before_it_is_written(tmp_path, monkeypatch, capsys):
    from collections import namedtuple

    folder = train("2L", data="mini", epochs=1, logdir=tmp_path, histogram_every=0).folder
    free = namedtuple("free", "f_bavail f_frsize")
    monkeypatch.setattr(os, "statvfs", lambda path: free(100, 4096))
    assert main([f"--resume={folder}", "--epochs=2"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    assert main([f"--resume={folder}"]) == 0


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint(tmp_path):
    """No file may grow past a limit: the disk is full in the middle of a run, and then it is not any more."""
    settings = dict(data="mini", seed=1, logdir=tmp_path, run_name="one", histogram_every=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = train("3L", epochs=1, **settings).folder
    good = (folder / "checkpoints" / "latest.npz").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        assert main([f"--resume={folder}", "--epochs=3"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / "checkpoints" / "latest.npz").read_bytes() == good
    assert not [path.name for path in (folder / "checkpoints").iterdir() if path.name != "latest.npz"]
    assert main([f"--resume={folder}", "--epochs=3"]) == 0
    whole = train("3L", epochs=3, **{**settings, "run_name": "whole"}).folder
    assert helpers.rows_without_times(folder) == helpers.rows_without_times(whole)
