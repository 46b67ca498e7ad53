"""Metrics: against formulas written out, and at the edges where naive implementations break."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fmnist_zoo import metrics
from fmnist_zoo.metrics import accuracy, confusion_matrix, cross_entropy, softmax

ROW = st.lists(st.floats(-300, 300, width=32), min_size=10, max_size=10)


@given(st.lists(st.tuples(ROW, st.integers(0, 9)), min_size=1, max_size=5))
def test_cross_entropy_is_the_negative_logarithm_of_the_label_s_softmax(examples):
    logits = np.array([row for row, _ in examples], np.float32)
    labels = np.array([label for _, label in examples], np.uint8)
    shares = [[1 / math.fsum(math.exp(other - logit) for other in row) for logit in row] for row, _ in examples]
    np.testing.assert_allclose(softmax(logits), shares, rtol=1e-12)
    received = cross_entropy(logits, labels)
    assert received.dtype == np.float64 and received.shape == (len(examples),)
    np.testing.assert_allclose(received, [-math.log(row[label]) for row, label in zip(shares, labels)], rtol=1e-12,
                               atol=1e-12)


@pytest.mark.parametrize("size", [1e4, 3e38])
def test_huge_logits_stay_finite(size):
    logits = np.full((2, 10), -size, np.float32)
    logits[:, 3] = size
    np.testing.assert_allclose(cross_entropy(logits, np.array([3, 4])), [0, 2 * float(np.float32(size))])
    np.testing.assert_array_equal(softmax(logits), [[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]] * 2)


def test_confusion_matrix_by_hand():
    predicted, labels = np.array([0, 0, 2, 2, 1]), np.array([0, 1, 2, 2, 2], np.uint8)
    matrix = confusion_matrix(np.eye(3)[predicted], labels, classes=3)
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [1, 0, 0], [0, 1, 2]])  # a row a true class


def random_examples(seed, examples=500, scale=3.0):
    """Logits and labels of a classifier that is right more often than not."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, examples)
    logits = random.normal(size=(examples, 10))
    logits[np.arange(examples), labels] += 1.5
    return (scale * logits).astype(np.float32), labels


def test_accuracy_and_top_k_accuracy():
    logits = np.array([[3, 2, 1, 0], [0, 1, 2, 3], [1, 1, 1, 1]], np.float32)
    labels = np.array([1, 0, 1])
    assert [metrics.top_k_accuracy(logits, labels, k) for k in (1, 2, 3, 4)] == [0, 2 / 3, 2 / 3, 1]
    assert accuracy(np.eye(10, dtype=np.float32)[:4], np.array([0, 1, 2, 9], np.uint8)) == 0.75
    logits, labels = random_examples(0)
    assert metrics.top_k_accuracy(logits, labels, 1) == accuracy(logits, labels)


def test_interval_equals_wilsons():
    from scipy import stats

    for hits, examples in ((0, 10), (7, 10), (8_912, 10_000), (10_000, 10_000)):
        expected = stats.binomtest(hits, examples).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(metrics.accuracy_interval(hits / examples, examples), expected, atol=1e-12)


def test_figures_by_class_equal_scikit_learns():
    from sklearn.metrics import precision_recall_fscore_support

    logits, labels = random_examples(1)
    logits[:, 7] = -100  # never predicted
    found = metrics.by_class(confusion_matrix(logits, labels))
    expected = precision_recall_fscore_support(labels, logits.argmax(axis=1), labels=range(10), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected):
        np.testing.assert_allclose(found[name], values)


def test_calibration_error_equals_its_definition():
    logits, labels = random_examples(2)
    probabilities = softmax(logits)
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    gaps = []
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gaps.append(inside.mean() * abs(hit[inside].mean() - confidence[inside].mean()))
    assert metrics.expected_calibration_error(logits, labels) == pytest.approx(sum(gaps))
    found = metrics.reliability(logits, labels)
    assert found["count"].sum() == len(labels) and found["accuracy"] @ found["count"] == pytest.approx(hit.sum())


def test_mean_of_models_is_the_mean_of_probabilities():
    logits = np.random.default_rng(0).normal(0, 5, (3, 20, 10))
    mean = np.mean([metrics.softmax(one) for one in logits], axis=0)
    np.testing.assert_allclose(metrics.softmax(metrics.mean_of_models(logits)), mean, rtol=1e-9)
    huge = metrics.mean_of_models([np.array([[2000.0, 0, -2000]]), np.array([[2000.0, 0, 0]])])
    assert np.isfinite(huge).all()  # probabilities underflow, their logarithms do not


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_temperature_minimizes_the_loss(scale):
    from scipy import optimize

    logits, labels = random_examples(3, scale=scale)
    best = optimize.minimize_scalar(lambda t: cross_entropy(logits / t, labels).mean(), bounds=(0.02, 50),
                                    method="bounded", options={"xatol": 1e-9})
    assert metrics.fit_temperature(logits, labels) == pytest.approx(best.x, rel=1e-4)


def test_temperature_is_finite_where_all_or_no_images_are_right():
    sure = np.eye(10, dtype=np.float32)
    assert metrics.fit_temperature(sure, np.arange(10)) == pytest.approx(0.01, rel=1e-6)
    assert metrics.fit_temperature(sure, (np.arange(10) + 1) % 10) == pytest.approx(100, rel=1e-6)
