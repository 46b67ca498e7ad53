"""From a spec to a Keras model, of built-in layers alone, so that what is saved opens anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from fmnist_zoo.backend import keras
from fmnist_zoo.registry import get_spec
from fmnist_zoo.spec import CLASSES, PIXELS, ModelSpec, SpecError


def build_model(name: str | ModelSpec, seed: int = 0, **overrides: Any) -> Any:
    """A new, untrained model of the zoo.

    Args:
        name: a name that `list_models` knows, a changed one (`4L,dropout=0.1_0.1_0.1`), or a spec.
        seed: initial weights are a function of it and of the layer's index, not of the name: `4L` and `4D_drop03`
            start equal. At least 0.
        **overrides: `dropout` (a rate or one a layer), `l1`, `l2`, `hidden` (widths), `initializer`.

    Returns:
        A functional `keras.Model` from (batch, 784) float32 in [0, 1] to (batch, 10) float32 logits. Its layers are
        `dense_1`, `dropout_1`, ..., `logits`. It bears the spec's truthful name, with `_` for what TensorFlow takes in
        no scope's name: `4L,l2=1e-05` is `4L__l2_1e-05`.

    Raises:
        SpecError: for an unknown name or field (with the nearest ones), or a value that cannot be.
    """
    if isinstance(name, ModelSpec):
        from fmnist_zoo.registry import derive
        return build(derive(name, **overrides) if overrides else name, seed)
    return build(get_spec(name, **overrides), seed)


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
