"""Which network and which engine a config needs: the one place that knows all engines."""

from __future__ import annotations

from typing import Any

from fmnist_zoo.data import Split
from trainers.config import ConfigError, RunConfig
from trainers.engine import lowlevel, processor
from trainers.engine.fit import FitEngine
from trainers.engine.loop import TapeEngine
from trainers.engine.network import Network
from trainers.engine.optimizers import Optimizer


def make_network(config: RunConfig, model: Any) -> Any:
    """What is trained: the variables of the Keras `model`; `scratch` has variables of its own.

    Raises:
        ConfigError: if the config asks for bfloat16 and the processor has none.
    """
    if config.trainer == "scratch":
        return lowlevel.LowLevelNetwork(config.spec, config.seed)
    mixed = config.precision == "mixed_bfloat16"
    if mixed and not processor.has_bfloat16():
        raise ConfigError("--precision=mixed_bfloat16: this processor multiplies no bfloat16 matrices (it has neither "
                          f"avx512_bf16 nor amx_bf16: {processor.machine()['cpu']}); train in float32")
    return Network(model, config.spec, bfloat16=mixed)


def make_engine(config: RunConfig, model: Any, network: Any, split: Split,
                teachers: tuple[Any, ...] = ()) -> TapeEngine | FitEngine:
    """The engine that trains `network` on the images of `split`; `Model.fit` trains it through `model`."""
    recipe, batch_size = config.recipe, config.batch(len(split.labels))
    if config.trainer == "fit":
        return FitEngine(model, network, recipe, split, batch_size=batch_size, seed=config.seed)
    optimizer: Any
    if config.trainer == "scratch":
        optimizer = lowlevel.OPTIMIZERS[recipe.optimizer](network.variables)
    else:
        optimizer = Optimizer(recipe.optimizer, network.variables, network.is_kernel)
    return TapeEngine(network, optimizer, recipe, split, batch_size=batch_size, seed=config.seed, teachers=teachers)
