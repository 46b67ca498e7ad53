"""The peers of `benchmarks.epoch`: functions that train a model on a split and tell a clock when each epoch ends.

A peer imports its libraries inside its function, because it runs in a process of its own. PyTorch and JAX run in an
environment of their own, where `fmnist_zoo` has specs and data but no models. A new peer is a function like `tape` and
`fit`, and an entry of `benchmarks.epoch.PEERS`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

from benchmarks import command
from fmnist_zoo.spec import FULL_BATCH

LEARNING_RATE, EPSILON = 0.001, 1e-7  # Adam's, for all peers
# Several ways to write the same peer: all are measured, the fastest counts.
FAMILIES = {"torch": ("torch_eager", "torch_fused", "torch_compile")}


@dataclasses.dataclass(frozen=True)
class Task:
    """What a peer trains: 1 + `epochs` epochs of a model at a batch size, everything random from `seed`.

    `weights` is a file of `save_weights`, for peers that cannot build the Keras model themselves.
    """

    model: str
    batch: int | str
    epochs: int
    data: str
    seed: int
    weights: str = ""

    def batch_size(self, images: int) -> int:
        """Images an update, of `images` training images."""
        return images if self.batch == FULL_BATCH else min(int(self.batch), images)


class Clock:
    """Takes the times of a peer, so that all peers are measured between the same points."""

    def __init__(self) -> None:
        self.loss = math.nan
        self.times: list[float] = []

    def start(self) -> None:
        """Data and model are ready; compiling and the first epoch come next and are timed together."""
        self.times.append(time.perf_counter())

    def epoch_done(self, loss: Any) -> None:
        """An epoch ended with this mean training loss. Reading the loss waits for asynchronous engines."""
        self.loss = float(loss)
        self.times.append(time.perf_counter())


def tape(task: Task, clock: Clock, split: Any) -> None:
    """Our engine as a run builds it, deterministic operations included."""
    from fmnist_zoo import models
    from fmnist_zoo.backend import keras, tf
    from trainers.config import resolve
    from trainers.engine import factory

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(task.seed)
    config = resolve(task.model, batch_size=task.batch, seed=task.seed, optimizer="adam", learning_rate=LEARNING_RATE)
    model = models.build(config.spec, task.seed)
    clock.start()
    engine = factory.make_engine(config, model, split)
    for epoch in range(1 + task.epochs):
        means = engine.run_epoch(epoch)
        clock.epoch_done(means.loss + means.penalty)


def fit(task: Task, clock: Clock, split: Any) -> None:
    """`Model.fit` on float arrays with its defaults, in one call, so that its input pipeline is built once."""
    command.free_threads()
    from fmnist_zoo import models
    from fmnist_zoo.backend import keras

    keras.utils.set_random_seed(task.seed)
    pixels = split.images.astype("float32") / 255
    model = models.build_model(task.model, seed=task.seed)
    clock.start()
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"])
    # A callback that sees epochs alone does not make fit wait for each batch.
    timer = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: clock.epoch_done(logs["loss"]))
    model.fit(pixels, split.labels, batch_size=task.batch_size(len(pixels)), epochs=1 + task.epochs, verbose=0,
              callbacks=[timer])


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
