"""Part `disk`: writes that fail, a disk that is small, a clock that jumps, locks that are refused, 100,000 folders."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import time
from typing import Any, Iterator
from unittest import mock

from fmnist_zoo.files import read_json, write_json
from tests.campaign import disk, driver, faults, work

DISTURBED = ("run", "resume", "longer", "evaluate", "results", "ship", "asha")
MOST = 400  # places of a piece of work for each seed; of all but `asha` these are all
LOCKS = ("ENOLCK", "ENOTSUP", "EPERM")
FOLDERS, SECONDS = 100_000, 300.0  # so many runs are listed in at most so much time of the processor
PAGE = 4  # KiB, by which a tmpfs grows
ROOM = "256m"


class FailingDisk(driver.Part):
    name = "disk"
    about = ("writes, renames and syncs that fail (ENOSPC, EDQUOT, EIO, EROFS; once, or from then on), a small tmpfs, "
             f"a clock that jumps, locks that are refused, {FOLDERS:,} folders")

    def __init__(self) -> None:
        self._prepared: dict[str, tuple[disk.Tree, Any]] = {}

    def cases(self, seed: int) -> Iterator[driver.Case]:
        dice, counts = random.Random(seed), self._counts()
        chosen = [f"lock:{name}:{error}" for name in DISTURBED if name != "ship" for error in LOCKS]
        chosen += [f"clock:{name}:{jump}" for name in DISTURBED for jump in range(5)]
        if may_mount():
            chosen += [f"tmpfs:{name}:{size}" for name in DISTURBED for size in range(PAGE, counts[name]["KiB"], PAGE)]
        for name in DISTURBED:
            last = {error: counts[name][error] for error in faults.FAILING}
            places = range(1, max(last.values()) + 1)
            for place in dice.sample(places, min(MOST, len(places))):
                for how in ("once", "on"):
                    error = dice.choice([error for error in last if place <= last[error]])
                    chosen.append(f"{error}:{name}:{how}:{place}")
        dice.shuffle(chosen)
        return map(driver.Case, [*chosen, f"many:{FOLDERS}"])

    def find(self, seed: int, id: str) -> driver.Case | None:
        return driver.Case(id) if id.split(":")[0] in (*faults.FAILING, "lock", "clock", "tmpfs", "many") else None

    def run(self, case: driver.Case, folder: pathlib.Path) -> str | None:
        kind, name, *rest = case.id.split(":")
        with work.quiet_engine():
            if kind == "many":
                return many(folder, int(name))
            before, expected = self._prepare(name)
            with _mounted(folder, ROOM) if kind == "tmpfs" else contextlib.nullcontext():
                disk.write_tree(before, folder)
                failure = getattr(self, f"_{kind}", self._failing)(work.ALL[name], folder, kind, *rest)
                return failure or work.difference(expected, work.plain(work.ALL[name].outcome(folder)))

    def _failing(self, one: work.Work, folder: pathlib.Path, error: str, how: str, place: str) -> str | None:
        """One line or success, and afterwards as if nothing had been."""
        with faults.injected(faults.Faults(folder, error, int(place), forever=how == "on")):
            answer = one.command(folder)
        return _wrong(answer, getattr(errno, error)) or one.again(folder)

    def _tmpfs(self, one: work.Work, folder: pathlib.Path, kind: str, size: str) -> str | None:
        free = f"{max(int(size), _used(folder) + PAGE)}k"
        subprocess.run(["mount", "-o", f"remount,size={free}", str(folder)], check=True)
        answer = one.command(folder)
        subprocess.run(["mount", "-o", f"remount,size={ROOM}", str(folder)], check=True)
        return _wrong(answer, errno.ENOSPC) or one.again(folder)

    def _lock(self, one: work.Work, folder: pathlib.Path, kind: str, error: str) -> str | None:
        """As on a network's file system: it says that it cannot lock, and works."""
        number = getattr(errno, error)
        refuse = mock.Mock(side_effect=OSError(number, os.strerror(number)))
        with mock.patch.object(fcntl, "flock", refuse):
            answer = one.command(folder)
        if answer.code or not refuse.called:
            return f"exit code {answer.code} without locks: {answer.error}"
        said = "cannot be locked" in answer.error and os.strerror(number) in answer.error
        return None if said else f"it does not say that it cannot lock: {answer.error}"

    def _clock(self, one: work.Work, folder: pathlib.Path, kind: str, jump: str) -> str | None:
        """The clock is set back or forward by an hour now and then, and is back by one when the work continues."""
        dice, offset, now, now_ns = random.Random(jump), [0], time.time, time.time_ns

        def read() -> int:
            if dice.random() < 0.05:
                offset[0] += dice.choice((-3600, 3600))
            return offset[0]

        with mock.patch.object(time, "time", lambda: now() + read()), \
                mock.patch.object(time, "time_ns", lambda: now_ns() + read() * 10**9):
            answer = one.command(folder)
        return None if answer.code == 0 else f"exit code {answer.code}: {answer.error}"

    def _prepare(self, name: str) -> tuple[disk.Tree, Any]:
        """What is there before a piece of work, and its outcome without any fault."""
        if name not in self._prepared:
            with tempfile.TemporaryDirectory(prefix="campaign-") as path:
                root = pathlib.Path(path)
                work.ALL[name].prepare(root)
                before = disk.read_tree(root)
                work.ALL[name].act(root)
                self._prepared[name] = (before, work.plain(work.ALL[name].outcome(root)))
            gc.freeze()  # each trial of a sweep collects garbage; half a second of all that TensorFlow made, else
        return self._prepared[name]

    def _counts(self) -> dict[str, dict[str, int]]:
        """How many operations of each piece of work could fail with each error, and KiB that it writes."""
        path = self.keep / "counts.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {name: self._count(work.ALL[name]) for name in DISTURBED})
        return read_json(path)

    def _count(self, one: work.Work) -> dict[str, int]:
        with tempfile.TemporaryDirectory(prefix="campaign-") as path, work.quiet_engine():
            root = pathlib.Path(path)
            disk.write_tree(self._prepare(one.name)[0], root)
            counting = faults.Faults(root)
            with faults.injected(counting):
                one.act(root)
            return {**{error: sum(counting.actions[action] for action in actions)
                       for error, actions in faults.FAILING.items()}, "KiB": _used(root)}


def _wrong(answer: work.Answer, number: int) -> str | None:
    """None for success, or one line that names the error."""
    if answer.code == 0 or answer.refused and os.strerror(number) in answer.error:
        return None
    return f"exit code {answer.code}, not one line that says {os.strerror(number)!r}: {answer.error}"


def _used(folder: pathlib.Path) -> int:
    """KiB of a tree on a tmpfs."""
    return PAGE * sum(-(-path.stat().st_size // (1024 * PAGE)) for path in folder.rglob("*") if path.is_file())


def may_mount() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextlib.contextmanager
def _mounted(folder: pathlib.Path, size: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def many(folder: pathlib.Path, count: int) -> str | None:
    """So many unfinished runs: the newest is found and resumed, and all are listed, in bounded time."""
    from trainers import runs, train

    run = folder / work.RUN
    train.train(work.MODEL, data="mini", batch_size=2000, epochs=2, histogram_every=0, logdir=folder / "logs",
                run_name="one", verbose=False, on_epoch=lambda row: True)
    record = read_json(run / "config.json")
    for number in range(count - 1):
        other = run.parent / f"other-{number:06}"
        other.mkdir()
        if number % 1000:
            os.link(run.parent / f"other-{number // 1000 * 1000:06}" / "config.json", other / "config.json")
        else:  # a file has at most 65,000 links
            write_json(other / "config.json", {**record, "started": record["started"] - 1e6 + number}, synced=False)
    for main, flag in ((train.main, "--resume=latest"), (runs.main, "--json")):
        began = time.process_time()
        answer = work.call(main, flag, f"--logdir={folder / 'logs'}")
        seconds = time.process_time() - began
        if answer.code or seconds > SECONDS:
            return f"{flag}: exit code {answer.code} after {seconds:.0f} s with {count} folders: {answer.error}"
    return None if (run / "result.json").exists() else "another run than the newest was resumed"


driver.register(FailingDisk())
