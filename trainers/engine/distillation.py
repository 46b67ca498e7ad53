"""A teacher's part of the loss: the student learns the teachers' probabilities for the images that it sees."""

from __future__ import annotations

from typing import Any, Sequence

from fmnist_zoo.backend import tf


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
