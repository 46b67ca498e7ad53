"""How many seconds a training epoch takes, ours against `Model.fit`: `python -m benchmarks.epoch --batches=32,128`.

Each peer trains the same model from the same initial weights on the same fit images (54,000; 1,800 of mini), with Adam
at 0.001, in processes of its own: `tape` is our engine as a run builds it, `fit` is Keras as its own guide teaches it.
In each round each peer runs once, in an order that turns around from round to round, so that a busy minute of the
machine, or a cold start, falls on none of them alone.

How to read it: "s an epoch" is the median over all epochs but the first of each process, with quartiles; the first one
compiles and is told apart, as is the import. The ratio is taken within each round, where both peers saw the same
machine: its median says how much faster, its range how far to trust that. All peers must reach the same training loss
(mean over the last epoch's updates, penalty included, averaged over rounds) within 3 %, on mini within 30 %; if not,
one of them does other work, the times compare nothing, and the exit code is 1.

This module imports neither TensorFlow nor NumPy; `benchmarks.peers` says who the peers are.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from typing import Any, Sequence

from benchmarks.peers import PEERS, Clock, Task
from fmnist_zoo import SpecError, get_spec
from trainers import provenance

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Named one by one: prefixes such as TF_ belong to other tools too, which may keep secrets in theirs.
SETTINGS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS",
            "OMP_NUM_THREADS", "MKL_NUM_THREADS")
LIBRARIES = ("tensorflow", "keras", "numpy", "torch", "jax", "sklearn")
# Shuffle orders and dropout masks differ between peers. Epochs of mini have so few updates that chance
# alone makes 12 % (4D_drop03) or 25 % (4L, batch 256): there only a gross error shows, such as dropout left out.
LOSS_TOLERANCE = {"fashion_mnist": 0.03, "mini": 0.3}


class WorkerError(RuntimeError):
    """A peer's process that failed: says which, and the last it said."""


def work(peer: str, task: Task) -> dict[str, Any]:
    """Runs a peer in this process: what a worker answers."""
    clock = Clock()
    images = PEERS[peer](task, clock)
    loaded = {name: sys.modules[name].__version__ for name in LIBRARIES if name in sys.modules}
    return {"images": images, "import_seconds": clock.import_seconds, "first_epoch_seconds": clock.epoch_seconds[0],
            "epoch_seconds": clock.epoch_seconds[1:], "loss": clock.loss,
            "versions": {"python": platform.python_version(), **loaded}}


def run_worker(peer: str, task: Task) -> dict[str, Any]:
    """Runs a peer in a fresh process and returns its answer; `WorkerError` if there is none."""
    command = [sys.executable, "-m", "benchmarks.epoch", f"--worker={peer}", f"--models={task.model}",
               f"--batches={task.batch}", f"--epochs={task.epochs}", f"--data={task.data}", f"--seed={task.seed}"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}, and it said nothing"]
        raise WorkerError(f"{peer} on {task.model} at batch {task.batch} failed: {said[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rounds; rounds are outermost, so that those of one model and batch size lie far apart in time."""
    runs = []
    for turn in range(options.rounds):
        for model in options.models:
            for batch in options.batches:
                for peer in options.peers[::-1] if turn % 2 else options.peers:
                    task = Task(model, batch, options.epochs, options.data, options.seed + turn)
                    run = {"round": turn + 1, "peer": peer, **dataclasses.asdict(task), **run_worker(peer, task)}
                    runs.append(run)
                    print(f"round {turn + 1}/{options.rounds}  {model}  batch {batch}  {peer}: "
                          f"{statistics.median(run['epoch_seconds']):.3f} s an epoch, loss {run['loss']:.4f}",
                          file=sys.stderr, flush=True)
    return runs


def summarize(runs: list[dict[str, Any]], peers: Sequence[str]) -> dict[str, Any]:
    """Figures of one model and batch size; ratios are against the first of `peers`, and in the order of rounds."""
    rows, medians = {}, {}
    for peer in peers:
        mine = [run for run in runs if run["peer"] == peer]
        seconds = [second for run in mine for second in run["epoch_seconds"]]
        low, median, high = statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else seconds * 3
        means = {name: statistics.fmean(run[name] for run in mine)
                 for name in ("first_epoch_seconds", "import_seconds", "loss")}
        rows[peer] = {"seconds": median, "quartiles": [low, high],
                      "images_per_second": mine[0]["images"] / median, **means}
        medians[peer] = [statistics.median(run["epoch_seconds"]) for run in mine]
    ratios = {f"{peer}/{peers[0]}": [own / first for own, first in zip(medians[peer], medians[peers[0]])]
              for peer in peers[1:]}
    losses = [row["loss"] for row in rows.values()]
    spread = max(losses) / min(losses) - 1 if all(map(math.isfinite, losses)) else math.inf
    tolerance = LOSS_TOLERANCE[runs[0]["data"]]
    return {**{name: runs[0][name] for name in ("model", "batch", "data", "images")}, "peers": rows, "ratios": ratios,
            "loss_spread": spread, "loss_tolerance": tolerance, "agree": spread <= tolerance}


def describe(summary: dict[str, Any]) -> str:
    """A summary as a person reads it."""
    lines = [f"{summary['model']}, batch {summary['batch']}, {summary['images']} images"]
    for peer, row in summary["peers"].items():
        low, high = row["quartiles"]
        lines.append(f"  {peer:<8} {row['seconds']:.3f} s an epoch (quartiles {low:.3f} to {high:.3f}), "
                     f"{row['images_per_second']:.0f} images/s; first epoch {row['first_epoch_seconds']:.1f} s, "
                     f"import {row['import_seconds']:.1f} s; loss {row['loss']:.4f}")
    for name, ratios in summary["ratios"].items():
        lines.append(f"  {name} {statistics.median(ratios):.2f} (median of rounds; {min(ratios):.2f} to "
                     f"{max(ratios):.2f}, rounds: {len(ratios)})")
    found = f"{summary['loss_spread']:.1%} apart, {summary['loss_tolerance']:.0%} allowed"
    if not summary["agree"]:
        lines.append(f"  *** MISMATCH: training losses are {found}: not the same work, times compare nothing ***")
    elif summary["ratios"]:
        lines.append(f"  the peers reach the same training loss: {found}")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    return {**provenance.machine(), "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ}}


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(text.split(",")))


def _models(text: str) -> list[str]:
    try:
        return [get_spec(name).name for name in _words(text)]
    except SpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _peers(text: str) -> list[str]:
    if not set(_words(text)) <= set(PEERS):
        raise argparse.ArgumentTypeError(f"must be some of {', '.join(PEERS)}; received {text!r}")
    return _words(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, received {text!r}")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_count(word) for word in _words(text)]


def make_parser() -> argparse.ArgumentParser:
    """The command's flags; a worker takes the same ones, with one model and one batch size."""
    parser = argparse.ArgumentParser(
        prog="epoch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--models", type=_models, default="4D_drop03", help="names from `python -m fmnist_zoo`")
    parser.add_argument("--batches", type=_counts, default="32,128,256", help="images an update")
    parser.add_argument("--peers", type=_peers, default="tape,fit", help="the others are compared to the first")
    parser.add_argument("--rounds", type=_count, default=5)
    parser.add_argument("--epochs", type=_count, default=2, help="timed epochs a process, after the first")
    parser.add_argument("--data", choices=tuple(LOSS_TOLERANCE), default="fashion_mnist")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each later one takes the next")
    parser.add_argument("--json", type=pathlib.Path, help="file for all numbers")
    parser.add_argument("--worker", choices=tuple(PEERS), help="run this peer here, once; answers a line of JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.worker:
        task = Task(options.models[0], options.batches[0], options.epochs, options.data, options.seed)
        print(json.dumps(work(options.worker, task)))
        return 0
    if options.json and not options.json.parent.is_dir():  # better now than after the last round
        parser.error(f"argument --json: {options.json.parent} is no folder")
    try:
        runs = measure(options)
    except WorkerError as error:
        print(f"epoch: {error}", file=sys.stderr)
        return 1
    versions = {run["peer"]: run.pop("versions") for run in runs}
    summaries = [summarize([run for run in runs if (run["model"], run["batch"]) == pair], options.peers)
                 for pair in itertools.product(options.models, options.batches)]
    print("\n\n".join(map(describe, summaries)))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "versions": versions, "commit": provenance.commit(),
                                            "runs": runs, "summaries": summaries}, indent=1) + "\n")
    return 0 if all(summary["agree"] for summary in summaries) else 1


if __name__ == "__main__":
    sys.exit(main())
