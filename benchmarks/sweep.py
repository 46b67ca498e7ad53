"""Trials an hour, ours against stock keras-tuner: `python -m benchmarks.sweep --batches=32,128`.

The same trials of 4L with dropout, for the same epochs, on the same 54,000 training images. `stock` is keras-tuner's
`RandomSearch` with `Model.fit`, as its guide teaches; ours is `trainers.sweep` with 1 and with 2 workers. Both draw
from the same oracle with the same seed, so they try the same dropout rates one by one; if they do not, the exit code
is 1. Each runs in a process of its own, once a round; every second round runs in reverse order.

"seconds" is from the command to the last result, imports and start-up included. The ratio is taken within each round.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any, Sequence

from benchmarks import command
from trainers import cli

MODEL, SPACE, SEED = "4L", (0.0, 0.5), 0


def stock(options: argparse.Namespace) -> list[float]:
    """Runs keras-tuner's own search in this process; returns the dropout rates of its trials."""
    command.free_threads()
    import keras_tuner

    from fmnist_zoo import load_data, models
    from fmnist_zoo.backend import keras
    from trainers.config import resolve

    data = load_data(data=options.data)
    (images, labels), (held_out, held_out_labels) = data.fit, data.validation

    def build(parameters: Any) -> Any:
        rate = parameters.Float("dropout", *SPACE)
        model = models.build(resolve(MODEL, dropout=rate).spec, SEED)
        model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                      metrics=["accuracy"])
        return model

    tuner = keras_tuner.RandomSearch(build, objective="val_loss", max_trials=options.trials, seed=SEED + 1,
                                     directory=options.stock_in, project_name="stock")
    tuner.search(images.astype("float32") / 255, labels, batch_size=options.batches[0], epochs=options.epochs,
                 verbose=0, validation_data=(held_out.astype("float32") / 255, held_out_labels))
    return [trial.hyperparameters.values["dropout"] for _, trial in sorted(tuner.oracle.trials.items())]


def ours(workers: int, batch: int, options: argparse.Namespace, folder: str) -> list[float]:
    """Runs `trainers.sweep`; returns the dropout rates of its trials."""
    command.run(["trainers.sweep", f"--model={MODEL}", f"--space=dropout={SPACE[0]}..{SPACE[1]}", f"--seed={SEED}",
                 f"--max_trials={options.trials}", f"--batch_size={batch}", f"--epochs={options.epochs}",
                 f"--data={options.data}", f"--workers={workers}", f"--logdir={folder}", "--name=ours"], "the sweep")
    from trainers.tuning import study

    trials = study.load(pathlib.Path(folder) / "sweeps" / "ours").trials
    return [trial.values["dropout"] for trial in trials.values()]


def run_once(peer: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Runs a peer in a process of its own: its seconds and the dropout rates that it tried."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        if peer == "stock":
            rates = command.ask(["benchmarks.sweep", f"--stock_in={folder}", f"--batches={batch}",
                                 f"--trials={options.trials}", f"--epochs={options.epochs}", f"--data={options.data}"],
                                "stock keras-tuner")
        else:
            rates = ours(int(peer.split()[1]), batch, options, folder)
        return {"peer": peer, "batch": batch, "seconds": time.perf_counter() - began, "rates": rates}


def describe(runs: list[dict[str, Any]], peers: Sequence[str], options: argparse.Namespace, batch: int) -> str:
    lines = [f"{MODEL}, {options.trials} trials of {options.epochs} epochs, batch {batch}"]
    seconds = {peer: [run["seconds"] for run in runs if run["peer"] == peer] for peer in peers}
    for peer in peers:
        median = statistics.median(seconds[peer])
        ratios = [other / own for other, own in zip(seconds["stock"], seconds[peer])]
        ratio = f", {statistics.median(ratios):.2f} times stock ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"  {peer:<10} {median:.1f} s, {3600 * options.trials / median:.0f} trials an hour"
                     + (ratio if peer != "stock" else ""))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.sweep", __doc__)
    counts = command.list_of(command.count)
    parser.add_argument("--batches", type=counts, default="32,128", help="images an update")
    parser.add_argument("--workers", type=counts, default="1,2")
    parser.add_argument("--trials", type=command.count, default=12)
    parser.add_argument("--epochs", type=command.count, default=5)
    parser.add_argument("--rounds", type=command.count, default=3)
    parser.add_argument("--data", choices=command.DATA, default="fashion_mnist")
    parser.add_argument("--stock_in", help="run stock keras-tuner here, in this folder; prints a line of JSON")
    options = parser.parse_args(arguments)
    if options.stock_in:
        print(json.dumps(stock(options)))
        return 0
    return cli.run("sweep", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    peers = ["stock", *(f"workers {count}" for count in options.workers)]
    runs, agree = [], True
    for turn in range(options.rounds):
        for batch in options.batches:
            for peer in peers[::-1] if turn % 2 else peers:
                runs.append(run_once(peer, batch, options))
                print(f"round {turn + 1}/{options.rounds}  batch {batch}  {peer}: {runs[-1]['seconds']:.1f} s",
                      file=sys.stderr, flush=True)
    for batch in options.batches:
        mine = [run for run in runs if run["batch"] == batch]
        print(describe(mine, peers, options, batch))
        if len({tuple(run["rates"]) for run in mine}) > 1:
            print("  *** MISMATCH: the peers tried other rates: compare no times ***")
            agree = False
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
