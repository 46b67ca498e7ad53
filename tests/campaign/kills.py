"""The part `kills`: SIGKILL at any moment of a run's or a sweep's life; then the same command ends as if undisturbed.

A case runs its command once undisturbed, which says how long it lives and what it leaves. Then it starts the command
again, kills it at a moment drawn uniformly from that time, several times, and lets it end. Most runs are forked from a
process that has imported TensorFlow: that takes longer than the rest, and writes nothing. The others and the sweeps
are started as a person starts them, imports included.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import time
from typing import Any, Iterator, Mapping, Sequence

from tests import helpers, sweeps
from tests.campaign.driver import Case, Part
from tests.campaign.processes import BIG, SECONDS, Process, Ready, ended, flags_of, kill, started, wait
from trainers.running.table import MetricsTable

KILLS = 3  # of a run
READY = 0.85  # share of runs that are forked
RUNS: tuple[dict[str, Any], ...] = (
    {"model": "softmax"}, {"model": "softmax", "trainer": "fit"}, {"model": "network_softmax", "trainer": "scratch"},
    {"model": "network_A", "trainer": "scratch", "hidden": 8, "batch_size": 600, "optimizer": "sgd"},
    {"model": "2L", "hidden": 8, "dropout": 0.3}, {"model": "2L", "hidden": 8, "trainer": "fit", "dropout": 0.3},
    {"model": "4L", "hidden": "8,8,8", "normalization": "batch"},
    {"model": "softmax", "validation_size": 0})
OPTIMIZERS = ("adam", "sgd", "momentum", "rmsprop", "adagrad", "adamax", "adamw", "nadam", "lion")
RECIPES: tuple[dict[str, Any], ...] = (  # of tape alone
    {}, {"schedule": "cosine", "warmup": 0.2}, {"ema": 0.9}, {"shift": 1, "flip": "true"}, {"mixup": 0.2}, {"erase": 5},
    {"label_smoothing": 0.1, "clip_norm": 1}, {"early_stopping": 2}, {"teacher": "softmax", "teacher_weight": 0.3},
    {"weights": "last"})
SWEEPS: tuple[dict[str, Any], ...] = (
    {"tuner": "random", "space": "l2=log(1e-6..1e-2)", "max_trials": 6, "epochs": 2},
    {"tuner": "grid", "space": "l2=0,1e-4,1e-3; learning_rate=1e-3,3e-3", "epochs": 2},
    {"tuner": "asha", "space": "l2=log(1e-6..1e-2)", "max_trials": 4, "epochs": 3})
VICTIMS = ("leader", "worker", "both", "stopped worker", "stopped leader")


def epochs_in(path: pathlib.Path) -> int:
    return sum(MetricsTable(one).row_count() for one in path.glob("*/0/metrics.csv"))


def workers_in_trials(path: pathlib.Path, leader: subprocess.Popen[bytes]) -> dict[int, str]:
    """Processes of the leader that train: their ids, with the trial."""
    children = subprocess.run(["pgrep", "-P", str(leader.pid)], capture_output=True, text=True).stdout.split()
    found = {}
    for lock in path.glob("*/0/.lock"):
        if not (lock.parent.parent / "result.json").exists() and (pid := lock.read_text()) in children:
            found[int(pid)] = lock.parent.parent.name
    return found


def strike(victim: str, path: pathlib.Path, leader: subprocess.Popen[bytes], dice: random.Random,
           died: collections.Counter[str]) -> str:
    """Kills, or stops for longer than anything waits and then kills; says whom.

    No worker is killed thrice in one trial: the leader would call that the trial's fault.
    """
    workers = {pid: name for pid, name in workers_in_trials(path, leader).items() if died[name] < 2}
    chosen = dice.choice(sorted(workers)) if workers and "leader" not in victim else None
    if chosen is not None:
        died[workers[chosen]] += 1
        with contextlib.suppress(ProcessLookupError):
            if victim.startswith("stopped"):
                os.kill(chosen, signal.SIGSTOP)
                time.sleep(3.0)
            os.kill(chosen, signal.SIGKILL)
        if victim != "both":
            return "worker"
    if victim == "stopped leader":
        leader.send_signal(signal.SIGSTOP)
        time.sleep(3.0)
    leader.kill()
    leader.wait()
    return "leader"


def swept(settings: Mapping[str, Any], logdir: pathlib.Path) -> tuple[list[str], pathlib.Path]:
    """The arguments of a sweep, and its folder."""
    asked = {"model": "softmax", "data": "mini", "batch_size": BIG, "name": "one", **settings, "logdir": logdir}
    return flags_of(asked), logdir / "sweeps" / "one"


def disturbed(arguments: Sequence[str], path: pathlib.Path, dice: random.Random, kills: int, *,
              lifetime: float | None = None) -> tuple[collections.Counter[str], int]:
    """A sweep to its end with so many kills; returns how often whom, and the exit code.

    A kill comes some epochs after the start or the one before, or, with a `lifetime`, at any moment of one.
    """
    killed: collections.Counter[str] = collections.Counter()
    died: collections.Counter[str] = collections.Counter()
    leader = None
    output = path.parents[1].with_suffix(".txt")
    try:
        while killed.total() < kills:
            leader = leader or started("trainers.sweep", arguments, output)
            if lifetime is None:
                aim = epochs_in(path) + dice.randint(1, 3)
                wait(lambda: epochs_in(path) >= aim or leader.poll() is not None, SECONDS)  # type: ignore[union-attr]
                time.sleep(0.1 * dice.random())
            else:
                wait(lambda: leader.poll() is not None, lifetime * dice.random())  # type: ignore[union-attr]
            if leader.poll() is not None:  # it has ended, well or not
                break
            killed[strike(dice.choice(VICTIMS), path, leader, dice, died)] += 1
            leader = leader if leader.poll() is None else None
        return killed, ended(leader or started("trainers.sweep", arguments, output))
    finally:
        if leader:
            kill(leader)


class Kills(Part):
    name = "kills"
    about = "SIGKILL at random moments of runs and sweeps; then the same command ends with the same bits"

    def __init__(self) -> None:
        self._ready: Ready | None = None

    def cases(self, seed: int) -> Iterator[Case]:
        for number in range(1000):
            dice = random.Random(f"kills {seed} {number}")
            yield Case(f"{'sweep' if number % 20 == 9 else 'run'}-{number}", dice)

    def run(self, case: Case, folder: pathlib.Path) -> str | None:
        return (self._sweep if case.id.startswith("sweep") else self._run)(case.content, folder)

    def _train(self, arguments: Sequence[str], output: pathlib.Path, seconds: float | None, ready: bool
               ) -> tuple[int, float]:
        """The exit code, and the seconds that it took."""
        if ready:
            self._ready = self._ready or Ready()
            process: Process = self._ready.start(arguments, output)
        else:
            process = started("trainers.train", arguments, output)
        begun = time.monotonic()
        if seconds is not None:
            wait(lambda: process.poll() is not None, seconds)
            process.kill()
        return ended(process), time.monotonic() - begun

    def close(self) -> None:
        """Ends the process that runs are forked from."""
        if self._ready:
            self._ready.close()
            self._ready = None

    def _run(self, dice: random.Random, folder: pathlib.Path) -> str | None:
        settings = self._settings(dice)
        ready, output = dice.random() < READY, folder / "output.txt"
        flags = flags_of(settings)
        calm, other = ([*flags, f"--logdir={folder / name}", "--run_name=one"] for name in ("calm", "killed"))
        code, lifetime = self._train(calm, output, None, ready)
        if code:
            return f"{' '.join(flags)}: exit code {code} undisturbed: {output.read_text()[-300:]!r}"
        (right,) = (folder / "calm").glob("*/one")
        path, moments = folder / "killed" / right.parent.name / "one", []
        for left in range(KILLS, -1, -1):
            moments.append(lifetime * dice.random())
            again = [f"--resume={path}"] if (path / "config.json").exists() else other
            code, _ = self._train(again, output, moments[-1] if left else None, ready)
            if code not in ((0, -signal.SIGKILL) if left else (0,)):
                break
        told = f"{' '.join(flags)}, killed after {', '.join(f'{moment:.3f}' for moment in moments[:KILLS])} s"
        if code not in (0, -signal.SIGKILL):
            return f"{told}: exit code {code}: {output.read_text()[-300:]!r}"
        found = helpers.difference(helpers.run_outcome(right), helpers.run_outcome(path))
        return f"{told}: {found}" if found else None

    @staticmethod
    def _settings(dice: random.Random) -> dict[str, Any]:
        settings = dict(dice.choice(RUNS))
        if "trainer" not in settings:
            settings |= dice.choice(RECIPES)
        if settings.get("early_stopping") and settings.get("validation_size") == 0:
            del settings["early_stopping"]
        if settings.get("trainer") != "scratch":
            settings["optimizer"] = dice.choice(OPTIMIZERS)
        return {"batch_size": BIG, "data": "mini", "epochs": dice.choice((2, 4, 8)), "seed": dice.randrange(100),
                "checkpoint_every": dice.choice((0, 1, 1, 2)), "histogram_every": dice.choice((0, 0, 1)), **settings}

    def _sweep(self, dice: random.Random, folder: pathlib.Path) -> str | None:
        settings = {**dice.choice(SWEEPS), "workers": dice.choice((1, 2))}
        if settings["tuner"] == "asha":
            settings["workers"] = 1  # with two, promotions depend on which trial ends first
        (calm, right), (flags, path) = (swept(settings, folder / name) for name in ("calm", "killed"))
        begun = time.monotonic()
        if code := ended(started("trainers.sweep", calm, folder / "calm.txt")):
            return f"{' '.join(flags)}: exit code {code} undisturbed: {(folder / 'calm.txt').read_text()[-300:]!r}"
        killed, code = disturbed(flags, path, dice, 2, lifetime=time.monotonic() - begun)
        if code:
            said = (folder / "killed.txt").read_text()[-300:]
            return f"{' '.join(flags)}, {dict(killed)}: exit code {code}: {said!r}"
        tables = [sweeps.without_times(sweeps.rows_of(one)) for one in (path, right)]
        return None if tables[0] == tables[1] else f"{' '.join(flags)}, {dict(killed)}: other trials"
