"""Who is measured by `benchmarks.epoch`: a small function each, which trains a model and tells a clock when epochs end.

A peer imports what it needs inside its function, because it runs in a process of its own, later perhaps in an
environment without TensorFlow. A new one is a function like `tape` and `fit`, and an entry of `PEERS`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any, Callable


@dataclasses.dataclass(frozen=True)
class Task:
    """What a peer trains: 1 + `epochs` epochs of a model at a batch size, everything random from `seed`."""

    model: str
    batch: int
    epochs: int
    data: str
    seed: int


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
    """Our engine as `trainers.session` builds it, determinism included. Returns the number of fit images."""
    from fmnist_zoo import data, models
    from fmnist_zoo.backend import keras, tf
    from trainers import config as configs, engines

    clock.imported()
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(task.seed)
    split = data.load_data(("fit",), data=task.data)["fit"]
    config = configs.resolve(task.model, batch_size=task.batch, seed=task.seed, optimizer="adam", learning_rate=0.001)
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
    model.fit(pixels, labels, batch_size=task.batch, epochs=1 + task.epochs, verbose=0, callbacks=[timer])
    return len(labels)


PEERS: dict[str, Callable[[Task, Clock], int]] = {"tape": tape, "fit": fit}
