"""An exponential mean of the weights over the updates (Polyak and Juditsky 1992; `ema` in a recipe)."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

from fmnist_zoo.backend import tf
from trainers.engine.network import Network


def averages(network: Network) -> dict[str, Any]:
    """A variable for the mean of each weight and moving statistic, by path, at the value that it has now."""
    return {name: tf.Variable(variable, trainable=False) for name, variable in _averaged(network).items()}


def restart(means: dict[str, Any], network: Network) -> None:
    """Sets the means to the values that the network has now."""
    current = _averaged(network)
    for name, mean in means.items():
        mean.assign(current[name])


def update(means: dict[str, Any], network: Network, decay: Any, step: Any) -> None:
    """The means after update number `step` + 1: mean = d * mean + (1 - d) * weight, d = min(decay, (1 + t) / (10 + t)).

    t = `step` + 1. The bound on d lets the mean follow the fast first updates, as TensorFlow's ExponentialMovingAverage
    does with `num_updates`.
    """
    if not means:
        return
    t = tf.cast(step + 1, tf.float32)
    rate = 1 - tf.minimum(decay, (1 + t) / (10 + t))
    current = _averaged(network)
    for name, mean in means.items():
        mean.assign_add(rate * (current[name] - mean))


@contextlib.contextmanager
def in_place(means: dict[str, Any], network: Network) -> Iterator[None]:
    """Within the block, the network has the means instead of its own weights."""
    current = {name: variable for name, variable in _averaged(network).items() if name in means}
    own = {name: tf.identity(variable) for name, variable in current.items()}
    try:
        for name, variable in current.items():
            variable.assign(means[name])
        yield
    finally:
        for name, variable in current.items():
            variable.assign(own[name])


def _averaged(network: Network) -> dict[str, Any]:
    floating = {name: variable for name, variable in network.state.items() if variable.dtype.is_floating}
    return {**dict(zip(network.names, network.variables)), **floating}
