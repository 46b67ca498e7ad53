"""Four functions as the assignment report wrote them; `tests/test_mistakes.py` uses them to show what goes wrong.

The report stores one example per column: logits and one-hot labels are (10, batch) in this file, and only here.
"""

from __future__ import annotations

from typing import Any, Sequence

from fmnist_zoo.backend import tf


def softmax(logits: Any) -> Any:
    """The maximum is not subtracted: exp overflows above 88.7, and infinity divided by infinity is NaN."""
    return tf.exp(logits) / tf.reduce_sum(tf.exp(logits), axis=0)


def cross_entropy(one_hot: Any, probabilities: Any) -> Any:
    """The clipped probabilities are computed but not used: 0 * log 0 is NaN, and one such entry makes the mean NaN."""
    clipped = tf.clip_by_value(probabilities, 1e-10, 1.0)  # noqa: F841  (never used: that is the mistake)
    return tf.reduce_mean(-tf.reduce_sum(one_hot * tf.math.log(probabilities), axis=0))


def cross_entropy_clipped(one_hot: Any, probabilities: Any) -> Any:
    """What was intended. It gives no NaN, but a clipped probability has no gradient, so the worst errors teach nothing,
    and the loss cannot exceed -log(1e-10) = 23.03."""
    clipped = tf.clip_by_value(probabilities, 1e-10, 1.0)
    return tf.reduce_mean(-tf.reduce_sum(one_hot * tf.math.log(clipped), axis=0))


def forward_pass(weights: Sequence[Any], bias: Any, images: Any) -> Any:
    """All layers share one scalar bias; in the softmax layer it shifts all logits equally, which softmax cancels.

    `weights` are (fan_out, fan_in), `images` (784, batch), `bias` is a scalar.
    """
    flow = images
    for kernel in weights[:-1]:
        flow = tf.maximum(tf.matmul(kernel, flow) + bias, 0)
    return tf.matmul(weights[-1], flow) + bias
