"""Seconds of a sweep, ours against stock keras-tuner: `python -m benchmarks.sweeps --batches 32 128 --rounds 3`.

The same trials of 4L with dropout, for the same epochs, on the same training images. `stock` is keras-tuner's
`RandomSearch` with `Model.fit`, as its guide teaches; ours is `trainers.sweep`. Both draw from the same oracle with the
same seed, so they try the same dropout rates; if they do not, the exit code is 1. Each runs in a process of its own,
once a round, in reverse order every second round. No compiled program of an earlier run is used.

Seconds are from the command to its end, imports included. Those of a worker are divided, as means over the workers:
start (until its first trial), first (what its first epoch takes longer than the others), epochs, trials (what a trial
takes beside its epochs), idle (between trials, and until the last worker is done), end.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Sequence

from benchmarks import command
from fmnist_zoo import card

MODEL, SPACE, SEED = "4L", (0.0, 0.5), 0


def stock(options: argparse.Namespace) -> list[float]:
    """Runs keras-tuner's own search in this process; returns the dropout rates of its trials."""
    import keras_tuner

    from fmnist_zoo import load_data, models
    from fmnist_zoo.backend import keras
    from trainers.config import resolve

    data = load_data(data=options.data)

    def build(parameters: Any) -> Any:
        rate = parameters.Float("dropout", *SPACE)
        model = models.build(resolve(MODEL, dropout=rate).spec, SEED)
        model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                      metrics=["accuracy"])
        return model

    def pixels(split: Any) -> Any:
        return split.images.astype("float32") / 255

    tuner = keras_tuner.RandomSearch(build, objective="val_loss", max_trials=options.trials, seed=SEED + 1,
                                     directory=options.stock_in, project_name="stock")
    tuner.search(pixels(data.fit), data.fit.labels, batch_size=options.batches[0], epochs=options.epochs, verbose=0,
                 validation_data=(pixels(data.validation), data.validation.labels))
    return [trial.hyperparameters.values["dropout"] for _, trial in sorted(tuner.oracle.trials.items())]


def ours(workers: int | None, batch: int, options: argparse.Namespace,
         folder: str) -> tuple[list[Any], dict[str, float]]:
    """Runs `trainers.sweep`; returns the dropout rates of its trials, and where its seconds went."""
    flags = [f"--model={MODEL}", f"--space=dropout={SPACE[0]}..{SPACE[1]}", f"--seed={SEED}", f"--batch_size={batch}",
             f"--max_trials={options.trials}", f"--epochs={options.epochs}", f"--data={options.data}",
             f"--logdir={folder}", "--name=ours", *([f"--workers={workers}"] if workers else [])]
    began = time.time()
    subprocess.run([sys.executable, "-m", "trainers.sweep", *flags], check=True, cwd=command.ROOT,
                   stdout=subprocess.DEVNULL, env={**os.environ, "FMNIST_ZOO_COMPILE_CACHE": "0"})
    ended = time.time()
    from trainers.running.folder import RunFolder
    from trainers.tuning.study import load

    study = load(pathlib.Path(folder) / "sweeps" / "ours")
    workers_trials: dict[int, list[tuple[dict[str, Any], list[float]]]] = {}
    for trial in study.trials.values():
        outcome = trial.executions[0]
        seconds = [float(row["seconds"]) for row in RunFolder(study.folder(trial, 0)).rows()]
        workers_trials.setdefault(outcome["pid"], []).append((outcome, seconds))
    last = max(trial.executions[0]["ended"] for trial in study.trials.values())
    parts = [_parts(sorted(found, key=lambda pair: pair[0]["began"]), began, last) for found in workers_trials.values()]
    means = {name: statistics.fmean(part[name] for part in parts) for name in parts[0]}
    return [trial.values["dropout"] for trial in study.trials.values()], {**means, "end": ended - last}


def _parts(trials: list[tuple[dict[str, Any], list[float]]], began: float, last: float) -> dict[str, float]:
    """Where a worker's seconds went, from its outcomes and the seconds of their epochs, in the order of time."""
    epochs = [second for _, seconds in trials for second in seconds]
    first = epochs[0] - statistics.median(epochs[1:])
    start = trials[0][0]["began"] - began
    busy = sum(outcome["ended"] - outcome["began"] for outcome, _ in trials)
    return {"start": start, "first": first, "epochs": sum(epochs) - first, "trials": busy - sum(epochs),
            "idle": last - began - start - busy}


def run_once(peer: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Runs a peer in a process of its own: its seconds, and the dropout rates that it tried."""
    with tempfile.TemporaryDirectory() as folder:
        watch = time.perf_counter()
        if peer == "stock":
            rates = command.ask(["benchmarks.sweeps", f"--stock_in={folder}", f"--batches={batch}",
                                 f"--trials={options.trials}", f"--epochs={options.epochs}", f"--data={options.data}"],
                                "stock keras-tuner")
            return {"peer": peer, "batch": batch, "seconds": time.perf_counter() - watch, "rates": rates, "parts": {}}
        workers = peer.removeprefix("workers").strip()
        rates, parts = ours(int(workers) if workers else None, batch, options, folder)
        return {"peer": peer, "batch": batch, "seconds": sum(parts.values()), "rates": rates, "parts": parts}


def table(runs: Sequence[dict[str, Any]], peers: Sequence[str], batches: Sequence[int]) -> str:
    """The Markdown of all rounds: medians of seconds and of their parts; times stock, in each round."""
    rows: list[list[str]] = []
    names = next(list(run["parts"]) for run in runs if run["parts"])
    for batch in batches:
        of = {peer: [run for run in runs if (run["peer"], run["batch"]) == (peer, batch)] for peer in peers}
        for peer, mine in of.items():
            ratios = [other["seconds"] / own["seconds"] for other, own in zip(of["stock"], mine)]
            ratio = "" if peer == "stock" else \
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            parts = ["" if peer == "stock" else f"{statistics.median(run['parts'][name] for run in mine):.1f}"
                     for name in names]
            rows.append([str(batch), peer, f"{statistics.median(run['seconds'] for run in mine):.1f}", ratio, *parts])
    head = ["batch", "", "seconds", "times stock", *names]
    return card.markdown_table([head, *rows], numeric=[head[0], *head[2:]])


def main(arguments: Sequence[str] | None = None) -> int:
    from trainers import cli

    parser = command.make_parser("benchmarks.sweeps", __doc__)
    parser.add_argument("--batches", nargs="+", type=command.count, default=[32, 128], help="images an update")
    parser.add_argument("--workers", nargs="*", type=command.count, default=[], help="default: the sweep's own")
    parser.add_argument("--trials", type=command.count, default=12)
    parser.add_argument("--epochs", type=command.count, default=5)
    parser.add_argument("--rounds", type=command.count, default=3)
    parser.add_argument("--data", choices=command.DATA, default="fashion_mnist")
    parser.add_argument("--stock_in", help="run stock keras-tuner here, in this folder; prints a line of JSON")
    options = parser.parse_args(arguments)
    if options.stock_in:
        print(json.dumps(stock(options)))
        return 0
    return cli.run("sweeps", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    from trainers.engine import processor

    peers = ["stock", *([f"workers {count}" for count in options.workers] or ["workers"])]
    runs = []
    for turn in range(options.rounds):
        for batch in options.batches:
            for peer in peers[::-1] if turn % 2 else peers:
                runs.append(run_once(peer, batch, options))
                print(f"round {turn + 1}/{options.rounds}  batch {batch}  {peer}: {runs[-1]['seconds']:.1f} s",
                      file=sys.stderr, flush=True)
    print(table(runs, peers, options.batches))
    machine = processor.machine()
    print(f"\n{options.trials} trials of {MODEL}, {card.counted(options.epochs, 'epoch')} each, {options.data}; "
          f"{machine['cpu']}, {machine['cores']} cores; {options.rounds} rounds.")
    if len({tuple(run["rates"]) for run in runs}) > 1:
        print("*** MISMATCH: the peers tried other rates: compare no times ***")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
