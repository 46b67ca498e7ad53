"""Writes a network that is a sequence of layers as the fully-connected network that computes the same.

Between two activations, a convolution, a batch normalization, a mean pooling, a dense layer and any sequence of them
are an affine map, and so a dense layer: d'Ascoli et al., "Finding the Needle in the Haystack with Convolutions" (2019).
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Sequence

import numpy as np

from fmnist_zoo import custom
from fmnist_zoo.backend import keras
from fmnist_zoo.errors import SpecError

AT_ONCE, PROBES, TOLERANCE = 512, 8, 1e-3
ACTIVATIONS = ("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax")


def dense_arrays(model: keras.Model) -> list[np.ndarray]:
    """Kernels (inputs, units) and biases (units,) in turn, float32, of the dense layers that compute what `model` does.

    A feature map is flattened row by row, channels last. Dropout is left out, as in a prediction.

    Raises:
        SpecError: if the layers are no sequence, or one between two activations is not affine, such as max pooling.
    """
    arrays, stretch = [], []
    shape = custom.input_shape(model)
    layers = _sequence(model)
    for layer in layers:
        kind = type(layer).__name__
        if kind not in ACTIVATIONS:
            stretch.append(layer)
        if kind in ACTIVATIONS or _active(layer) or layer is layers[-1]:
            arrays += _affine(stretch, shape)
            stretch, shape = [], tuple(layer.output.shape[1:])
    return arrays


def _sequence(model: keras.Model) -> list[keras.layers.Layer]:
    layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
    flow = model.inputs[0]
    for layer in layers:
        if layer.input is not flow:
            raise SpecError(f"the layers of {model.name} are no sequence: {layer.name} takes more, or something else, "
                            "than the layer before it returns")
        flow = layer.output
    return layers


def _active(layer: keras.layers.Layer) -> bool:
    """Whether it ends with an activation of its own."""
    return getattr(layer, "activation", None) not in (None, keras.activations.linear)


def _affine(stretch: Sequence[keras.layers.Layer], shape: tuple[int, ...]) -> list[np.ndarray]:
    """Kernel and bias of the layers up to an activation, from what they make of zero and of the unit vectors."""
    if not stretch:
        raise SpecError("two activations follow each other, with no layer between them")
    size = int(np.prod(shape))
    with _linear(stretch[-1]):
        bias = _run(stretch, np.zeros((1, size), np.float32), shape)[0]
        units = (np.eye(min(AT_ONCE, size - start), size, start, np.float32) for start in range(0, size, AT_ONCE))
        kernel = np.concatenate([_run(stretch, vectors, shape) - bias for vectors in units])
        probes = np.random.default_rng(0).standard_normal((PROBES, size)).astype(np.float32)
        expected = _run(stretch, probes, shape)
    if not np.allclose(probes @ kernel + bias, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max()):
        raise SpecError(f"{', '.join(layer.name for layer in stretch)}: not affine, and so no dense layer; take "
                        "strides instead of max pooling")
    return [kernel, bias]


@contextlib.contextmanager
def _linear(layer: keras.layers.Layer) -> Iterator[None]:
    """Without the activation of its own."""
    if not _active(layer):
        yield
        return
    activation, layer.activation = layer.activation, keras.activations.linear
    try:
        yield
    finally:
        layer.activation = activation


def _run(layers: Sequence[keras.layers.Layer], vectors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    flow: Any = vectors.reshape(len(vectors), *shape)
    for layer in layers:
        flow = layer(flow, training=False)
    return np.asarray(keras.ops.convert_to_numpy(flow)).reshape(len(vectors), -1)
