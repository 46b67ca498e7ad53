"""A teacher's part of the loss: the student learns the teachers' probabilities for the images that it sees."""

from __future__ import annotations

from typing import Any, Sequence

from fmnist_zoo.backend import tf


def loss(teachers: Sequence[Any], images: Any, logits: Any, temperature: Any) -> Any:
    """T^2 times the Kullback-Leibler divergence of softmax(student / T) from the teachers', (batch,) float32 in nats.

    Several teachers are an ensemble: the mean of their probabilities at temperature T. The factor keeps the size of the
    gradient independent of T (Hinton, Vinyals and Dean 2015, section 2).

    Args:
        teachers: functions from images to logits (batch, 10); no gradient flows into them.
        images: (batch, 784) float32 in [0, 1], augmented as the student sees them.
        logits: the student's, (batch, 10).
    """
    taught = tf.add_n([tf.nn.softmax(teacher(images) / temperature) for teacher in teachers]) / len(teachers)
    taught = tf.stop_gradient(taught)
    entropy = -tf.reduce_sum(tf.math.xlogy(taught, taught), axis=1)
    crossed = -tf.reduce_sum(taught * tf.nn.log_softmax(logits / temperature), axis=1)
    return temperature ** 2 * (crossed - entropy)
