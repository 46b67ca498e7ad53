"""The first weights of a run, where they are those of a trained model."""

from __future__ import annotations

from typing import Any

import numpy as np

from fmnist_zoo import models, prediction, unrolling, weights
from fmnist_zoo.errors import SpecError
from fmnist_zoo.spec import PIXELS, ModelSpec
from trainers.config import ConfigError, RunConfig
from trainers.running.trained import Trained

COMPARED, TOLERANCE = 256, 1e-2  # images on which both networks must agree, and by how much logits may differ


def check(config: RunConfig, first: RunConfig) -> None:
    """Refuses what `assign` would refuse of the network that `first` trains, before it is trained."""
    model, source = (models.build(one.spec, one.seed) for one in (config, first))
    images = np.random.default_rng(0).integers(256, size=(COMPARED, PIXELS), dtype=np.uint8)
    _assign(model, config.spec, source, first.spec, first.spec.name, images)


def assign(model: Any, spec: ModelSpec, source: Trained, images: np.ndarray) -> None:
    """Gives `model` the weights of `source`: as they are, or written as dense layers (`unrolling.dense_arrays`).

    Args:
        images: (count, 784) uint8; on the first of them the two networks must agree.

    Raises:
        ConfigError: if the two have other layers, or are not the same function.
    """
    _assign(model, spec, source.model, source.spec, source.title, images)


def _assign(model: Any, spec: ModelSpec, source: Any, its: ModelSpec, title: str, images: np.ndarray) -> None:
    problem = f"{spec.name} cannot start from the weights of {title}"
    alike = its.build == spec.build and (bool(spec.build) or weights.shapes(its) == weights.shapes(spec))
    try:
        arrays = source.get_weights() if alike else unrolling.dense_arrays(source)
    except SpecError as error:
        raise ConfigError(f"{problem}: {error}") from error
    expected, received = ([array.shape for array in some] for some in (model.get_weights(), arrays))
    if received != expected:
        raise ConfigError(f"{problem}: that has arrays of shapes {received}, expected {expected}")
    model.set_weights(arrays)
    pixels = prediction.as_pixels(images[:COMPARED])
    logits, theirs = (prediction.logits_of([one], pixels, "") for one in (model, source))
    if not np.allclose(logits, theirs, rtol=TOLERANCE, atol=TOLERANCE):
        raise ConfigError(f"{problem}: with them it computes other logits (up to {np.abs(logits - theirs).max():.2g} "
                          "apart); its activations must be those of that network")
