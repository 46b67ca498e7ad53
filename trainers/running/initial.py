"""The first weights of a run, where they are those of a trained model."""

from __future__ import annotations

from typing import Any

import numpy as np

from fmnist_zoo import prediction, unrolling, weights
from fmnist_zoo.errors import SpecError
from fmnist_zoo.spec import ModelSpec
from trainers.config import ConfigError
from trainers.running.trained import Trained

COMPARED, TOLERANCE = 256, 1e-2  # images on which both networks must agree, and by how much logits may differ


def assign(model: Any, spec: ModelSpec, source: Trained, images: np.ndarray) -> None:
    """Gives `model` the weights of `source`: as they are, or written as dense layers (`unrolling.dense_arrays`).

    Args:
        images: (count, 784) uint8; on the first of them the two networks must agree.

    Raises:
        ConfigError: if the two have other layers, or are not the same function.
    """
    alike = source.spec.build == spec.build and (
        bool(spec.build) or weights.shapes(source.spec) == weights.shapes(spec))
    arrays = source.model.get_weights() if alike else _unrolled(spec, source)
    expected, received = ([array.shape for array in some] for some in (model.get_weights(), arrays))
    if received != expected:
        raise ConfigError(f"{_named(spec, source)}: that has arrays of shapes {received}, expected {expected}")
    model.set_weights(arrays)
    pixels = prediction.as_pixels(images[:COMPARED])
    logits, theirs = (prediction.logits_of([one], pixels, "") for one in (model, source.model))
    if not np.allclose(logits, theirs, rtol=TOLERANCE, atol=TOLERANCE):
        raise ConfigError(f"{_named(spec, source)}: with the weights of {source.title} it computes other logits (up to "
                          f"{np.abs(logits - theirs).max():.2g} apart); its activations must be those of that network")


def _unrolled(spec: ModelSpec, source: Trained) -> list[np.ndarray]:
    try:
        return unrolling.dense_arrays(source.model)
    except SpecError as error:
        raise ConfigError(f"{_named(spec, source)}: {error}") from error


def _named(spec: ModelSpec, source: Trained) -> str:
    return f"{spec.name} cannot start from the weights of {source.title}"
