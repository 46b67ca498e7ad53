"""Metrics against formulas written out, and at the edges where naive ones break."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fmnist_zoo.metrics import accuracy, confusion_matrix, cross_entropy, softmax

ROW = st.lists(st.floats(-300, 300, width=32), min_size=10, max_size=10)


@given(st.lists(st.tuples(ROW, st.integers(0, 9)), min_size=1, max_size=5))
def test_cross_entropy_is_minus_the_log_of_the_labels_probability(examples):
    logits = np.array([row for row, _ in examples], np.float32)
    labels = np.array([label for _, label in examples], np.uint8)
    expected = [math.log(math.fsum(math.exp(logit - row[label]) for logit in row)) for row, label in examples]
    received = cross_entropy(logits, labels)
    assert received.dtype == np.float64 and received.shape == (len(examples),)
    np.testing.assert_allclose(received, expected, rtol=1e-12, atol=1e-12)


def test_cross_entropy_of_equal_logits_is_log_10():
    np.testing.assert_allclose(cross_entropy(np.full((3, 10), 7, np.float32), np.array([0, 5, 9])), math.log(10))


@pytest.mark.parametrize("size", [1e4, 3e38])
def test_huge_logits_stay_finite(size):
    logits = np.full((2, 10), -size, np.float32)
    logits[:, 3] = size
    np.testing.assert_allclose(cross_entropy(logits, np.array([3, 4])), [0, 2 * float(np.float32(size))])
    np.testing.assert_array_equal(softmax(logits), [[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]] * 2)


def test_the_callers_logits_are_left_alone():
    logits = np.arange(20, dtype=np.float64).reshape(2, 10)
    before = logits.copy()
    cross_entropy(logits, np.array([1, 2]))
    softmax(logits)
    np.testing.assert_array_equal(logits, before)


@given(st.lists(ROW, min_size=2, max_size=4))
def test_softmax_rows_are_probabilities(rows):
    probabilities = softmax(np.array(rows, np.float32))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    expected = [[1 / math.fsum(math.exp(other - logit) for other in row) for logit in row] for row in rows]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-12)


def test_accuracy():
    logits = np.eye(10, dtype=np.float32)[[0, 1, 2, 3]]
    assert accuracy(logits, np.array([0, 1, 2, 9], np.uint8)) == 0.75
    assert accuracy(-logits, np.array([0, 1, 2, 3])) == 0.0
    assert type(accuracy(logits, np.array([0, 1, 2, 3]))) is float


def test_confusion_matrix_by_hand():
    predicted, labels = np.array([0, 0, 2, 2, 1]), np.array([0, 1, 2, 2, 2], np.uint8)
    matrix = confusion_matrix(np.eye(3)[predicted], labels, classes=3)
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [1, 0, 0], [0, 1, 2]])  # a row a true class


def test_confusion_matrix_counts_everyone_once():
    random = np.random.default_rng(3)
    logits, labels = random.normal(size=(500, 10)), random.integers(0, 10, 500)
    matrix = confusion_matrix(logits, labels)
    assert matrix.shape == (10, 10) and matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(labels, minlength=10))
    np.testing.assert_array_equal(matrix.sum(axis=0), np.bincount(logits.argmax(axis=1), minlength=10))
    assert np.trace(matrix) / 500 == accuracy(logits, labels)
