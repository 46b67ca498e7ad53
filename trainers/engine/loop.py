"""The GradientTape loop: an epoch of updates in a few compiled calls.

The images stay in memory as uint8. One call runs about a second of steps as one program, compiled by XLA up to
`LARGEST_XLA_BATCH`; between two calls Python reports progress and notices Ctrl-C. How an epoch is divided into calls
does not change its numbers: the sums are passed from call to call, the order of the images is a function of
(seed, epoch), and the dropout masks are a function of (seed, step).
"""

from __future__ import annotations

import functools
import math
import time
from typing import Any

import numpy as np

from fmnist_zoo.backend import tf, without_noise
from trainers.engine.epoch import EpochMeans, NonFiniteError, OnPart, epoch_order
from trainers.engine.network import Network, scale
from trainers.engine.optimizers import Optimizer

SECONDS_A_CALL = 1.0
LARGEST_XLA_BATCH = 1024  # above it, and in bfloat16, TensorFlow's own matrix products are faster than those of XLA
SUMS = 6  # loss, penalty, hits, images, gradient norm, updates


class TapeEngine:
    """Trains a `Network` with our own loop.

    Args:
        network: what is trained, in place.
        optimizer: of `network.variables`; has `apply(gradients, step)` and `state(names)`.
        images, labels: the training images, (n, 784) uint8, and their classes, (n,) uint8.
        batch_size: images an update; the last update of an epoch takes the rest.
        seed: of the order of images and the dropout masks.
    """

    steps_a_call: int | None = None  # tests set it; None: as many as take about a second

    def __init__(self, network: Network, optimizer: Optimizer, images: np.ndarray, labels: np.ndarray, *,
                 batch_size: int, seed: int):
        _start_xla()
        self._network, self._optimizer, self._batch_size, self._seed = network, optimizer, batch_size, seed
        self._images, self._labels = tf.constant(images), tf.constant(labels)
        self.steps_an_epoch = -(-len(labels) // batch_size)
        self._learned_steps_a_call = 8
        xla = batch_size <= LARGEST_XLA_BATCH and not network.bfloat16
        self._norm = norm if xla else tf.linalg.global_norm
        integer, long = tf.TensorSpec((), tf.int32), tf.TensorSpec((), tf.int64)
        self._run_steps = tf.function(self._steps, jit_compile=xla).get_concrete_function(
            tf.TensorSpec((self.steps_an_epoch * batch_size,), tf.int32), integer, integer, long,
            tf.TensorSpec((SUMS,), tf.float64))

    def run_epoch(self, epoch: int, on_part: OnPart | None = None) -> EpochMeans:
        """Runs epoch number `epoch` (0 is the first); calls `on_part` a few times on the way.

        Raises:
            NonFiniteError: at the first update that is not finite; neither it nor a later one was applied.
        """
        order = epoch_order(len(self._labels), seed=self._seed, epoch=epoch)
        order = tf.constant(np.pad(order, (0, self.steps_an_epoch * self._batch_size - len(order)), "edge"))
        first_step = tf.constant(epoch * self.steps_an_epoch, tf.int64)
        done, totals = 0, tf.zeros(SUMS, tf.float64)
        while done < self.steps_an_epoch:
            until = min(done + (self.steps_a_call or self._learned_steps_a_call), self.steps_an_epoch)
            started = time.perf_counter()
            before = [tf.identity(variable) for variable in self.variables().values()]
            totals, failed = self._run_steps(order, tf.constant(done), tf.constant(until), first_step, totals)
            if int(failed) >= 0:
                self._restore(before, order, done, int(failed), first_step)
                raise NonFiniteError(int(first_step) + int(failed))
            self._learn(until - done, time.perf_counter() - started)
            done = until
            if on_part:
                on_part(done, _means(totals))
        return _means(totals, float(tf.linalg.global_norm(self._network.kernels)))

    def _restore(self, values: list[Any], order: Any, begin: int, end: int, first_step: Any) -> None:
        """Sets the variables to `values`, taken before step `begin` of an epoch, and replays the steps [begin, end).

        A branch in the compiled steps that skips an update costs an eighth of their time; this costs nothing until a
        run fails.
        """
        for variable, value in zip(self.variables().values(), values):
            variable.assign(value)
        if end > begin:
            self._run_steps(order, tf.constant(begin), tf.constant(end), first_step, tf.zeros(SUMS, tf.float64))

    def _learn(self, steps: int, seconds: float) -> None:
        """Chooses the steps of the next call, after one that took `seconds` (some of it perhaps to compile).

        A call is at most four times as long as one before it.
        """
        aim = int(steps * SECONDS_A_CALL / max(seconds, 1e-6))
        self._learned_steps_a_call = max(1, min(aim, max(4 * steps, self._learned_steps_a_call)))

    def _steps(self, order: Any, begin: Any, end: Any, first_step: Any, totals: Any) -> tuple[Any, Any]:
        """Steps [begin, end) of an epoch. Returns the sums, and the first step that was not finite or -1."""
        failed = tf.constant(-1)
        while begin < end and failed < 0:
            step = first_step + tf.cast(begin, tf.int64)
            gradients, sums = self._gradients(order, begin, step)
            finite = tf.reduce_all(tf.math.is_finite(sums))
            # XLA updates a buffer in place only if every read of it is ordered before the write. Making the update
            # depend on `finite`, which depends on gradients and norms, creates that order; otherwise XLA copies all
            # weights at each step. A non-finite step may write garbage: `run_epoch` restores the variables and replays
            # up to it.
            self._optimizer.apply(gradients, tf.where(finite, step, -1))
            failed = tf.where(finite, -1, begin)
            totals += tf.cast(sums, tf.float64)
            begin += 1
        return totals, failed

    def _gradients(self, order: Any, place: Any, step: Any) -> tuple[list[Any], Any]:
        """Gradients of the objective on batch number `place` of an epoch, and its `SUMS`, float32.

        XLA needs all batches in one shape: the last one repeats an image, with a weight of zero.
        """
        start = place * self._batch_size
        chosen = tf.slice(order, [start], [self._batch_size])
        images = scale(tf.gather(self._images, chosen))
        labels = tf.cast(tf.gather(self._labels, chosen), tf.int32)
        real = tf.cast(start + tf.range(self._batch_size) < len(self._labels), tf.float32)
        count = tf.reduce_sum(real)
        with tf.GradientTape() as tape:
            logits = self._network.forward(self._network.variables, images, seed=self._seed, step=step, training=True)
            loss = tf.reduce_sum(real * self._network.cross_entropy(labels, logits)) / count
            penalty = self._network.penalty()
            objective = loss + penalty
        gradients = tape.gradient(objective, self._network.variables)
        hits = real * tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == labels, tf.float32)
        sums = [count * loss, count * penalty, tf.reduce_sum(hits), count, self._norm(gradients), 1.0]
        return gradients, tf.stack(sums)

    def variables(self) -> dict[str, Any]:
        """Everything that changes in training, by name: weights and optimizer slots."""
        return {**dict(zip(self._network.names, self._network.variables)), **self._optimizer.state(self._network.names)}


def _means(totals: Any, weight_norm: float | None = None) -> EpochMeans:
    loss, penalty, hits, images, gradient_norm, updates = totals.numpy().tolist()
    return EpochMeans(loss / images, penalty / images, hits / images, gradient_norm / updates, weight_norm)


def norm(tensors: Any) -> Any:
    """Euclidean norm of all entries of `tensors`, a float32 scalar: `tf.linalg.global_norm`, but fast under XLA.

    XLA adds up a scalar one entry after another, and the entries of a vector side by side. So each tensor is reduced to
    a vector of 32 partial norms first (or fewer, if 32 does not divide its size).
    """
    return tf.linalg.global_norm([tf.norm(tf.reshape(tensor, (math.gcd(tensor.shape.num_elements(), 32), -1)), axis=0)
                                  for tensor in tensors])


@functools.cache
def _start_xla() -> None:
    """Compiles something small, so that what XLA and MLIR print when they start can be held back."""
    with without_noise():
        tf.function(tf.norm, jit_compile=True)(tf.zeros(9))
