"""The objective without its penalty: the cross entropy of labels and of mixtures, smoothed labels, teachers."""

from __future__ import annotations

from typing import Callable, NamedTuple, Sequence

from fmnist_zoo.backend import tf


class Batch(NamedTuple):
    """The images of an update.

    Attributes:
        images: (batch, 784) float32 in [0, 1], augmented and mixed.
        labels: (batch,) int32.
        real: (batch,) float32: 0 for an image that fills up the last batch, else 1.
        count: the sum of `real`.
        shares, others: with mixup, the share of the image of `labels` in each mixture, (batch,) float32, and the labels
            of the other image; else None.
        taught: the teachers' probabilities, (batch, 10) float32; None without teachers.
    """

    images: tf.Tensor
    labels: tf.Tensor
    real: tf.Tensor
    count: tf.Tensor
    shares: tf.Tensor | None = None
    others: tf.Tensor | None = None
    taught: tf.Tensor | None = None

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        """Of one value an image, over the real images."""
        return tf.reduce_sum(self.real * values) / self.count

    def losses(self, logits: tf.Tensor, cross_entropy: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """The cross entropy of each image, (batch,); `cross_entropy` computes it from labels and logits."""
        losses = cross_entropy(self.labels, logits)
        if self.shares is None:
            return losses
        return self.shares * losses + (1 - self.shares) * cross_entropy(self.others, logits)

    def hits(self, logits: tf.Tensor) -> tf.Tensor:
        """How many images have the largest logit at their label, or at that of the larger share of their mixture."""
        labels = self.labels if self.shares is None else tf.where(self.shares >= 0.5, self.labels, self.others)
        right = tf.argmax(logits, axis=1, output_type=tf.int32) == labels
        return tf.reduce_sum(self.real * tf.cast(right, tf.float32))


def smoothing(losses: tf.Tensor, logits: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """What smoothed labels add to `losses`, (batch,): Szegedy et al. (2016), section 7.

    The sum is the cross entropy of (1 - share) * one-hot + share / K.
    """
    uniform = tf.reduce_logsumexp(logits, axis=1) - tf.reduce_mean(logits, axis=1)
    return share * (uniform - losses)


def probabilities(logits: Sequence[tf.Tensor], temperature: tf.Tensor) -> tf.Tensor:
    """What teachers teach, (batch, 10) float32: the mean of their probabilities at a temperature.

    Args:
        logits: those of each teacher, (batch, 10). No gradient flows into them.
    """
    taught = tf.add_n([tf.nn.softmax(tf.cast(one, tf.float32) / temperature) for one in logits]) / len(logits)
    return tf.stop_gradient(taught)


def distillation(taught: tf.Tensor, logits: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
    """T^2 times the Kullback-Leibler divergence of softmax(student / T) from `taught`, (batch,) float32 in nats.

    The factor keeps the size of the gradient independent of T (Hinton, Vinyals and Dean 2015, section 2).

    Args:
        taught: `probabilities` at temperature T, (batch, 10).
        logits: the student's, (batch, 10).
    """
    entropy = -tf.reduce_sum(tf.math.xlogy(taught, taught), axis=1)
    crossed = -tf.reduce_sum(taught * tf.nn.log_softmax(logits / temperature), axis=1)
    return temperature ** 2 * (crossed - entropy)
