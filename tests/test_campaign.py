"""The campaign of faults: that it continues, and what it says; and some cases of its parts."""

import errno
import os

import pytest

from fmnist_zoo.errors import UsageError
from tests import faults, helpers
from tests.campaign import __main__ as command, crash_points, driver, kills, recorder, work
from tests.campaign.disk import Disk
from tests.campaign.driver import Campaign, Case
from tests.campaign.recorder import Operation
from trainers.board import events


class Numbers(driver.Part):
    """Cases 0, 1, ... `end`; those in `bad` fail, and `interrupt` is called before each."""

    about = "numbers"

    def __init__(self, name="numbers", end=10, bad=(), interrupt=lambda case: None):
        self.name, self.end, self.bad, self.interrupt, self.ran = name, end, set(bad), interrupt, []

    def cases(self, seed):
        return (Case(f"{seed}:{number}", number) for number in range(self.end))

    def run(self, case, folder):
        assert folder.is_dir() and not list(folder.iterdir())
        self.interrupt(case)
        self.ran.append(case.content)
        if case.content in self.bad:
            raise ValueError("a bad\nnumber")
        return None


def test_interrupted_campaign_continues_with_the_next_case(tmp_path):
    def interrupt(case):
        if case.content == 4 and len(part.ran) == 4:
            part.interrupt = lambda case: None
            raise KeyboardInterrupt

    part = Numbers(interrupt=interrupt)
    with pytest.raises(KeyboardInterrupt):
        Campaign([part], 0, tmp_path).run(60)
    assert Campaign([part], 0, tmp_path).run(60)
    assert part.ran == list(range(10))
    assert Campaign([part], 0, tmp_path).run(60) and len(part.ran) == 10  # that was all
    assert Campaign([part], 1, tmp_path).run(60) and len(part.ran) == 20  # another seed


def test_failure_names_its_case_and_counts_until_that_holds(tmp_path):
    part, said = Numbers(bad=[3]), []
    assert not Campaign([part], 0, tmp_path, said.append).run(60)
    assert said[0].startswith("FAILED ValueError: a bad number (") and "--seed=0 --case=0:3 numbers" in said[0]
    assert not Campaign([part], 0, tmp_path).run(60)  # it failed before
    assert not Campaign([part], 0, tmp_path).repeat("0:3")
    part.bad.clear()
    assert Campaign([part], 0, tmp_path).repeat("0:3") and Campaign([part], 0, tmp_path).run(60)
    with pytest.raises(UsageError, match="0:99"):
        Campaign([part], 0, tmp_path).repeat("0:99")


def test_command_says_what_failed_by_its_exit_code(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "PARTS", {"numbers": Numbers(), "others": Numbers("others", bad=[1])})
    state = f"--state={tmp_path / 'state'}"
    assert command.main(["numbers", state]) == 0 and command.main(["others", state]) == 1
    assert "others, seed 0: 10 tried" in capsys.readouterr().out
    assert command.main(["others", state, "--case=99"]) == 2 and "'99'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["nothing"])
    assert "there is no part 'nothing'; there are numbers, others" in capsys.readouterr().err


@pytest.mark.parametrize("before, operations, possible", [
    # a rename before the data of the new file
    ({"a": b"old"}, [("create", "b"), ("write", "b", "", 0, b"new"), ("rename", "b", "a")],
     [{"a": b"old"}, {"a": b"old", "b": b""}, {"a": b"old", "b": b"n"}, {"a": b"old", "b": b"ne"}, {"a": b"new"},
      {"a": b"old", "b": b"new"}, {"a": b""}, {"a": b"\0\0\0"}, {"a": b"old", "b": b"\0\0\0"}]),
    # synced in the right order, only the old and the new content are left
    ({"a": b"old"}, [("create", "b"), ("sync", "b"), ("sync", ""), ("write", "b", "", 0, b"n"), ("sync", "b"),
                     ("rename", "b", "a"), ("sync", "")],
     [{"a": b"old"}, {"a": b"old", "b": b""}, {"a": b"old", "b": b"n"}, {"a": b"old", "b": b"\0"}, {"a": b"n"}]),
    # a file is synced, and its folder's name is not
    ({}, [("folder", "f"), ("create", "f/a"), ("write", "f/a", "", -1, b"n"), ("sync", "f/a"), ("sync", "f")],
     [{}, {"f": None}, {"f": None, "f/a": b""}, {"f": None, "f/a": b"n"}, {"f": None, "f/a": b"\0"}]),
    # what is cut off may come back
    ({"a": b"long"}, [("size", "a", "", 1), ("remove", "a")], [{"a": b"long"}, {"a": b"l"}, {}]),
])
def test_states_of_a_disk_after_a_crash(before, operations, possible):
    found = [state.tree for state in Disk(before, [Operation(*one) for one in operations]).states()]
    assert all(tree in possible for tree in found) and all(tree in found for tree in possible)
    assert len(found) == len(possible)


def test_folder_that_is_lost_with_what_was_synced_in_it():
    calls = [("folder", "f"), ("create", "f/a"), ("sync", "f/a"), ("sync", "f"), ("create", "f/b"), ("sync", "")]
    assert Disk({}, [Operation(*one) for one in calls]).unrooted() == ["f"]
    assert Disk({}, [Operation(*one) for one in (calls[0], calls[5], *calls[1:5])]).unrooted() == []


@pytest.fixture
def part(tmp_path):
    """The part that crashes, with nothing recorded."""
    try:
        recorder.record(lambda: None, tmp_path)
    except UsageError as error:
        pytest.skip(str(error))
    fresh = crash_points.CrashPoints()
    fresh.keep = tmp_path / "keep"
    return fresh


@pytest.mark.long
def test_run_that_ends_at_a_dozen_crash_points_equals_an_undisturbed_one(part, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "ALL", {"seldom": work.ALL["seldom"]})
    cases = list(part.cases(0))
    assert len(cases) > 200
    chosen = [part.find(0, "seldom:rooted"), *cases[::len(cases) // 11]]
    assert [found for case in chosen if (found := driver.attempt(part, case))] == []
    again = crash_points.CrashPoints()
    again.keep = part.keep
    assert list(again.cases(0)) == cases  # the recording is kept
    assert part.find(0, "seldom:1:nothing") is None


def test_events_that_are_cut_back_do_not_return_after_a_crash(part, tmp_path):
    name = "events.out.tfevents.1.curves"
    (tmp_path / name).write_bytes(b"12345678")
    after = Disk({name: b"12345678"}, recorder.record(lambda: events.cut_back(tmp_path, {name: 4}), tmp_path))
    assert after.state(len(after.steps), "whole") == {name: b"1234"}
    assert after.state(len(after.steps), "synced-alone") is None  # nothing could be lost


@pytest.mark.long
def test_loss_is_found(part, monkeypatch):
    """The same run, if it synced nothing: a disk can hold less than its checkpoint says."""
    monkeypatch.setattr(work, "ALL", {"seldom": work.ALL["seldom"]})
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    assert any(driver.attempt(part, case) for case in part.cases(0) if "lost-content" in case.id)


@pytest.mark.long
@pytest.mark.parametrize("name, error, forever, first", [
    ("run", "ENOSPC", True, 3), ("run", "ENOSPC", True, 60), ("run", "ENOSPC", False, 150), ("run", "EIO", False, 90),
    ("run", "EROFS", True, 20), ("evaluate", "ENOSPC", False, 9)])
def test_fault_of_the_disk_is_one_line_and_loses_nothing(name, error, forever, first, tmp_path):
    one = work.ALL[name]
    with work.quiet_engine():
        for root in (tmp_path / "calm", tmp_path / "disturbed"):
            root.mkdir()
            one.prepare(root)
        one.act(tmp_path / "calm")
        with faults.injected(faults.Faults(tmp_path / "disturbed", error, first, forever=forever)):
            answer = one.command(tmp_path / "disturbed")
        number = getattr(errno, error)
        assert answer.code == 0 or answer.refused and os.strerror(number) in answer.error
        assert one.again(tmp_path / "disturbed") is None
        calm, disturbed = (helpers.plain(one.outcome(tmp_path / name)) for name in ("calm", "disturbed"))
    assert helpers.difference(calm, disturbed) is None


def test_faults_that_are_injected_are_noticed(tmp_path):
    """An error is raised as the system raises it, and half of the data is written before."""
    with faults.injected(faults.Faults(tmp_path, "ENOSPC", 2, forever=True)):
        with pytest.raises(OSError, match="No space left on device") as raised:
            (tmp_path / "a").write_bytes(b"1234")
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'b'}'"):
            os.mkdir(tmp_path / "b")
        (tmp_path.parent / "elsewhere").write_text("1")
    assert raised.value.filename is None and (tmp_path / "a").read_bytes() == b"12"


@pytest.mark.slow
@pytest.mark.parametrize("id", [f"run-{number}" for number in range(6)] + ["sweep-9", "sweep-29", "sweep-49"])
def test_what_was_killed_at_random_equals_what_was_not(id, tmp_path):
    part = kills.Kills()
    assert part.run(part.find(30, id), tmp_path) is None
