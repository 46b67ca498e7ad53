"""From a config to what trains it: the one place that knows all engines."""

from __future__ import annotations

from typing import Any

from fmnist_zoo.data import Split
from trainers import lowlevel, network as networks
from trainers.config import RunConfig
from trainers.fit import FitEngine
from trainers.loop import TapeEngine
from trainers.network import Network
from trainers.optimizers import Optimizer


def make_network(config: RunConfig, model: Any) -> Network:
    """What is trained: the variables of the Keras `model`, but for `scratch`, which has its own."""
    if config.trainer == "scratch":
        return lowlevel.make_network(config.spec, config.seed)
    return networks.from_model(config.spec, model)


def make_engine(config: RunConfig, model: Any, network: Network, fit: Split) -> TapeEngine | FitEngine:
    """The engine that trains `network` (by way of `model`, for `fit`) on the split `fit` as `config` says."""
    recipe, batch_size = config.recipe, config.batch(len(fit.labels))
    if config.trainer == "fit":
        return FitEngine(model, recipe, *fit, batch_size=batch_size, seed=config.seed)
    optimizer: Any
    if config.trainer == "scratch":
        optimizer = lowlevel.OPTIMIZERS[recipe.optimizer](network.variables, learning_rate=recipe.learning_rate)
    else:
        optimizer = Optimizer(recipe.optimizer, network.variables, learning_rate=recipe.learning_rate,
                              weight_decay=recipe.weight_decay)
    return TapeEngine(network, optimizer, *fit, batch_size=batch_size, seed=config.seed)
