"""The forward function of a spec: it equals the Keras model, its dropout is random and repeatable."""

import numpy as np
import pytest
import scipy.stats

import fmnist_zoo
from fmnist_zoo.backend import keras, tf
from tests.conftest import computes_bfloat16
from trainers.engine import network, randomness, twin


@pytest.fixture(scope="module")
def images():
    return fmnist_zoo.load_data(("fit",), data="mini")["fit"].images


@pytest.mark.parametrize("name", [name for name in fmnist_zoo.list_models() if not fmnist_zoo.get_spec(name).build])
def test_forward_and_penalty_equal_the_keras_model(name, images):
    model = fmnist_zoo.build_model(name, seed=3)
    net = network.Network(model, fmnist_zoo.get_spec(name))
    pixels = network.scale(tf.constant(images[:300]))
    logits = net.forward(pixels)
    np.testing.assert_allclose(logits.numpy(), model(pixels).numpy(), atol=2e-5)
    np.testing.assert_allclose(float(net.penalty(net.rates)), float(sum(model.losses)), rtol=1e-5)


def test_predictor_returns_the_logits_of_every_image_in_order(images):
    net = network.Network(fmnist_zoo.build_model("softmax"), fmnist_zoo.get_spec("softmax"))
    predict = network.make_predictor(net)
    many = np.concatenate([images, images, images])[: 2 * network.EVALUATION_BATCH + 7]
    assert predict(many).shape == (2 * network.EVALUATION_BATCH + 7, 10)
    np.testing.assert_allclose(predict(many)[-7:], predict(many[-7:]), atol=1e-5)  # a batch of another size
    assert predict(images[:0]).shape == (0, 10)


def moment(net, step):
    return twin.Moment(tf.constant(0, tf.uint32), tf.constant(step, tf.int64), net.rates)


def dropped_ones(rate, *, seed=0, step=0, layer=0, shape=(400, 301)):
    return twin.dropout(tf.ones(shape), tf.constant(round(rate * 2**32), tf.uint32), 1 / (1 - rate), seed=seed,
                        step=tf.constant(step, tf.int64), stream=layer).numpy()


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_keeps_the_mean(rate):
    units = dropped_ones(rate)
    count = units.size
    zeros = np.mean(units == 0)
    assert abs(zeros - rate) < 5 * np.sqrt(rate * (1 - rate) / count)
    np.testing.assert_allclose(np.unique(units), [0, 1 / (1 - rate)], rtol=1e-4)


def test_dropout_masks_are_a_function_of_seed_step_and_layer():
    base = dropped_ones(0.5)
    np.testing.assert_array_equal(base, dropped_ones(0.5))
    for other in (dict(seed=1), dict(step=1), dict(layer=1), dict(step=2**33)):
        agreement = np.mean((base == 0) == (dropped_ones(0.5, **other) == 0))
        assert abs(agreement - 0.5) < 0.01, other


def test_random_words_are_uniform_and_independent():
    """Over 400 steps: each byte of a word, each unit's share, and neighbours in place and in step."""
    words = np.stack([randomness.words((50, 40), seed=0, step=tf.constant(step, tf.int64), stream=1).numpy()
                      for step in range(400)])
    for shift in (0, 8, 16, 24):
        counts = np.bincount((words >> shift & 255).ravel(), minlength=256)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4, shift
    dropped = words[:2].reshape(2, -1) < 2**31  # masks would be shifted copies if the step were added to the place
    assert all(abs(np.mean(dropped[0, shift:] == dropped[1, :-shift]) - 0.5) < 0.06 for shift in range(1, 65))
    kept = np.where(words < 0.3 * 2**32, 0.7, -0.3) / np.sqrt(0.21)  # mean 0, variance 1
    shares = kept.sum(axis=0) / np.sqrt(len(kept))
    assert np.abs(shares).max() < 5 and np.var(shares) == pytest.approx(1, abs=0.15)
    for one, other in ((kept[1:], kept[:-1]), (kept[:, 1:], kept[:, :-1]), (kept[:, :, 1:], kept[:, :, :-1]),
                       (kept[:, :, 2:], kept[:, :, :-2]), (kept[::2], kept[1::2])):
        assert abs((one * other).mean()) * np.sqrt(one.size) < 4.5


def test_gradient_of_dropout_uses_the_same_mask():
    units = tf.ones((50, 40))
    with tf.GradientTape() as tape:
        tape.watch(units)
        output = twin.dropout(units, tf.constant(1 << 30, tf.uint32), 4 / 3, seed=5, step=tf.constant(9, tf.int64),
                              stream=2)
    np.testing.assert_array_equal(tape.gradient(output, units).numpy(), output.numpy())


@computes_bfloat16
def test_bfloat16_changes_training_and_not_evaluation(images):
    model, spec = fmnist_zoo.build_model("4D_drop03"), fmnist_zoo.get_spec("4D_drop03")
    exact, mixed = network.Network(model, spec), network.Network(model, spec, bfloat16=True)
    np.testing.assert_array_equal(network.make_predictor(exact)(images), network.make_predictor(mixed)(images))
    pixels = network.scale(tf.constant(images))
    found = [net.forward(pixels, moment(net, 3)) for net in (exact, mixed)]
    assert found[1].dtype == tf.float32
    apart = np.abs(found[0] - found[1]).max() / np.abs(found[0]).max()
    assert 1e-4 < apart < 0.03  # the same masks; products with 8 bits of precision


@pytest.mark.parametrize("settings", [{}, {"center": False}, {"trainable": False}, {"axis": 1}], ids=str)
def test_batch_normalization_of_images_is_that_of_keras(settings, images):
    pixels, found = network.scale(tf.constant(images[:50])), []
    for own in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([
            keras.Input((28, 28, 1)), keras.layers.Conv2D(3, 5, 6, use_bias=False),  # of which nothing is left
            keras.layers.BatchNormalization(momentum=0.9, gamma_initializer="glorot_uniform", **settings),
            keras.layers.Flatten(), keras.layers.Dense(10)])
        net = network.Network(model)
        assert isinstance(net._twin.model.layers[1], twin.BatchNormalization) == (settings.keys() <= {"trainable"})
        with tf.GradientTape() as tape:
            if own:
                logits = net.forward(pixels, moment(net, 0))
            else:
                logits = model(tf.reshape(pixels, (-1, 28, 28, 1)), training=True)
            objective = tf.reduce_sum(tf.sin(logits))
        found.append([logits, *tape.gradient(objective, net.variables), *net.state.values()])
    assert len(found[0]) == len(found[1])
    for of_keras, own in zip(*found):
        np.testing.assert_allclose(own.numpy(), of_keras.numpy(), rtol=2e-4, atol=2e-5)
