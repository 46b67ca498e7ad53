"""How far a full-batch update is from its matrix products: `python -m benchmarks.full_batch`.

Network A on all fit images, trained by `scratch` and by `tape`, beside the products of the same shapes alone (forward
x W1 and h W2; backward the gradients of W2, h and W1), which no engine can do without. Updates and products take turns
within one process, so that both see the same machine; the ratio is the median over rounds. The last line is the peak
memory of the whole process, TensorFlow and data included.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from typing import Any, Callable, Sequence

from benchmarks import command

ENGINES = ("scratch", "tape")


def products(images: int) -> Callable[[], Any]:
    """The five matrix products of an update of network A on `images` images, compiled."""
    from fmnist_zoo.backend import tf

    shapes = {"x": (images, 784), "w1": (784, 300), "h": (images, 300), "w2": (300, 10), "g": (images, 10)}
    values = {name: tf.random.stateless_normal(shape, seed=[0, index]) for index, (name, shape) in
              enumerate(shapes.items())}

    @tf.function
    def multiply(x: Any, w1: Any, h: Any, w2: Any, g: Any) -> Any:
        back = tf.matmul(g, w2, transpose_b=True)
        results = (x @ w1, h @ w2, tf.matmul(h, g, transpose_a=True), tf.matmul(x, back, transpose_a=True))
        return tf.add_n([result[0, 0] for result in results])  # so that none is optimized away

    return lambda: multiply(**values).numpy()


def update(trainer: str, data: str) -> tuple[Callable[[], Any], int]:
    """One full-batch update by an engine, as a run does it, and the number of its images."""
    from fmnist_zoo import load_data, models
    from trainers import config as configs
    from trainers.engine import factory as engines

    split = load_data(("fit",), data=data)["fit"]
    config = configs.resolve("network_A", trainer=trainer)
    model = models.build(config.spec, 0)
    engine = engines.make_engine(config, model, engines.make_network(config, model), split)
    epochs = iter(range(10**6))
    return lambda: engine.run_epoch(next(epochs)), len(split.labels)


def seconds(work: Callable[[], Any]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_batch", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("fashion_mnist", "mini"), default="fashion_mnist")
    parser.add_argument("--rounds", type=command.count, default=15)
    options = parser.parse_args(arguments)
    work = {}
    for trainer in ENGINES:
        work[trainer], images = update(trainer, options.data)
    work["products"] = products(images)
    for one in work.values():  # compile, warm up
        seconds(one), seconds(one)
    times = {name: [seconds(one) for one in work.values()] for name in range(options.rounds)}
    columns = dict(zip(work, zip(*times.values())))
    for name, found in columns.items():
        ratios = [mine / limit for mine, limit in zip(found, columns["products"])]
        print(f"{name:<9} {statistics.median(found):.4f} s, {statistics.median(ratios):.2f} times the products "
              f"({min(ratios):.2f} to {max(ratios):.2f}, rounds: {options.rounds})")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB, {images} images")
    return 0


if __name__ == "__main__":
    sys.exit(command.interruptible(main))
