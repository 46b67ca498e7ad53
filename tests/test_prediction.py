"""`fmnist_zoo.predict` on arrays, with a model that was trained on the mini set."""

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import data, metrics, prediction

VALIDATION = data.load_data(("validation",), data="mini")["validation"]
IMAGES = VALIDATION.images.reshape(-1, 28, 28)
pytestmark = pytest.mark.usefixtures("shipped")


def test_arrays_of_both_kinds_and_shapes_are_one(mini_run, shipped):
    labels, probabilities = fmnist_zoo.predict(IMAGES)
    assert labels.shape == (200,) and labels.dtype == np.int64
    assert probabilities.shape == (200, 10) and probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(labels, probabilities.argmax(axis=1))
    for same in (VALIDATION.images, IMAGES / 255, VALIDATION.images / np.float32(255)):
        np.testing.assert_allclose(fmnist_zoo.predict(same).probabilities, probabilities, atol=1e-6)
    logits = mini_run.model(VALIDATION.images.astype(np.float32) / 255).numpy()
    np.testing.assert_allclose(probabilities, metrics.softmax(logits / shipped["temperature"]), atol=1e-5)
    assert np.mean(labels == VALIDATION.labels) > 0.75


def test_probabilities_are_calibrated(shipped):
    """By the temperature of the manifest, which is not 1, and lowers the loss that it was fitted to."""
    assert shipped["temperature"] != pytest.approx(1, abs=0.01)
    model, pixels = prediction._trained("4D_drop03"), prediction.as_pixels(IMAGES)
    plain = metrics.softmax(prediction.outputs_of(model, pixels))

    def loss(probabilities):
        return -np.log(probabilities[np.arange(200), VALIDATION.labels]).mean()

    assert loss(fmnist_zoo.predict(IMAGES).probabilities) < loss(plain)


@pytest.mark.parametrize("shape", [(0, 28, 28), (0, 784)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_no_images_have_no_labels(shape, dtype):
    labels, probabilities = fmnist_zoo.predict(np.zeros(shape, dtype))
    assert labels.shape == (0,) and probabilities.shape == (0, 10)


def test_more_than_a_batch():
    many = np.concatenate([IMAGES] * 21)
    assert len(many) > 2 * prediction.BATCH
    np.testing.assert_array_equal(fmnist_zoo.predict(many).labels, np.tile(fmnist_zoo.predict(IMAGES).labels, 21))


@pytest.mark.parametrize("images, text", [
    (IMAGES[0], r"received uint8 of shape \(28, 28\): for one image, pass images\[None\]"),
    (IMAGES[0].ravel(), r"received uint8 of shape \(784,\): for one image"),
    (IMAGES[:, :14], r"must be \(n, 28, 28\) or \(n, 784\), received uint8 of shape \(200, 14, 28\)"),
    (IMAGES.astype(int), r"must be uint8 \(0 to 255\) or floats in \[0, 1\], received int64 of shape \(200, 28, 28\)"),
    (IMAGES > 3, "received bool"), (IMAGES * 1.0, r"in \[0, 1\], received float64 .* from 0 to 255: divide by 255"),
    (IMAGES / 255 - 0.5, "values from -0.5 to 0.5"), (np.full((1, 784), np.nan), "no numbers"),
    ("shoe.jpg", "received <U8 of shape"), ([[1, 2], [3]], "must be one array, received list"),
    (None, r"received object of shape \(\)"),
])
def test_other_arrays_are_refused_with_what_was_received(images, text):
    with pytest.raises(fmnist_zoo.PredictionError, match=text):
        fmnist_zoo.predict(images)


def test_models_that_are_not_there():
    with pytest.raises(fmnist_zoo.SpecError, match="did you mean 4D_drop03"):
        fmnist_zoo.predict(IMAGES, "4D_drop3")
    with pytest.raises(fmnist_zoo.WeightsError, match="no trained weights come with '4L'"):
        fmnist_zoo.predict(IMAGES, "4L")
