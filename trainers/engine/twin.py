"""The training twin of a Keras model: what the tape loop calls in training.

It is a clone of the model that shares its layers and variables, but for three kinds of layers:

- `Dropout`: its masks are a function of (seed, step, number) instead of a state, so that a resumed run equals an
  uninterrupted one; they also cost half of Keras'.
- `Dense` with a bias: it adds with `+`, because the gradient of TensorFlow's `bias_add` adds up in another order where
  XLA does not compile: published numbers would change in their last digits.
- Batch normalization of images: TensorFlow's one operation. Keras computes it from sums and products, which takes four
  fifths of a training step of a convolutional network.

The model itself stays as it was built: what is saved opens anywhere.
"""

from __future__ import annotations

import contextlib
import contextvars
from typing import Iterator, NamedTuple, Sequence

from fmnist_zoo.backend import keras, tf
from trainers.config import ConfigError
from trainers.engine import randomness

MIXED = "mixed_bfloat16"
Shape = tuple[int | None, ...]


class Rates(NamedTuple):
    """The rates of a network as tensors, so that one compiled program serves all their values.

    Attributes:
        thresholds: one for each dropout layer, (layers,) uint32: an entry is dropped if its random word is below it.
        scales: 1 / (1 - rate) of each dropout layer, (layers,) float32.
        l1, l2: factors of the penalty, float32; None for 0.
    """

    thresholds: tf.Tensor
    scales: tf.Tensor
    l1: tf.Tensor | None
    l2: tf.Tensor | None

    @classmethod
    def of(cls, dropout: Sequence[float], l1: float, l2: float) -> Rates:
        return cls(tf.constant([min(round(rate * 2**32), 2**32 - 1) for rate in dropout], tf.uint32),
                   tf.constant([1 / (1 - rate) for rate in dropout], tf.float32),
                   *(tf.constant(factor, tf.float32) if factor else None for factor in (l1, l2)))


class Moment:
    """What a call in training depends on beside variables and images: seed (uint32), step (int64) and rates.

    It is for one call of a twin, whose calls of dropout layers it counts.
    """

    def __init__(self, seed: tf.Tensor, step: tf.Tensor, rates: Rates):
        self.seed, self.step, self.rates, self.calls = seed, step, rates, 0


_moment: contextvars.ContextVar[Moment] = contextvars.ContextVar("moment")


@contextlib.contextmanager
def during(moment: Moment) -> Iterator[None]:
    """Within the block, twins take their masks from `moment`."""
    token = _moment.set(moment)
    try:
        yield
    finally:
        _moment.reset(token)


class Twin(NamedTuple):
    """A model's twin.

    Attributes:
        model: what is called in training; the model itself if it cannot be cloned.
        dropout: the exchanged `Dropout` layers, in the order of `Rates`.
        own: pairs of variables (the model's, the twin's) that the two do not share: all, in bfloat16; else none.
    """

    model: keras.Model
    dropout: list[keras.layers.Dropout]
    own: list[tuple[keras.Variable, keras.Variable]]


def twin_of(model: keras.Model, numbers: Sequence[int] | None = None, *, fused: bool = True, bfloat16: bool = False
            ) -> Twin:
    """The training twin of a model that has been built.

    A subclassed model is its own twin, and a layer inside a layer of the user's own stays what it is: they draw from
    Keras' `SeedGenerator`s, whose states are variables of the model.

    Args:
        numbers: of the model's dropout layers, in the order of its layers; their masks follow from them. None: from the
            number of the call, so that a layer which is called twice drops other units each time.
        fused: whether to exchange batch normalization of images.
        bfloat16: whether its layers, but for the one of the logits, compute in bfloat16. They then have float32
            variables of their own, with the values of the model's.

    Raises:
        ConfigError: in bfloat16, for a model that cannot be cloned.
    """
    if not _clonable(model):
        if bfloat16:
            raise ConfigError(f"--precision={MIXED} computes in a copy of the model, and {model.name} is a subclass of "
                              "keras.Model, which cannot be copied; build it as a functional or Sequential model, or "
                              "train in float32")
        return Twin(model, [], [])
    logits = model.outputs[0]._keras_history.operation
    dropout: list[keras.layers.Dropout] = []
    copies: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def clone(layer: keras.layers.Layer | keras.Operation) -> keras.layers.Layer | keras.Operation:
        if not isinstance(layer, keras.layers.Layer):  # an operation, such as a sum or a slice
            return layer
        policy = MIXED if bfloat16 and layer is not logits else layer.dtype_policy
        if type(layer) is keras.layers.Dropout:
            dropout.append(layer)
            place = len(dropout) - 1
            return Dropout(layer, policy, number=None if numbers is None else numbers[place], place=place)
        ours = layer
        if bfloat16:
            ours = _copied(layer, policy)
            copies.append((layer, ours))
        if type(layer) is keras.layers.Dense and layer.use_bias and not layer.quantization_mode:
            return Dense(ours, policy)
        return BatchNormalization(ours, policy) if fused and _normalizes_images(layer) else ours

    twin = keras.models.clone_model(model, clone_function=clone, recursive=True)
    pairs = [pair for theirs, ours in copies for pair in zip(theirs.variables, ours.variables, strict=True)]
    for theirs, ours in pairs:
        ours.assign(theirs)
    return Twin(twin, dropout, pairs)


def _clonable(model: keras.Model) -> bool:
    """Whether a model, and each functional model within it, is Keras' own class, whose clone computes the same."""
    kinds = type(keras.Model(pixels := keras.Input((1,)), pixels)), keras.Sequential
    parts = [part for part in model._flatten_layers() if isinstance(part, kinds)]
    return type(model) in kinds and all(type(part) in kinds for part in parts)


def _copied(layer: keras.layers.Layer, policy: keras.DTypePolicy | str) -> keras.layers.Layer:
    try:
        return type(layer).from_config({**layer.get_config(), "dtype": policy})
    except Exception as error:  # a layer of the user's own raises anything
        raise ConfigError(f"--precision={MIXED} computes in a copy of the model, and its layer {layer.name} cannot be "
                          f"copied by get_config and from_config ({type(error).__name__}: {error!s:.100}); train in "
                          "float32") from error


class _Exchanged(keras.layers.Layer):
    """Stands for a layer in the twin: has its variables and its activity regularizer."""

    def __init__(self, layer: keras.layers.Layer, policy: keras.DTypePolicy | str):
        super().__init__(name=layer.name, dtype=policy, activity_regularizer=layer.activity_regularizer,
                         trainable=layer.trainable)
        self.layer, self.supports_masking = layer, layer.supports_masking

    def build(self, input_shape: Shape) -> None:
        """Builds the layer, if it is new."""
        if not self.layer.built:
            self.layer.build(input_shape)

    def compute_output_shape(self, input_shape: Shape, *unused: Shape) -> Shape:
        """That of the layer."""
        return self.layer.compute_output_shape(input_shape)


class Dropout(_Exchanged):
    """Dropout whose mask is a hash of (seed, step, number)."""

    def __init__(self, layer: keras.layers.Layer, policy: keras.DTypePolicy | str, *, number: int | None, place: int):
        super().__init__(layer, policy)
        self.number, self.place = number, place

    def call(self, units: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`units`, some of them zero, in training; a layer's `noise_shape` says which share a mask."""
        if not training:
            return units
        moment = _moment.get()
        number = moment.calls if self.number is None else self.number
        moment.calls += 1
        shape = [size or whole for size, whole in zip(self.layer.noise_shape or units.shape, units.shape, strict=True)]
        if not self.layer.rate:
            return units
        if None in shape:  # as after tf.boolean_mask
            return self.layer(units, training=True)
        return dropout(units, moment.rates.thresholds[self.place], moment.rates.scales[self.place], seed=moment.seed,
                       step=moment.step, stream=number, shape=shape)


class Dense(_Exchanged):
    """A dense layer that adds its bias with `+`."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """activation(inputs W + b)."""
        product = keras.ops.matmul(inputs, self.layer.kernel)
        return self.layer.activation(product + tf.convert_to_tensor(self.layer.bias))


class BatchNormalization(_Exchanged):
    """Batch normalization of images in one operation."""

    def call(self, inputs: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None) -> tf.Tensor:
        """As Keras', whose moving variance is that of the biased variances, too."""
        layer = self.layer
        if not training or not layer.trainable or mask is not None:
            return layer(inputs, training=training, mask=mask)
        scale, offset = (tf.cast(tf.convert_to_tensor(one), tf.float32) for one in (layer.gamma, layer.beta))
        flow, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=scale, offset=offset, mean=[], variance=[], epsilon=layer.epsilon)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        for moving, one in ((layer.moving_mean, mean), (layer.moving_variance, variance * (count - 1) / count)):
            moving.assign(moving * layer.momentum + one * (1 - layer.momentum))
        return flow


def _normalizes_images(layer: keras.layers.Layer) -> bool:
    """Whether it is batch normalization of images, by channel, that one operation computes."""
    return (type(layer) is keras.layers.BatchNormalization and getattr(layer.input_spec, "ndim", 0) == 4
            and layer.axis in (-1, 3) and layer.scale and layer.center
            and not (layer.synchronized or getattr(layer, "renorm", False)))


def dropout(units: tf.Tensor, threshold: tf.Tensor, scale: tf.Tensor, *, seed: tf.Tensor, step: tf.Tensor, stream: int,
            shape: Sequence[int] | None = None) -> tf.Tensor:
    """Zeroes the entries of `units` whose random words are below `threshold`, and multiplies the others by `scale`.

    Srivastava et al. (2014), section 4, in the inverted form: for a rate r the threshold is r * 2^32 and the scale is
    1 / (1 - r). `shape`, where it is not that of `units`, is that of the mask.
    """
    keep = randomness.words(shape or units.shape, seed=seed, step=step, stream=stream) >= threshold
    return tf.where(keep, units * tf.cast(scale, units.dtype), tf.zeros((), units.dtype))
