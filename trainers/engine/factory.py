"""Which engine a config needs: the one place that knows all engines.

A compiled program serves all runs of the zoo's models that differ in numbers alone (rates, penalties, learning rate,
seed, ...). So the engines of a few architectures are kept when their runs have ended, and the next run of such an
architecture begins without tracing and compiling.
"""

from __future__ import annotations

import collections
from typing import Any, Hashable, Sequence

from fmnist_zoo.backend import keras
from fmnist_zoo.data import Split
from trainers.config import ConfigError, RunConfig
from trainers.engine import lowlevel, processor
from trainers.engine.fit import FitEngine
from trainers.engine.loop import Forward, TapeEngine
from trainers.engine.network import Network
from trainers.engine.optimizers import Optimizer

Engine = TapeEngine | FitEngine
KEPT = 4  # engines of runs that have ended, each with its images, variables and compiled program
SWITCHES = ("weight_decay", "label_smoothing", "ema", "clip_norm", "shift", "flip", "erase", "mixup")
"""The settings of a recipe whose parts of a program are there or not; what they are is an argument."""
_kept: collections.OrderedDict[Hashable, TapeEngine] = collections.OrderedDict()


def take(config: RunConfig, model: keras.Model, split: Split, *, origin: Hashable, teachers: Sequence[Forward] = ()
         ) -> Engine:
    """The engine that trains a run, compiled already if a run of its architecture has ended in this process.

    Give it back by `keep` when the run has ended.

    Args:
        split: the training images.
        model: the run's Keras model, with its initial weights. An engine that may be kept trains a copy of it, and
            `scratch` has variables of its own.
        origin: what identifies the images of `split`.
        teachers: forward functions of the recipe's teachers.

    Raises:
        ConfigError: for what the processor, XLA or an exact resume excludes.
    """
    key = None if teachers else _key(config, (origin, len(split.labels)))
    if key is None:
        return make_engine(config, model, split, teachers)
    engine = _kept.pop(key, None) or make_engine(config, keras.models.clone_model(model), split)
    assert isinstance(engine, TapeEngine), "only such an engine has a key"
    engine.network.restart(model, config.spec)
    engine.restart(config.recipe, config.seed)
    engine.key = key
    return engine


def keep(engine: Engine) -> None:
    """Keeps an engine of `take` for the next run of its architecture."""
    if isinstance(engine, TapeEngine) and engine.key is not None:
        _kept[engine.key] = engine
        while len(_kept) > KEPT:
            _kept.popitem(last=False)


def _key(config: RunConfig, images: tuple[Hashable, int]) -> Hashable:
    """What the compiled program of a config depends on: the architecture, what is on, and the images; or None."""
    spec, recipe = config.spec, config.recipe
    if config.trainer != "tape" or spec.build:
        return None
    architecture = tuple(value for name, value in spec.architecture.items() if name not in ("l1", "l2", "dropout"))
    rates = *(rate > 0 for rate in spec.dropout), spec.l1 > 0, spec.l2 > 0
    on = tuple(bool(getattr(recipe, name)) for name in SWITCHES)
    return architecture, rates, recipe.optimizer, on, config.batch(images[1]), config.precision, config.compiles, images


def make_engine(config: RunConfig, model: keras.Model, split: Split, teachers: Sequence[Forward] = ()) -> Engine:
    """An engine that trains `model` (or, with `scratch`, variables of its own) on the images of `split`.

    Raises:
        ConfigError: as `take`.
    """
    recipe, mixed = config.recipe, config.precision == "mixed_bfloat16"
    if mixed and not processor.has_bfloat16():
        raise ConfigError("--precision=mixed_bfloat16: this processor multiplies no bfloat16 matrices (it has neither "
                          f"avx512_bf16 nor amx_bf16: {processor.machine()['cpu']}); train in float32")
    options: dict[str, Any] = {"batch_size": config.batch(len(split.labels)), "seed": config.seed,
                               "jit_compile": config.compiles}
    if config.trainer == "scratch":
        low: Any = lowlevel.LowLevelNetwork(config.spec, config.seed)
        rule = lowlevel.OPTIMIZERS[recipe.optimizer](low.variables, low.names)
        return TapeEngine(low, rule, recipe, split, **options)
    network = Network(model, config.spec, bfloat16=mixed, jit_compile=config.compiles)
    idle = network.without_gradient(options["batch_size"]) if config.spec.build else []
    if config.trainer == "fit":
        options["jit_compile"] = "auto" if config.jit_compile == "auto" else config.compiles
        engine: Engine = FitEngine(network, recipe, split, **options)
    else:
        rule = Optimizer(recipe, network.trainable, network.is_kernel)
        engine = TapeEngine(network, rule, recipe, split, teachers=teachers, **options)
        if config.compiles and config.spec.build:
            engine.try_program()
    engine.idle = idle
    return engine
