"""Metrics of predictions, in NumPy alone.

Arrays in: `logits` (n, 10) float, `labels` (n,) integers. Sums run in float64.
"""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross entropy of each example in nats, (n,) float64: log sum_j exp(z_j) - z_label."""
    _check(logits, labels)
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def mean_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross entropy in nats."""
    return float(cross_entropy(logits, labels).mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, (n, 10) float64; rows sum to 1."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, (n, 10) float64.

    Subtracting the maximum first keeps them finite for all finite logits; log(softmax(z)) is not (Goodfellow et al.,
    Deep Learning, section 6.2.2.3).
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def mean_of_models(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Log-probabilities (n, 10) float64 of an ensemble: the logarithm of the mean of its members' probabilities.

    Deep ensembles are mixtures of equal weights (Lakshminarayanan, Pritzel and Blundell 2017, section 2.4). Their
    members are not calibrated: their mean is (Rahaman and Thiery 2021 fit temperatures after averaging).
    """
    return np.logaddexp.reduce([log_softmax(one) for one in logits], axis=0) - np.log(len(logits))


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples whose largest logit is the label's."""
    _check(logits, labels)
    return float(np.mean(logits.argmax(axis=1) == labels))


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of examples whose label is among the `k` largest logits; among equal logits the lower class comes first."""
    _check(logits, labels)
    return float(np.mean((np.argsort(-logits, axis=1, kind="stable")[:, :k] == labels[:, None]).any(axis=1)))


def accuracy_interval(accuracy: float, examples: int) -> tuple[float, float]:
    """The score interval of an accuracy (Wilson 1927), of 95 % confidence."""
    z = 1.959963984540054  # the 97.5 % quantile of the normal distribution
    middle = (accuracy + z * z / (2 * examples)) / (1 + z * z / examples)
    half = z / (1 + z * z / examples) * np.sqrt(accuracy * (1 - accuracy) / examples + (z / (2 * examples)) ** 2)
    return float(middle - half), float(middle + half)


def rounded_accuracy(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Element-wise agreement of the rounded probabilities with one-hot labels, and the shares that explain it.

    `tf.round` of probabilities, compared entry by entry (Keras' `BinaryAccuracy(0.5)` on one-hot labels). For K classes

        value = 1 - (unsure + 2 * wrong) / K,    for K = 10:  value = 0.9 + (right - wrong) / 10

    Returns:
        `value`; `right` and `wrong`, the shares of examples whose top probability is over one half and is, or is not,
        the label's; `unsure`, the share of the others. The value says little about the accuracy a
        (0.8 + a / 10 <= value <= 0.9 + a / 10) and is not monotone in it. One half rounds to 0, as in `tf.round`.
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


def by_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Of a confusion matrix: `precision`, `recall`, `f1`, (classes,) float64, and `support`, examples of each class.

    Precision is 0 for a class that was never predicted, recall is 0 for a class without examples.
    """
    hits, predicted, support = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return {"precision": hits / np.maximum(predicted, 1), "recall": hits / np.maximum(support, 1),
            "f1": 2 * hits / np.maximum(predicted + support, 1), "support": support}


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, np.ndarray]:
    """The numbers of a reliability diagram: examples in `bins` equal intervals (low, high] of their top probability.

    Returns:
        `count` (bins,) int64, and `confidence` and `accuracy`, the means within each bin, (bins,) float64, 0 in empty
        bins. Guo et al. (2017), "On Calibration of Modern Neural Networks", section 2.
    """
    _check(logits, labels)
    probabilities = softmax(logits)
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(places, minlength=bins)
    means = (np.bincount(places, values, minlength=bins) / np.maximum(count, 1) for values in (confidence, hit))
    return {"count": count, **dict(zip(("confidence", "accuracy"), means))}


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """ECE: the gap between accuracy and confidence of each bin, weighted by its examples (Guo et al. 2017, eq. 3)."""
    found = reliability(logits, labels)
    gaps = np.abs(found["accuracy"] - found["confidence"]) * found["count"]
    return math.fsum(gaps) / max(len(labels), 1)  # BLAS sums in an order that depends on the processor


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T > 0 that minimizes the mean cross entropy of logits / T (Guo et al. 2017, section 4.2).

    The loss is convex in 1 / T: its slope is the mean of E[z] - z_label under the model, which grows with 1 / T. The
    zero of the slope is found by bisection of log T in [1/100, 100]. Without a zero (all images right, or a model worse
    than chance) the result is an end of that interval.
    """
    _check(logits, labels)
    of_labels = logits[np.arange(len(labels)), labels].astype(np.float64)
    low, high = np.log(0.01), np.log(100.0)
    for _ in range(60):
        middle = (low + high) / 2
        slope = np.mean((softmax(logits / np.exp(middle)) * logits).sum(axis=1) - of_labels)
        if slope > 0:  # overconfident: a higher temperature
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    """Without this check, labels of shape (n, 1) would broadcast to (n, n)."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits must be (n, classes) and labels (n,), received {logits.shape} and {labels.shape}")
