"""The split of the training images: its size is exact, classes have equal shares, and it never changes."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fmnist_zoo.data import DataError, load_data, validation_mask
from fmnist_zoo.spec import SpecError


@pytest.mark.parametrize("size, held_out", [
    (0, 0), (0.1, 200), (0.25, 500), (0.0004, 1), (500, 500), (7, 7), (1999, 1999)])
def test_validation_size_is_a_share_or_a_count(size, held_out):
    data = load_data(data="mini", validation_size=size)
    fit, validation = data.fit, data.validation
    assert (len(fit.labels), len(validation.labels)) == (2000 - held_out, held_out)
    assert (len(fit.images), len(validation.images)) == (2000 - held_out, held_out)
    counts = np.bincount(validation.labels, minlength=10)
    assert counts.max() - counts.min() <= 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=300), st.data())
def test_the_split_is_stratified(labels, data):
    size = data.draw(st.integers(0, len(labels) - 1).map(lambda count: 0 if count == 1 else count))
    array = np.array(labels, np.uint8)
    mask = validation_mask(array, size)
    assert mask.sum() == size
    exact = np.bincount(array, minlength=10) * size / len(labels)
    assert (abs(np.bincount(array[mask], minlength=10) - exact) < 1 + 1e-9).all()
    np.testing.assert_array_equal(mask, validation_mask(array, size))


@pytest.mark.parametrize("size, problem", [
    (0.9999, "leaves none to fit"), (2000, "leaves none to fit"), (5000, "leaves none to fit"),
    (0.0002, r"rounds to no image; a share of 0.0005 holds out one"), (1e-9, "rounds to no image")])
def test_a_size_that_leaves_one_side_empty_is_refused(size, problem):
    with pytest.raises(DataError, match=f"validation_size={size} of 2000 training images {problem}"):
        load_data(data="mini", validation_size=size)


@pytest.mark.parametrize("size", [float("nan"), float("inf"), "many", 2.5, True, -0.1, -1, 1])
def test_a_size_that_is_neither_a_share_nor_a_count_is_refused(size):
    with pytest.raises(SpecError, match=f"validation_size.*{size}"):
        load_data(data="mini", validation_size=size)
