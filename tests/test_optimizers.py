"""The optimizers of the tape loop compute the numbers of `keras.optimizers`."""

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


def variables():
    return [keras.Variable(array, name=part) for array, part in zip(start(), ("kernel", "bias"))]


def ours(name, learned, weight_decay=None):
    """Our optimizer of `learned`, and its update."""
    optimizer = Optimizer(Recipe(optimizer=name, learning_rate=0.01), learned, (True, False))
    return optimizer, functools.partial(optimizer.apply, learning_rate=0.01, weight_decay=weight_decay)


@pytest.mark.parametrize("weight_decay", [pytest.param(0.0, marks=pytest.mark.long), 0.05])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_keras(name, weight_decay):
    """Both as TensorFlow's kernels and compiled by XLA; the order of float32 operations differs from that of Keras."""
    theirs = variables()
    twin = make_optimizer(Recipe(optimizer=name, learning_rate=0.01, weight_decay=weight_decay), theirs,
                          [True] + [False] * (len(theirs) - 1))
    twin.build(theirs)
    twin_update = tf.function(lambda changes: twin.apply(changes, theirs))
    for step in range(STEPS):
        twin_update(gradients(step))
    for compiled in (False, True):
        learned = variables()
        update = tf.function(ours(name, learned, weight_decay or None)[1], jit_compile=compiled)
        for step in range(STEPS):
            update(gradients(step), tf.constant(step, tf.int64))
        for mine, other in zip(learned, theirs):
            np.testing.assert_allclose(np.asarray(mine), np.asarray(other), rtol=2e-5, atol=2e-6)
        assert np.abs(np.asarray(learned[0]) - start()[0]).max() > 0.01, "the updates change the weights"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_all_that_an_optimizer_remembers(name):
    """Another optimizer that gets it continues to the bit."""
    learned, other = variables(), variables()
    optimizer, update = ours(name, learned)
    for step in range(3):
        update(gradients(step), tf.constant(step, tf.int64))
    second, second_update = ours(name, other)
    for mine, theirs in zip([*learned, *optimizer.state().values()], [*other, *second.state().values()]):
        theirs.assign(mine)
    assert optimizer.state().keys() == second.state().keys()
    for one in (update, second_update):
        one(gradients(3), tf.constant(3, tf.int64))
    for mine, theirs in zip(learned, other):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
