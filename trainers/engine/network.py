"""A Keras model as the engines see it: its variables by name, what counts as a kernel, and a repeatable forward pass.

The model itself is called, over its own variables. In training, each of its `Dropout` layers takes its mask from
(seed, step, layer) instead of a state of Keras', so that a resumed run equals an uninterrupted one, and a compiled step
runs twice as fast. The layers stay Keras' own: what is saved opens anywhere.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Callable, Iterator, NamedTuple, Sequence

import numpy as np

from fmnist_zoo import custom
from fmnist_zoo.backend import keras, tf
from fmnist_zoo.spec import CLASSES, PIXELS, ModelSpec
from trainers.engine import randomness

EVALUATION_BATCH = 2000
# Layers of products, sums and functions of single numbers, which XLA compiles well.
SIMPLE = {
    "Activation", "Add", "AlphaDropout", "Average", "Concatenate", "Dense", "Dropout", "ELU", "EinsumDense", "Flatten",
    "Functional", "GaussianDropout", "GaussianNoise", "Identity", "InputLayer", "LayerNormalization", "LeakyReLU",
    "Maximum", "Minimum", "Multiply", "Normalization", "PReLU", "Permute", "RMSNormalization", "ReLU", "Rescaling",
    "Reshape", "Sequential", "Softmax", "Subtract", "UnitNormalization"}
# Other layers whose output for an image does not depend on the other images of its batch. TensorFlow's own kernels are
# 35 times as fast for convolutions, and XLA has no deterministic gradient of MaxPooling2D.
IMAGE_BY_IMAGE = SIMPLE | {
    "AveragePooling2D", "CenterCrop", "Conv1D", "Conv2D", "Cropping2D", "DepthwiseConv2D", "GlobalAveragePooling2D",
    "GlobalMaxPooling2D", "GroupNormalization", "MaxPooling2D", "MultiHeadAttention", "SeparableConv2D",
    "SpatialDropout2D", "UpSampling2D", "ZeroPadding2D"}


class Rates(NamedTuple):
    """The rates of a network as tensors, so that one compiled program serves all their values.

    Attributes:
        thresholds: one for each dropout layer, (layers,) uint32: an entry is dropped if its random word is below it.
        scales: 1 / (1 - rate) of each dropout layer, (layers,) float32.
        l1, l2: factors of the penalty, float32.
    """

    thresholds: Any
    scales: Any
    l1: Any
    l2: Any


class Moment(NamedTuple):
    """What a forward pass in training depends on beside variables and images: seed (uint32), step (int64) and rates."""

    seed: Any
    step: Any
    rates: Rates


class Network:
    """What the tape engine trains: the variables of a Keras model, in place.

    Args:
        model: from (batch, 784), (batch, 28, 28) or (batch, 28, 28, 1) float32 in [0, 1] to logits (batch, 10).
        spec: of a model of the zoo, whose L1 and L2 are the penalty. For None, or a user's own model, its regularizers
            and losses are.
        bfloat16: compute in bfloat16 in training, but for the layer of the logits, as Keras' guide to mixed precision
            advises. The type has 8 of float32's 24 bits of precision and all of its range, so the loss needs no
            scaling.

    Attributes:
        trainable: what the optimizer changes, as Keras variables.
        variables, names: the same as float32 `tf.Variable`s, and the path of each.
        state: the other variables, by path: moving statistics, seeds of random layers that keep Keras' own.
        weights: the paths of what a saved model holds, in the order of `model.get_weights()`.
        shape: of one image, as the model takes it.
        is_kernel: for each of `variables`, whether it is a weight matrix or a filter.
        rates: those of the model and its spec.
        across_batch: whether the output for an image may depend on the other images of its batch.
        for_xla: whether XLA compiles the model, and is faster than TensorFlow's kernels in small batches.
    """

    def __init__(self, model: Any, spec: ModelSpec | None = None, *, bfloat16: bool = False):
        self._model, self.bfloat16 = model, bfloat16
        self._spec = None if spec is None or spec.build else spec
        paths = _paths(model.variables)
        self._dropout = _dropout_layers(model)
        apart = [*model.trainable_variables, *(layer.seed_generator.state for layer, _ in self._dropout if layer.rate)]
        kept = {id(variable) for variable in model.variables} - {id(variable) for variable in apart}
        self.trainable = model.trainable_variables
        self.variables = [variable.value for variable in self.trainable]
        self.names = [paths[id(variable)] for variable in model.trainable_variables]
        self.state = {paths[id(variable)]: variable.value for variable in model.variables if id(variable) in kept}
        self.weights = [paths[id(variable)] for variable in model.weights]
        self.is_kernel = ["kernel" in variable.name for variable in model.trainable_variables]
        layers = list(model._flatten_layers())
        kinds = {type(layer).__name__ if type(layer).__module__.startswith("keras.") else "" for layer in layers}
        self.across_batch = not kinds <= IMAGE_BY_IMAGE
        self.for_xla = kinds <= SIMPLE | {"BatchNormalization"}
        self.shape = custom.input_shape(model)
        self._dense = [layer for layer in layers if type(layer) is keras.layers.Dense and layer.use_bias]
        self._normalization = [] if self.for_xla else [layer for layer in layers if _normalizes_images(layer)]
        self.rates = self._rates()
        self._in_bfloat16 = [layer for layer in layers if layer is not _last_layer(model)] if bfloat16 else []

    @property
    def kernels(self) -> list[Any]:
        """The weight matrices and filters: they decay, and the zoo's L1 and L2 are of them."""
        return [variable for variable, kernel in zip(self.variables, self.is_kernel) if kernel]

    @property
    def drops(self) -> tuple[bool, ...]:
        """Which of the dropout layers that take their masks from us drop anything."""
        return tuple(layer.rate > 0 for layer, _ in self._dropout)

    def restart(self, other: Network) -> None:
        """Takes the values of all variables, and the rates, from a network of the same architecture."""
        for variable, value in zip(self._model.variables, other._model.variables, strict=True):
            variable.assign(value)
        self.rates = other.rates

    def _rates(self) -> Rates:
        found = [layer.rate for layer, _ in self._dropout]
        l1, l2 = (self._spec.l1, self._spec.l2) if self._spec else (0.0, 0.0)
        return Rates(tf.constant([min(round(rate * 2**32), 2**32 - 1) for rate in found], tf.uint32),
                     tf.constant([1 / (1 - rate) for rate in found], tf.float32),
                     tf.constant(l1, tf.float32), tf.constant(l2, tf.float32))

    def forward(self, images: Any, moment: Moment | None = None) -> Any:
        """Logits (batch, 10) float32 of images (batch, 784) float32 in [0, 1].

        Args:
            moment: None in evaluation: dropout is off, and moving statistics are used and not changed.
        """
        flow = images if self.shape == (PIXELS,) else tf.reshape(images, (-1, *self.shape))
        with self._for_training(moment):
            return tf.cast(self._model(flow, training=moment is not None), tf.float32)

    @contextlib.contextmanager
    def _for_training(self, moment: Moment | None) -> Iterator[None]:
        """Within the block, dropout takes its masks from `moment`, and layers compute in bfloat16 if they are to."""
        if moment is None:
            yield
            return
        policies = [layer.dtype_policy for layer in self._in_bfloat16]
        try:
            for place, (layer, stream) in enumerate(self._dropout):
                layer.call = _masked(layer, place, stream, moment)
            for layer in self._dense:
                layer.call = _plain(layer)
            for layer in self._normalization:
                layer.call = _fused(layer)
            for layer in self._in_bfloat16:
                layer.dtype_policy = "mixed_bfloat16"
            yield
        finally:
            for layer in (*self._dense, *self._normalization, *(layer for layer, _ in self._dropout)):
                vars(layer).pop("call", None)  # the class has the method
            for layer, policy in zip(self._in_bfloat16, policies):
                layer.dtype_policy = policy

    def penalty(self, rates: Rates) -> Any:
        """The penalty of the objective, a float32 scalar."""
        if self._spec is not None:
            return penalty(self.kernels, l1=rates.l1 if self._spec.l1 else None,
                           l2=rates.l2 if self._spec.l2 else None)
        terms = [variable.regularizer(variable.value) for variable in self.trainable if variable.regularizer]
        return tf.add_n(terms) if terms else tf.zeros(())

    def losses_of_call(self) -> list[Any]:
        """What layers added to the objective by `add_loss` in the call of `forward` just before."""
        return [] if self._spec is not None else [loss for layer in self._model._flatten_layers()
                                                  for loss in layer._losses]

    @staticmethod
    def cross_entropy(labels: Any, logits: Any) -> Any:
        """Cross-entropy of each example in nats, (batch,) float32, for labels (batch,) int32."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def _paths(variables: Sequence[Any]) -> dict[int, str]:
    """A name for each variable, by its identity: its path, with a number where two have the same."""
    paths: dict[int, str] = {}
    for variable in variables:
        path, number = variable.path, 1
        while path in paths.values():
            number += 1
            path = f"{variable.path}_{number}"
        paths[id(variable)] = path
    return paths


def _dropout_layers(model: Any) -> list[tuple[Any, int]]:
    """The `Dropout` layers whose masks are ours, and the stream of random numbers of each.

    Those of functional and sequential models are. A subclassed model may call a layer more than once, so it keeps
    Keras' own masks, whose seeds are a part of its state. The layers of the zoo are numbered by the hidden layers that
    they follow, so that their masks do not depend on whether other layers have dropout.
    """
    if type(model).__name__ not in ("Functional", "Sequential"):
        return []
    layers = [layer for part in (model, *_inner_models(model)) for layer in part.layers
              if type(layer) is keras.layers.Dropout and layer.noise_shape is None]
    numbers = [re.fullmatch(r"dropout_([1-9][0-9]*)", layer.name) for layer in layers]
    streams = [int(number[1]) - 1 for number in numbers if number]
    if len(set(streams)) < len(layers):
        streams = list(range(len(layers)))
    return list(zip(layers, streams))


def _inner_models(model: Any) -> list[Any]:
    """The functional and sequential models among a model's layers, at any depth."""
    found = []
    for layer in model.layers:
        if type(layer).__name__ in ("Functional", "Sequential"):
            found += [layer, *_inner_models(layer)]
    return found


def _last_layer(model: Any) -> Any:
    """The layer of the logits of a functional or sequential model; None if that is not known."""
    return model.outputs[0]._keras_history.operation if type(model).__name__ in ("Functional", "Sequential") else None


def _masked(layer: Any, place: int, stream: int, moment: Moment) -> Callable[..., Any]:
    """The call of a dropout layer in training."""

    def call(inputs: Any, training: bool = False) -> Any:
        if not layer.rate:
            return inputs
        return dropout(inputs, moment.rates.thresholds[place], moment.rates.scales[place], seed=moment.seed,
                       step=moment.step, stream=stream)

    return call


def _plain(layer: Any) -> Callable[..., Any]:
    """The call of a dense layer in training: the sum with `+`.

    Keras calls TensorFlow's `bias_add`, whose gradient adds up in another order where XLA does not compile: published
    numbers would change in their last digits.
    """

    def call(inputs: Any, training: bool = False) -> Any:
        product = tf.matmul(inputs, tf.convert_to_tensor(layer.kernel))
        return layer.activation(product + tf.convert_to_tensor(layer.bias))

    return call


def _normalizes_images(layer: Any) -> bool:
    """Whether it is batch normalization of images, by channel, as `_fused` computes it."""
    return (type(layer) is keras.layers.BatchNormalization and getattr(layer.input_spec, "ndim", 0) == 4
            and layer.axis in (-1, 3) and layer.scale and layer.center
            and not (layer.synchronized or getattr(layer, "renorm", False)))


def _fused(layer: Any) -> Callable[..., Any]:
    """The call of batch normalization of images in training, by TensorFlow's one operation for it.

    Keras computes it from sums and products, which takes four fifths of a training step of a convolutional network.
    """
    plain = layer.call

    def call(inputs: Any, training: bool = False, mask: Any = None) -> Any:
        if not training or not layer.trainable or mask is not None:
            return plain(inputs, training=training, mask=mask)
        scale, offset = (tf.cast(tf.convert_to_tensor(one), tf.float32) for one in (layer.gamma, layer.beta))
        flow, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=scale, offset=offset, mean=[], variance=[], epsilon=layer.epsilon)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        for moving, one in ((layer.moving_mean, mean), (layer.moving_variance, variance * (count - 1) / count)):
            moving.assign(moving * layer.momentum + one * (1 - layer.momentum))  # of the biased variance, as in Keras
        return flow

    return call


def dropout(units: Any, threshold: Any, scale: Any, *, seed: Any, step: Any, stream: int) -> Any:
    """Zeroes the entries of `units` whose random words are below `threshold`, and multiplies the others by `scale`.

    Srivastava et al. (2014), section 4, in the inverted form: for a rate r the threshold is r * 2^32 and the scale is
    1 / (1 - r).
    """
    keep = randomness.words(units.shape, seed=seed, step=step, stream=stream) >= threshold
    return tf.where(keep, units * tf.cast(scale, units.dtype), tf.zeros((), units.dtype))


def penalty(kernels: Sequence[Any], *, l1: Any = None, l2: Any = None) -> Any:
    """l1 * sum|W| + l2 * sum W^2 over `kernels`: a float32 scalar. None costs nothing."""
    terms = [l1 * tf.reduce_sum(tf.abs(kernel)) for kernel in kernels if l1 is not None]
    terms += [l2 * tf.reduce_sum(tf.square(kernel)) for kernel in kernels if l2 is not None]
    return tf.add_n(terms) if terms else tf.zeros(())


def scale(images: Any) -> Any:
    """uint8 pixels as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0


def make_predictor(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images (n, 784) uint8 to logits (n, 10) float32, dropout off."""
    forward = tf.function(lambda images: network.forward(scale(images)), autograph=False)
    logits = forward.get_concrete_function(tf.TensorSpec((None, PIXELS), tf.uint8))

    def predict(images: np.ndarray) -> np.ndarray:
        chunks = [logits(tf.constant(images[start:start + EVALUATION_BATCH])).numpy()
                  for start in range(0, len(images), EVALUATION_BATCH)]
        return np.concatenate([np.empty((0, CLASSES), np.float32), *chunks])

    return predict
