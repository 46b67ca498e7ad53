"""What is measured of predictions, in NumPy alone.

Arrays in: `logits` (n, 10) float, `labels` (n,) integers. Sums run in float64.
"""

from __future__ import annotations

import numpy as np


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross entropy of each example in nats, (n,) float64: log sum_j exp(z_j) - z_label, with max z taken out first.

    The shift keeps it finite for any finite logits, where log(softmax(z)) is not (Goodfellow et al., Deep Learning,
    section 6.2.2.3).
    """
    _check(logits, labels)
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def mean_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross entropy in nats."""
    return float(cross_entropy(logits, labels).mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, (n, 10) float64; rows sum to 1."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples whose largest logit is the label's."""
    _check(logits, labels)
    return float(np.mean(logits.argmax(axis=1) == labels))


def rounded_accuracy(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Element-wise agreement of the rounded probabilities with one-hot labels, and why it is what it is.

    `tf.round` of probabilities, compared entry by entry (Keras' `BinaryAccuracy(0.5)` on one-hot labels). For K classes

        value = 1 - (unsure + 2 * wrong) / K,    for K = 10:  value = 0.9 + (right - wrong) / 10

    Returns:
        `value`; `right` and `wrong`, the shares of examples whose top probability is over one half and is, or is not,
        the label's; `unsure`, the share of the others. It says little of the accuracy a (0.8 + a / 10 <= value <=
        0.9 + a / 10), and is not monotone in it. A probability of exactly one half rounds to 0, as `tf.round` does.
    """
    _check(logits, labels)
    probabilities = softmax(logits)
    confident = probabilities.max(axis=1) > 0.5
    hit = probabilities.argmax(axis=1) == labels
    right, wrong = float(np.mean(confident & hit)), float(np.mean(confident & ~hit))
    unsure = float(np.mean(~confident))
    return {"value": 1.0 - (unsure + 2.0 * wrong) / logits.shape[1], "right": right, "wrong": wrong, "unsure": unsure}


def confusion_matrix(logits: np.ndarray, labels: np.ndarray, classes: int = 10) -> np.ndarray:
    """Counts, (classes, classes) int64; row: true class, column: predicted class."""
    _check(logits, labels)
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, logits.argmax(axis=1)), 1)
    return matrix


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    """Labels of shape (n, 1) would broadcast to (n, n) without a word."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits must be (n, classes) and labels (n,), received {logits.shape} and {labels.shape}")
