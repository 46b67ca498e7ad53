"""Trials an hour, ours against stock keras-tuner: `python -m benchmarks.sweep --batches=32,128`.

The same trials of 4L with dropout, for the same epochs, on the same 54,000 fit images: stock is `RandomSearch` with
`Model.fit`, as keras-tuner's guide teaches it; ours is `trainers.sweep` with 1 and with 2 workers. Both draw from the
same oracle with the same seed, so that the dropout rates are equal one by one (checked; else the exit code is 1). Each
runs in a process of its own; in each round each runs once, in an order that turns around.

How to read it: "seconds" is from the command to the last result, all imports and start-ups included, and the ratio is
taken of it within each round. "steady" leaves out what comes before the second trial of each worker. "idle" is what a
worker waits between two trials, "around" what a trial spends on data, graph, checkpoints and logs beside its updates.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Sequence

from benchmarks.command import ROOT, WorkerError, ask, count, counts, free_threads, interruptible, json_path
from trainers.running import provenance
from trainers.tuning import study as studies

MODEL, SPACE, SEED = "4L", (0.0, 0.5), 0


def stock(batch: int, trials: int, epochs: int, data: str, folder: str) -> dict[str, float]:
    """keras-tuner's own search; trial to dropout rate."""
    free_threads()
    import keras_tuner

    from fmnist_zoo import data as sets, models
    from fmnist_zoo.backend import keras
    from trainers import config as configs

    (images, labels), (held_out, held_out_labels) = sets.load_data(data=data)

    def build(parameters: Any) -> Any:
        rate = parameters.Float("dropout", *SPACE)
        model = models.build(configs.resolve(MODEL, dropout=rate).spec, SEED)
        model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                      metrics=["accuracy"])
        return model

    tuner = keras_tuner.RandomSearch(build, objective="val_loss", max_trials=trials, seed=SEED + 1, directory=folder,
                                     project_name="stock")
    tuner.search(images.astype("float32") / 255, labels, batch_size=batch, epochs=epochs, verbose=0,
                 validation_data=(held_out.astype("float32") / 255, held_out_labels))
    return {name: trial.hyperparameters.values["dropout"] for name, trial in sorted(tuner.oracle.trials.items())}


def ours(workers: int, batch: int, trials: int, epochs: int, data: str, folder: str) -> dict[str, Any]:
    """Our sweep by its command; what its own files say of it."""
    command = [sys.executable, "-m", "trainers.sweep", f"--model={MODEL}", f"--space=dropout={SPACE[0]}..{SPACE[1]}",
               f"--seed={SEED}", f"--max_trials={trials}", f"--batch_size={batch}", f"--epochs={epochs}",
               f"--data={data}", f"--workers={workers}", f"--logdir={folder}", "--name=ours"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise WorkerError(f"the sweep failed: {done.stderr.strip()}")
    study = studies.load(pathlib.Path(folder) / "sweeps" / "ours")
    runs = [one for trial in study.trials.values() for one in (trial.result or {})["executions"]]
    idle, steady = [], []
    for pid in {run["pid"] for run in runs}:
        mine = sorted((run for run in runs if run["pid"] == pid), key=lambda run: run["began"])
        idle += [later["began"] - earlier["ended"] for earlier, later in zip(mine, mine[1:])]
        steady.append((mine[-1]["ended"] - mine[0]["ended"]) / max(1, len(mine) - 1))
    return {"values": {name: trial.values["dropout"] for name, trial in study.trials.items()},
            "idle": statistics.mean(idle or [0.0]), "steady": statistics.mean(steady) / len(steady),
            "around": statistics.median(run["ended"] - run["began"] - run["seconds"] for run in runs),
            "memory_mb": [run["memory_mb"] for run in runs]}


def run_once(peer: str, options: argparse.Namespace, batch: int) -> dict[str, Any]:
    """A peer in a process of its own: its seconds, the values it tried, and what else is known of it."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        if peer == "stock":
            found: dict[str, Any] = {"values": ask(
                ["benchmarks.sweep", "--stock_in", folder, f"--batches={batch}", f"--trials={options.trials}",
                 f"--epochs={options.epochs}", f"--data={options.data}"], "stock keras-tuner")}
        else:
            found = ours(int(peer.split()[1]), batch, options.trials, options.epochs, options.data, folder)
        return {**found, "peer": peer, "batch": batch, "seconds": time.perf_counter() - began}


def describe(runs: list[dict[str, Any]], peers: Sequence[str], options: argparse.Namespace, batch: int) -> str:
    """The figures of one batch size as a person reads them."""
    lines = [f"{MODEL}, {options.trials} trials of {options.epochs} epochs, batch {batch}"]
    seconds = {peer: [run["seconds"] for run in runs if run["peer"] == peer] for peer in peers}
    for peer in peers:
        lines.append(f"  {peer:<10} {statistics.median(seconds[peer]):.1f} s, "
                     f"{3600 * options.trials / statistics.median(seconds[peer]):.0f} trials an hour")
        mine = [run for run in runs if run["peer"] == peer]
        if peer != "stock":
            ratios = [own / other for own, other in zip(seconds["stock"], seconds[peer])]
            medians = {name: statistics.median(run[name] for run in mine) for name in ("idle", "steady", "around")}
            lines.append(f"             {statistics.median(ratios):.2f} times stock (median of rounds; "
                         f"{min(ratios):.2f} to {max(ratios):.2f}); steady {medians['steady']:.1f} s a trial, idle "
                         f"{medians['idle']:.2f} s, around {medians['around']:.2f} s")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="sweep", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=counts, default="32,128", help="images an update")
    parser.add_argument("--workers", type=counts, default="1,2")
    parser.add_argument("--trials", type=count, default=12)
    parser.add_argument("--epochs", type=count, default=5)
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--data", choices=("fashion_mnist", "mini"), default="fashion_mnist")
    parser.add_argument("--json", type=json_path, help="file for all numbers")
    parser.add_argument("--stock_in", help="run stock keras-tuner here, in this folder; answers a line of JSON")
    options = parser.parse_args(arguments)
    if options.stock_in:
        print(json.dumps(stock(options.batches[0], options.trials, options.epochs, options.data, options.stock_in)))
        return 0
    peers = ["stock", *(f"workers {count}" for count in options.workers)]
    runs, agree = [], True
    for turn in range(options.rounds):
        for batch in options.batches:
            for peer in peers[::-1] if turn % 2 else peers:
                try:
                    runs.append(run_once(peer, options, batch))
                except WorkerError as error:
                    print(f"sweep: {error}", file=sys.stderr)
                    return 1
                print(f"round {turn + 1}/{options.rounds}  batch {batch}  {peer}: {runs[-1]['seconds']:.1f} s",
                      file=sys.stderr, flush=True)
    for batch in options.batches:
        mine = [run for run in runs if run["batch"] == batch]
        print(describe(mine, peers, options, batch))
        tried = {tuple(run["values"].values()) for run in mine}
        if len(tried) > 1:
            print("  *** MISMATCH: the peers tried other rates: times compare nothing ***")
            agree = False
    if options.json:
        options.json.write_text(json.dumps({"machine": provenance.machine(), "commit": provenance.commit(),
                                            "runs": runs}, indent=1) + "\n")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(interruptible(main))
