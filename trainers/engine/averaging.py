"""An exponential mean of the weights over the updates (Polyak and Juditsky 1992; `ema` in a recipe)."""

from __future__ import annotations

import contextlib
from typing import Iterator

from fmnist_zoo.backend import tf
from trainers.engine.network import Network


class Averages:
    """A mean of each weight and moving statistic of a network; of nothing, if it is not `on`.

    Attributes:
        means: a variable for each, by path, at first with the value that the network has.
    """

    def __init__(self, network: Network, *, on: bool):
        own = {name: variable for name, variable in network.state.items() if variable.dtype.is_floating}
        self._own = {**dict(zip(network.names, network.variables)), **own} if on else {}
        self.means = {name: tf.Variable(variable, trainable=False) for name, variable in self._own.items()}

    def restart(self) -> None:
        """Sets the means to the values that the network has now."""
        for name, mean in self.means.items():
            mean.assign(self._own[name])

    def update(self, decay: tf.Tensor, step: tf.Tensor) -> None:
        """After update number t = `step` + 1: mean = d * mean + (1 - d) * weight, d = min(decay, (1 + t) / (10 + t)).

        The bound on d lets the mean follow the fast first updates, as TensorFlow's ExponentialMovingAverage does with
        `num_updates`.
        """
        if not self.means:
            return
        t = tf.cast(step + 1, tf.float32)
        rate = 1 - tf.minimum(decay, (1 + t) / (10 + t))
        for name, mean in self.means.items():
            mean.assign_add(rate * (self._own[name] - mean))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block, the network has the means instead of its own weights."""
        kept = {name: tf.identity(variable) for name, variable in self._own.items()}
        try:
            for name, variable in self._own.items():
                variable.assign(self.means[name])
            yield
        finally:
            for name, variable in self._own.items():
                variable.assign(kept[name])
