"""The fixed input layers: standardized and whitened pixels, from the images that a model is trained on."""

import numpy as np
import pytest

from fmnist_zoo import inputs, models
from fmnist_zoo.data import load_data
from fmnist_zoo.spec import ModelSpec


@pytest.fixture(scope="module")
def images():
    return load_data(("fit",), data="mini")["fit"].images


def outputs(kind, images):
    """What a model's first layer gives for these images after it was fitted to them, float64."""
    spec = ModelSpec("x", input=kind)
    model = models.build(spec)
    pixels = images.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(models.feature_model(model)(pixels), pixels)  # the identity, before
    models.fit_input(model, spec, images)
    return np.asarray(models.feature_model(model)(pixels), float)


def test_standardized_pixels_have_mean_0_and_deviation_1_unless_they_hardly_vary(images):
    found, deviations = outputs("standardized", images), (images / 255).std(axis=0)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=0), np.minimum(deviations / inputs.FLOOR, 1), atol=1e-5)
    assert np.abs(found).max() < 1 / inputs.FLOOR


def test_whitened_pixels_are_uncorrelated_but_for_the_ridge(images):
    found, covariance = outputs("whitened", images), np.cov(images.T / 255, bias=True)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    # In the basis of the eigenvectors each variance v becomes v / (v + ridge).
    expected = covariance @ np.linalg.inv(covariance + inputs.RIDGE * np.eye(784))
    np.testing.assert_allclose(np.cov(found.T, bias=True), expected, atol=1e-4)


def test_whitening_is_the_rotation_free_one(images):
    """ZCA: of all maps that whiten, the symmetric one, so that an image stays an image."""
    kernel, _ = inputs.fit("whitened", images)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-6)
    assert np.linalg.eigvalsh(kernel.astype(float)).min() > 0


@pytest.mark.parametrize("kind", ["standardized", "whitened"])
def test_order_of_the_images_changes_no_bit(images, kind):
    shuffled = images[np.random.default_rng(0).permutation(len(images))]
    for first, second in zip(inputs.fit(kind, images), inputs.fit(kind, shuffled)):
        np.testing.assert_array_equal(first, second)


def test_moments_of_many_bright_images_are_exact():
    images = np.full((1000, 784), 255, np.uint8)
    images[::2, 0] = 254
    mean, covariance = inputs._moments(images)
    assert mean[1] == 1 and covariance[0, 0] == pytest.approx(0.25 / 255**2, rel=1e-6)
    assert not covariance[1:].any()
