"""From a spec to a Keras model, of built-in layers alone, so that what is saved opens anywhere."""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import Any

import numpy as np

from fmnist_zoo import weights as stored
from fmnist_zoo.backend import keras
from fmnist_zoo.registry import derive, get_spec
from fmnist_zoo.spec import CLASSES, PIXELS, ModelSpec, SpecError
from fmnist_zoo.weights import WeightsError


def build_model(name: str | ModelSpec, seed: int = 0, *, weights: str | os.PathLike[str] | None = None,
                features: bool = False, **overrides: Any) -> Any:
    """A model of the zoo: a new one, or with trained weights.

    Args:
        name: a name that `list_models` knows, a changed one (`4L,dropout=0.1_0.1_0.1`), or a spec.
        seed: initial weights are a function of it and of the layer's index, not of the name: `4L` and `4D_drop03`
            start equal. At least 0.
        weights: None: the initial ones. "fashion_mnist": those that come with the package. Else a file of yours:
            `.weights.h5` or `.keras` of Keras, as a run leaves them, or `.safetensors` of `fmnist_zoo.weights.write`.
            Keras' files tell models apart by their layers' shapes alone, not by their dropout or penalties.
        features: return the activations of the last hidden layer, (batch, units) float32, instead of logits; without
            hidden layers they are the pixels.
        **overrides: `dropout` (a rate or one a layer), `l1`, `l2`, `hidden` (widths), `initializer`.

    Returns:
        A functional `keras.Model` from (batch, 784) float32 in [0, 1] to (batch, 10) float32 logits. Its layers are
        `dense_1`, `dropout_1`, ..., `logits`. It bears the spec's truthful name, with `_` for what TensorFlow takes in
        no scope's name: `4L,l2=1e-05` is `4L__l2_1e-05`.

    Raises:
        SpecError: for an unknown name or field (with the nearest ones), or a value that cannot be.
        WeightsError: for weights that are not to be had, were damaged, or belong to another model.
    """
    spec = name if isinstance(name, ModelSpec) else get_spec(name)
    spec = derive(spec, **overrides) if overrides else spec
    model = build(spec, seed)
    if weights is not None:
        load_weights(model, spec, weights)
    return feature_model(model) if features else model


def load_model(name: str | ModelSpec, *, weights: str | os.PathLike[str] = stored.SHIPPED,
               features: bool = False) -> Any:
    """A trained model of the zoo, offline: `build_model` with the weights that come with the package (of seed 0)."""
    if weights is None:
        raise WeightsError("load_model gives trained models, received weights=None; build_model makes new ones")
    return build_model(name, weights=weights, features=features)


def feature_model(model: Any) -> Any:
    """What feeds a zoo model's logits: a Keras model from (batch, 784) pixels to its last hidden activations.

    It shares the layers and weights of `model`, which may be a name too: its trained model is loaded then.
    """
    model = load_model(model) if isinstance(model, (str, ModelSpec)) else model
    return keras.Model(model.inputs[0], model.get_layer("logits").input, name=f"{model.name}_features")


def load_weights(model: Any, spec: ModelSpec, source: str | os.PathLike[str]) -> None:
    """Puts weights into the model of `spec`; `source` as `weights` of `build_model`."""
    if source == stored.SHIPPED:
        model.set_weights(stored.read_shipped(spec))
        return
    path = pathlib.Path(source)
    if path.suffix == ".safetensors":
        model.set_weights(stored.read(path, spec))
        return
    if not path.name.endswith((".weights.h5", ".keras")) or not path.is_file():
        raise WeightsError(f"weights={os.fspath(source)!r}: expected {stored.SHIPPED!r} or a file .weights.h5, .keras "
                           f"or .safetensors; {'this is no such file' if path.exists() else 'there is no such file'}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Keras warns where it finds other layers than the model's, and goes on
            model.load_weights(path)
    except Exception as error:  # Keras and HDF5 raise anything for a file that is damaged or of another model
        message = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path}: damaged, or belongs to another model than {spec.name}: {message}") from error
    if not all(np.isfinite(array).all() for array in model.get_weights()):
        raise WeightsError(f"{path}: holds numbers that are not finite")


def build(spec: ModelSpec, seed: int = 0) -> Any:
    """The model of a spec; see `build_model`."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed < 2**32:
        raise SpecError(f"seed must be a whole number in [0, 2**32), received {seed!r}")
    pixels = keras.Input((PIXELS,), name="pixels")
    flow = pixels
    for index, units in enumerate(spec.hidden):
        flow = _dense(spec, seed, index, units, activation="relu", name=f"dense_{index + 1}")(flow)
        if spec.dropout and spec.dropout[index]:
            flow = keras.layers.Dropout(
                spec.dropout[index], seed=layer_seed(seed, index, of="dropout"), name=f"dropout_{index + 1}")(flow)
    logits = _dense(spec, seed, len(spec.hidden), CLASSES, activation=None, name="logits")(flow)
    return keras.Model(pixels, logits, name=spec.name.replace(",", "__").replace("=", "_").replace("+", "_"))


def _dense(spec: ModelSpec, seed: int, index: int, units: int, **options: Any) -> Any:
    weights_seed = layer_seed(seed, index, of="weights")
    if spec.initializer == "normal_0.05":
        initializer = keras.initializers.RandomNormal(0.0, 0.05, seed=weights_seed)
    else:
        initializer = keras.initializers.GlorotUniform(seed=weights_seed)
    penalty = keras.regularizers.L1L2(spec.l1, spec.l2) if spec.l1 or spec.l2 else None
    return keras.layers.Dense(units, kernel_initializer=initializer, kernel_regularizer=penalty, **options)


def layer_seed(seed: int, index: int, *, of: str) -> int:
    """A seed for one layer, from a hash that keeps the streams of neighbouring seeds and layers apart.

    Below 2**31 - 2, because Keras folds larger ones into that range before it draws.
    """
    kind = ("weights", "dropout").index(of)
    return int(np.random.SeedSequence([seed, index, kind]).generate_state(1)[0]) % (2**31 - 2)
