"""How many seconds a training epoch takes, ours against others: `python -m benchmarks.epoch --peers=tape,fit,torch`.

Each peer trains the same model from the same initial weights on the same fit images (54,000; 1,800 of mini), with Adam
at 0.001, in processes of its own: `tape` is our engine as a run builds it; the others are written as their own
documentation teaches: `fit` is Keras, `torch` PyTorch in three ways (`torch_eager`, `torch_fused`, `torch_compile`), of
which the best counts, `jax` JAX with optax, `sklearn` MLPClassifier for what it can train. Those three need an
environment: `python -m benchmarks.environment`. In each round each peer runs once, in an order that turns around from
round to round, so that a busy minute of the machine, or a cold start, falls on none of them alone.

How to read it: "s an epoch" is the median over all epochs but the first of each process, with quartiles; the first one
compiles and is told apart, as is the import. The ratio is taken within each round, where both peers saw the same
machine: its median says how much faster, its range how far to trust that. `limit`, measured in each round too, is the
time of the bare matrix products and of the bytes that Adam moves (`benchmarks.limit`), and each peer's share of it. All
peers must reach the same training loss (mean over the last epoch's updates, penalty included, averaged over rounds)
within 3 %, on mini within 30 %; if not, one of them does other work, the times compare nothing, and the exit code is 1.

This module imports neither TensorFlow nor NumPy; `benchmarks.peers` says who the peers are.
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
from typing import Any, Iterator, Sequence

from benchmarks import command, environment, limit
from benchmarks.command import WorkerError
from benchmarks.peers import FAMILIES, IMAGES, PEERS, Clock, Task, save_weights
from benchmarks.summary import describe, summarize
from fmnist_zoo import get_spec
from trainers.running import provenance

# Named one by one: prefixes such as TF_ belong to other tools too, which may keep secrets in theirs.
SETTINGS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS",
            "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE")
LIBRARIES = ("tensorflow", "keras", "numpy", "torch", "jax", "jaxlib", "optax", "sklearn")
LIMIT = "limit"
WEIGHTS = "weights"  # a worker that trains nothing: it writes what the peers outside TensorFlow start from


def work(peer: str, task: Task) -> dict[str, Any]:
    """Runs a peer in this process: what a worker answers."""
    if peer == WEIGHTS:
        save_weights(task)
        return {}
    clock = Clock()
    images = PEERS[peer].run(task, clock)
    loaded = {name: sys.modules[name].__version__ for name in LIBRARIES if name in sys.modules}
    return {"images": images, "import_seconds": clock.import_seconds, "first_epoch_seconds": clock.epoch_seconds[0],
            "epoch_seconds": clock.epoch_seconds[1:], "loss": clock.loss,
            "versions": {"python": platform.python_version(), **loaded}}


def run_worker(peer: str, task: Task) -> dict[str, Any]:
    """Runs a peer in a fresh process and returns its answer; `WorkerError` if there is none."""
    python = environment.python() if peer != WEIGHTS and PEERS[peer].outside else sys.executable
    return command.ask(
        ["benchmarks.epoch", f"--worker={peer}", f"--models={task.model}", f"--batches={task.batch}",
         f"--epochs={task.epochs}", f"--data={task.data}", f"--seed={task.seed}", f"--weights={task.weights}"],
        f"{peer} on {task.model} at batch {task.batch}", python)


def willing(model: str, peers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of `peers` those that can train a model, and for each other one a line that says why not."""
    refusals = {peer: PEERS[peer].refuses(get_spec(model)) for peer in peers if peer != LIMIT}
    return ([peer for peer in peers if not refusals.get(peer)],
            [f"{peer} is left out: {reason}" for peer, reason in refusals.items() if reason])


def measure(options: argparse.Namespace, folder: str, runs: list[dict[str, Any]],
            limited: list[dict[str, Any]]) -> Iterator[int]:
    """Adds all rounds to `runs` and `limited`; after each one yields how many are whole. Rounds are outermost, so that
    those of one model and batch size lie far apart."""
    for turn in range(options.rounds):
        for model in options.models:
            weights, peers = "", willing(model, options.peers)[0]
            if any(peer != LIMIT and PEERS[peer].outside for peer in peers):
                weights = str(pathlib.Path(folder, "weights.npz"))
                run_worker(WEIGHTS, Task(model, 1, 1, options.data, options.seed + turn, weights))
            for batch, peer in itertools.product(options.batches, peers[::-1] if turn % 2 else peers):
                where = {"round": turn + 1, "model": model, "batch": batch}
                task = Task(model, batch, options.epochs, options.data, options.seed + turn, weights)
                if peer == LIMIT:
                    answers = limit.ask(model, task.batch_size(IMAGES[options.data]))
                    limited += [{**where, **answer} for answer in answers]
                    said = f"{min(answer['step_seconds'] for answer in answers):.2e} s of products a step"
                else:
                    run = {**where, "peer": peer, **dataclasses.asdict(task), **run_worker(peer, task)}
                    del run["weights"]  # a temporary file
                    runs.append(run)
                    said = f"{statistics.median(run['epoch_seconds']):.3f} s an epoch, loss {run['loss']:.4f}"
                print(f"round {turn + 1}/{options.rounds}  {model}  batch {batch}  {peer}: {said}", file=sys.stderr,
                      flush=True)
        yield turn + 1


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code; settings are those of whoever started this, not ours."""
    given = command.free_threads(dict(os.environ))
    return {**provenance.machine(), "settings": {name: given[name] for name in SETTINGS if name in given}}


def peer_names(text: str) -> list[str]:
    """Peers and `limit`; the name of a family stands for all its members."""
    known = (*PEERS, *FAMILIES, LIMIT)
    given = command.words(text)
    if not set(given) <= set(known):
        raise argparse.ArgumentTypeError(f"must be some of {', '.join(known)}; received {text!r}")
    return list(dict.fromkeys(peer for word in given for peer in FAMILIES.get(word, (word,))))


def make_parser() -> argparse.ArgumentParser:
    """The command's flags; a worker takes the same ones, with one model and one batch size."""
    parser = argparse.ArgumentParser(
        prog="epoch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--models", type=command.models, default="4D_drop03", help="names from `python -m fmnist_zoo`")
    parser.add_argument("--batches", type=command.batches, default="32,128,256", help="images an update; full: all")
    parser.add_argument("--peers", type=peer_names, default="tape,fit,limit",
                        help="of tape, fit, torch, jax, sklearn, limit; the others are compared to the first")
    parser.add_argument("--rounds", type=command.count, default=5)
    parser.add_argument("--epochs", type=command.count, default=2, help="timed epochs a process, after the first")
    parser.add_argument("--data", choices=tuple(IMAGES), default="fashion_mnist")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each later one takes the next")
    parser.add_argument("--json", type=command.json_path, help="file for all numbers")
    parser.add_argument("--worker", choices=(*PEERS, WEIGHTS), help="run this here, once; answers a line of JSON")
    parser.add_argument("--weights", default="", help="for a worker: file of the initial weights")
    return parser


def complaint(options: argparse.Namespace) -> str:
    """What keeps the rounds from starting, in a line; empty if nothing does."""
    outside = [peer for peer in options.peers if peer != LIMIT and PEERS[peer].outside]
    if outside and environment.trouble():
        return f"{', '.join(outside)} cannot run: {environment.trouble()}"
    for model in options.models:
        able, notes = willing(model, options.peers)
        if not set(able) - {LIMIT}:
            return f"nobody is left to train {model}: {'; '.join(notes) or 'name a peer beside limit'}"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = make_parser().parse_args(arguments)
    if options.worker:
        task = Task(options.models[0], options.batches[0], options.epochs, options.data, options.seed, options.weights)
        print(json.dumps(work(options.worker, task)))
        return 0
    if complaint(options):
        print(f"epoch: {complaint(options)}", file=sys.stderr)
        return 2
    commit, rounds, code = provenance.commit(), 0, 0
    runs: list[dict[str, Any]] = []
    limited: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for rounds in measure(options, folder, runs, limited):
                pass
    except (WorkerError, KeyboardInterrupt) as error:
        code = 1 if isinstance(error, WorkerError) else 130
        print(f"epoch: {str(error) or 'interrupted'}; {rounds} of {options.rounds} rounds are whole", file=sys.stderr)
        if not rounds:
            return code
        runs, limited = ([one for one in found if one["round"] <= rounds] for found in (runs, limited))
    versions = {run["peer"]: run.pop("versions") for run in runs}
    versions.update({f"limit, {answer['library']}": answer.pop("version") for answer in limited})
    summaries = []
    for model, batch in itertools.product(options.models, options.batches):
        peers, notes = willing(model, [peer for peer in options.peers if peer != LIMIT])
        mine, bounds = ([run for run in found if (run["model"], run["batch"]) == (model, batch)]
                        for found in (runs, limited))
        summaries.append(summarize(mine, peers, bounds, notes))
    print("\n\n".join(map(describe, summaries)))
    if options.json:
        options.json.write_text(json.dumps(
            {"machine": machine(), "versions": versions, "commit": commit, "rounds": rounds,
             "epochs": options.epochs, "runs": runs, "limits": limited, "summaries": summaries}, indent=1) + "\n")
    return code or (0 if all(summary["agree"] for summary in summaries) else 1)


if __name__ == "__main__":
    sys.exit(main())
