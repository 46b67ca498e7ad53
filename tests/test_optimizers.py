"""Our fused optimizers compute the numbers of their twins in Keras."""

import functools

import numpy as np
import pytest

from fmnist_zoo.backend import keras, tf
from fmnist_zoo.spec import OPTIMIZERS, Recipe
from trainers.engine.fit import make_optimizer
from trainers.engine.optimizers import Optimizer

STEPS = 60


def gradients(step):
    random = np.random.default_rng([7, step])
    kernel = random.normal(0, 1, (12, 5)) * 10.0 ** random.integers(-6, 2, (12, 5))  # tiny ones show epsilon's place
    return [tf.constant(kernel, tf.float32), tf.constant(random.normal(0, 0.1, 5), tf.float32)]


def start():
    random = np.random.default_rng(1)
    return [random.normal(0, 1, (12, 5)).astype(np.float32), random.normal(0, 1, 5).astype(np.float32)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_keras(name, weight_decay):
    """Both as TensorFlow's kernels and compiled by XLA; the order of float32 operations differs from that of Keras."""
    twin = make_optimizer(Recipe(optimizer=name, learning_rate=0.01, weight_decay=weight_decay))
    theirs = [keras.Variable(array, name=part) for array, part in zip(start(), ("kernel", "bias"))]
    twin.exclude_from_weight_decay(var_list=theirs[1:])
    twin.build(theirs)
    twin_update = tf.function(lambda changes: twin.apply(changes, theirs))
    for step in range(STEPS):
        twin_update(gradients(step))
    for compiled in (False, True):
        ours = [tf.Variable(array) for array in start()]
        optimizer = Optimizer(name, ours, [True, False])
        update = tf.function(functools.partial(optimizer.apply, learning_rate=0.01, weight_decay=weight_decay or None),
                             jit_compile=compiled)
        for step in range(STEPS):
            update(gradients(step), tf.constant(step, tf.int64))
        for mine, other in zip(ours, theirs):
            np.testing.assert_allclose(mine.numpy(), np.asarray(other), rtol=2e-5, atol=2e-6)
        assert np.abs(ours[0].numpy() - start()[0]).max() > 0.01, "the updates change the weights"


def test_biases_do_not_decay():
    variables = [tf.Variable(array) for array in start()]
    optimizer = Optimizer("sgd", variables, [True, False])
    optimizer.apply([tf.zeros_like(variable) for variable in variables], tf.constant(0, tf.int64), learning_rate=0.1,
                    weight_decay=0.5)
    np.testing.assert_allclose(variables[0].numpy(), start()[0] * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(variables[1].numpy(), start()[1])
