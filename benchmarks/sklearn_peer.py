"""scikit-learn's `MLPClassifier`, an epoch a call of `partial_fit`, which shuffles and goes on where it stopped.

It knows neither dropout nor L1. Its `alpha` is halved and divided by the batch's images, so that l2 * sum W^2 is
alpha = 2 * l2 * batch (a last batch that is smaller is penalized in proportion more).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.peers import EPSILON, LEARNING_RATE, Clock, Task, read_weights
from fmnist_zoo import get_spec, load_data


def run(task: Task, clock: Clock) -> int:
    """Trains; returns the number of fit images."""
    from sklearn.neural_network import MLPClassifier

    clock.imported()
    spec = get_spec(task.model)
    split = load_data(("fit",), data=task.data)["fit"]
    pixels, labels = split.images.astype(np.float32) / 255, split.labels
    batch = task.batch_size(len(labels))
    model = MLPClassifier(spec.hidden, solver="adam", alpha=2 * spec.l2 * batch, batch_size=batch,
                          learning_rate_init=LEARNING_RATE, epsilon=EPSILON, random_state=task.seed)
    _start_from(model, read_weights(task))
    clock.start()
    for _ in range(1 + task.epochs):
        model.partial_fit(pixels, labels)
        clock.epoch_done(model.loss_)
    return len(labels)


def _start_from(model: Any, weights: list[np.ndarray]) -> None:
    """Puts initial `weights` into a new `model`, which takes none: after a first call that makes its arrays, its
    optimizer is dropped, and the next call begins with a new one over the same arrays."""
    batch_size = model.batch_size
    model.set_params(batch_size=10)
    model.partial_fit(np.zeros((10, len(weights[0])), np.float32), np.arange(10), classes=np.arange(10))
    model.set_params(batch_size=batch_size)
    for mine, given in zip(model.coefs_ + model.intercepts_, weights[::2] + weights[1::2]):
        mine[...] = given
    del model._optimizer
