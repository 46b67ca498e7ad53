"""The journal of a sweep: what it saves after a kill or a power cut, and how rarely it waits for the disk."""

import errno
import json
import os
import shutil

import pytest

from fmnist_zoo.files import sealed
from tests.sweeps import Pretending, replace_pool
from trainers import sweep
from trainers.tuning import journal, study
from trainers.tuning.journal import JOURNALS, Journal
from trainers.tuning.leader import SweepError

ASKED = dict(space="l2=0..1", tuner="random", max_trials=12, data="mini", name="one")


class Killed(BaseException):
    pass


class Ending(Pretending):
    """The leader is killed while it waits for the trial number `last`."""

    def __init__(self, last, slots=1):
        super().__init__(slots)
        self.last = last

    def run(self, job):
        if len(self.ran) > self.last:
            raise Killed
        return super().run(job)


@pytest.fixture
def calm(tmp_path, monkeypatch):
    """The table of a sweep that nothing interrupted."""
    replace_pool(monkeypatch, Pretending())
    table = sweep.sweep("softmax", **ASKED, logdir=tmp_path / "calm")
    assert not any((tmp_path / "calm" / "sweeps" / "one" / name).exists() for name in JOURNALS)
    return table


@pytest.fixture
def killed(calm, tmp_path, monkeypatch):
    """The folder of a sweep whose leader was killed when eight of twelve trials had ended."""
    replace_pool(monkeypatch, Ending(8))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Journal, "close", lambda self: None)
        sweep.sweep("softmax", **ASKED, logdir=tmp_path)
    path = tmp_path / "sweeps" / "one"
    assert len(study.load(path).ended) == 8 and (path / "journal.jsonl").exists()
    return path


def continued(path, monkeypatch):
    pool = replace_pool(monkeypatch, Pretending())
    table = sweep.sweep("softmax", **ASKED, logdir=path.parent.parent)
    assert not any((path / name).exists() for name in JOURNALS)
    return table, [name.partition("/")[0] for name in pool.ran]


def test_files_that_a_power_cut_has_emptied_or_lost_are_restored(killed, calm, monkeypatch):
    (killed / "0002" / "result.json").write_bytes(b"")
    (killed / "0003" / "result.json").unlink()
    (killed / "0004" / "proposal.json").write_bytes(b"\0" * 100)
    shutil.rmtree(killed / "0008")  # it was running
    shown = [trial.status for trial in study.load(killed).trials.values()]
    assert shown == ["COMPLETED"] * 8 + ["RUNNING"]
    assert continued(killed, monkeypatch) == (calm, ["0008", "0009", "0010", "0011"])
    assert json.loads((killed / "0002" / "result.json").read_text())["status"] == "COMPLETED"


def test_trial_whose_folder_was_deleted_after_a_kill_runs_again(killed, calm, monkeypatch):
    shutil.rmtree(killed / "0003")
    assert continued(killed, monkeypatch) == (calm, ["0003", "0008", "0009", "0010", "0011"])


def test_line_that_was_changed_is_ignored(killed):
    path, line = killed / "journal.jsonl", json.dumps(["0008/result.json", sealed({"status": "COMPLETED"})])
    for text, known in ((line, True), (line.replace("COMPLETED", "FAILED"), False)):
        path.write_text(text)
        assert ("0008/result.json" in Journal(killed).read()) == known


def test_torn_and_foreign_lines_are_ignored(killed, calm, monkeypatch):
    with open(killed / "journal.jsonl", "a") as file:
        file.write('["../../outside.json", {}]\n["0001/0/config.json", {}]\n[1, 2]\n{}\n["0011/proposal.json", {"val')
    assert continued(killed, monkeypatch) == (calm, ["0008", "0009", "0010", "0011"])
    assert not list(killed.parent.parent.glob("outside.json")) and not (killed / "0001" / "0").exists()


def test_journal_begins_again_once_its_files_are_synced(calm, tmp_path, monkeypatch):
    synced, real = [], journal.sync
    monkeypatch.setattr(journal, "LIMIT", 6)
    monkeypatch.setattr(journal, "sync", lambda path: (synced.append(path), real(path)))
    replace_pool(monkeypatch, Pretending(4))
    most = []
    commit = Journal.commit

    def lines(path):
        try:
            return path.read_bytes().count(b"\n")
        except FileNotFoundError:  # another thread removes a journal as soon as its files are synced
            return 0

    def measured(self):
        commit(self)
        most.append(lines(self._before) + lines(self._current))

    monkeypatch.setattr(Journal, "commit", measured)
    table = sweep.sweep("softmax", **ASKED, logdir=tmp_path)
    path = tmp_path / "sweeps" / "one"
    assert table == calm and max(most) < 24
    files = {path / f"{number:04}" / name for number in range(12) for name in ("proposal.json", "result.json")}
    assert files | {file.parent for file in files} <= set(synced)
    assert not any((path / name).exists() for name in JOURNALS)


def test_trials_that_begin_and_end_together_wait_for_the_disk_once(calm, tmp_path, monkeypatch):
    class Together(Pretending):
        def wait(self, timeout):
            return [outcome for _ in list(self.waiting) for outcome in super(Together, self).wait(timeout)]

    appended, real = [], journal.append
    monkeypatch.setattr(journal, "append", lambda path, text: (appended.append(text.count("\n")), real(path, text)))
    replace_pool(monkeypatch, Together(4))
    assert sweep.sweep("softmax", **ASKED, logdir=tmp_path) == calm
    assert appended == [4, 8, 8, 4]


def test_full_disk_ends_the_sweep_and_leaves_no_part_of_a_record(calm, tmp_path, monkeypatch, capsys):
    replace_pool(monkeypatch, Pretending())
    synced, real = [], os.fsync

    def fsync(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("journal.jsonl"):
            synced.append(descriptor)
            if len(synced) > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch, pytest.raises(SweepError, match="journal.jsonl: cannot be written: No space"):
        patch.setattr(journal.os, "fsync", fsync)
        sweep.sweep("softmax", **ASKED, logdir=tmp_path)
    path = tmp_path / "sweeps" / "one"
    for line in (path / "journal.jsonl").read_text().splitlines():
        name, content = json.loads(line)
        assert json.loads((path / name).read_text()) == content
    table, ran = continued(path, monkeypatch)
    assert table == calm and 0 < len(ran) < 12
