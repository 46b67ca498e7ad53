"""Who is measured by `benchmarks.epoch`: a small function each, which trains a model and tells a clock when epochs end.

A peer imports what it needs inside its function, because it runs in a process of its own; those outside TensorFlow run
in an environment of their own (`benchmarks.environment`), where `fmnist_zoo` has its specs and data and no models. A
new one is a function like `tape` and `fit`, and an entry of `PEERS`.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import shutil
import time
from typing import Any, Callable

from benchmarks import command
from fmnist_zoo.spec import FULL_BATCH, ModelSpec

IMAGES = {"fashion_mnist": 54_000, "mini": 1_800}  # of the split fit
LEARNING_RATE, EPSILON = 0.001, 1e-7  # Adam's, for all peers


@dataclasses.dataclass(frozen=True)
class Task:
    """What a peer trains: 1 + `epochs` epochs of a model at a batch size, everything random from `seed`.

    `weights` is a file of `save_weights`: what peers start from that cannot build the Keras model themselves.
    """

    model: str
    batch: int | str
    epochs: int
    data: str
    seed: int
    weights: str = ""

    def batch_size(self, images: int) -> int:
        """Images an update, of `images` fit images."""
        return images if self.batch == FULL_BATCH else min(int(self.batch), images)


class Clock:
    """Takes the times of a peer, so that all are measured between the same points."""

    def __init__(self) -> None:
        self.import_seconds = self.loss = math.nan
        self.epoch_seconds: list[float] = []
        self._last = time.perf_counter()

    def _lap(self) -> float:
        before, self._last = self._last, time.perf_counter()
        return self._last - before

    def imported(self) -> None:
        """The peer's libraries are imported; data and model come next, untimed."""
        self.import_seconds = self._lap()

    def start(self) -> None:
        """Data and model are there; now comes what compiles, and the first epoch, timed together."""
        self._lap()

    def epoch_done(self, loss: Any) -> None:
        """An epoch ended with this mean training loss; reading it waits for an engine that runs ahead of Python."""
        self.loss = float(loss)
        self.epoch_seconds.append(self._lap())


def tape(task: Task, clock: Clock) -> int:
    """Our engine as `trainers.running.session` builds it, determinism included. Returns the number of fit images."""
    from fmnist_zoo import data, models
    from fmnist_zoo.backend import keras, tf
    from trainers import config as configs
    from trainers.engine import factory as engines

    clock.imported()
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(task.seed)
    split = data.load_data(("fit",), data=task.data)["fit"]
    config = configs.resolve(task.model, batch_size=task.batch, seed=task.seed, optimizer="adam",
                             learning_rate=LEARNING_RATE)
    model = models.build(config.spec, task.seed)
    network = engines.make_network(config, model)
    clock.start()
    engine = engines.make_engine(config, model, network, split)
    for epoch in range(1 + task.epochs):
        means = engine.run_epoch(epoch)
        clock.epoch_done(means.loss + means.penalty)
    return len(split.labels)


def fit(task: Task, clock: Clock) -> int:
    """`Model.fit` on float arrays with all its defaults. One call, so that it sets up its input pipeline only once."""
    command.free_threads()
    from fmnist_zoo import data, models
    from fmnist_zoo.backend import keras

    clock.imported()
    keras.utils.set_random_seed(task.seed)
    images, labels = data.load_data(("fit",), data=task.data)["fit"]
    pixels = images.astype("float32") / 255
    model = models.build_model(task.model, seed=task.seed)
    clock.start()
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"])
    # A callback that sees epochs alone leaves fit's asynchronous batches as they are.
    timer = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: clock.epoch_done(logs["loss"]))
    model.fit(pixels, labels, batch_size=task.batch_size(len(labels)), epochs=1 + task.epochs, verbose=0,
              callbacks=[timer])
    return len(labels)


def save_weights(task: Task) -> None:
    """Writes the initial weights of `task`'s Keras model, kernel and bias in turn, to the file `task.weights`."""
    import numpy as np

    from fmnist_zoo import models

    np.savez(task.weights, *models.build_model(task.model, seed=task.seed).get_weights())


def read_weights(task: Task) -> list[Any]:
    """The inverse of `save_weights`: float32 arrays (inputs, units), (units,), ... in the order of the layers."""
    import numpy as np

    with np.load(task.weights) as arrays:
        return [arrays[name] for name in arrays.files]


def _elsewhere(module: str, **settings: Any) -> Callable[[Task, Clock], int]:
    """`run` of `benchmarks.<module>`, which imports a library that may not be here."""
    def run(task: Task, clock: Clock) -> int:
        images: int = importlib.import_module(f"benchmarks.{module}").run(task, clock, **settings)
        return images

    return run


def _willing(spec: ModelSpec) -> str:
    return ""


def _compiler(spec: ModelSpec) -> str:
    return "" if shutil.which("g++") or shutil.which("clang++") else "torch.compile needs a C++ compiler, such as g++"


def _plain(spec: ModelSpec) -> str:
    """What MLPClassifier cannot train."""
    missing = [word for word, there in (("dropout", spec.dropout), ("L1", spec.l1)) if there]
    return f"MLPClassifier has no {' and no '.join(missing)}" if missing else ""


@dataclasses.dataclass(frozen=True)
class Peer:
    """Who trains, and where.

    Attributes:
        run: trains a task by a clock; returns the number of fit images.
        outside: it runs in the environment of `benchmarks.environment`, not in the zoo's.
        refuses: why it cannot train a spec; empty if it can.
    """

    run: Callable[[Task, Clock], int]
    outside: bool = True
    refuses: Callable[[ModelSpec], str] = _willing


PEERS = {
    "tape": Peer(tape, outside=False),
    "fit": Peer(fit, outside=False),
    "torch_eager": Peer(_elsewhere("torch_peer")),
    "torch_fused": Peer(_elsewhere("torch_peer", fused=True)),
    "torch_compile": Peer(_elsewhere("torch_peer", fused=True, compiled=True), refuses=_compiler),
    "jax": Peer(_elsewhere("jax_peer")),
    "sklearn": Peer(_elsewhere("sklearn_peer"), refuses=_plain),
}
# Several ways to write the same peer: all are measured, the best of them counts.
FAMILIES = {"torch": ("torch_eager", "torch_fused", "torch_compile")}
