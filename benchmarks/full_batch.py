"""How far a full-batch update is from its matrix products: `python -m benchmarks.full_batch`.

Network A on all training images, trained by `scratch` and by `tape`, beside TensorFlow's matrix products of the same
shapes alone (`benchmarks.limit`), which no engine can avoid. Updates and products take turns within one process, so
that both see the same machine; the ratio is the median over rounds. The last line is the peak memory of the whole
process, TensorFlow and data included.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
import timeit
from typing import Any, Callable, Sequence

from benchmarks import command, limit
from trainers import cli

MODEL = "network_A"
ENGINES = ("scratch", "tape")


def update(trainer: str, split: Any) -> Callable[[], Any]:
    """One full-batch update by an engine, as a run does it."""
    from fmnist_zoo import models
    from trainers.config import resolve
    from trainers.engine import factory

    config = resolve(MODEL, trainer=trainer)
    model = models.build(config.spec, 0)
    engine = factory.make_engine(config, model, split)
    epochs = itertools.count()
    return lambda: engine.run_epoch(next(epochs))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.full_batch", __doc__)
    parser.add_argument("--data", choices=command.DATA, default="fashion_mnist")
    parser.add_argument("--rounds", type=command.count, default=15)
    options = parser.parse_args(arguments)
    return cli.run("full_batch", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    from fmnist_zoo import get_spec, load_data

    split = load_data(("fit",), data=options.data)["fit"]
    images = len(split.labels)
    work = {trainer: update(trainer, split) for trainer in ENGINES}
    work["products"] = functools.partial(limit.make("tensorflow", get_spec(MODEL), images), 1)
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(-2, options.rounds):  # two rounds compile and warm up
        for name, call in work.items():
            took = timeit.timeit(call, number=1)
            if turn >= 0:
                times[name].append(took)
    for name, found in times.items():
        ratios = [own / limit for own, limit in zip(found, times["products"])]
        print(f"{name:<9} {statistics.median(found):.4f} s, {statistics.median(ratios):.2f} times the products "
              f"({min(ratios):.2f} to {max(ratios):.2f}, rounds: {options.rounds})")
    print(f"peak memory {command.peak_memory_mb():.0f} MB, {images} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
