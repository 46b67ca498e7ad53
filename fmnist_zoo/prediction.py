"""From images to calibrated probabilities: `predict`. Arrays in, arrays out; files are the business of others."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from fmnist_zoo import metrics, models, weights
from fmnist_zoo.errors import ZooError
from fmnist_zoo.registry import get_spec
from fmnist_zoo.spec import PIXELS, ModelSpec

BATCH = 2000


class PredictionError(ZooError, ValueError):
    """Images that are not what a model of the zoo takes: says what was received."""


class Predictions(NamedTuple):
    """Labels (n,) int64, the most probable class of each image, and probabilities (n, 10) float64; rows sum to 1."""

    labels: np.ndarray
    probabilities: np.ndarray


def predict(images: Any, model: str | ModelSpec = "4D_drop03") -> Predictions:
    """What a trained model of the zoo sees in images, offline.

    Args:
        images: uint8, or floats in [0, 1], of shape (n, 28, 28) or (n, 784); a bright garment on black, as in
            Fashion-MNIST.
        model: a name that `list_models(trained=True)` knows, or its spec.

    Returns:
        Labels, and probabilities calibrated on validation images: softmax of logits / temperature (Guo et al. 2017).

    Raises:
        PredictionError: for any other array, with what was received.
        SpecError, WeightsError: for a model that is not known, or not trained.
    """
    pixels = as_pixels(images)
    spec = model if isinstance(model, ModelSpec) else get_spec(model)
    temperature = weights.entry(spec.name)["temperature"]
    return from_logits(outputs_of(_trained(spec), pixels), temperature)


def from_logits(logits: np.ndarray, temperature: float) -> Predictions:
    """Predictions of logits (n, 10) at a temperature."""
    probabilities = metrics.softmax(logits / temperature)
    return Predictions(logits.argmax(axis=1), probabilities)


def as_pixels(images: Any) -> np.ndarray:
    """`images` as a model takes them: (n, 784) float32 in [0, 1]; see `predict`."""
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise PredictionError(f"images must be one array, received {type(images).__name__}: {error}") from None
    received = f"received {array.dtype} of shape {array.shape}"
    if array.shape in ((28, 28), (PIXELS,)):
        raise PredictionError(f"images must be (n, 28, 28) or (n, 784), {received}: for one image, pass images[None]")
    if array.ndim not in (2, 3) or array.shape[1:] not in ((28, 28), (PIXELS,)):
        raise PredictionError(f"images must be (n, 28, 28) or (n, 784), {received}")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise PredictionError(f"images must be uint8 (0 to 255) or floats in [0, 1], {received}")
    pixels = array.reshape(len(array), PIXELS)
    if array.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    if np.isnan(pixels).any():
        raise PredictionError(f"float images must be in [0, 1], {received} with values that are no numbers (NaN)")
    if pixels.size and not (0 <= pixels.min() and pixels.max() <= 1):
        raise PredictionError(f"float images must be in [0, 1], {received} with values from {pixels.min():g} to "
                              f"{pixels.max():g}: divide by 255, or pass uint8")
    return pixels.astype(np.float32)


def outputs_of(model: Any, pixels: np.ndarray) -> np.ndarray:
    """Outputs (n, units) float32 of a Keras model on pixels (n, 784), dropout off, each image once."""
    chunks = [np.asarray(model(pixels[start:start + BATCH], training=False))
              for start in range(0, max(len(pixels), 1), BATCH)]
    return np.concatenate(chunks)


@functools.lru_cache(maxsize=4)
def _trained(spec: ModelSpec) -> Any:
    return models.load_model(spec)
