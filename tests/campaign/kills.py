"""The part `kills`: SIGKILL at any moment of a run's or a sweep's life; then the same command ends as if undisturbed.

A case runs its command once undisturbed, which says how long it lives and what it leaves. Then it starts the command
again, kills it at a moment drawn uniformly from that time, several times, and lets it end. Runs are forked from a
process that has imported TensorFlow: that takes longer than the rest, and writes nothing. Sweeps are started as a
person starts them, imports included.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import Any, Iterable, Iterator, Mapping, Sequence

from tests import helpers, sweeps
from tests.conftest import ROOT
from tests.sweeps import BATCH

ABOUT = "SIGKILL at random moments of runs and sweeps; then the same command ends with the same bits"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__, "tensorflow", "keras"])  # their threads start with the first operation
SECONDS = 1800  # far more than most take on an idle machine
KILLS = 3  # of a run
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
    {"tuner": "bayesian", "space": "l2=log(1e-6..1e-2)", "max_trials": 6, "epochs": 2},
    {"tuner": "asha", "space": "l2=log(1e-6..1e-2)", "max_trials": 4, "epochs": 3})


def ids(seed: int) -> Iterator[str]:
    """Of twenty cases one is of a sweep."""
    for number in itertools.count():
        yield f"{'sweep' if number % 20 == 9 else 'run'}-{number}"


def attempt(seed: int, id: str, folder: pathlib.Path) -> str | None:
    kind, _, number = id.partition("-")
    return (kill_sweep if kind == "sweep" else kill_run)(random.Random(f"kills {seed} {number}"), folder)


def kill_run(dice: random.Random, folder: pathlib.Path) -> str | None:
    """A run that is killed some times on its way; what differs from an undisturbed one."""
    flags, output = flags_of(settings_of_a_run(dice)), folder / "output.txt"
    calm, other = ([*flags, f"--logdir={folder / name}", "--run_name=one"] for name in ("calm", "killed"))
    code, lifetime = trained(calm, output)
    if code:
        return f"{' '.join(flags)}: exit code {code} undisturbed: {output.read_text()[-300:]!r}"
    (right,) = (folder / "calm").glob("*/one")
    path, moments = folder / "killed" / right.parent.name / "one", [lifetime * dice.random() for _ in range(KILLS)]
    for moment in (*moments, None):
        again = [f"--resume={path}"] if (path / "config.json").exists() else other
        code, _ = trained(again, output, moment)
        if code and (moment is None or code != -signal.SIGKILL):
            break
    told = f"{' '.join(flags)}, killed after {', '.join(f'{moment:.3f}' for moment in moments)} s"
    if code:
        return f"{told}: exit code {code}: {output.read_text()[-300:]!r}"
    found = helpers.difference(helpers.run_outcome(right), helpers.run_outcome(path))
    return f"{told}: {found}" if found else None


def settings_of_a_run(dice: random.Random) -> dict[str, Any]:
    settings = dict(dice.choice(RUNS))
    if "trainer" not in settings:
        settings |= dice.choice(RECIPES)
    if settings.get("early_stopping") and settings.get("validation_size") == 0:
        del settings["early_stopping"]
    if settings.get("trainer") != "scratch":
        settings["optimizer"] = dice.choice(OPTIMIZERS)
    return {"batch_size": BATCH, "data": "mini", "epochs": dice.choice((2, 4, 8)), "seed": dice.randrange(100),
            "checkpoint_every": dice.choice((0, 1, 1, 2)), "histogram_every": dice.choice((0, 0, 1)), **settings}


def trained(arguments: Sequence[str], output: pathlib.Path, seconds: float | None = None) -> tuple[int, float]:
    """Trains in a process of its own, which is killed after so many seconds; its exit code, and the seconds it took."""
    process = FORKS.Process(target=command, args=(arguments, output))
    process.start()
    begun = time.monotonic()
    process.join(SECONDS if seconds is None else seconds)
    took = time.monotonic() - begun
    process.kill()
    process.join()
    return process.exitcode or 0, took


def command(arguments: Sequence[str], output: pathlib.Path) -> None:
    """`trainers.train` in this process, whose output goes to a file."""
    from trainers import train

    with open(output, "ab") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    sys.exit(train.main(arguments))


def kill_sweep(dice: random.Random, folder: pathlib.Path) -> str | None:
    """A sweep whose leader and workers are killed on its way; what differs from an undisturbed one."""
    settings = {**dice.choice(SWEEPS), "workers": dice.choice((1, 2))}
    if settings["tuner"] in ("asha", "bayesian"):
        settings["workers"] = 1  # with two, proposals depend on which trial ends first
    flags = flags_of({"model": "softmax", "data": "mini", "batch_size": BATCH, "name": "one", **settings})
    begun, tables = time.monotonic(), []
    for name, kills in (("calm", 0), ("killed", 2)):
        moments = [(time.monotonic() - begun) * dice.random() for _ in range(kills)]
        victims = [dice.choice(("leader", "workers", "both")) for _ in moments]
        path, output = folder / name / "sweeps" / "one", folder / f"{name}.txt"
        code = swept([*flags, f"--logdir={folder / name}"], path, output, zip(moments, victims))
        if code:
            return f"{' '.join(flags)}, {victims}: exit code {code}: {output.read_text()[-300:]!r}"
        tables.append(sweeps.without_times(sweeps.rows_of(path)))
    return None if tables[0] == tables[1] else f"{' '.join(flags)}, {victims}: other trials"


def swept(arguments: Sequence[str], path: pathlib.Path, output: pathlib.Path, kills: Iterable[tuple[float, str]]
          ) -> int:
    """The exit code of a sweep in the folder `path` that is killed after so many seconds, and started again."""
    leader = started(arguments, output)
    try:
        for seconds, victim in kills:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return leader.wait(seconds)
            workers = {lock.read_text() for lock in path.glob("*/0/.lock")} & {
                str(child) for child in helpers.children_of(leader.pid)}
            for pid in workers if victim != "leader" else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if victim != "workers" or not workers:
                leader.kill()
                leader.wait()
                leader = started(arguments, output)
        return leader.wait(SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, signal.SIGKILL)


def started(arguments: Sequence[str], output: pathlib.Path) -> subprocess.Popen[bytes]:
    """`trainers.sweep` as a person starts it, in a group of its own."""
    with open(output, "ab") as file:
        return subprocess.Popen([sys.executable, "-m", "trainers.sweep", *arguments], cwd=ROOT, stdout=file,
                                stderr=file, stdin=subprocess.DEVNULL, start_new_session=True,
                                env={**os.environ, "PYTHONPATH": str(ROOT)})


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]
