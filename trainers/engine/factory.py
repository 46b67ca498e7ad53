"""From a config to what trains it: the one place that knows all engines."""

from __future__ import annotations

from typing import Any

from fmnist_zoo.data import Split
from trainers.config import ConfigError, RunConfig
from trainers.engine import lowlevel, network as networks, processor
from trainers.engine.fit import FitEngine
from trainers.engine.loop import TapeEngine
from trainers.engine.network import Network
from trainers.engine.optimizers import Optimizer


def make_network(config: RunConfig, model: Any) -> Network:
    """What is trained: the variables of the Keras `model`, but for `scratch`, which has its own."""
    if config.trainer == "scratch":
        return lowlevel.make_network(config.spec, config.seed)
    mixed = config.precision == "mixed_bfloat16"
    if mixed and not processor.has_bfloat16():
        raise ConfigError("--precision=mixed_bfloat16: this processor multiplies no bfloat16 matrices (it has neither "
                          f"avx512_bf16 nor amx_bf16: {processor.machine()['cpu']}); train in float32")
    return networks.from_model(config.spec, model, bfloat16=mixed)


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
