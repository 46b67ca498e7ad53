"""What each setting of a recipe computes: label smoothing, averages, clipping, teachers; and its price."""

import dataclasses
import re

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import metrics
from fmnist_zoo.backend import keras, tf
from fmnist_zoo.data import Split
from fmnist_zoo.spec import Recipe
from tests.engines import arrays, assert_equal_arrays, compiled, fit, restart, tape
from trainers.config import TAPE_ALONE, ConfigError, resolve
from trainers.engine import network

SMALL = fmnist_zoo.get_spec("2L", hidden=(16,))
NORMALIZED = fmnist_zoo.get_spec("3L", hidden=(16, 12), normalization="batch")
EVERYTHING = dict(schedule="one_cycle", warmup=0.1, label_smoothing=0.1, ema=0.9, clip_norm=0.5, shift=2, flip=True,
                  erase=6, mixup=0.3, weight_decay=0.01)


@pytest.fixture(scope="module")
def split():
    whole = fmnist_zoo.load_data(("fit",), data="mini")["fit"]
    return Split(whole.images[:900], whole.labels[:900])


# Tape against Keras, NumPy and fit.

@pytest.mark.parametrize("spec", [SMALL, pytest.param(NORMALIZED, marks=pytest.mark.long)], ids=["plain", "normalized"])
@pytest.mark.parametrize("settings", [
    pytest.param(dict(schedule="cosine", warmup=0.2), marks=pytest.mark.long),
    dict(schedule="one_cycle", label_smoothing=0.2, clip_norm=0.3)], ids=str)
def test_tape_and_fit_agree(split, spec, settings):
    """Three epochs; the last of four batches is smaller."""
    spec = fmnist_zoo.derive(spec, l2=1e-3)
    options = dict(optimizer="momentum", learning_rate=0.02, epochs=3, **settings)
    net, ours = tape(spec, split, **options)
    model, theirs = fit(spec, split, **options)
    for epoch in range(3):
        mine, other = ours.run_epoch(epoch), theirs.run_epoch(epoch)
        assert mine.loss == pytest.approx(other.loss, abs=2e-5)
        assert mine.penalty == pytest.approx(other.penalty, abs=2e-5) and mine.penalty > 0
        assert mine.objective == pytest.approx(other.objective, abs=2e-5)
        assert mine.accuracy == pytest.approx(other.accuracy, abs=2e-3)
    for name, weight in zip(net.weights, model.get_weights()):
        np.testing.assert_allclose(ours.weights()[name].numpy(), weight, atol=1e-4, err_msg=name)
    if "label_smoothing" in settings:
        assert mine.surplus > 0.005


@pytest.mark.long
def test_mean_of_weights_equals_a_loop_in_numpy(split):
    """One update a call. Moving statistics are averaged too; predictions are by the means."""
    _, engine = tape(NORMALIZED, split, optimizer="momentum", learning_rate=0.05, ema=0.5)
    engine.steps_a_call = 1
    own = engine.weights(averaged=False)
    means, updates = {name: variable.numpy() for name, variable in own.items()}, []

    def follow(done, so_far):
        t = updates.append(done) or len(updates)
        rate = min(0.5, (1 + t) / (10 + t))
        for name, variable in own.items():
            means[name] = rate * means[name] + (1 - rate) * variable.numpy()

    for epoch in range(3):
        engine.run_epoch(epoch, follow)
    assert len(updates) == 12  # the start-up's bound passes 0.5 at t = 8
    for name, variable in engine.weights().items():
        np.testing.assert_allclose(variable.numpy(), means[name], rtol=1e-4, atol=1e-6, err_msg=name)
        if "kernel" in name or "moving" in name:
            assert np.abs(variable.numpy() - own[name].numpy()).max() > 1e-4
    assert sum("moving_variance" in name for name in own) == 2
    kept = {name: variable.numpy() for name, variable in own.items()}
    with engine.counting():
        averaged = engine.predict(split.images)
    for name, variable in own.items():
        variable.assign(means[name])
    np.testing.assert_allclose(engine.predict(split.images), averaged, atol=1e-4)
    for name, variable in own.items():
        variable.assign(kept[name])
    assert np.abs(engine.predict(split.images) - averaged).max() > 1e-3


def test_clipped_gradients_keep_their_direction(split):
    """One update of plain gradient descent: its length is the bound, and that of a small gradient its own."""
    moves, norms = [], []
    for bound in (0.0, 0.1, 1000.0):
        _, engine = tape(SMALL, split, batch=900, optimizer="sgd", learning_rate=1.0, clip_norm=bound)
        before = arrays(engine)
        norms.append(engine.run_epoch(0).gradient_norm)
        moves.append(np.concatenate([(now - old).ravel() for now, old in zip(arrays(engine), before)]))
    assert norms[0] == norms[1] == norms[2] == pytest.approx(np.linalg.norm(moves[0]), rel=1e-4)
    assert norms[0] > 0.2 and np.linalg.norm(moves[1]) == pytest.approx(0.1, rel=1e-4)
    np.testing.assert_allclose(moves[1] / np.linalg.norm(moves[1]), moves[0] / norms[0], atol=1e-4)
    np.testing.assert_array_equal(moves[2], moves[0])


# Teachers.

def teacher(seed, spec=SMALL):
    from fmnist_zoo import models

    return network.Network(models.build(spec, seed), spec).forward


def test_nothing_is_left_to_learn_from_oneself(split):
    """Without a gradient, as a teacher sees the same augmented images as the student."""
    _, engine = tape(SMALL, split, batch=900, shift=2, flip=True, erase=6, mixup=0.3, teacher="x", teacher_weight=1.0,
                     teachers=(teacher(0),))
    means = engine.run_epoch(0)
    assert means.gradient_norm == pytest.approx(0, abs=1e-5) and means.objective == pytest.approx(0, abs=1e-5)
    assert means.loss > 1  # of the labels, whatever is minimised


@pytest.mark.parametrize("count", [1, 3])
def test_objective_mixes_labels_and_the_mean_of_teachers(split, count):
    teachers = tuple(teacher(seed) for seed in range(1, 1 + count))
    _, engine = tape(SMALL, split, optimizer="sgd", learning_rate=1e-12, teacher="x", teacher_weight=0.7,
                     teacher_temperature=3.0, label_smoothing=0.2, teachers=teachers)
    images = split.images / np.float32(255)
    own = engine.predict(split.images)
    taught = np.mean([metrics.softmax(one(tf.constant(images)).numpy() / 3) for one in teachers], axis=0)
    divergence = np.sum(taught * (np.log(taught) - np.log(metrics.softmax(own / 3))), axis=1)
    smoothed = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    expected = 0.3 * float(smoothed(np.eye(10)[split.labels], own)) + 0.7 * 9 * divergence.mean()
    means = engine.run_epoch(0)
    assert means.objective == pytest.approx(expected, rel=1e-4)
    assert means.loss == pytest.approx(metrics.mean_cross_entropy(own, split.labels), rel=1e-5)


def test_mixture_is_taught_what_the_teacher_says_of_it(split):
    net, engine = tape(SMALL, split, batch=900, optimizer="sgd", learning_rate=1e-12, mixup=0.5, teacher="x",
                       teacher_weight=1.0, teacher_temperature=1.0, teachers=(teacher(1),))
    of_epoch = engine._of_epoch(0)
    share, images = of_epoch.shares.numpy()[:, None], of_epoch.pixels.numpy() / np.float32(255)
    mixed = tf.constant(share * images + (1 - share) * np.roll(images, -1, axis=0))
    expected, own = (metrics.softmax(forward(mixed).numpy()) for forward in (teacher(1), net.forward))
    divergence = np.sum(expected * (np.log(expected) - np.log(own)), axis=1).mean()
    assert engine.run_epoch(0).objective == pytest.approx(divergence, rel=1e-3)


# Everything at once.

@pytest.mark.parametrize("spec, xla", [
    *(pytest.param(*one, marks=pytest.mark.long) for one in ((NORMALIZED, True), (NORMALIZED, False), (SMALL, True))),
    (SMALL, False)])
def test_dividing_an_epoch_into_calls_changes_no_bit(split, spec, xla):
    """With all settings on; the last batch, of its true size under batch normalization, is a program of its own."""
    _, engine = tape(fmnist_zoo.derive(spec, dropout=0.3), split, xla=xla, batch=170, teacher="x",
                     teachers=(teacher(3),), **EVERYTHING)
    start, results = arrays(engine), []
    for steps in (1, 4, 100, None):
        restart(engine, start, steps)
        results.append(([engine.run_epoch(epoch) for epoch in range(2)], arrays(engine)))
    for means, found in results[1:]:
        assert means == results[0][0]
        assert_equal_arrays(found, results[0][1])


@pytest.mark.long
def test_a_setting_costs_something_only_where_it_is_on(split):
    """One that is off leaves no trace in the program; schedules are tables, and never do."""
    def instructions(**settings):
        """The names of the operations in order; the program's other names have numbers of this process."""
        program = compiled(tape(SMALL, split, xla=True, **settings)[1], stage="hlo")
        return re.findall(r"^ *(?:ROOT )?%\S+ = .*? ([a-z][a-z-]*)\(", program, re.MULTILINE)

    tf.random.set_seed(0)  # TensorFlow finds the device by a random operation, which needs a seed under determinism
    plain = instructions()
    assert len(plain) > 100 and {"dot", "while"} <= set(plain)
    assert instructions(schedule="cosine", warmup=0.1, early_stopping=3, epochs=4) == plain
    assert len(instructions(**EVERYTHING)) > 2 * len(plain)


# Engines that have no such setting.

RECIPE = dict(schedule="cosine", warmup=0.1, label_smoothing=0.1, ema=0.9, clip_norm=1.0, shift=1, flip=True, erase=4,
              mixup=0.2, teacher="4L", initial_weights="4L")


@pytest.mark.parametrize("name", RECIPE)
def test_scratch_and_fit_refuse_by_name(name):
    settings = {name: RECIPE[name]}
    with pytest.raises(ConfigError, match=f"--trainer=scratch .* received network_A with .*{name}="):
        resolve("network_A", trainer="scratch", **settings)
    if name not in TAPE_ALONE:
        assert resolve("network_A", trainer="fit", **settings)
        return
    with pytest.raises(ConfigError, match=f"--trainer=fit has no {name}, or computes it otherwise; use --trainer=tape"):
        resolve("network_A", trainer="fit", **settings)


def test_every_setting_of_a_recipe_is_tested_here():
    """A new one must be refused by `scratch`, and held against `fit` or refused by it."""
    known = {field.name for field in dataclasses.fields(Recipe)}
    assert known == {*RECIPE, "epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "validation_size",
                     "early_stopping", "schedule_epochs", "teacher_weight", "teacher_temperature", "weights"}
