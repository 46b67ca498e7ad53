"""The low-level networks agree with Keras, with finite differences and with the fast engine; the rounded accuracy."""

import ast
import functools
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import fmnist_zoo
from fmnist_zoo import metrics, models
from fmnist_zoo.backend import keras, tf
from trainers.config import resolve
from trainers.engine import factory, lowlevel

PART_A = [name for name in fmnist_zoo.list_models("network_*")]


@pytest.fixture(scope="module")
def fit_split():
    return fmnist_zoo.load_data(("fit",), data="mini")["fit"]


@pytest.mark.parametrize("name", PART_A)
def test_same_start_and_same_logits_as_the_keras_model(name, fit_split):
    spec = fmnist_zoo.get_spec(name)
    ours, model = lowlevel.LowLevelNetwork(spec, 5), models.build(spec, 5)
    for variable, weight in zip(ours.variables, model.get_weights()):
        np.testing.assert_array_equal(variable.numpy(), weight)
    images = fit_split.images[:200].astype(np.float32) / 255
    np.testing.assert_allclose(lowlevel.forward_pass(ours.variables, images), model(images).numpy(), atol=2e-5)
    assert float(ours.penalty(ours.rates)) == pytest.approx(float(sum(model.losses)), rel=1e-5)


@pytest.mark.parametrize("beta_2", [0.999, 0.99])
def test_adam_equals_keras_over_200_steps(beta_2):
    random = np.random.default_rng(0)
    start = [random.normal(0, 1, (6, 4)).astype(np.float32), random.normal(0, 1, 4).astype(np.float32)]
    ours, theirs = [tf.Variable(array) for array in start], [keras.Variable(array) for array in start]
    adam = lowlevel.Adam(ours, beta_2=beta_2)
    twin = keras.optimizers.Adam(0.01, beta_2=beta_2)
    twin.build(theirs)
    update = tf.function(functools.partial(adam.apply, learning_rate=0.01))
    twin_update = tf.function(lambda changes: twin.apply(changes, theirs))
    for step in range(200):
        gradients = [tf.constant(random.normal(0, 10.0 ** random.integers(-4, 2), array.shape), tf.float32)
                     for array in start]
        update(gradients, tf.constant(step, tf.int64))
        twin_update(gradients)
    for mine, other in zip(ours, theirs):
        np.testing.assert_allclose(mine.numpy(), np.asarray(other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("epsilon_hat", [True, False])
def test_adam_equals_its_equations(epsilon_hat):
    """Algorithm 1 adds epsilon to the corrected root, the other form to the plain one: tiny gradients tell."""
    w, m, v = 1.0, 0.0, 0.0
    variable = tf.Variable([w], dtype=tf.float64)
    adam = lowlevel.Adam([variable], epsilon=1e-7, epsilon_hat=epsilon_hat)
    for t, g in enumerate([1e-8, 0.5, -0.2, 0.1], start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        epsilon = 1e-7 / np.sqrt(1 - 0.999**t) if epsilon_hat else 1e-7
        w -= 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + epsilon)
        adam.apply([tf.constant([g], tf.float64)], t - 1, learning_rate=0.1)
        assert float(variable.numpy()[0]) == pytest.approx(w, rel=1e-9)


def test_gradients_equal_finite_differences():
    """Central differences in float64 on a small network; no unit is at the kink of ReLU."""
    random = np.random.default_rng(3)
    variables = [tf.Variable(random.normal(0, 0.5, shape)) for shape in ((7, 5), (5,), (5, 10), (10,))]
    images = tf.constant(random.uniform(0, 1, (4, 7)))
    one_hot = tf.one_hot([1, 0, 9, 3], 10, dtype=tf.float64)

    def objective():
        loss = tf.reduce_mean(-tf.reduce_sum(
            one_hot * lowlevel.log_softmax(lowlevel.forward_pass(variables, images)), axis=1))
        return loss + lowlevel.l1_penalty(variables[::2], 0.01) + lowlevel.l2_penalty(variables[::2], 0.02)

    with tf.GradientTape() as tape:
        value = objective()
    gradients = tape.gradient(value, variables)
    for variable, gradient in zip(variables, gradients):
        whole = variable.numpy()
        for place in np.ndindex(*whole.shape):
            sides = []
            for shift in (1e-6, -1e-6):
                moved = whole.copy()
                moved[place] += shift
                variable.assign(moved)
                sides.append(float(objective()))
            variable.assign(whole)
            assert float(gradient.numpy()[place]) == pytest.approx((sides[0] - sides[1]) / 2e-6, abs=1e-6)


def epochs(name, trainer, split, count, **settings):
    """The network of a run and the means of its first `count` epochs, without a folder."""
    config = resolve(name, trainer=trainer, data="mini", **settings)
    model = models.build(config.spec, config.seed)
    engine = factory.make_engine(config, model, split)
    return engine.network, [engine.run_epoch(epoch) for epoch in range(count)]


@pytest.mark.parametrize("name", [
    "network_A_l1", *(pytest.param(name, marks=pytest.mark.long) for name in ("network_softmax", "network_B_l2"))])
def test_scratch_and_tape_take_the_same_steps(name, fit_split):
    """Full batch and gradient descent from the same start: same equations give the same numbers, but for rounding."""
    (ours, our_means), (theirs, their_means) = (
        epochs(name, trainer, fit_split, 15, optimizer="sgd", learning_rate=0.05) for trainer in ("scratch", "tape"))
    for mine, other in zip(our_means, their_means):
        assert mine.loss == pytest.approx(other.loss, abs=2e-5)
        assert mine.penalty == pytest.approx(other.penalty, abs=2e-5)
    for mine, other in zip(ours.variables, theirs.variables):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), atol=1e-4)


def test_lowlevel_uses_neither_keras_nor_tf_nn():
    for node in ast.walk(ast.parse(pathlib.Path(lowlevel.__file__).read_text())):
        assert not (isinstance(node, ast.Name) and node.id == "keras")
        assert not (isinstance(node, ast.Attribute) and node.attr == "nn")


# The rounded accuracy.

@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 20))
def test_rounded_accuracy_follows_from_its_parts_and_bounds_accuracy(seed, sharpness):
    random = np.random.default_rng(seed)
    logits, labels = random.normal(0, sharpness, (50, 10)).astype(np.float32), random.integers(0, 10, 50)
    parts = metrics.rounded_accuracy(logits, labels)
    assert parts["right"] + parts["wrong"] + parts["unsure"] == pytest.approx(1)
    assert parts["value"] == pytest.approx(0.9 + (parts["right"] - parts["wrong"]) / 10)
    top = metrics.accuracy(logits, labels)
    assert 0.8 + top / 10 - 1e-9 <= parts["value"] <= 0.9 + top / 10 + 1e-9
    raw = float(lowlevel.rounded_accuracy(tf.constant(labels, tf.int32), tf.constant(logits)))
    assert raw == pytest.approx(parts["value"], abs=1e-6)
    binary = keras.metrics.BinaryAccuracy(threshold=0.5)
    binary.update_state(np.eye(10)[labels], metrics.softmax(logits))
    assert float(binary.result()) == pytest.approx(parts["value"], abs=1e-6)


def test_rounded_accuracy_of_ties_and_extremes():
    labels, half = np.arange(10), np.array([[0.0, 0.0, *[-70.0] * 8]])  # one half rounds to 0
    for logits, true, value in ((half, labels[:1], 0.9), (np.zeros((4, 10)), labels[:4], 0.9),
                                (50 * np.eye(10), labels, 1.0), (50 * np.eye(10), np.roll(labels, 1), 0.8)):
        assert metrics.rounded_accuracy(logits, true)["value"] == pytest.approx(value)
    bold = 50.0 * np.eye(10)
    bold[:4] = np.roll(bold[:4], 1, axis=1)  # four of ten are wrong, with high confidence, and still preferred
    assert metrics.rounded_accuracy(0.1 * np.eye(10), labels)["value"] < metrics.rounded_accuracy(bold, labels)["value"]
