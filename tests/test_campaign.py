"""The campaign of crashes and kills: what a disk may hold, what the command says, and some cases of its parts."""

import itertools
import os
import types

import pytest

from tests.campaign import __main__ as command, crash_points, kills
from tests.campaign.disk import Disk


def renamed(folder, synced):
    """A file is written under another name, then renamed."""
    with open(folder / "b", "wb") as file:
        file.write(b"new")
        file.flush()
        if synced:
            os.fsync(file.fileno())
    os.replace(folder / "b", folder / "a")


def nested(folder, synced):
    """A file is made in a new folder, and synced; and the new folder's name."""
    os.mkdir(folder / "f")
    descriptor = os.open(folder, os.O_RDONLY)
    if synced:
        os.fsync(descriptor)
    with open(folder / "f" / "a", "wb") as file:
        file.write(b"new")
        file.flush()
        os.fsync(file.fileno())
    for path in (folder / "f", folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


@pytest.mark.parametrize("act, synced, possible, impossible", [
    (renamed, False, [{"a": b"old"}, {"a": b""}, {"a": b"n"}, {"a": b"\0\0\0"}, {"a": b"new"}], []),
    (renamed, True, [{"a": b"old"}, {"a": b"new"}, {"a": b"old", "b": b"n"}], [{"a": b""}, {"a": b"n"}]),
    (nested, False, [{"a": b"old"}, {"a": b"old", "f": None}, {"a": b"old", "f": None, "f/a": b"new"}], []),
    (nested, True, [{"a": b"old", "f": None, "f/a": b"\0\0\0"}], [])])
def test_states_of_a_disk_after_a_crash(tmp_path, act, synced, possible, impossible):
    (tmp_path / "a").write_bytes(b"old")
    disk = Disk(tmp_path)
    with disk.watched():
        act(tmp_path, synced)
    found = [state for moment in range(len(disk.moments)) for state in disk.states(moment).values()]
    assert all(state in found for state in possible) and not any(state in found for state in impossible)
    assert disk.states(0)["synced-alone"] == {"a": b"old"}
    last = disk.states(len(disk.moments) - 1)
    assert ("f/a" in last["synced-alone"]) == (act is nested)


def test_command_says_what_failed_by_its_exit_code_and_repeats_it(monkeypatch, capsys):
    def attempt(seed, id, folder):
        assert folder.is_dir() and not list(folder.iterdir())
        if id == bad:
            raise ValueError("a bad\nnumber")

    numbers = types.SimpleNamespace(ABOUT="numbers", ids=lambda seed: map(str, itertools.count(seed)), attempt=attempt)
    monkeypatch.setattr(command, "PARTS", {"numbers": numbers, "others": numbers})
    bad = "7"
    assert command.main(["--hours=0", "--seed=7", "others"]) == 1
    said = capsys.readouterr().out
    assert "FAILED ValueError: a bad number (" in said and "--seed=7 --case=7 others" in said and "1 failed" in said
    assert command.main(["--hours=0", "--seed=8"]) == 0 and command.main(["--case=9", "numbers"]) == 0
    for flags, text in ((["nothing"], "there is no part 'nothing'; there are numbers, others"), (["--case=9"], "name")):
        with pytest.raises(SystemExit):
            command.main(flags)
        assert text in capsys.readouterr().err


def cases(name):
    return (id for id in crash_points.ids(0) if id.startswith(f"{name}:"))


@pytest.mark.long
@pytest.mark.parametrize("name", ["seldom", "resume"])
def test_run_that_ends_at_a_crash_point_equals_an_undisturbed_one(name):
    failures = [command.attempt(crash_points, 0, id) for id in itertools.islice(cases(name), 12)]
    assert failures == [None] * 12


@pytest.mark.long
def test_loss_is_found(monkeypatch):
    """The same run, if nothing was durable."""
    monkeypatch.setattr(crash_points, "recording", crash_points.recording.__wrapped__)
    monkeypatch.setattr(Disk, "synced", lambda self, descriptor: None)
    expected = crash_points.recording("seldom")
    monkeypatch.setattr(crash_points, "recording", lambda name: expected)
    found = (command.attempt(crash_points, 0, id) for id in cases("seldom") if "content" in id)
    assert any(itertools.islice(found, 20))


@pytest.mark.slow
@pytest.mark.parametrize("id", [f"run-{number}" for number in range(6)] + ["sweep-9", "sweep-29", "sweep-49"])
def test_what_was_killed_at_random_equals_what_was_not(id, tmp_path):
    assert kills.attempt(30, id, tmp_path) is None
