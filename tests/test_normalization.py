"""The batch normalization of the convolutional teacher."""

import numpy as np
import pytest

from benchmarks.normalization import FusedBatchNormalization
from fmnist_zoo.backend import keras, tf

IMAGES = np.random.default_rng(0).normal(3.0, 2.0, (20, 5, 6, 7)).astype("float32")


def _layers():
    """Keras' layer and ours, with the same weights, none of which is 0 or 1."""
    layers = [kind(momentum=0.9) for kind in (keras.layers.BatchNormalization, FusedBatchNormalization)]
    random = np.random.default_rng(1)
    weights = [random.uniform(0.5, 1.5, 7).astype("float32") for _ in range(4)]
    for layer in layers:
        layer.build(IMAGES.shape)
        layer.set_weights(weights)
    return layers


@pytest.mark.parametrize("training", (True, False))
def test_fused_batch_normalization_computes_what_keras_does(training):
    found = []
    for layer in _layers():
        images = tf.constant(IMAGES)
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=training)
            objective = tf.reduce_sum(tf.sin(outputs))
        found.append([outputs, *tape.gradient(objective, [images, layer.gamma.value, layer.beta.value])])
    for keras_one, own in zip(*found):
        np.testing.assert_allclose(own, keras_one, rtol=1e-4, atol=1e-5)


def test_fused_batch_normalization_moves_to_the_unbiased_variance():
    expected, own = _layers()
    before = expected.moving_variance.numpy()
    for layer in (expected, own):
        layer(IMAGES, training=True)
    np.testing.assert_allclose(own.moving_mean, expected.moving_mean, rtol=1e-5)
    count = IMAGES[..., 0].size
    biased = (expected.moving_variance.numpy() - 0.9 * before) / 0.1
    np.testing.assert_allclose(own.moving_variance, 0.9 * before + 0.1 * biased * count / (count - 1), rtol=1e-5)
