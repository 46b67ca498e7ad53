"""The tape loop: the numbers of `Model.fit`, however an epoch is cut, and an honest end when they are not finite."""

import dataclasses
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import metrics, models
from fmnist_zoo.backend import tf
from fmnist_zoo.spec import OPTIMIZERS, Recipe
from tests.conftest import ROOT
from trainers.engine import loop, network
from trainers.engine.epoch import NonFiniteError, epoch_order
from trainers.engine.fit import FitEngine
from trainers.engine.loop import TapeEngine
from trainers.engine.optimizers import Optimizer

BATCH = 250  # does not divide 1,800


@pytest.fixture(scope="module")
def fit_split():
    return fmnist_zoo.load_data(data="mini")["fit"]


def tape(spec, split, *, optimizer="adam", learning_rate=0.001, weight_decay=0.0, seed=0, batch=BATCH, bfloat16=False,
         **options):
    net = network.from_model(spec, models.build(spec, 0), bfloat16=bfloat16)
    rule = Optimizer(optimizer, net.variables, learning_rate=learning_rate, weight_decay=weight_decay)
    return net, TapeEngine(net, rule, *split, batch_size=batch, seed=seed, **options)


@pytest.mark.parametrize("optimizer, decay, l1", [("momentum", 0.01, 1e-5), ("adam", 0.0, 0.0), ("adamw", 0.01, 0.0)])
def test_tape_and_fit_agree(fit_split, optimizer, decay, l1):
    """Three epochs with L2 on. Adam divides tiny gradients by their own size: where a weight's gradient is all float
    noise, two correct programs may step apart, so that some of its weights may differ, by a few steps."""
    adam = optimizer != "momentum"
    spec = fmnist_zoo.get_spec("3L", l2=1e-3, l1=l1)
    rate = 0.0005 if adam else 0.01
    net, ours = tape(spec, fit_split, optimizer=optimizer, learning_rate=rate, weight_decay=decay)
    model = models.build(spec, 0)
    recipe = Recipe(optimizer=optimizer, learning_rate=rate, weight_decay=decay)
    theirs = FitEngine(model, recipe, *fit_split, batch_size=BATCH, seed=0)
    for epoch in range(3):
        mine, other = ours.run_epoch(epoch), theirs.run_epoch(epoch)
        assert mine.loss == pytest.approx(other.loss, abs=2e-4 if adam else 1e-5)
        assert mine.penalty == pytest.approx(other.penalty, abs=2e-5) and mine.penalty > 0
        assert mine.accuracy == pytest.approx(other.accuracy, abs=2e-3)
    apart = np.concatenate([np.abs(variable.numpy() - weight).ravel()
                            for variable, weight in zip(net.variables, model.get_weights())])
    assert np.quantile(apart, 0.95 if adam else 1.0) < 1e-4
    assert apart.max() < 10 * rate


@pytest.mark.parametrize("largest", [loop.LARGEST_XLA_BATCH, 0])
def test_the_cut_does_not_change_a_bit(fit_split, monkeypatch, largest):
    monkeypatch.setattr(loop, "LARGEST_XLA_BATCH", largest)
    spec = fmnist_zoo.get_spec("3L", dropout=0.3)
    results = []
    for steps in (1, 3, 100, None):
        net, engine = tape(spec, fit_split, steps_a_call=steps)
        means = [engine.run_epoch(epoch) for epoch in range(2)]
        results.append((means, [variable.numpy() for variable in engine.variables().values()]))
    for means, arrays in results[1:]:
        assert means == results[0][0]
        for array, first in zip(arrays, results[0][1]):
            np.testing.assert_array_equal(array, first)


def test_every_image_is_trained_on_once_an_epoch():
    for epoch in (0, 1):
        np.testing.assert_array_equal(np.sort(epoch_order(1000, seed=3, epoch=epoch)), np.arange(1000))
    assert not np.array_equal(epoch_order(1000, seed=3, epoch=0), epoch_order(1000, seed=3, epoch=1))
    assert not np.array_equal(epoch_order(1000, seed=3, epoch=0), epoch_order(1000, seed=4, epoch=0))


def test_means_are_weighted_by_images(fit_split):
    """With a learning rate that moves nothing, the means are those of all images, the small last batch included."""
    spec = fmnist_zoo.get_spec("2L", l2=1e-3)
    net, engine = tape(spec, fit_split, optimizer="sgd", learning_rate=1e-12, batch=700)
    logits = network.make_predictor(net)(fit_split.images)
    seen = []
    means = engine.run_epoch(0, lambda done, so_far: seen.append(done))
    assert means.loss == pytest.approx(metrics.cross_entropy(logits, fit_split.labels).mean(), rel=1e-5)
    assert means.accuracy == pytest.approx(metrics.accuracy(logits, fit_split.labels), abs=1e-9)
    assert means.penalty == pytest.approx(float(net.penalty()), rel=1e-5)
    assert means.weight_norm == pytest.approx(
        np.sqrt(sum(np.square(kernel.numpy()).sum() for kernel in net.kernels)), rel=1e-5)
    assert seen[-1] == engine.steps_an_epoch == 3


@pytest.mark.parametrize("engine", ["tape", "fit"])
def test_not_finite_names_its_step(fit_split, engine):
    spec = fmnist_zoo.get_spec("2L")
    if engine == "tape":
        net, runner = tape(spec, fit_split, optimizer="sgd", learning_rate=1e6)
    else:
        recipe = Recipe(optimizer="sgd", learning_rate=1e6)
        runner = FitEngine(models.build(spec, 0), recipe, *fit_split, batch_size=BATCH, seed=0)
    with pytest.raises(NonFiniteError) as error:
        for epoch in range(30):
            runner.run_epoch(epoch)
    assert error.value.step > 0
    if engine == "tape":  # the update that was not finite was left undone
        assert all(np.isfinite(variable.numpy()).all() for variable in net.variables)


@pytest.mark.parametrize("largest", [loop.LARGEST_XLA_BATCH, 0])
def test_what_is_not_finite_is_left_undone_however_the_epoch_is_cut(fit_split, monkeypatch, largest):
    """The variables are those before the step that is named, even if it is the fifth of a call."""
    monkeypatch.setattr(loop, "LARGEST_XLA_BATCH", largest)
    results = []
    for cut in (1, 4, 100):
        net, engine = tape(fmnist_zoo.get_spec("2L"), fit_split, optimizer="sgd", learning_rate=1e6, steps_a_call=cut)
        with pytest.raises(NonFiniteError) as error:
            for epoch in range(30):
                engine.run_epoch(epoch)
        results.append((error.value.step, [variable.numpy() for variable in net.variables]))
    assert results[0][0] % engine.steps_an_epoch, "the step should lie within a call"
    for step, arrays in results[1:]:
        assert step == results[0][0]
        for array, first in zip(arrays, results[0][1]):
            np.testing.assert_array_equal(array, first)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_compiled_steps_copy_no_kernel(fit_split, optimizer):
    """They change it in place, which XLA does only if all that reads a kernel is known to come before its update."""
    tf.random.set_seed(0)  # TensorFlow asks for the device by a random operation, which determinism wants a seed for
    _, engine = tape(fmnist_zoo.get_spec("3L"), fit_split, optimizer=optimizer)
    order = tf.zeros(engine.steps_an_epoch * BATCH, tf.int32)
    steps = tf.function(engine._steps, jit_compile=True).experimental_get_compiler_ir(
        order, tf.constant(0), tf.constant(1), tf.constant(0, tf.int64), tf.zeros(loop.SUMS, tf.float64))
    program = steps(stage="optimized_hlo")
    assert re.search(r"f32\[784,\d+\]\S* dot\(", program), "the gradient of the first kernel"
    assert not re.search(r"f32\[\d+,\d+\]\S* copy\(", program)


def test_with_and_without_xla_it_is_the_same_work(fit_split, monkeypatch):
    """The same masks and order, sums in another order."""
    means = []
    for largest in (loop.LARGEST_XLA_BATCH, 0):
        monkeypatch.setattr(loop, "LARGEST_XLA_BATCH", largest)
        _, engine = tape(fmnist_zoo.get_spec("4D_drop03", l2=1e-4), fit_split)
        means.append([value for epoch in range(2) for value in dataclasses.astuple(engine.run_epoch(epoch))])
    assert means[0] == pytest.approx(means[1], rel=2e-3)
    assert means[0] != means[1]


def test_bfloat16_learns_what_float32_learns(fit_split):
    losses = []
    for bfloat16 in (False, True):
        _, engine = tape(fmnist_zoo.get_spec("4L"), fit_split, batch=100, bfloat16=bfloat16)
        losses.append([engine.run_epoch(epoch).loss for epoch in range(4)])
        assert all(variable.dtype == "float32" for variable in engine.variables().values())
    assert losses[1] == pytest.approx(losses[0], rel=0.06) and losses[1] != losses[0]


def test_the_numbers_are_the_same_on_any_number_of_cores():
    """Two threads within an operation, wherever it runs: on one core, and on all of them."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system pins no process")
    program = """if True:
        import os, sys
        cores = sorted(os.sched_getaffinity(0))[:int(sys.argv[1]) or None]
        os.sched_setaffinity(0, cores)
        from trainers.running import checkpoints
        from trainers import config
        from trainers.engine import factory as engines
        from fmnist_zoo import load_data, models
        config = config.resolve("2L", data="mini", batch_size=32)  # a size at which the number of threads shows
        model = models.build(config.spec, 0)
        engine = engines.make_engine(config, model, engines.make_network(config, model), load_data(data="mini")["fit"])
        engine.run_epoch(0)
        print(checkpoints.digest({name: value.numpy() for name, value in engine.variables().items()}))"""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TF_NUM_")}
    found = [subprocess.run([sys.executable, "-c", program, cores], cwd=ROOT, env=own, text=True, capture_output=True)
             for cores in ("1", "0")]
    assert len({done.stdout for done in found}) == 1 and len(found[0].stdout.strip()) == 64, found[0].stderr


def test_dropout_shows_in_the_training_loss(fit_split):
    losses = []
    for rate in (0.0, 0.6):
        _, engine = tape(fmnist_zoo.get_spec("2L", dropout=rate), fit_split)
        losses.append([engine.run_epoch(epoch).loss for epoch in range(3)][-1])
    assert losses[1] > 1.1 * losses[0]


def test_a_full_batch_is_one_update(fit_split):
    _, engine = tape(fmnist_zoo.get_spec("network_A_l1"), fit_split, batch=len(fit_split.labels))
    assert engine.steps_an_epoch == 1
    first = engine.run_epoch(0)
    assert first.penalty == pytest.approx(0.001 * 0.05 * np.sqrt(2 / np.pi) * (784 * 300 + 3000), rel=0.02)
