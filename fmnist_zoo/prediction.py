"""From images to calibrated probabilities: `predict`. TensorFlow is imported when the first model is loaded."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

import numpy as np

from fmnist_zoo import building, metrics, weights
from fmnist_zoo.photographs import INVERT, PhotographError, PredictionError, as_pixels, blocks
from fmnist_zoo.registry import get_spec
from fmnist_zoo.spec import PIXELS, ModelSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

BATCH = 2000


class Predictions(NamedTuple):
    """Labels (n,) int64, the most probable class of each image, and probabilities (n, 10) float64; rows sum to 1."""

    labels: np.ndarray
    probabilities: np.ndarray


def predict(images: ArrayLike | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
            model: str | ModelSpec = "4D_drop03", *, invert: str = "auto") -> Predictions:
    """What a trained model of the zoo sees in images; works offline.

    Args:
        images: an array, uint8 or floats in [0, 1], of shape (n, 28, 28) or (n, 784), of a bright garment on black, as
            in Fashion-MNIST. Or a file's path, or a list of paths: PNG, JPEG, WebP, BMP or GIF of any size, one garment
            each on a plain ground; IDX or npy of 28x28 images. Their images are in the order of the list.
        model: a name that `list_models(trained=True)` knows, or its spec.
        invert: "yes" or "no": whether intensities are negated. "auto": photographs with a bright ground are; arrays,
            IDX and npy are not.

    Returns:
        Labels, and probabilities calibrated on validation images: softmax of logits / temperature (Guo et al. 2017).

    Raises:
        PredictionError: for other arrays and for files without such images, with what was received.
        SpecError, WeightsError: for a model that is not known, or not trained.
    """
    if invert not in INVERT:
        raise PredictionError(f"invert must be one of {', '.join(INVERT)}; received {invert!r}")
    spec = model if isinstance(model, ModelSpec) else get_spec(model)
    temperature = weights.entry(spec.name)["temperature"]
    paths = _paths(images)
    if paths:
        pixels = np.concatenate([_read(path, invert) for path in paths])
    else:
        pixels = as_pixels(images)
        pixels = 1 - pixels if invert == "yes" else pixels
    return from_logits(outputs_of(_trained(spec), pixels), temperature)


def _paths(images: Any) -> list[str | os.PathLike[str]]:
    """The paths among the arguments of `predict`; none if `images` is an array."""
    several = images if isinstance(images, (list, tuple)) else [images]
    return list(several) if all(isinstance(path, (str, os.PathLike)) for path in several) else []


def _read(path: str | os.PathLike[str], invert: str) -> np.ndarray:
    try:
        return np.concatenate([as_pixels(block) for block in blocks(path, invert)])
    except PhotographError as error:
        raise PhotographError(f"{os.fspath(path)}: {error}") from error


def from_logits(logits: np.ndarray, temperature: float) -> Predictions:
    """Predictions of logits (n, 10) at a temperature."""
    return Predictions(logits.argmax(axis=1), metrics.softmax(logits / temperature))


def outputs_of(model: Any, pixels: np.ndarray) -> np.ndarray:
    """Outputs (n, units) float32 of a Keras model on pixels (n, 784), without dropout, in batches of `BATCH`."""
    from fmnist_zoo.backend import keras

    pixels = as_input(model, pixels)
    chunks = [keras.ops.convert_to_numpy(model(pixels[start:start + BATCH], training=False))
              for start in range(0, max(len(pixels), 1), BATCH)]
    return np.concatenate(chunks)


def as_input(model: Any, pixels: Any) -> Any:
    """Pixels (n, 784), an array or a tensor, in the shape that a model takes: (n, 784), (n, 28, 28), (n, 28, 28, 1)."""
    shape = building.input_shape(model)
    if shape == (PIXELS,):
        return pixels
    if isinstance(pixels, np.ndarray):
        return pixels.reshape(-1, *shape)
    from fmnist_zoo.backend import keras

    return keras.ops.reshape(pixels, (-1, *shape))


@functools.lru_cache(maxsize=4)
def _trained(spec: ModelSpec) -> Any:
    from fmnist_zoo import models

    return models.load_model(spec)
