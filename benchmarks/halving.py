"""Best validation loss over time, `--tuner=asha` against `--tuner=random`: `python -m benchmarks.halving`.

Both search 4L over ranges of dropout, L1, L2 and learning rate. asha draws `--trials` combinations and trains the best
for longer, up to `--epochs`; random trains each combination for all of them. A random search gets `--budget` times the
time of asha with the same seed: that answers whether asha finds the same loss in a third of the time.

Each search is a sweep in `--logdir`, so the same command continues an interrupted one. Time is from the start of the
workers, while the sweep was led: breaks do not count, nor the leader's imports. A loss counts when its trial ends.
Epochs are counted beside seconds, because other programs on the machine do not change them.

`halving.png`, `halving.csv` (a row a trial, in the order of their ends) and `halving.json` go into `--logdir`.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import pathlib
import statistics
import sys
import time
from typing import Any, Callable, NamedTuple, Sequence

from benchmarks import command
from benchmarks.leader import SPACE
from fmnist_zoo.files import atomic_write, write_json
from trainers import cli
from trainers.engine import processor
from trainers.running import provenance
from trainers.tuning import start, study
from trainers.tuning.halving import FACTOR
from trainers.tuning.plan import Plan

MODEL, TUNERS = "4L", ("asha", "random")


class Row(NamedTuple):
    """An ended trial: its loss, and what the search had spent, and had found, when it ended."""

    seed: int
    tuner: str
    trial: str
    epochs: int
    seconds: float
    epochs_so_far: int
    loss: float
    best: float


class Watch:
    """The spans of Unix time, in seconds, in which a sweep was led; a file holds them."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.spans: list[list[float]] = json.loads(path.read_text())["spans"] if path.exists() else []
        self._began, self._first, self._written = 0.0, len(self.spans), 0.0

    def begin(self) -> None:
        self._began = time.time()

    def tick(self) -> None:
        """Call it about once a second, from `begin` until the sweep ends."""
        now = time.time()
        self.spans[self._first:] = [[self._began, now]]
        if now - self._written >= 1.0:
            write_json(self._path, {"spans": self.spans})
            self._written = now

    def at(self, moment: float) -> float:
        """Seconds within the spans until a moment."""
        return sum(max(0.0, min(moment, end) - began) for began, end in self.spans)


def search(options: argparse.Namespace, tuner: str, seed: int, limit: float, stop: Callable[[], bool]) -> list[Row]:
    """Runs or continues a sweep to its end, or until it took `limit` seconds."""
    plan = Plan(MODEL, SPACE, tuner=tuner, max_trials=options.trials, objective="val_loss", executions=1, seed=seed,
                epochs=options.epochs, batch_size=options.batch_size, data=options.data)
    logdir, name = os.path.expanduser(options.logdir), f"{tuner}-seed{seed}"
    path = start.sweep_folder(plan, logdir, name)
    watch = Watch(path / "clock.json")

    def should_stop() -> bool:
        watch.tick()
        return stop() or watch.at(math.inf) >= limit

    if watch.at(math.inf) < limit:
        plan.tuner_for(plan.space)  # imports TensorFlow for keras-tuner
        watch.begin()
        start.execute(plan, workers=options.workers, scheduler=None, max_failures=options.trials, logdir=logdir,
                      name=name, overwrite=False, verbose=True, should_stop=should_stop)
    return read(path, tuner, seed, limit)


def read(path: pathlib.Path, tuner: str, seed: int, limit: float) -> list[Row]:
    """The trials of a sweep that ended within `limit` seconds, in the order of their ends; none if it has not begun."""
    if not (path / "sweep.json").exists():
        return []
    found, watch = study.load(path), Watch(path / "clock.json")
    rows: list[Row] = []
    epochs, best = 0, math.inf
    for trial in found.ended:
        seconds = watch.at(max((one["ended"] for one in (trial.result or {})["executions"]), default=math.inf))
        own = (trial.result or {})["epochs"]
        epochs += own - ((found.trials[trial.parent].result or {})["epochs"] if trial.parent else 0)
        loss = math.inf if trial.score is None else trial.score
        best = min(best, loss)
        if seconds <= limit:
            rows.append(Row(seed, tuner, trial.name, own, seconds, epochs, loss, best))
    return rows


def best_at(rows: Sequence[Row], spent: float, column: str = "seconds") -> float:
    """The best loss that was found for so many seconds or epochs; infinite if none was."""
    return min((row.best for row in rows if getattr(row, column) <= spent), default=math.inf)


def spent_for(rows: Sequence[Row], loss: float, column: str = "seconds") -> float:
    """What a search had spent when it had found a loss; infinite if it never did."""
    return min((getattr(row, column) for row in rows if row.best <= loss), default=math.inf)


def summarize(asha: Sequence[Row], random: Sequence[Row]) -> dict[str, Any]:
    """Of one seed. Compared is what either needs for the best loss that both have found."""
    total, target = asha[-1].seconds, max(asha[-1].best, random[-1].best)
    found: dict[str, Any] = {"seed": asha[0].seed, "target": target}
    for rows in (asha, random):
        found[rows[0].tuner] = {
            "trials": len(rows), "seconds": rows[-1].seconds, "epochs": rows[-1].epochs_so_far, "best": rows[-1].best,
            "seconds_to_target": spent_for(rows, target), "epochs_to_target": spent_for(rows, target, "epochs_so_far")}
    found["random"].update({f"best_at_{times}": _known(best_at(random, times * total)) for times in (1, 2, 3)})
    for column in ("seconds", "epochs"):
        found[f"{column}_ratio"] = (found["random"][f"{column}_to_target"] / found["asha"][f"{column}_to_target"])
    return found


def _known(loss: float) -> float | None:
    """None for an infinite one, which JSON does not have."""
    return loss if math.isfinite(loss) else None


def describe(found: dict[str, Any]) -> str:
    asha, random = found["asha"], found["random"]
    losses = {times: random[f"best_at_{times}"] for times in (1, 2, 3)}
    at = ", ".join(f"{f'{loss:.4f}' if loss else 'nothing'} in {times} times" for times, loss in losses.items())
    return (f"seed {found['seed']}: asha {asha['best']:.4f} in {asha['seconds']:.0f} s ({asha['trials']} trials, "
            f"{asha['epochs']} epochs); random {at} that time, {random['best']:.4f} in {random['seconds']:.0f} s "
            f"({random['trials']} trials, {random['epochs']} epochs)\n"
            f"  a loss of {found['target']:.4f}: random takes {found['seconds_ratio']:.2f} times asha's time, "
            f"{found['epochs_ratio']:.2f} times its epochs")


def write(options: argparse.Namespace, searches: Sequence[Sequence[Row]], summaries: Sequence[dict[str, Any]]) -> None:
    """Writes table, summary and plot of the searches so far."""
    logdir = pathlib.Path(os.path.expanduser(options.logdir))
    with atomic_write(logdir / "halving.csv", "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(row for rows in searches for row in rows)
    write_json(logdir / "halving.json", {
        "model": MODEL, "space": SPACE, "trials": options.trials, "epochs": options.epochs, "factor": FACTOR,
        "batch_size": options.batch_size, "workers": options.workers, "data": options.data, "budget": options.budget,
        "machine": processor.machine(), "commit": provenance.commit(), "seeds": list(summaries)})
    plot(searches, f"{MODEL}, {options.trials} combinations, {options.epochs} epochs at most, {options.workers} "
         "workers", logdir / "halving.png")


def plot(searches: Sequence[Sequence[Row]], title: str, path: pathlib.Path) -> None:
    """The best loss over seconds and over epochs: a thin line a seed, and a thick one for their mean.

    The line of a search that has ended is drawn to the right: it keeps what it found.
    """
    from matplotlib import ticker
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(title)
    for axis, column, name in zip(figure.subplots(1, 2, sharey=True), ("seconds", "epochs_so_far"),
                                  ("seconds", "epochs trained by all trials together")):
        spent = sorted({getattr(row, column) for rows in searches for row in rows})
        for color, tuner in zip(("C0", "C1"), TUNERS):
            losses = [[best_at(rows, one, column) for one in spent] for rows in searches if rows[0].tuner == tuner]
            for line in losses:
                axis.step(spent, line, where="post", color=color, alpha=0.4, linewidth=1)
            means = [statistics.fmean(together) for together in zip(*losses)]  # infinite until each seed has a loss
            axis.step(spent, means, where="post", color=color, linewidth=2.5,
                      label=f"{tuner}, mean of {len(losses)} seed{'s' * (len(losses) > 1)}")
        axis.set(xscale="log", xlabel=name)
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.grid(alpha=0.3)
        axis.legend()
    lowest = min(row.best for rows in searches for row in rows)
    figure.axes[0].set(ylabel="best validation loss so far", ylim=(0.97 * lowest, 1.5 * lowest))
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.halving", __doc__)
    parser.add_argument("--seeds", type=command.list_of(command.count), default=[1, 2, 3])
    parser.add_argument("--trials", type=command.count, default=81, help="combinations that a search draws at most")
    parser.add_argument("--epochs", type=command.count, default=27)
    parser.add_argument("--batch_size", type=command.batch, help="images an update; default: the recipe's")
    parser.add_argument("--workers", type=command.count, default=2)
    parser.add_argument("--budget", type=float, default=3.5, help="time of a random search, in times of asha's")
    parser.add_argument("--data", choices=command.DATA, default="fashion_mnist")
    parser.add_argument("--logdir", default="tb_logs/halving")
    options = parser.parse_args(arguments)
    return cli.run("halving", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    searches, summaries = [], []
    with cli.StopSignal() as stop:
        for seed in options.seeds:
            limit = math.inf
            for tuner in TUNERS:
                rows = search(options, tuner, seed, limit, stop)
                if stop():
                    print("interrupted; the same command continues")
                    return 128 + stop.number
                searches.append(rows)
                limit = options.budget * rows[-1].seconds
            summaries.append(summarize(*searches[-2:]))
            write(options, searches, summaries)
    for found in summaries:
        print(describe(found))
    ratios = [found["seconds_ratio"] for found in summaries]
    print(f"random takes {statistics.median(ratios):.2f} times asha's time ({min(ratios):.2f} to {max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
