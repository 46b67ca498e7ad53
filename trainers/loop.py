"""The GradientTape loop: an epoch of updates in a few compiled calls.

The images stay in memory as uint8; a call runs about a second of steps inside TensorFlow, and between two calls Python
looks at the clock and the keyboard. However an epoch is cut into calls, its numbers are the same: the sums travel
through the calls, and order and masks are functions of (seed, epoch) and (seed, step).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any, Callable, Iterator

import numpy as np

from fmnist_zoo.backend import ops, tf
from trainers.network import Network, scale
from trainers.optimizers import Optimizer

SECONDS_A_CALL = 1.0


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
        with _forgotten_gradients():
            self._run_steps = tf.function(self._steps).get_concrete_function(
                tf.TensorSpec((len(labels),), tf.int32), integer, integer, long, tf.TensorSpec((7,), tf.float64))

    def run_epoch(self, epoch: int, on_part: OnPart | None = None) -> EpochMeans:
        """Runs epoch `epoch`; `on_part(steps done, means so far)` is called a few times on the way.

        Raises:
            NonFiniteError: at the first update that is not finite; neither it nor a later one was applied.
        """
        order = tf.constant(epoch_order(len(self._labels), seed=self._seed, epoch=epoch))
        first_step = epoch * self.steps_an_epoch
        done, totals = 0, tf.zeros(7, tf.float64)
        while done < self.steps_an_epoch:
            until = min(done + (self._steps_a_call or self._learned_steps_a_call), self.steps_an_epoch)
            started = time.perf_counter()
            totals, failed = self._run_steps(order, tf.constant(done), tf.constant(until),
                                             tf.constant(first_step, tf.int64), totals)
            if int(failed) >= 0:
                raise NonFiniteError(int(failed))
            self._learn(until - done, time.perf_counter() - started)
            done = until
            if on_part:
                on_part(done, _means(totals.numpy()))
        return _means(totals.numpy())

    def _learn(self, steps: int, seconds: float) -> None:
        """Aims the next call at a second; at most four times as long as this one, which may have been compiling."""
        aim = int(steps * SECONDS_A_CALL / max(seconds, 1e-6))
        self._learned_steps_a_call = max(1, min(aim, 4 * steps))

    def _steps(self, order: Any, begin: Any, end: Any, first_step: Any, totals: Any) -> tuple[Any, Any]:
        """Steps [begin, end) of an epoch. Returns the sums and the step that was not finite, or -1."""
        failed = tf.constant(-1, tf.int64)
        while begin < end and failed < 0:
            step = first_step + tf.cast(begin, tf.int64)
            chosen = order[begin * self._batch_size:(begin + 1) * self._batch_size]
            gradients, sums = self._gradients(chosen, step)
            if tf.reduce_all(tf.math.is_finite(sums)):
                self._optimizer.apply(gradients, step)
                totals += tf.cast(sums, tf.float64)
            else:
                failed = step
            begin += 1
        return totals, failed

    def _gradients(self, chosen: Any, step: Any) -> tuple[list[Any], Any]:
        """Gradients of the objective on the images `chosen`, and what `_means` reads, (7,) float32."""
        images, labels = scale(tf.gather(self._images, chosen)), tf.cast(tf.gather(self._labels, chosen), tf.int32)
        with tf.GradientTape() as tape:
            logits = self._network.forward(self._network.variables, images, seed=self._seed, step=step, training=True)
            loss = self._network.cross_entropy(labels, logits)
            penalty = self._network.penalty()
            objective = loss + penalty
        gradients = tape.gradient(objective, self._network.variables)
        count = tf.cast(tf.shape(labels)[0], tf.float32)
        hits = tf.reduce_sum(tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == labels, tf.float32))
        return gradients, tf.stack([count * loss, count * penalty, hits, count,
                                    norm(gradients), norm(self._network.kernels), 1.0])

    def variables(self) -> dict[str, Any]:
        """Everything that changes while it trains, by name: weights and optimizer slots."""
        return {**dict(zip(self._network.names, self._network.variables)), **self._optimizer.state(self._network.names)}


@contextlib.contextmanager
def _forgotten_gradients() -> Iterator[None]:
    """Takes out of TensorFlow's registry the custom gradients that were entered meanwhile.

    It would keep them for ever, and with them the whole graph, its images and variables. They have been used by then:
    the gradients are part of the graph.
    """
    entries = getattr(ops.gradient_registry, "_registry", {})
    before = set(entries)
    try:
        yield
    finally:
        for name in set(entries) - before:
            del entries[name]


def _means(totals: np.ndarray) -> EpochMeans:
    loss, penalty, hits, images, gradient_norm, weight_norm, updates = totals.tolist()
    return EpochMeans(loss / images, penalty / images, hits / images, gradient_norm / updates, weight_norm / updates)


def norm(tensors: Any) -> Any:
    """Euclidean norm of all entries of `tensors`: a float32 scalar."""
    return tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(tensor) for tensor in tensors]))
