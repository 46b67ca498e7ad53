"""A spec as a function of its variables: what the engines know of a model.

`forward(variables, images, *, seed, step, training) -> logits` computes what the Keras model of the same spec computes
(a test compares the two), but takes a plain list of variables, and its dropout masks are a function of
(seed, step, layer) instead of a state. So a resumed run equals an uninterrupted one, and the loop is twice as fast as
one that calls the Keras model.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Sequence

import numpy as np

from fmnist_zoo.backend import tf
from fmnist_zoo.spec import CLASSES, PIXELS, ModelSpec

EVALUATION_BATCH = 2000

Forward = Callable[..., Any]


def cross_entropy(labels: Any, logits: Any) -> Any:
    """Cross-entropy of each example in nats, (batch,) float32."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


@dataclasses.dataclass(frozen=True)
class Network:
    """What an engine trains.

    Attributes:
        variables: kernel and bias of each layer, W1 (784, n1), b1 (n1), W2, b2, ...: float32 `tf.Variable`s.
        names: one for each variable.
        forward: as above; images are (batch, 784) float32 in [0, 1], logits (batch, 10) float32.
        penalty: () -> scalar, the L1 and L2 terms of the objective at the current values of the variables.
        cross_entropy: (labels (batch,) int32, logits) -> (batch,), one value for each example.
        bfloat16: whether `forward` computes the hidden layers in bfloat16 in training.
    """

    variables: list[Any]
    names: list[str]
    forward: Forward
    penalty: Callable[[], Any]
    cross_entropy: Callable[[Any, Any], Any] = cross_entropy
    bfloat16: bool = False

    @property
    def kernels(self) -> list[Any]:
        """The weight matrices."""
        return self.variables[::2]


def from_model(spec: ModelSpec, model: Any, *, bfloat16: bool = False) -> Network:
    """The network that trains the variables of a Keras model built by `fmnist_zoo.models.build`."""
    if not is_plain(spec):
        return _whole(model)
    variables = [variable.value for variable in model.trainable_variables]
    names = [variable.path for variable in model.trainable_variables]
    return Network(variables, names, make_forward(spec, bfloat16=bfloat16),
                   lambda: penalty(variables[::2], l1=spec.l1, l2=spec.l2), bfloat16=bfloat16)


def is_plain(spec: ModelSpec) -> bool:
    """Whether `make_forward` computes the model of a spec: dense ReLU layers and dropout alone."""
    plain = ModelSpec("plain")
    new = ("build", "activation", "normalization", "residual", "expansion", "input")
    return all(getattr(spec, name) == getattr(plain, name) for name in new)


def _whole(model: Any) -> Network:
    """A network that calls the Keras model; its variables include those that gradients do not change."""
    variables = [variable.value for variable in model.weights]
    return Network(variables, [variable.path for variable in model.weights],
                   lambda variables, images, *, training, **unused: model(images, training=training),
                   lambda: tf.add_n([tf.zeros(()), *model.losses]))


def make_forward(spec: ModelSpec, *, bfloat16: bool = False) -> Forward:
    """The forward function of a spec.

    With `bfloat16` its hidden layers compute in that type in training, like Keras' policy mixed_bfloat16. The type has
    8 of float32's 24 bits of precision and all of its range, so the loss needs no scaling. The layer of the logits
    stays in float32, as Keras' guide to mixed precision advises.
    """

    def forward(variables: Sequence[Any], images: Any, *, seed: int, step: Any, training: bool) -> Any:
        kind = tf.bfloat16 if bfloat16 and training else tf.float32
        *hidden, kernel, bias = variables
        flow = images
        for layer, rate in enumerate(spec.dropout or (0.0,) * len(spec.hidden)):
            weights, biases = (tf.cast(variable, kind) for variable in hidden[2 * layer:2 * layer + 2])
            flow = tf.nn.relu(tf.matmul(tf.cast(flow, kind), weights) + biases)
            if training and rate:
                flow = dropout(flow, rate, seed=seed, step=step, layer=layer)
        return tf.matmul(tf.cast(flow, tf.float32), kernel) + bias

    return forward


def dropout(units: Any, rate: float, *, seed: int, step: Any, layer: int) -> Any:
    """Zeroes a share `rate` of the entries of `units` (batch, n) and scales the others by 1 / (1 - rate).

    Srivastava et al. (2014), section 4, in the inverted form.
    """
    threshold = tf.constant(min(round(rate * 2**32), 2**32 - 1), tf.uint32)
    keep = random_words(tuple(units.shape), seed=seed, step=step, layer=layer) >= threshold
    return tf.where(keep, units * (1 / (1 - rate)), tf.zeros((), units.dtype))


def random_words(shape: tuple[int, int], *, seed: int, step: Any, layer: int) -> Any:
    """32 random bits for each unit of a layer at a step: `shape` uint32.

    A counter-based generator (Salmon et al. 2011): a function of a unit's place and a key, without state. It applies
    two rounds of a mixing function to the place, each with its own key. XLA computes the bits in registers where they
    are used; with Philox an epoch takes a sixth longer.
    """
    low, high = tf.unstack(tf.bitcast(step, tf.uint32))
    return _words([tf.constant(seed, tf.uint32), low, high, tf.constant(layer, tf.uint32)], shape)


@tf.function(jit_compile=True)  # where the loop is not compiled by XLA, this still runs as one pass
def _words(parts: Sequence[Any], shape: tuple[int, int]) -> Any:
    key = tf.constant(0x9E3779B9, tf.uint32)
    for part in parts:
        key = _mix(key ^ part)
    place = tf.reshape(tf.range(shape[0] * shape[1]), shape)
    return _mix(_mix(tf.cast(place, tf.uint32) ^ key) ^ _mix(key + 0x85EBCA6B))


def _mix(word: Any) -> Any:
    """A permutation of uint32 in which each bit of the result depends on all bits of `word`.

    It is `lowbias32` of Wellons, "Prospecting for hash functions" (2018), the least biased that was found there with
    two multiplications.
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        word = (word ^ tf.bitwise.right_shift(word, tf.constant(shift, tf.uint32))) * tf.constant(factor, tf.uint32)
    return word ^ tf.bitwise.right_shift(word, tf.constant(16, tf.uint32))


def penalty(kernels: Sequence[Any], *, l1: float, l2: float) -> Any:
    """l1 * sum|W| + l2 * sum W^2 over `kernels`: a float32 scalar."""
    terms = [l1 * tf.reduce_sum(tf.abs(kernel)) for kernel in kernels if l1]
    terms += [l2 * tf.reduce_sum(tf.square(kernel)) for kernel in kernels if l2]
    return tf.add_n(terms) if terms else tf.zeros(())


def scale(images: Any) -> Any:
    """uint8 pixels as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0


def make_predictor(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images (n, 784) uint8 to logits (n, 10) float32, dropout off."""

    def forward(images: Any) -> Any:
        return network.forward(network.variables, scale(images), seed=0, step=tf.zeros((), tf.int64), training=False)

    logits = tf.function(forward).get_concrete_function(tf.TensorSpec((None, PIXELS), tf.uint8))

    def predict(images: np.ndarray) -> np.ndarray:
        chunks = [logits(tf.constant(images[start:start + EVALUATION_BATCH])).numpy()
                  for start in range(0, len(images), EVALUATION_BATCH)]
        return np.concatenate([np.empty((0, CLASSES), np.float32), *chunks])

    return predict
