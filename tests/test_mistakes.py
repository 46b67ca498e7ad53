"""What the assignment report got wrong: each figure of `trainers.reproduction.mistakes` is computed again here.

`as_written` stores one example per column, as the report does; our functions take one example per row.
"""

import pathlib
import re

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo.backend import tf
from tests import as_written
from trainers.engine import lowlevel, network
from trainers.reproduction.mistakes import MISTAKES


def evidence(text):
    """The evidence for the one mistake whose text contains `text`."""
    (found,) = [mistake.evidence for mistake in MISTAKES if text in mistake.text]
    return found


def test_every_text_of_evidence_is_tested_in_this_file():
    tested = re.findall(r'evidence\("(.+?)"\)', pathlib.Path(__file__).read_text())
    texts = [mistake for mistake in MISTAKES if isinstance(mistake.evidence, str) and mistake.evidence]
    assert len(MISTAKES) == 19 and len(texts) == 12
    for mistake in texts:
        assert any(words in mistake.text for words in tested), mistake.text


def test_softmax_as_written_overflows():
    logits = tf.constant([[89.0], *[[0.0]] * 9])
    theirs = as_written.softmax(logits).numpy().max()
    ours = lowlevel.softmax(tf.transpose(logits)).numpy().max()
    assert f"is {theirs} as written, {ours:.4f} with" in evidence("does not subtract the maximum")
    assert np.isnan(theirs)


def test_unused_clip_makes_the_mean_nan():
    """One class underflows to 0, and not even the true one: 0 * log 0."""
    logits, one_hot = tf.constant([[0.0], [-200.0], *[[0.0]] * 8]), tf.transpose(tf.one_hot([0], 10))
    theirs = float(as_written.cross_entropy(one_hot, as_written.softmax(logits)))
    ours = float(lowlevel.cross_entropy(tf.constant([0]), tf.transpose(logits))[0])
    assert f"loss {theirs} as written, {ours:.4f} from logits" in evidence("the unclipped one is used")
    assert np.isnan(theirs)


def test_clip_stops_the_gradient_of_the_worst_error():
    logits, one_hot = tf.constant([[0.0], [60.0], *[[0.0]] * 8]), tf.transpose(tf.one_hot([0], 10))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        theirs = as_written.cross_entropy_clipped(one_hot, as_written.softmax(logits))
        ours = lowlevel.cross_entropy(tf.constant([0]), tf.transpose(logits))[0]
    largest = [np.abs(tape.gradient(loss, logits).numpy()).max() for loss in (theirs, ours)]
    assert largest == [0.0, 1.0]
    assert (f"clipped loss {theirs.numpy():.2f} with largest gradient {largest[0]:g}, from logits {ours.numpy():.2f} "
            f"with {largest[1]:g}") in evidence("the clip itself")


def test_scalar_bias_does_nothing_in_the_softmax_layer():
    random = np.random.default_rng(0)
    weights = [tf.constant(random.normal(0, 0.05, (10, 784)), tf.float32)]
    images = tf.constant(random.uniform(0, 1, (784, 100)), tf.float32)
    low, high = (as_written.softmax(as_written.forward_pass(weights, tf.constant(bias), images)) for bias in (0.0, 3.0))
    assert evidence("one scalar bias").endswith("less than 1e-06")
    np.testing.assert_allclose(low, high, rtol=0, atol=1e-6)  # float32 rounding of probabilities: 6e-8 each


def test_wrong_layout_is_accepted_silently():
    logits = tf.constant(np.random.default_rng(0).normal(0, 1, (100, 10)), tf.float32)
    sums = as_written.softmax(logits).numpy().sum(axis=1)
    assert f"sum to {sums.min():.2f} to {sums.max():.2f}" in evidence("transposed in another")


def test_updates_of_full_batch_epochs():
    recipe, low = fmnist_zoo.get_recipe("2L"), fmnist_zoo.get_recipe("network_A")
    assert low.batch_size == "full"
    assert (f"{low.epochs} full-batch epochs are {low.epochs} updates; {recipe.epochs} epochs at batch "
            f"{recipe.batch_size} are {recipe.epochs * -(-54_000 // recipe.batch_size)}"
            ) == evidence("is called an epoch")


def test_one_run_cannot_tell_4l_from_5l():
    error = np.sqrt(0.9071 * (1 - 0.9071) / 10_000)
    text = evidence("no seed, one run")
    assert f"{0.9071 - 0.9049:+.4f}" in text and f"standard error of {error:.4f}" in text


def test_penalties_at_the_start():
    kernels = lowlevel.initial_variables(fmnist_zoo.get_spec("network_A"), 0)[::2]
    plain = sum(kernel.numpy().sum() for kernel in kernels)
    absolute = float(lowlevel.l1_penalty(kernels, 1.0))
    assert f"sum w = {plain:.0f}, sum |w| = {absolute:.0f}:" in evidence("lacks the absolute value")
    first, second = float(lowlevel.l1_penalty(kernels, 0.001)), float(lowlevel.l2_penalty(kernels, 0.001))
    assert (f"L1 penalty {first:.2f}, L2 penalty {second:.2f}: L1's is {first / second:.0f} times"
            ) in evidence("L1 starts at 12")
    # Untrained, the cross entropy is near log 10: together the report's starts of 12 and 3.0.
    assert first + np.log(10) == pytest.approx(12, abs=0.2) and second + np.log(10) == pytest.approx(3.0, abs=0.15)


def test_dropout_zeroes_activations():
    units = network.dropout(tf.ones((1000, 100)), tf.constant(round(0.3 * 2**32), tf.uint32), 1 / 0.7, seed=0,
                            step=tf.constant(0, tf.int64), stream=0).numpy()
    assert f"{np.mean(units == 0):.1%} are zero, the mean stays {units.mean():.3f};" in evidence("sets weights to zero")


def test_second_beta_of_adam():
    moved = {}
    for beta_2 in (0.999, 0.99):
        variable = tf.Variable([0.0])
        adam = lowlevel.Adam([variable], beta_2=beta_2)
        for step in range(100):
            adam.apply([tf.constant([10.0 if step == 0 else 1.0])], step, learning_rate=0.001)
        moved[beta_2] = -float(variable.numpy()[0])
    assert f"{moved[0.999]:.4f} with beta_2 = 0.999, {moved[0.99]:.4f} with 0.99" in evidence("Adam's beta_2 is 0.99")


def test_two_forms_of_momentum():
    plain = averaged = 0.0
    for _ in range(200):
        plain, averaged = 0.9 * plain + 1.0, 0.9 * averaged + 0.1
    assert f"gives {plain:.2f}, beta m + (1 - beta) g gives {averaged:.2f}" in evidence("momentum is written")


def test_evidence_of_missing_runs_names_the_models():
    shown = [mistake.shown({}) for mistake in MISTAKES]
    assert "(not run: network_A_l1, network_A_l2)" in shown and "(not run: 4L)" in shown
    assert sum(text.startswith("(not run: ") for text in shown) == 6
