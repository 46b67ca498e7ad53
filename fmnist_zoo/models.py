"""Builds Keras models from specs, of built-in layers alone, so that plain Keras opens what is saved.

It works with every backend of Keras: TensorFlow, jax and torch.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from fmnist_zoo import custom, local
from fmnist_zoo.backend import keras, refuse_fork
from fmnist_zoo.errors import SpecError
from fmnist_zoo.files import local_path
from fmnist_zoo.registry import derive, get_spec
from fmnist_zoo.settings import Whole
from fmnist_zoo.spec import ACTIVATION, BATCH_NORM, DENSE, DROPOUT, LOCAL, PIXELS, Layer, ModelSpec
from fmnist_zoo.weights import WeightsError, assign, entry, read, read_shipped

MOMENTUM, EPSILON = 0.9, 1e-5  # of normalization, as in PyTorch; Keras' 0.99 needs thousands of updates


def build_model(name: str | ModelSpec, seed: int = 0, *, weights: str | os.PathLike[str] | None = None,
                **overrides: Any) -> keras.Model:
    """A new model of the zoo, or one with the weights in a file; `load_model` gives those that come with the package.

    Args:
        name: a name that `list_models` knows, one with changes (`4L,dropout=0.1_0.1_0.1`), or a spec.
        seed: in [0, 2**32). Initial weights are a function of the seed and the layer's index, not of the name: `4L`
            and `4D_drop03` start equal. They are drawn by the generator of Keras' backend: jax, torch and TensorFlow
            draw other numbers from the same seed, of the same distribution.
        weights: None for initial weights, or a file, as a run leaves it in `weights/`.
        **overrides: settings of `ModelSpec`, such as `hidden` (widths), `dropout` (a rate or one for each layer), `l2`.

    A model that was registered with a build function is what that function returns; its input may have the shape of
    images, and its layers have their own names.

    Returns:
        A functional `keras.Model` from (batch, 784) float32 in [0, 1] to (batch, 10) float32 logits. Its layers are
        `dense_1`, `dropout_1`, ..., `logits`. Its name is the spec's, with `_` for characters that
        TensorFlow does not allow in the name of a scope: `4L,l2=1e-05` becomes `4L__l2_1e-05`.

    Raises:
        SpecError: for an unknown name or field (the message suggests similar ones), or an impossible value.
        WeightsError: for weights that are missing, damaged, or of another model.
    """
    spec = name if isinstance(name, ModelSpec) else get_spec(name)
    spec = derive(spec, **overrides) if overrides else spec
    model = build(spec, seed)
    if weights is not None:
        path = pathlib.Path(local_path(weights, "weights"))
        if path.suffix == ".keras":
            raise WeightsError(f"{path}: holds a whole model, which keras.saving.load_model opens; weights are in "
                               "files .safetensors")
        assign(model, read(path, spec, model))
    return model


def load_model(name: str | ModelSpec) -> keras.Model:
    """A trained model of the zoo, offline, as `build_model` makes it, with the weights in the package, of seed 0.

    Raises:
        SpecError: for an unknown name.
        WeightsError: if no weights come with it, or they are damaged.
    """
    spec = name if isinstance(name, ModelSpec) else get_spec(name)
    entry(spec.name)  # refuses a model without weights before it is built
    model = build(spec)
    model.set_weights(read_shipped(spec, model))
    return model


def feature_model(model: str | ModelSpec | keras.Model) -> keras.Model:
    """The part of a model before its last layer, from pixels to the last hidden activations, (batch, units) float32.

    `model` is a Keras model, which shares its layers and weights with the result, or the name or spec of a trained one.

    Raises:
        SpecError: for a model of the user's own that does not say which layer is the last.
    """
    model = load_model(model) if isinstance(model, (str, ModelSpec)) else model
    if not getattr(model, "inputs", None):
        raise SpecError(f"{model.name} is a subclass of keras.Model, and only its own code knows what is before its "
                        "last layer; build it as a functional or Sequential model")
    features = model.outputs[0]._keras_history.operation.input
    if not isinstance(features, keras.KerasTensor):
        raise SpecError(f"the last layer of {model.name} has several inputs, none of which are its features")
    return keras.Model(model.inputs[0], features, name=f"{model.name}_features")


@custom.in_float32()
def build(spec: ModelSpec, seed: int = 0) -> keras.Model:
    """The model of a spec with initial weights, float32 whatever Keras' default is; see `build_model`."""
    refuse_fork()
    seed = int(Whole(below=2**32).check("seed", seed))
    if spec.build:
        return custom.build(spec.builder, seed)
    flow = pixels = keras.Input((PIXELS,), name="pixels")
    for layer in spec.layers:
        flow = _make(spec, layer, seed)(flow)
    model = keras.Model(pixels, flow, name=spec.name.replace(",", "__").replace("=", "_").replace("+", "_"))
    if spec.initializer == LOCAL:
        hidden = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][:-1]
        sides = local.sides(spec.hidden)
        for layer, before, after in zip(hidden, sides, sides[1:]):
            layer.kernel.assign(local.kernel(keras.ops.convert_to_numpy(layer.kernel), before, after))
    return model


def _make(spec: ModelSpec, layer: Layer, seed: int) -> keras.layers.Layer:
    """The Keras layer."""
    make = keras.layers
    if layer.kind == DENSE:
        return _dense(spec, layer, seed)
    if layer.kind == ACTIVATION:
        return make.Activation(layer.activation, name=layer.name)
    if layer.kind == DROPOUT:
        return make.Dropout(layer.rate, seed=layer_seed(seed, layer.index, of="dropout"), name=layer.name)
    if layer.kind == BATCH_NORM:
        return make.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=layer.name)
    return make.LayerNormalization(epsilon=EPSILON, name=layer.name)


def _dense(spec: ModelSpec, layer: Layer, seed: int) -> keras.layers.Layer:
    weights_seed = layer_seed(seed, layer.index, of="weights")
    if spec.initializer == "normal_0.05":
        initializer = keras.initializers.RandomNormal(0.0, 0.05, seed=weights_seed)
    else:
        name = "he_normal" if spec.initializer == LOCAL else spec.initializer  # see `build`
        initializer = keras.initializers.get({"class_name": name, "config": {"seed": weights_seed}})
    penalty = keras.regularizers.L1L2(spec.l1, spec.l2) if spec.l1 or spec.l2 else None
    return keras.layers.Dense(layer.units, kernel_initializer=initializer, kernel_regularizer=penalty,
                              activation=layer.activation or None, name=layer.name)


def layer_seed(seed: int, index: int, *, of: str) -> int:
    """A seed for a layer's "weights" or "dropout": a hash, so that adjacent seeds and layers have unrelated streams.

    It is below 2**31 - 2, since Keras reduces larger seeds to that range.
    """
    kind = ("weights", "dropout").index(of)
    return int(np.random.SeedSequence([seed, index, kind]).generate_state(1)[0]) % (2**31 - 2)
