"""The tape loop: it computes what `Model.fit` computes, however an epoch is divided, and stops at a non-finite step."""

import dataclasses
import hashlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import metrics
from fmnist_zoo.backend import tf
from fmnist_zoo.spec import OPTIMIZERS
from tests.conftest import ROOT, computes_bfloat16
from tests.engines import arrays, compiled, fit, restart, tape
from trainers.config import THREADS_VARIABLE
from trainers.engine import process
from trainers.engine.epoch import NonFiniteError, epoch_order

XLA = pytest.mark.parametrize("xla", [pytest.param(True, marks=pytest.mark.long), False], ids=["xla", "kernels"])


@pytest.fixture(scope="module")
def split():
    return fmnist_zoo.load_data(("fit",), data="mini")["fit"]


def digest_after_an_epoch(engine):
    engine.run_epoch(0)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays(engine))).hexdigest()


@pytest.mark.parametrize("optimizer, decay, l1", [
    ("adam", 0.0, 0.0), pytest.param("momentum", 0.01, 1e-5, marks=pytest.mark.long),
    pytest.param("adamw", 0.01, 0.0, marks=pytest.mark.long)])
def test_tape_and_fit_agree(split, optimizer, decay, l1):
    """Three epochs with L2.

    Adam divides a gradient by its own size, so a weight whose gradient is rounding noise may take steps of the full
    size in any direction: two correct programs differ there by a few steps.
    """
    adam = optimizer != "momentum"
    spec = fmnist_zoo.get_spec("3L", hidden=(100, 50), l2=1e-3, l1=l1)
    rate = 0.0005 if adam else 0.01
    net, ours = tape(spec, split, optimizer=optimizer, learning_rate=rate, weight_decay=decay)
    model, theirs = fit(spec, split, optimizer=optimizer, learning_rate=rate, weight_decay=decay)
    for epoch in range(3):
        mine, other = ours.run_epoch(epoch), theirs.run_epoch(epoch)
        assert mine.loss == pytest.approx(other.loss, abs=2e-4 if adam else 1e-5)
        assert mine.penalty == pytest.approx(other.penalty, abs=2e-5) and mine.penalty > 0
        assert mine.accuracy == pytest.approx(other.accuracy, abs=2e-3)
    apart = np.concatenate([np.abs(variable.numpy() - weight).ravel()
                            for variable, weight in zip(net.variables, model.get_weights())])
    assert np.quantile(apart, 0.95 if adam else 1.0) < 1e-4
    assert apart.max() < 10 * rate


@XLA
def test_error_names_the_first_step_that_is_not_finite(split, xla):
    """However an epoch is divided into calls."""
    _, engine = tape(fmnist_zoo.get_spec("2L"), split, optimizer="sgd", learning_rate=1e7, xla=xla)
    start, found = arrays(engine), []
    for steps in (1, 4, 100):
        restart(engine, start, steps)
        with pytest.raises(NonFiniteError) as error:
            for epoch in range(30):
                engine.run_epoch(epoch)
        found.append(error.value.step)
    assert found[0] % engine.steps_an_epoch, "the step should be in the middle of an epoch"
    assert found == found[:1] * 3


def test_fit_stops_at_a_non_finite_step(split):
    _, engine = fit(fmnist_zoo.get_spec("2L"), split, optimizer="sgd", learning_rate=1e7)
    with pytest.raises(NonFiniteError) as error:
        for epoch in range(30):
            engine.run_epoch(epoch)
    assert error.value.step > 0


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own():
    for epoch in (0, 1):
        np.testing.assert_array_equal(np.sort(epoch_order(1000, seed=3, epoch=epoch)), np.arange(1000))
    assert not np.array_equal(epoch_order(1000, seed=3, epoch=0), epoch_order(1000, seed=3, epoch=1))
    assert not np.array_equal(epoch_order(1000, seed=3, epoch=0), epoch_order(1000, seed=4, epoch=0))


def test_means_are_weighted_by_images(split):
    """With a learning rate that changes nothing, the means are those of all images, the smaller last batch included."""
    net, engine = tape(fmnist_zoo.get_spec("2L", l2=1e-3), split, optimizer="sgd", learning_rate=1e-12, batch=700)
    logits = engine.predict(split.images)
    steps = []
    means = engine.run_epoch(0, lambda done, so_far: steps.append(done))
    assert means.loss == pytest.approx(metrics.cross_entropy(logits, split.labels).mean(), rel=1e-5)
    one_image = 1 / len(split.labels)  # whose two largest logits are equal but for rounding
    assert means.accuracy == pytest.approx(metrics.accuracy(logits, split.labels), abs=1.5 * one_image)
    assert means.penalty == pytest.approx(float(net.penalty(net.rates)), rel=1e-5)
    weights = np.concatenate([kernel.numpy().ravel() for kernel in net.kernels])
    assert means.weight_norm == pytest.approx(np.linalg.norm(weights), rel=1e-5)
    assert steps[-1] == engine.steps_an_epoch == 3


@pytest.mark.long
@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "lion"])  # Keras' updates its slot early
def test_compiled_steps_copy_no_kernel(split, optimizer):
    """XLA changes a kernel in place only if every read of it is ordered before its update."""
    tf.random.set_seed(0)  # TensorFlow finds the device by a random operation, which needs a seed under determinism
    _, engine = tape(fmnist_zoo.get_spec("2L"), split, optimizer=optimizer, xla=True)
    program = compiled(engine)
    assert re.search(r"f32\[784,\d+\]\S* dot\(", program), "the gradient of the first kernel"
    assert not re.search(r"f32\[\d+,\d+\]\S* copy\(", program)


@pytest.mark.long
def test_xla_and_kernels_do_the_same_work(split):
    """The same masks and the same order of images; only sums are added up in other orders."""
    spec = fmnist_zoo.get_spec("4D_drop03", hidden=(96, 64, 32), l2=1e-4)
    means = []
    for xla in (True, False):
        _, engine = tape(spec, split, xla=xla)
        means.append([value for epoch in range(2) for value in dataclasses.astuple(engine.run_epoch(epoch))])
    assert means[0] == pytest.approx(means[1], rel=2e-3)
    assert means[0] != means[1]


@pytest.mark.long
@computes_bfloat16
def test_bfloat16_learns_what_float32_learns(split):
    losses = []
    for bfloat16 in (False, True):
        _, engine = tape(fmnist_zoo.get_spec("4L", hidden=(96, 64, 32)), split, batch=100, bfloat16=bfloat16)
        losses.append([engine.run_epoch(epoch).loss for epoch in range(4)])
        assert all(variable.dtype == "float32" for variable in engine.variables().values())
    assert losses[1] == pytest.approx(losses[0], rel=0.06) and losses[1] != losses[0]


def test_autograph_converts_nothing(split, without_xla, monkeypatch):
    """It would take seconds in each process that trains."""
    from tensorflow.python.autograph.impl import api

    monkeypatch.setattr(api, "_convert_actual", lambda *_: pytest.fail("it converts"))
    tape(fmnist_zoo.get_spec("2L", hidden=(8,), dropout=0.2), split, batch=100)[1].run_epoch(0)


@pytest.mark.long
def test_one_core_computes_the_same_numbers(split):
    """With the same number of threads, the number of cores does not matter; at batch 32 that of threads would."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system pins no process")
    tf.config.experimental.enable_op_determinism()  # as a run does; it changes the numbers
    program = """if True:
        import os
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        import fmnist_zoo
        from tests import engines, test_loop
        test_loop.tf.config.experimental.enable_op_determinism()
        split = fmnist_zoo.load_data(data="mini")["fit"]
        _, engine = engines.tape(fmnist_zoo.get_spec("2L"), split, batch=32, xla=True)
        print(test_loop.digest_after_an_epoch(engine))"""
    environment = {**os.environ, THREADS_VARIABLE: str(process.threads_in_use()), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, text=True, capture_output=True)
    _, engine = tape(fmnist_zoo.get_spec("2L"), split, batch=32, xla=True)
    assert done.stdout.strip() == digest_after_an_epoch(engine), done.stderr
