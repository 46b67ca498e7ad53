"""A spec as a function of its variables: the seam between the models and the engines.

`forward(variables, images, *, seed, step, training) -> logits` computes what the Keras model of the same spec computes
(a test holds the two together), but over a plain list of variables, and with dropout masks that are a function of
(seed, step, layer) instead of a state. That is what makes a resumed run equal an uninterrupted one, and it is twice as
fast as calling the model in the loop.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Sequence

import numpy as np

from fmnist_zoo.backend import tf
from fmnist_zoo.spec import CLASSES, PIXELS, ModelSpec

LEVELS = 1 << 16  # dropout rates are kept to 1/65536: 16 random bits a unit
_LAYERS_A_STEP = 256
_PHILOX = 1
EVALUATION_BATCH = 2000

Forward = Callable[..., Any]


def mean_cross_entropy(labels: Any, logits: Any) -> Any:
    """Mean over the batch, in nats: a float32 scalar."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


@dataclasses.dataclass(frozen=True)
class Network:
    """What an engine trains.

    Attributes:
        variables: kernel and bias of each layer, in turn: W1 (784, n1), b1 (n1), ..., float32 `tf.Variable`s.
        names: one for each variable.
        forward: as above; images are (batch, 784) float32 in [0, 1], logits (batch, 10) float32.
        penalty: () -> scalar, the L1 and L2 terms of the objective at the variables' values.
        cross_entropy: (labels (batch,) int32, logits) -> mean over the batch.
    """

    variables: list[Any]
    names: list[str]
    forward: Forward
    penalty: Callable[[], Any]
    cross_entropy: Callable[[Any, Any], Any] = mean_cross_entropy

    @property
    def kernels(self) -> list[Any]:
        """The weight matrices."""
        return self.variables[::2]


def from_model(spec: ModelSpec, model: Any) -> Network:
    """The network of a Keras model that `fmnist_zoo.models.build` made: it trains the model's own variables."""
    variables = [variable.value for variable in model.trainable_variables]
    names = [variable.path for variable in model.trainable_variables]
    return Network(variables, names, make_forward(spec), lambda: penalty(variables[::2], l1=spec.l1, l2=spec.l2))


def make_forward(spec: ModelSpec) -> Forward:
    """The forward function of a spec."""

    def forward(variables: Sequence[Any], images: Any, *, seed: int, step: Any, training: bool) -> Any:
        flow = images
        for layer, rate in enumerate(spec.dropout or (0.0,) * len(spec.hidden)):
            flow = tf.nn.relu(tf.matmul(flow, variables[2 * layer]) + variables[2 * layer + 1])
            if training and rate:
                flow = dropout(flow, rate, seed=seed, step=step, layer=layer)
        return tf.matmul(flow, variables[-2]) + variables[-1]

    return forward


def dropout(units: Any, rate: float, *, seed: int, step: Any, layer: int) -> Any:
    """Zeroes a share `rate` of the entries of `units` (batch, n) and scales the others by 1 / (1 - rate).

    Srivastava et al. (2014), section 4, in the inverted form. Each (step, layer) has a Philox stream of its own under
    the run's seed: the low word of its counter counts blocks, the high word is the stream.
    """
    width = units.shape[1]
    threshold = min(round(rate * LEVELS), LEVELS - 1)
    stream = tf.cast(step, tf.uint64) * _LAYERS_A_STEP + layer
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[tf.shape(units)[0], (width + 1) // 2], key=tf.constant([seed], tf.uint64),
        counter=tf.stack([tf.zeros_like(stream), stream]), alg=_PHILOX, dtype=tf.uint32)
    bits = tf.reshape(tf.bitcast(words, tf.uint16), [-1, width + width % 2])[:, :width]
    return _masked(units, bits >= tf.constant(threshold, tf.uint16), LEVELS / (LEVELS - threshold))


def _masked(units: Any, keep: Any, scale: float) -> Any:
    """`units * keep * scale`; the backward pass goes through the same boolean mask, so that no float mask is stored."""

    @tf.custom_gradient
    def apply(units: Any) -> Any:
        return tf.where(keep, units * scale, 0.0), lambda gradient: tf.where(keep, gradient * scale, 0.0)

    return apply(units)


def penalty(kernels: Sequence[Any], *, l1: float, l2: float) -> Any:
    """l1 * sum|W| + l2 * sum W^2 over `kernels`: a float32 scalar."""
    terms = [l1 * tf.reduce_sum(tf.abs(kernel)) for kernel in kernels if l1]
    terms += [l2 * tf.reduce_sum(tf.square(kernel)) for kernel in kernels if l2]
    return tf.add_n(terms) if terms else tf.zeros(())


def scale(images: Any) -> Any:
    """uint8 pixels as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0


def make_predictor(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images (n, 784) uint8 to logits (n, 10) float32, dropout off, each image once."""

    def forward(images: Any) -> Any:
        return network.forward(network.variables, scale(images), seed=0, step=tf.zeros((), tf.int64), training=False)

    logits = tf.function(forward).get_concrete_function(tf.TensorSpec((None, PIXELS), tf.uint8))

    def predict(images: np.ndarray) -> np.ndarray:
        chunks = [logits(tf.constant(images[start:start + EVALUATION_BATCH])).numpy()
                  for start in range(0, len(images), EVALUATION_BATCH)]
        return np.concatenate([np.empty((0, CLASSES), np.float32), *chunks])

    return predict
