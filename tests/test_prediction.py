"""`fmnist_zoo.predict` on arrays and on files, with the weights that come with the package."""


import numpy as np
import pytest
from PIL import Image

import fmnist_zoo
from fmnist_zoo import data, metrics, prediction, weights
from tests.idx_files import payload, write

VALIDATION = data.load_data(("validation",), data="mini")["validation"]
IMAGES = VALIDATION.images.reshape(-1, 28, 28)
# In batches of other sizes, products are summed in another order: logits of about 20 change by some 1e-6 of themselves,
# and probabilities by as much as logits do.
CLOSE = {"rtol": 1e-4, "atol": 1e-7}


def test_probabilities_are_the_softmax_of_logits_by_the_temperature():
    labels, probabilities = fmnist_zoo.predict(IMAGES)
    assert labels.shape == (200,) and labels.dtype == np.int64
    assert probabilities.shape == (200, 10) and probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(labels, probabilities.argmax(axis=1))
    assert np.mean(labels == VALIDATION.labels) > 0.85
    logits = fmnist_zoo.load_model("4D_drop03").predict(VALIDATION.images / 255, verbose=0)
    temperature = weights.entry("4D_drop03")["temperature"]
    assert abs(temperature - 1) > 0.01
    np.testing.assert_allclose(probabilities, metrics.softmax(logits / temperature), **CLOSE)


def test_all_forms_of_an_array_give_the_same_predictions():
    few = slice(0, 5)
    wanted = fmnist_zoo.predict(IMAGES[few]).probabilities
    for same in (VALIDATION.images[few], IMAGES[few] / 255, VALIDATION.images[few] / np.float32(255),
                 [image / 255 for image in IMAGES[few]]):
        np.testing.assert_allclose(fmnist_zoo.predict(same).probabilities, wanted, **CLOSE)
        np.testing.assert_array_equal(fmnist_zoo.predict(same, invert="no").labels, wanted.argmax(axis=1))
    for inverted in (255 - IMAGES[few], 1 - IMAGES[few] / 255):
        np.testing.assert_allclose(fmnist_zoo.predict(inverted, invert="yes").probabilities, wanted, **CLOSE)


@pytest.mark.parametrize("shape", [(0, 28, 28), (0, 784)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_no_images_have_no_labels(shape, dtype):
    labels, probabilities = fmnist_zoo.predict(np.zeros(shape, dtype))
    assert labels.shape == (0,) and probabilities.shape == (0, 10)


def test_more_images_than_a_batch(monkeypatch):
    monkeypatch.setattr(prediction, "BATCH", 90)
    received = fmnist_zoo.predict(IMAGES).probabilities
    monkeypatch.undo()
    np.testing.assert_allclose(received, fmnist_zoo.predict(IMAGES).probabilities, **CLOSE)


@pytest.mark.parametrize("images, text", [
    (IMAGES[0], r"received uint8 of shape \(28, 28\): for one image, pass images\[None\]"),
    (IMAGES[:, :14], r"must be \(n, 28, 28\) or \(n, 784\), received uint8 of shape \(200, 14, 28\)"),
    (IMAGES.astype(int), r"must be uint8 \(0 to 255\) or floats in \[0, 1\], received int64 of shape \(200, 28, 28\)"),
    (IMAGES * 1.0, r"in \[0, 1\], received float64 .* from 0 to 255: divide by 255"),
    ([[1, 2], [3]], "must be one array, received list"), ([], r"received float64 of shape \(0,\)"),
    (None, r"received object of shape \(\)"),
])
def test_other_arrays_are_refused_with_what_was_received(images, text):
    with pytest.raises(fmnist_zoo.PredictionError, match=text):
        fmnist_zoo.predict(images)


def test_files_are_read_in_the_order_of_the_list(tmp_path):
    Image.fromarray(255 - IMAGES[0]).save(tmp_path / "a.png")
    write(tmp_path / "b.gz", payload(IMAGES[1:3]))
    np.save(tmp_path / "c.npy", IMAGES[3] / 255)
    paths = [str(tmp_path / "c.npy"), tmp_path / "a.png", tmp_path / "b.gz"]
    received = fmnist_zoo.predict(paths)
    wanted = fmnist_zoo.predict(IMAGES[[3, 0, 1, 2]])
    np.testing.assert_allclose(received.probabilities, wanted.probabilities, **CLOSE)
    for one in (str(tmp_path / "a.png"), tmp_path / "a.png", [tmp_path / "a.png"]):
        np.testing.assert_allclose(fmnist_zoo.predict(one).probabilities, wanted.probabilities[1:2], **CLOSE)
    inverted = fmnist_zoo.predict(tmp_path / "a.png", invert="no").probabilities
    np.testing.assert_allclose(inverted, fmnist_zoo.predict(255 - IMAGES[:1]).probabilities, **CLOSE)


def photographed(image, ground=255, noise=0.0):
    """A garment dark on light, in a photograph of 200x300."""
    large = np.asarray(Image.fromarray(255 - image).resize((200, 200), Image.Resampling.BICUBIC)) * (ground / 255)
    canvas = np.full((200, 300), float(ground))
    canvas[:, 50:250] = large
    canvas += np.random.default_rng(0).normal(0, noise, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("suffix, options", [
    (".png", {}), (".jpg", {}), (".png", {"ground": 200}), (".jpg", {"noise": 8.0})], ids=str)
def test_a_photograph_is_recognised_as_the_image_that_it_shows(tmp_path, suffix, options):
    """Nearly always: where an image's outermost rows are nearly black, they are trimmed with the ground."""
    paths = [tmp_path / f"{index}{suffix}" for index in range(20)]
    for path, image in zip(paths, IMAGES):
        Image.fromarray(photographed(image, **options)).save(path)
    assert np.mean(fmnist_zoo.predict(paths).labels == fmnist_zoo.predict(IMAGES[:20]).labels) >= 0.85
