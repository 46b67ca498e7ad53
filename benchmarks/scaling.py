"""How our engine grows: seconds an epoch, memory and the wait for the first step: `python -m benchmarks.scaling`.

One thing grows at a time: images (the 60,000 training images again and again, each time moved by one pixel), depth,
width, batch. Each point trains in a process of its own, rounds turn around, and figures are medians over the rounds:

- s an epoch: the median of the epochs after the first, which compiles; images/s of it; GFLOP/s of the matrix products.
- memory: the process's peak, over that of a process that does `import tensorflow` and no more.
- first step: seconds from the start of the process to the end of the first compiled call (at most 8 steps), over those
  of the same bare process.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any, Sequence

from benchmarks import command
from fmnist_zoo import get_spec
from fmnist_zoo.spec import FULL_BATCH
from trainers.running import provenance

MODEL, IMAGES, BATCH = "4D_drop03", 54_000, 128
SHIFTS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))  # rows, columns
AXES = ("images", "depth", "width", "batch")
# VmHWM is of this program alone; what `resource` tells may be that of the process which started it.
BARE = ("import tensorflow, time; print(time.time(), next((line.split()[1] for line in open('/proc/self/status') "
        "if line.startswith('VmHWM')), 0))")


def peak_memory_mb() -> float:
    """The peak of this process so far, in MB (2**20 bytes)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def enlarge(images: Any, count: int) -> Any:
    """`count` images (count, 784) uint8: `images` (n, 784) again and again, moved by one pixel each time."""
    import numpy as np

    grown = np.empty((count, 28, 28), np.uint8)
    for turn, start in enumerate(range(0, count, len(images))):
        part = grown[start:start + len(images)]
        part[...] = np.roll(images[:len(part)].reshape(-1, 28, 28), SHIFTS[turn % len(SHIFTS)], axis=(1, 2))
    return grown.reshape(count, 784)


def work(point: dict[str, Any], epochs: int, data: str) -> dict[str, Any]:
    """Trains a point in this process: what a worker answers; `first` is a time of day."""
    import numpy as np

    from fmnist_zoo import load_data, models
    from fmnist_zoo.data import Split
    from trainers import config as configs
    from trainers.engine import factory as engines

    images, labels = load_data(("fit",), data=data, validation_size=0)["fit"]
    split = Split(enlarge(images, point["images"]), np.resize(labels, point["images"]))
    del images, labels
    config = configs.resolve(point["model"], hidden=tuple(point["hidden"]), batch_size=point["batch"])
    model = models.build(config.spec, 0)
    engine = engines.make_engine(config, model, engines.make_network(config, model), split)
    parts: list[float] = []
    seconds = []
    for epoch in range(1 + epochs):
        started = time.perf_counter()
        engine.run_epoch(epoch, lambda done, means: parts.append(time.time()))
        seconds.append(time.perf_counter() - started)
    return {"first": parts[0], "epoch_seconds": seconds[1:], "memory_mb": peak_memory_mb(),
            "flops": config.spec.training_flops * point["images"]}


def bare() -> tuple[float, float]:
    """Seconds and MB of a process that imports TensorFlow and does nothing."""
    began = time.time()
    done = subprocess.run([sys.executable, "-c", BARE], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise command.WorkerError(f"import tensorflow failed: {done.stderr.strip().splitlines()[-1:]}")
    ended, kilobytes = map(float, done.stdout.split())
    return ended - began, kilobytes / 1024


def points(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What is measured: along each axis the others stay at the model's own."""
    own = get_spec(options.model).hidden
    usual = {"model": options.model, "images": options.usual_images, "hidden": list(own), "batch": BATCH}
    varied: dict[str, list[dict[str, Any]]] = {
        "images": [{"images": value} for value in options.images],
        "depth": [{"hidden": [400] * value} for value in options.depth],
        "width": [{"hidden": [value] * 2} for value in options.width],
        "batch": [{"batch": value} for value in options.batch]}
    names = {"images": "images", "depth": "hidden", "width": "hidden", "batch": "batch"}
    return [{**usual, **change, "axis": axis, "value": change[names[axis]]} for axis in options.axes
            for change in varied[axis]]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rounds: a list of answers, each over the bare process of its round."""
    found, everything = [], points(options)
    bare()  # from the disk into memory
    for turn in range(options.rounds):
        bare_seconds, bare_mb = bare()
        for point in everything[::-1] if turn % 2 else everything:
            began = time.time()
            answer = command.ask(["benchmarks.scaling", f"--point={json.dumps(point)}", f"--epochs={options.epochs}",
                                  f"--data={options.data}"], f"{point['axis']} {point['value']}")
            first = answer.pop("first") - began
            found.append({"round": turn + 1, **point, **answer, "first_step_seconds": first - bare_seconds,
                          "over_bare_mb": answer["memory_mb"] - bare_mb, "bare_seconds": bare_seconds,
                          "bare_mb": bare_mb})
            print(f"round {turn + 1}/{options.rounds}  {point['axis']} {point['value']}: "
                  f"{statistics.median(answer['epoch_seconds']):.3f} s an epoch", file=sys.stderr, flush=True)
    return found


def describe(found: list[dict[str, Any]]) -> str:
    """The figures as a person reads them, a table an axis."""
    lines = []
    for axis in dict.fromkeys(run["axis"] for run in found):
        lines.append(f"{axis:<28} s an epoch  images/s  GFLOP/s  memory MB  first step s")
        for value in dict.fromkeys(str(run["value"]) for run in found if run["axis"] == axis):
            mine = [run for run in found if run["axis"] == axis and str(run["value"]) == value]
            seconds = statistics.median(second for run in mine for second in run["epoch_seconds"])
            memory, first = (statistics.median(run[name] for run in mine)
                             for name in ("over_bare_mb", "first_step_seconds"))
            lines.append(f"  {value:<26} {seconds:>10.3f} {mine[0]['images'] / seconds:>9.0f} "
                         f"{mine[0]['flops'] / seconds / 1e9:>8.0f} {memory:>10.0f} {first:>13.2f}")
    memory, seconds = (statistics.median(run[name] for run in found) for name in ("bare_mb", "bare_seconds"))
    return "\n".join([*lines, f"over a bare import of TensorFlow: {memory:.0f} MB, {seconds:.1f} s"])


def _axes(text: str) -> list[str]:
    if not set(command.words(text)) <= set(AXES):
        raise argparse.ArgumentTypeError(f"must be some of {', '.join(AXES)}; received {text!r}")
    return command.words(text)


def make_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", type=_axes, default=",".join(AXES), help="what grows")
    parser.add_argument("--model", type=command.model, default=MODEL,
                        help="a name from `python -m fmnist_zoo`, without dropout or with one rate for all layers")
    parser.add_argument("--images", type=command.counts, default="10000,30000,60000,150000,300000,600000")
    parser.add_argument("--depth", type=command.counts, default="1,2,4,6,8", help="hidden layers of 400")
    parser.add_argument("--width", type=command.counts, default="100,200,400,800,1600", help="of two hidden layers")
    parser.add_argument("--batch", type=command.batches, default=f"16,32,64,128,256,1024,4096,{FULL_BATCH}")
    parser.add_argument("--usual_images", type=command.count, default=IMAGES, help="where images are not what grows")
    parser.add_argument("--rounds", type=command.count, default=3)
    parser.add_argument("--epochs", type=command.count, default=2, help="timed epochs a process, after the first")
    parser.add_argument("--data", choices=("fashion_mnist", "mini"), default="fashion_mnist")
    parser.add_argument("--json", type=command.json_path, help="file for all numbers")
    parser.add_argument("--point", type=json.loads, help="train this here, once; answers a line of JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = make_parser().parse_args(arguments)
    if options.point:
        print(json.dumps(work(options.point, options.epochs, options.data)))
        return 0
    try:
        found = measure(options)
    except command.WorkerError as error:
        print(f"scaling: {error}", file=sys.stderr)
        return 1
    print(describe(found))
    if options.json:
        options.json.write_text(json.dumps({"machine": provenance.machine(), "commit": provenance.commit(),
                                            "runs": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(command.interruptible(main))
