"""Which network and which engine a config needs: the one place that knows all engines.

A compiled program serves all runs that differ in numbers alone (rates, penalties, learning rate, seed, ...). So the
engines of a few architectures are kept when their runs have ended, and the next run of such an architecture begins
without tracing and compiling.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import Any, Callable, Hashable

import numpy as np

from fmnist_zoo.data import Split
from trainers.config import ConfigError, RunConfig
from trainers.engine import loop, lowlevel, optimizers, processor
from trainers.engine.augmentation import Augmentation
from trainers.engine.fit import FitEngine
from trainers.engine.loop import TapeEngine
from trainers.engine.network import Network

KEPT = 4  # engines of runs that have ended, each with its images, variables and compiled program
_kept: collections.OrderedDict[Hashable, TapeEngine] = collections.OrderedDict()


@dataclasses.dataclass(frozen=True)
class Lease:
    """An engine for one run; `release` it when the run has ended.

    Attributes:
        key: of the program among those that are kept; None: it is not kept.
    """

    engine: Any
    key: Hashable = None

    def release(self) -> None:
        """Keeps the engine for the next run of its architecture."""
        if self.key is not None:
            _kept[self.key] = self.engine
            while len(_kept) > KEPT:
                _kept.popitem(last=False)


def lease(config: RunConfig, build: Callable[[], Any], split: Split, *, model: Any, origin: Hashable,
          teachers: tuple[Any, ...] = (), taught: np.ndarray | None = None) -> Lease:
    """The engine that trains a run, compiled already if a run of its architecture has ended in this process.

    Args:
        build: makes another Keras model like `model`.
        split: the training images.
        model: the run's Keras model, with its initial weights. `fit` trains it, and so does `tape` with teachers, whose
            engine is not kept. Without teachers `tape` trains a copy; `scratch` has variables of its own.
        origin: what identifies the images of `split`.
        teachers, taught: forward functions of the recipe's teachers, and their logits, as `TapeEngine` takes them.

    Raises:
        ConfigError: if the config asks for bfloat16 and the processor has none.
    """
    if config.trainer != "tape" or teachers:
        return Lease(make_engine(config, model, make_network(config, model), split, teachers, taught))
    network = make_network(config, model)
    key = _key(config, model, network, (origin, len(split.labels)))
    engine: TapeEngine | FitEngine | None = _kept.pop(key, None)
    if engine is None:
        own = build()
        engine = make_engine(config, own, make_network(config, own), split)
    assert isinstance(engine, TapeEngine)
    engine.restart(network, config.recipe, config.seed)
    return Lease(engine, key)


def _key(config: RunConfig, model: Any, network: Network, images: Hashable) -> Hashable:
    """What a compiled program depends on: the architecture, what is on, and the images; None if that is not known."""
    spec, recipe = config.spec, config.recipe
    numbers = ("l1", "l2", "dropout")
    architecture: Any = _described(model) if spec.build else tuple(
        value for name, value in spec.architecture.items() if name not in numbers)
    if architecture is None:
        return None
    on = tuple(bool(getattr(recipe, name)) for name in ("weight_decay", "label_smoothing", "ema", "clip_norm"))
    return (architecture, network.drops, bool(spec.l1), bool(spec.l2), recipe.optimizer, on, Augmentation.of(recipe),
            config.batch(images[1]), config.precision, loop.LARGEST_XLA_BATCH, images)  # type: ignore[index]


def _described(model: Any) -> str | None:
    """All that a user's own model computes, as Keras' JSON; None if it holds code that is not Keras', which may change
    under the same name."""
    if type(model).__name__ not in ("Functional", "Sequential"):
        return None
    try:
        text = str(model.to_json())
    except Exception:  # Keras raises anything for a layer that it cannot describe
        return None
    known = all(module.startswith("keras") for module in re.findall(r'"module": "?([^",]*)', text))
    return text if known and '"Lambda"' not in text else None


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
                teachers: tuple[Any, ...] = (), taught: np.ndarray | None = None) -> TapeEngine | FitEngine:
    """The engine that trains `network` on the images of `split`; `Model.fit` trains it through `model`."""
    recipe, batch_size = config.recipe, config.batch(len(split.labels))
    if config.trainer == "fit":
        return FitEngine(model, network, recipe, split, batch_size=batch_size, seed=config.seed)
    optimizer: Any
    if config.trainer == "scratch":
        optimizer = lowlevel.OPTIMIZERS[recipe.optimizer](network.variables, network.names)
    else:
        optimizer = optimizers.make(recipe, network.trainable, network.names, network.is_kernel)
    return TapeEngine(network, optimizer, recipe, split, batch_size=batch_size, seed=config.seed, teachers=teachers,
                      taught=taught)
