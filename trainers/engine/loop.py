"""The GradientTape loop: an epoch of updates in a few compiled calls.

The images stay in memory as uint8; a call runs about a second of steps as one program, compiled by XLA (but for what is
said at `LARGEST_XLA_BATCH`), and between two calls Python looks at the clock and the keyboard. However an epoch is cut
into calls, its numbers are the same: the sums travel through the calls, and order and masks are functions of (seed,
epoch) and (seed, step).
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any, Callable

import numpy as np

from fmnist_zoo.backend import tf, without_noise
from trainers.engine.network import Network, scale
from trainers.engine.optimizers import Optimizer

SECONDS_A_CALL = 1.0
LARGEST_XLA_BATCH = 1024  # above, and in bfloat16, TensorFlow's own matrix products are faster than those of XLA

with without_noise():  # XLA and MLIR talk when they start
    tf.function(tf.norm, jit_compile=True)(tf.zeros(9))


class NonFiniteError(ArithmeticError):
    """The objective or its gradient became NaN or infinite at update number `step` (0 is the first)."""

    def __init__(self, step: int):
        super().__init__(f"the objective or its gradient became NaN or infinite at step {step}")
        self.step = step


@dataclasses.dataclass(frozen=True)
class EpochMeans:
    """Means over an epoch's updates, each taken before its update; `loss`, `penalty`, `accuracy` weighted by images."""

    loss: float
    penalty: float
    accuracy: float
    gradient_norm: float | None = None
    weight_norm: float | None = None


OnPart = Callable[[int, EpochMeans], None]


def epoch_order(images: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which epoch `epoch` (0 is the first) visits the fit images: (images,) int32."""
    return np.random.default_rng([seed, epoch]).permutation(images).astype(np.int32)


class TapeEngine:
    """Trains a `Network` with our own loop.

    Args:
        network: what is trained, in place.
        optimizer: over `network.variables`; has `apply(gradients, step)` and `state(names)`.
        images, labels: the fit split, (n, 784) and (n,) uint8.
        batch_size: images an update; the last update of an epoch takes what is left.
        seed: of shuffle orders and dropout masks.
        steps_a_call: fixed number of steps a compiled call, for tests; None: about a second's worth.
    """

    def __init__(self, network: Network, optimizer: Optimizer, images: np.ndarray, labels: np.ndarray, *,
                 batch_size: int, seed: int, steps_a_call: int | None = None):
        self._network, self._optimizer, self._batch_size, self._seed = network, optimizer, batch_size, seed
        self._images, self._labels = tf.constant(images), tf.constant(labels)
        self.steps_an_epoch = -(-len(labels) // batch_size)
        self._steps_a_call = steps_a_call
        self._learned_steps_a_call = 8
        integer, long = tf.TensorSpec((), tf.int32), tf.TensorSpec((), tf.int64)
        xla = batch_size <= LARGEST_XLA_BATCH and not network.bfloat16
        self._norm = norm if xla else tf.linalg.global_norm
        self._run_steps = tf.function(self._steps, jit_compile=xla).get_concrete_function(
            tf.TensorSpec((self.steps_an_epoch * batch_size,), tf.int32), integer, integer, long,
            tf.TensorSpec((7,), tf.float64))

    def run_epoch(self, epoch: int, on_part: OnPart | None = None) -> EpochMeans:
        """Runs epoch `epoch`; `on_part(steps done, means so far)` is called a few times on the way.

        Raises:
            NonFiniteError: at the first update that is not finite; neither it nor a later one was applied.
        """
        order = epoch_order(len(self._labels), seed=self._seed, epoch=epoch)
        order = tf.constant(np.pad(order, (0, self.steps_an_epoch * self._batch_size - len(order)), "edge"))
        first_step = tf.constant(epoch * self.steps_an_epoch, tf.int64)
        done, totals = 0, tf.zeros(7, tf.float64)
        while done < self.steps_an_epoch:
            until = min(done + (self._steps_a_call or self._learned_steps_a_call), self.steps_an_epoch)
            started, before = time.perf_counter(), self._values()
            totals, failed = self._run_steps(order, tf.constant(done), tf.constant(until), first_step, totals)
            if int(failed) >= 0:
                self._go_back(before, order, done, int(failed), first_step)
                raise NonFiniteError(int(first_step) + int(failed))
            self._learn(until - done, time.perf_counter() - started)
            done = until
            if on_part:
                on_part(done, _means(totals.numpy()))
        return _means(totals.numpy())

    def _values(self) -> list[Any]:
        return [tf.identity(variable) for variable in self.variables().values()]

    def _go_back(self, values: list[Any], order: Any, begin: int, end: int, first_step: Any) -> None:
        """To where `values` were taken, before step `begin` of an epoch, and from there to the end of step `end` - 1.

        So the steps themselves need no branch around an update that would not be finite: it cost an eighth of them.
        """
        for variable, value in zip(self.variables().values(), values):
            variable.assign(value)
        if end > begin:
            self._run_steps(order, tf.constant(begin), tf.constant(end), first_step, tf.zeros(7, tf.float64))

    def _learn(self, steps: int, seconds: float) -> None:
        """Aims the next call at a second; at most four times as long as one before, which may have been compiling."""
        aim = int(steps * SECONDS_A_CALL / max(seconds, 1e-6))
        self._learned_steps_a_call = max(1, min(aim, max(4 * steps, self._learned_steps_a_call)))

    def _steps(self, order: Any, begin: Any, end: Any, first_step: Any, totals: Any) -> tuple[Any, Any]:
        """Steps [begin, end) of an epoch. Returns the sums and the first step that was not finite, or -1."""
        failed = tf.constant(-1)
        while begin < end and failed < 0:
            step = first_step + tf.cast(begin, tf.int64)
            gradients, sums = self._gradients(order, begin, step)
            finite = tf.reduce_all(tf.math.is_finite(sums))
            # A step that is not finite is taken back, whatever it did. But the weights change in place, where XLA would
            # copy them first, only if their update waits for all that reads them: gradients and norms, so `finite`.
            self._optimizer.apply(gradients, tf.where(finite, step, -1))
            failed = tf.where(finite, -1, begin)
            totals += tf.cast(sums, tf.float64)
            begin += 1
        return totals, failed

    def _gradients(self, order: Any, place: Any, step: Any) -> tuple[list[Any], Any]:
        """Gradients of the objective on batch number `place` of an epoch, and what `_means` reads, (7,) float32.

        All batches have one shape, which XLA needs; what fills up the last one has no share in anything.
        """
        start = place * self._batch_size
        chosen = tf.slice(order, [start], [self._batch_size])
        images, labels = scale(tf.gather(self._images, chosen)), tf.cast(tf.gather(self._labels, chosen), tf.int32)
        real = tf.cast(start + tf.range(self._batch_size) < len(self._labels), tf.float32)
        count = tf.reduce_sum(real)
        with tf.GradientTape() as tape:
            logits = self._network.forward(self._network.variables, images, seed=self._seed, step=step, training=True)
            loss = tf.reduce_sum(real * self._network.cross_entropy(labels, logits)) / count
            penalty = self._network.penalty()
            objective = loss + penalty
        gradients = tape.gradient(objective, self._network.variables)
        hits = real * tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == labels, tf.float32)
        return gradients, tf.stack([count * loss, count * penalty, tf.reduce_sum(hits), count,
                                    self._norm(gradients), self._norm(self._network.kernels), 1.0])

    def variables(self) -> dict[str, Any]:
        """Everything that changes while it trains, by name: weights and optimizer slots."""
        return {**dict(zip(self._network.names, self._network.variables)), **self._optimizer.state(self._network.names)}


def _means(totals: np.ndarray) -> EpochMeans:
    loss, penalty, hits, images, gradient_norm, weight_norm, updates = totals.tolist()
    return EpochMeans(loss / images, penalty / images, hits / images, gradient_norm / updates, weight_norm / updates)


def norm(tensors: Any) -> Any:
    """Euclidean norm of all entries of `tensors`, a float32 scalar, as `tf.linalg.global_norm`, but for XLA: it sums to
    a scalar one entry after another, and to a vector many at a time, so that this is a norm of norms of 32 entries."""
    return tf.linalg.global_norm([tf.norm(tf.reshape(tensor, (math.gcd(tensor.shape.num_elements(), 32), -1)), axis=0)
                                  for tensor in tensors])
