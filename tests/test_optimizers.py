"""Our fused optimizers against their twins in Keras, number for number."""

import numpy as np
import pytest

from fmnist_zoo.backend import keras, tf
from fmnist_zoo.spec import OPTIMIZERS, Recipe
from trainers.engine.fit import make_optimizer
from trainers.engine.optimizers import Optimizer

STEPS = 60


def gradients(step):
    random = np.random.default_rng([7, step])
    kernel = random.normal(0, 1, (12, 5)) * 10.0 ** random.integers(-6, 2, (12, 5))  # tiny ones show where epsilon sits
    return [tf.constant(kernel, tf.float32), tf.constant(random.normal(0, 0.1, 5), tf.float32)]


def start():
    random = np.random.default_rng(1)
    return [random.normal(0, 1, (12, 5)).astype(np.float32), random.normal(0, 1, 5).astype(np.float32)]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_keras(name, weight_decay, compiled):
    recipe = Recipe(optimizer=name, learning_rate=0.01, weight_decay=weight_decay)
    ours = [tf.Variable(array) for array in start()]
    optimizer = Optimizer(name, ours, learning_rate=0.01, weight_decay=weight_decay)
    theirs = [keras.Variable(array, name=part) for array, part in zip(start(), ("kernel", "bias"))]
    twin = make_optimizer(recipe)
    update = tf.function(optimizer.apply, jit_compile=compiled)
    for step in range(STEPS):
        update(gradients(step), tf.constant(step, tf.int64))
        twin.apply(gradients(step), theirs)
    for mine, other in zip(ours, theirs):
        np.testing.assert_allclose(mine.numpy(), np.asarray(other), rtol=2e-5, atol=2e-6)
    assert np.abs(ours[0].numpy() - start()[0]).max() > 0.01  # it did move


def test_biases_do_not_decay():
    variables = [tf.Variable(array) for array in start()]
    optimizer = Optimizer("sgd", variables, learning_rate=0.1, weight_decay=0.5)
    optimizer.apply([tf.zeros_like(variable) for variable in variables], tf.constant(0, tf.int64))
    np.testing.assert_allclose(variables[0].numpy(), start()[0] * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(variables[1].numpy(), start()[1])
