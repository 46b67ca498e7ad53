"""A teacher's part of the loss: the student learns the teachers' probabilities for the images that it sees."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from fmnist_zoo.backend import tf
from fmnist_zoo.spec import PIXELS
from trainers.engine.augmentation import views
from trainers.engine.network import scale

VIEWED = 500  # images a call


def probabilities(logits: Sequence[Any], temperature: Any) -> Any:
    """What teachers teach, (batch, 10) float32: the mean of their probabilities at a temperature.

    Args:
        logits: those of each teacher, (batch, 10). No gradient flows into them.
    """
    taught = tf.add_n([tf.nn.softmax(tf.cast(one, tf.float32) / temperature) for one in logits]) / len(logits)
    return tf.stop_gradient(taught)


def loss(taught: Any, logits: Any, temperature: Any) -> Any:
    """T^2 times the Kullback-Leibler divergence of softmax(student / T) from `taught`, (batch,) float32 in nats.

    The factor keeps the size of the gradient independent of T (Hinton, Vinyals and Dean 2015, section 2).

    Args:
        taught: `probabilities` at temperature T, (batch, 10).
        logits: the student's, (batch, 10).
    """
    entropy = -tf.reduce_sum(tf.math.xlogy(taught, taught), axis=1)
    crossed = -tf.reduce_sum(taught * tf.nn.log_softmax(logits / temperature), axis=1)
    return temperature ** 2 * (crossed - entropy)


def logits_of_views(teachers: Sequence[Any], images: np.ndarray, *, shift: int, flip: bool) -> np.ndarray:
    """The logits of each teacher for each view of each image, (images, views, teachers, 10) float16.

    Half precision holds a logit below 16 to 0.008, which moves no probability by more than 0.002.

    Args:
        images: (images, 784) uint8.
        shift, flip: of the recipe; they make (2 * shift + 1)^2 views, with `flip` twice as many.
    """

    @tf.function(input_signature=[tf.TensorSpec((VIEWED, PIXELS), tf.uint8)], autograph=False)
    def look(pixels: Any) -> Any:
        return tf.stack([tf.stack([teacher(scale(view)) for teacher in teachers], axis=1)
                         for view in views(pixels, shift=shift, flip=flip)], axis=1)

    padded = np.concatenate([images, np.zeros((-len(images) % VIEWED, PIXELS), np.uint8)])
    parts = [look(padded[start:start + VIEWED]).numpy().astype(np.float16) for start in range(0, len(padded), VIEWED)]
    return np.concatenate(parts)[:len(images)]
