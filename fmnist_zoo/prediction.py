"""From images to calibrated probabilities: `predict`. TensorFlow is imported when the first model is loaded."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

import numpy as np

from fmnist_zoo import custom, metrics, weights
from fmnist_zoo.photographs import INVERT, PhotographError, PredictionError, as_pixels, read
from fmnist_zoo.registry import get_spec
from fmnist_zoo.spec import PIXELS, ModelSpec

if TYPE_CHECKING:
    import keras
    from numpy.typing import ArrayLike

BATCH = 2000


class Predictions(NamedTuple):
    """Labels (n,) int64, the most probable class of each image, and probabilities (n, 10) float64; rows sum to 1."""

    labels: np.ndarray
    probabilities: np.ndarray


def predict(images: ArrayLike | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
            model: str | ModelSpec | Sequence[str | ModelSpec] = "4D_drop03", *,
            invert: str = "auto") -> Predictions:
    """What a trained model of the zoo sees in images; works offline.

    Args:
        images: an array, uint8 or floats in [0, 1], of shape (n, 28, 28) or (n, 784), of a bright garment on black, as
            in Fashion-MNIST. Or a file's path, or a list of paths: PNG, JPEG, WebP, BMP or GIF of any size, one garment
            each on a plain ground; IDX or npy of 28x28 images. Their images are in the order of the list.
        model: a name that `list_models(trained=True)` knows, or its spec. Several are an ensemble: the mean of their
            probabilities.
        invert: "yes" or "no": whether intensities are negated. "auto": photographs with a bright ground are; arrays,
            IDX and npy are not.

    Returns:
        Labels, and probabilities calibrated on validation images: softmax of logits / temperature (Guo et al. 2017). An
        ensemble has a temperature of its own. Its first call in a process fits it, for which it loads the validation
        images as `load_data` does.

    Raises:
        PredictionError: for other arrays and for files without such images, with what was received; for an ensemble
            of models that have other validation images.
        SpecError, WeightsError: for a model that is not known, or not trained.
        DataError: if an ensemble cannot load the validation images.
    """
    if invert not in INVERT:
        raise PredictionError(f"invert must be one of {', '.join(INVERT)}; received {invert!r}")
    specs = _specs(model)
    entries = [weights.entry(spec.name) for spec in specs]
    paths = _paths(images)
    if paths:
        pixels = np.concatenate([_read(path, invert) for path in paths])
    else:
        pixels = as_pixels(images)
        pixels = 1 - pixels if invert == "yes" else pixels
    models = [_trained(spec) for spec in specs]
    temperature = _temperature(specs) if len(specs) > 1 else entries[0]["temperature"]
    return from_logits(logits_of(models, pixels), temperature)


def _specs(model: keras.Model) -> tuple[ModelSpec, ...]:
    """The specs of a model or of an ensemble's members, which must have the same validation images."""
    several = list(model) if isinstance(model, (list, tuple)) else [model]
    specs = tuple(one if isinstance(one, ModelSpec) else get_spec(one) for one in several)
    if not specs or len(set(specs)) < len(specs):
        raise PredictionError(f"model must be one model or different ones, received {several!r}")
    if len({weights.entry(spec.name)["data"]["split_sha256"] for spec in specs}) > 1:
        raise PredictionError("an ensemble is calibrated on validation images that no member was trained on; these "
                              f"have no such images in common: {', '.join(spec.name for spec in specs)}")
    return specs


@functools.lru_cache(maxsize=64)
def _temperature(specs: tuple[ModelSpec, ...]) -> float:
    """The temperature of shipped models together, fitted on their validation images."""
    from fmnist_zoo.data import load_data

    entry = weights.entry(specs[0].name)
    found = load_data(("validation",), data=entry["data"]["name"], validation_size=entry["recipe"]["validation_size"])
    images, labels = found["validation"]
    if not len(labels):
        return 1.0
    return metrics.fit_temperature(logits_of([_trained(spec) for spec in specs], as_pixels(images)), labels)


def _paths(images: Any) -> list[str | os.PathLike[str]]:
    """The paths among the arguments of `predict`; none if `images` is an array."""
    several = images if isinstance(images, (list, tuple)) else [images]
    return list(several) if all(isinstance(path, (str, os.PathLike)) for path in several) else []


def _read(path: str | os.PathLike[str], invert: str) -> np.ndarray:
    try:
        return as_pixels(read(path, invert))
    except PhotographError as error:
        raise PhotographError(f"{os.fspath(path)}: {error}") from error


def from_logits(logits: np.ndarray, temperature: float) -> Predictions:
    """Predictions of logits (n, 10) at a temperature."""
    return Predictions(logits.argmax(axis=1), metrics.softmax(logits / temperature))


def logits_of(models: Sequence[keras.Model], pixels: np.ndarray) -> np.ndarray:
    """What Keras models predict together of pixels (n, 784): logits (n, 10), to be divided by a temperature.

    One model's logits are float32, as it returns them; those of several are `metrics.mean_of_models`, float64.
    """
    members = [outputs_of(model, pixels) for model in models]
    return metrics.mean_of_models(members) if len(members) > 1 else members[0]


def outputs_of(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """Outputs (n, units) float32 of a Keras model on pixels (n, 784), without dropout, in batches of `BATCH`."""
    from fmnist_zoo.backend import keras, refuse_fork

    refuse_fork()
    pixels = as_input(model, pixels)
    chunks = [keras.ops.convert_to_numpy(model(pixels[start:start + BATCH], training=False))
              for start in range(0, max(len(pixels), 1), BATCH)]
    return np.concatenate(chunks)


def as_input(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """Pixels (n, 784), an array or a tensor, in the shape that a model takes: (n, 784), (n, 28, 28), (n, 28, 28, 1)."""
    shape = custom.input_shape(model)
    if shape == (PIXELS,):
        return pixels
    if isinstance(pixels, np.ndarray):
        return pixels.reshape(-1, *shape)
    from fmnist_zoo.backend import keras

    return keras.ops.reshape(pixels, (-1, *shape))


@functools.lru_cache(maxsize=32)
def _trained(spec: ModelSpec) -> keras.Model:
    from fmnist_zoo import models

    return models.load_model(spec)
