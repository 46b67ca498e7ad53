"""How many seconds a training epoch takes, ours against others: `python -m benchmarks.epoch --peers tape fit torch`.

Each peer trains the same model from the same initial weights on the same images (54,000; 1,800 of mini) with Adam at
0.001, in a process of its own. `tape` is our engine as a run builds it, and `scratch` the one from the equations,
which trains network_* alone. The others are written as their own documentation teaches: `fit` is Keras by its
defaults, `fit_epoch` with an epoch as `steps_per_execution`, `torch` PyTorch, `jax` JAX with optax. PyTorch and JAX
need an environment of their own (`benchmarks/requirements.txt`). In each round each peer runs once, and every second
round runs in reverse order, so that a busy minute of the machine, or a cold start, does not fall on one peer alone.

"s an epoch" is the median over all epochs but the first of each process, which compiles and is shown on its own. A
ratio is taken within each round, where both peers saw the same machine: its median says how much faster, its range how
far to trust that. Before and after each run the distance of the cores is measured (`benchmarks.cores`), and runs of
one kind are compared. "peak MB" is the memory of the whole process.

All peers must reach the same training loss (mean over the last epoch's updates, penalty included, averaged over rounds)
within 3 %, on mini within 30 %. If they do not, one of them does other work, the times cannot be compared, and the exit
code is 1.

Time and memory against size: name models and batch sizes, such as --peers tape --batches 32 1024 full
--models 2L 4L 5L 2L,hidden=1600_1600.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
from typing import Any, Sequence

from benchmarks import command, cores, peers
from benchmarks.peers import INSIDE, OUTSIDE, Clock, Task
from benchmarks.table import describe, summaries
from fmnist_zoo.errors import UsageError
from trainers.engine import processor

# Environment variables that change speed, each by its name: other variables may hold secrets.
SETTINGS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS",
            "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE")
LIBRARIES = ("tensorflow", "keras", "numpy", "torch", "jax", "jaxlib", "optax")
WEIGHTS = "weights"  # a worker that trains nothing, but writes the initial weights for the peers outside TensorFlow


def work(peer: str, task: Task) -> dict[str, Any]:
    """Runs a peer in this process; returns what a worker answers."""
    if peer == WEIGHTS:
        peers.save_weights(task)
        return {}
    from fmnist_zoo import load_data

    split, clock = load_data(("fit",), data=task.data)["fit"], Clock()
    {**INSIDE, **OUTSIDE}[peer](task, clock, split)
    first, *others = [end - start for start, end in itertools.pairwise(clock.times)]
    loaded = {name: sys.modules[name].__version__ for name in LIBRARIES if name in sys.modules}
    return {"images": len(split.labels), "first_epoch_seconds": first, "epoch_seconds": others, "loss": clock.loss,
            "memory_mb": command.peak_memory_mb(), "versions": {"python": platform.python_version(), **loaded}}


def run_worker(peer: str, task: Task) -> dict[str, Any]:
    """`work` in a new process."""
    python = command.outside_python() if peer in OUTSIDE else sys.executable
    return command.ask(
        ["benchmarks.epoch", f"--worker={peer}", f"--models={task.model}", f"--batches={task.batch}",
         f"--epochs={task.epochs}", f"--data={task.data}", f"--seed={task.seed}", f"--weights={task.weights}"],
        f"{peer} on {task.model} at batch {task.batch}", python)


def one_round(options: argparse.Namespace, turn: int, folder: str) -> list[dict[str, Any]]:
    """Runs all peers once on each model and batch size; returns their answers."""
    runs = []
    order = options.peers[::-1] if turn % 2 else options.peers
    for model in options.models:
        weights = ""
        if OUTSIDE.keys() & set(order):
            weights = str(pathlib.Path(folder, "weights.npz"))
            run_worker(WEIGHTS, Task(model, 1, 1, options.data, options.seed + turn, weights))
        for batch, peer in itertools.product(options.batches, order):
            task = Task(model, batch, options.epochs, options.data, options.seed + turn, weights)
            before = cores.round_trip()
            run = {"round": turn + 1, "peer": peer, **dataclasses.asdict(task), **run_worker(peer, task),
                   "round_trip_ns": [before, cores.round_trip()]}
            del run["weights"]  # a temporary file
            runs.append(run)
            print(f"round {turn + 1}/{options.rounds}  {model}  batch {batch}  {peer}: "
                  f"{statistics.median(run['epoch_seconds']):.3f} s an epoch, loss {run['loss']:.4f}, cores "
                  f"{' and '.join(f'{ns:.0f} ns' for ns in run['round_trip_ns'])} apart", file=sys.stderr, flush=True)
    return runs


def make_parser() -> argparse.ArgumentParser:
    """The command's flags; a worker takes the same ones, with one model and one batch size."""
    parser = command.make_parser("benchmarks.epoch", __doc__)
    parser.add_argument("--models", nargs="+", type=command.model, default=["4D_drop03"],
                        help="names from `python -m fmnist_zoo`")
    parser.add_argument("--batches", nargs="+", type=command.batch, default=[32, 128, 256],
                        help="images an update; full: all")
    parser.add_argument("--peers", nargs="+", choices=(*INSIDE, *OUTSIDE), default=["tape", "fit", "fit_epoch"],
                        help="the others are compared with the first")
    parser.add_argument("--rounds", type=command.count, default=5)
    parser.add_argument("--epochs", type=command.count, default=2, help="timed epochs a process, after the first")
    parser.add_argument("--data", choices=command.DATA, default="fashion_mnist")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each later one takes the next")
    parser.add_argument("--json", type=command.file_to_write, help="file for all numbers")
    parser.add_argument("--worker", choices=(*INSIDE, *OUTSIDE, WEIGHTS),
                        help="run this here, once; prints a line of JSON")
    parser.add_argument("--weights", default="", help="for a worker: file of the initial weights")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    if options.worker:  # perhaps in the other environment, which has few packages
        task = Task(options.models[0], options.batches[0], options.epochs, options.data, options.seed, options.weights)
        print(json.dumps(work(options.worker, task)))
        return 0
    from trainers import cli

    return cli.run("epoch", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    from trainers.running import provenance

    outside = [peer for peer in options.peers if peer in OUTSIDE]
    if outside and not command.outside_python().exists():
        raise UsageError(f"{', '.join(outside)}: need an environment of their own, {command.OUTSIDE}, which does not "
                         "exist; benchmarks/requirements.txt says how to make it")
    with tempfile.TemporaryDirectory() as folder:
        runs = [run for turn in range(options.rounds) for run in one_round(options, turn, folder)]
    cores.name_kinds(runs)
    versions = {run["peer"]: run.pop("versions") for run in runs}
    found = summaries(runs)
    print("\n\n".join(map(describe, found)))
    if options.json:
        settings = {name: os.environ[name] for name in SETTINGS if name in os.environ}
        machine = {**processor.machine(), "settings": settings}
        content = {"machine": machine, "versions": versions, "commit": provenance.commit(), "rounds": options.rounds,
                   "epochs": options.epochs, "runs": runs}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0 if all(summary["agree"] for summary in found) else 1


if __name__ == "__main__":
    sys.exit(main())
