"""What the report got wrong, shown: each row's small experiment is run at the moment the page is written."""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np

from fmnist_zoo import get_spec
from fmnist_zoo.backend import tf
from trainers.engine import lowlevel, network as networks
from trainers.reproduction import as_written

History = list[dict[str, Any]]
Histories = dict[str, Sequence[History]]


def overflow(runs: Histories) -> str:
    logits = tf.constant([[89.0], *[[0.0]] * 9])
    theirs = float(tf.reduce_max(as_written.softmax(logits)))
    ours = float(tf.reduce_max(lowlevel.softmax(tf.transpose(logits))))
    return f"logits (89, 0, ..., 0): as written {theirs}, with the maximum taken out {ours:.4f}"


def unused_clip(runs: Histories) -> str:
    logits = tf.constant([[0.0], [-200.0], *[[0.0]] * 8])
    one_hot = tf.transpose(tf.one_hot([0], 10))
    theirs = float(as_written.cross_entropy(one_hot, as_written.softmax(logits)))
    ours = float(lowlevel.cross_entropy(tf.constant([0]), tf.transpose(logits))[0])
    return f"one class underflows: as written {theirs}, from logits {ours:.4f}"


def clip(runs: Histories) -> str:
    logits = tf.constant([[0.0], [60.0], *[[0.0]] * 8])
    one_hot = tf.transpose(tf.one_hot([0], 10))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        theirs = as_written.cross_entropy_clipped(one_hot, as_written.softmax(logits))
        ours = lowlevel.cross_entropy(tf.constant([0]), tf.transpose(logits))[0]
    slopes = [float(tf.reduce_max(tf.abs(tape.gradient(loss, logits)))) for loss in (theirs, ours)]
    return (f"a sure miss: clipped loss {float(theirs):.2f} with largest gradient {slopes[0]:g}, "
            f"from logits {float(ours):.2f} with {slopes[1]:g}")


def scalar_bias(runs: Histories) -> str:
    random = np.random.default_rng(0)
    weights = [tf.constant(random.normal(0, 0.05, (10, 784)), tf.float32)]
    images = tf.constant(random.uniform(0, 1, (784, 100)), tf.float32)
    low, high = (as_written.softmax(as_written.forward_pass(weights, tf.constant(bias), images)) for bias in (0.0, 3.0))
    return f"bias 0 or 3: the probabilities differ by at most {float(tf.reduce_max(tf.abs(low - high))):.0e}"


def layout(runs: Histories) -> str:
    random = np.random.default_rng(0)
    wrong = as_written.softmax(tf.constant(random.normal(0, 1, (100, 10)), tf.float32))
    sums = tf.reduce_sum(wrong, axis=1)
    return (f"softmax over axis 0 of a (100, 10) batch runs without a word; an example's 'probabilities' then sum to "
            f"{float(tf.reduce_min(sums)):.2f} to {float(tf.reduce_max(sums)):.2f}")


def full_batch(runs: Histories) -> str:
    return f"500 full-batch epochs are 500 updates; 30 epochs at batch 256 are {30 * -(-54000 // 256)}"


def one_run(runs: Histories) -> str:
    error = np.sqrt(0.9071 * (1 - 0.9071) / 10_000)
    return (f"5L over 4L is 0.9071 - 0.9049 = {0.9071 - 0.9049:+.4f}; on 10,000 images one accuracy alone has a "
            f"standard error of {error:.4f}")


def chosen_where_measured(runs: Histories) -> str:
    if "4L" not in runs:
        return "(4L was not run)"
    scores = [row["validation_accuracy"] for row in runs["4L"][0]]
    return (f"4L: the best of {len(scores)} epochs on the images that score it shows {max(scores):.4f}, the mean of "
            f"the last five {np.mean(scores[-5:]):.4f}")


def without_absolute_value(runs: Histories) -> str:
    kernels = lowlevel.initial_variables(get_spec("network_A"), 0)[::2]
    plain = sum(float(tf.reduce_sum(kernel)) for kernel in kernels)
    bars = float(lowlevel.l1_penalty(kernels, 1.0))
    return (f"network A at the start: sum w = {plain:.0f}, sum |w| = {bars:.0f}: without the bars the "
            "signs cancel, and there is nothing below to stop at")


def depth(runs: Histories) -> str:
    models = [model for model in ("2L", "3L", "4L", "5L") if model in runs]
    if len(models) < 2:
        return "(the models of different depth were not run)"
    return "validation loss, last epoch: " + ", ".join(
        f"{model} {np.mean([history[-1]['validation_loss'] for history in runs[model]]):.3f}" for model in models)


def start_of_penalties(runs: Histories) -> str:
    kernels = lowlevel.initial_variables(get_spec("network_A"), 0)[::2]
    first, second = float(lowlevel.l1_penalty(kernels, 0.001)), float(lowlevel.l2_penalty(kernels, 0.001))
    return (f"at the start, rate 0.001: L1 penalty {first:.2f}, L2 penalty {second:.2f}: {first / second:.0f} times as "
            "much, because |w| is far larger than w^2 for small w")


def objectives(runs: Histories) -> str:
    rows = {model: runs[model][0][-1] for model in ("network_A_l1", "network_A_l2") if model in runs}
    if len(rows) < 2:
        return "(network_A_l1 and network_A_l2 were not run)"
    return "; ".join(f"{model}: objective {row['validation_loss'] + row['validation_penalty']:.3f} = loss "
                     f"{row['validation_loss']:.3f} + penalty {row['validation_penalty']:.3f}"
                     for model, row in rows.items())


def dropout_on_and_off(runs: Histories) -> str:
    if "4D_drop03" not in runs:
        return "(4D_drop03 was not run)"
    row = runs["4D_drop03"][0][-1]
    return (f"4D_drop03, last epoch: train {row['train_loss']:.3f} with dropout on, {row['train_loss_eval']:.3f} with "
            f"it off, validation {row['validation_loss']:.3f}")


def what_dropout_zeroes(runs: Histories) -> str:
    units = networks.dropout(tf.ones((1000, 100)), 0.3, seed=0, step=tf.constant(0, tf.int64), layer=0)
    zeros, mean = float(tf.reduce_mean(tf.cast(units == 0.0, tf.float32))), float(tf.reduce_mean(units))
    return f"rate 0.3 on activations of 1: {zeros:.1%} are zero, the mean stays {mean:.3f}; no weight is touched"


def loss_and_accuracy(runs: Histories) -> str:
    models = [model for model in ("4L", "4D_drop02", "4D_drop03", "4D_drop03_02_01") if model in runs]
    if len(models) < 2:
        return "(the dropout models were not run)"
    return "; ".join(f"{model} {np.mean([h[-1]['validation_loss'] for h in runs[model]]):.3f} / "
                     f"{np.mean([h[-1]['validation_accuracy'] for h in runs[model]]):.4f}" for model in models)


def overconfidence(runs: Histories) -> str:
    if "4L" not in runs:
        return "(4L was not run)"
    rows = runs["4L"][0]
    best = min(rows, key=lambda row: row["validation_loss"])
    last = rows[-1]
    return (f"4L from epoch {best['epoch']} to {last['epoch']}: validation loss {best['validation_loss']:.3f} to "
            f"{last['validation_loss']:.3f}, accuracy {best['validation_accuracy']:.4f} to "
            f"{last['validation_accuracy']:.4f}: surer, not more often wrong")


def second_beta(runs: Histories) -> str:
    ends = []
    for beta_2 in (0.999, 0.99):
        variable = tf.Variable([0.0])
        adam = lowlevel.Adam([variable], learning_rate=0.001, beta_2=beta_2)
        for step in range(100):
            adam.apply([tf.constant([10.0 if step == 0 else 1.0])], step)
        ends.append(-float(variable.numpy()[0]))
    return (f"a gradient of 10, then 99 of 1: Adam moved {ends[0]:.4f} with beta_2 = 0.999, {ends[1]:.4f} with 0.99")


def momentum(runs: Histories) -> str:
    plain = averaged = 0.0
    for _ in range(200):
        plain, averaged = 0.9 * plain + 1.0, 0.9 * averaged + 0.1
    return f"after 200 gradients of 1: beta m + g gives {plain:.2f}, beta m + (1 - beta) g gives {averaged:.2f}"


Shown = Callable[[Histories], str]
ROWS: tuple[tuple[str, str, Shown | None], ...] = (
    ("softmax without the maximum taken out", "the loss from logits, by log-softmax", overflow),
    ("the clipped prediction is computed, the unclipped one used", "the loss from logits", unused_clip),
    ("the clip itself", "the loss from logits", clip),
    ("one scalar bias shared by all layers", "a bias vector a layer", scalar_bias),
    ("data as (784, m) here, transposed there", "one layout, (batch, 784), shapes checked", layout),
    ("a full batch called an epoch", "every log counts updates as well as epochs", full_batch),
    ("no seed, one run", "several seeds, mean and deviation, paired tests", one_run),
    ("choices made on the test set", "a split of the training images; the test images stay closed",
     chosen_where_measured),
    ("mean squared error in the L1 and L2 equations, L1 without the absolute value",
     "cross entropy + rate * sum|w|, or sum w^2", without_absolute_value),
    ('"L1 starts at 12, L2 at 3, because L2 is more aggressive"', "loss, penalty and objective logged apart",
     start_of_penalties),
    ("objectives of L1 and L2 compared with each other", "loss and accuracy on validation are compared", objectives),
    ("train loss with dropout on against validation loss with it off", "train loss again with dropout off",
     dropout_on_and_off),
    ('"dropout sets weights to zero"', "it zeroes activations, a sample and a step at a time", what_dropout_zeroes),
    ('dropout "improved" 4L (validation loss / accuracy)', "both are shown", loss_and_accuracy),
    ("overfitting judged by the loss alone", "loss beside accuracy", overconfidence),
    ("Adam's beta_2 as 0.99; epsilon as 1e-9 and as 1e-8", "0.999 and Keras' 1e-7, stated", second_beta),
    ("momentum written as beta m + eta g, explained as (1 - beta) g", "the paper's equations", momentum),
    ('"more connections overfit less", "deeper performs better"', "measured over seeds: see the claims", depth),
    ('"normalization" for regularization, "adaptive machine learning"', "the field's terms", None),
)
