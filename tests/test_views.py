"""`fmnist_zoo.views`: the views of test-time augmentation, and the means over views and models."""

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import data, metrics, prediction, views
from fmnist_zoo.errors import UsageError

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.random((5, 784), np.float32)
LOGITS = RANDOM.normal(0, 5, (3, 20, 10))


@pytest.mark.parametrize("tta, count, spelled", [
    ("", 1, ""), ("shift", 9, "shift"), ("shift2", 25, "shift2"), ("flip", 2, "flip"),
    ("flip,shift", 18, "shift,flip"), ("shift2,flip", 50, "shift2,flip"),
])
def test_views_are_all_different_and_the_plain_one_is_among_them(tta, count, spelled):
    assert views.parse(tta) == spelled
    seen = {views.moved(PIXELS, *move).tobytes() for move in views.moves(tta)}
    assert len(seen) == len(views.moves(tta)) == count and PIXELS.tobytes() in seen


@pytest.mark.parametrize("move", [(0, 0, False), (1, 0, False), (0, -2, False), (-2, 1, True)])
def test_a_view_is_moved_and_what_comes_in_is_black(move):
    down, right, flipped = move
    images = PIXELS.reshape(5, 28, 28)
    images = np.flip(images, axis=2) if flipped else images
    wide = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    expected = wide[:, 2 - down:30 - down, 2 - right:30 - right]
    np.testing.assert_array_equal(views.moved(PIXELS, *move).reshape(5, 28, 28), expected)


@pytest.mark.parametrize("tta", ["shift3", "shift,shift2", "flip,flip", "shift,", " flip", None, 2])
def test_other_views_are_refused(tta):
    with pytest.raises(UsageError, match="tta must be shift, shift2 or flip, or a shift and flip.*received"):
        views.moves(tta)


def test_mean_over_views_is_the_geometric_mean_of_probabilities():
    product = np.prod([metrics.softmax(one) for one in LOGITS], axis=0) ** (1 / 3)
    found = views.mean_over_views(iter(LOGITS))
    np.testing.assert_allclose(np.exp(found), product / product.sum(axis=1, keepdims=True), rtol=1e-9)
    after = metrics.softmax(views.mean_over_views(iter(LOGITS)) / 1.7)  # a temperature after the mean equals one before
    np.testing.assert_allclose(after, metrics.softmax(views.mean_over_views(iter(LOGITS / 1.7))), rtol=1e-9)


def test_mean_over_models_is_the_mean_of_probabilities():
    mean = np.mean([metrics.softmax(one) for one in LOGITS], axis=0)
    np.testing.assert_allclose(metrics.softmax(views.mean_over_models(LOGITS)), mean, rtol=1e-9)
    huge = views.mean_over_models([np.array([[2000.0, 0, -2000]]), np.array([[2000.0, 0, 0]])])
    assert np.isfinite(huge).all()  # probabilities underflow, their logarithms do not


def test_logits_of_models_and_views():
    images = data.load_data(("validation",), data="mini")["validation"].images[:20]
    pixels = prediction.as_pixels(images)
    models = [fmnist_zoo.load_model(name) for name in ("softmax", "2L")]
    plain = prediction.logits_of(models[:1], pixels)
    assert plain.dtype == np.float32
    np.testing.assert_array_equal(plain, prediction.outputs_of(models[0], pixels))
    mirrored = np.flip(images.reshape(-1, 28, 28), axis=2).reshape(-1, 784)
    members = []
    for model in models:
        both = [metrics.softmax(prediction.outputs_of(model, prediction.as_pixels(one))) for one in (images, mirrored)]
        product = np.sqrt(both[0] * both[1])
        members.append(product / product.sum(axis=1, keepdims=True))
    together = metrics.softmax(prediction.logits_of(models, pixels, "flip"))
    np.testing.assert_allclose(together, np.mean(members, axis=0), rtol=1e-5)
