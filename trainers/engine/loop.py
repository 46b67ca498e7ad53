"""The GradientTape loop: an epoch of updates in a few compiled calls.

The images stay in memory as uint8. One call runs about a second of steps as one program, compiled by XLA up to
`LARGEST_XLA_BATCH`; between two calls Python reports progress and notices Ctrl-C. How an epoch is divided into calls
does not change its numbers: the sums are passed from call to call, the order of the images is a function of
(seed, epoch), and dropout and augmentation are functions of (seed, step). Rates, factors and the seed are arguments of
the program. What is off is not in it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from typing import Any, Callable

import numpy as np

from fmnist_zoo.backend import tf, without_noise
from fmnist_zoo.data import Split
from fmnist_zoo.spec import CLASSES, PIXELS, Recipe
from trainers.engine import averaging, distillation, schedule
from trainers.engine.arguments import Arguments, OfEpoch
from trainers.engine.augmentation import Amounts, Augmentation, mix, next_row, shares_of_mixup
from trainers.engine.epoch import EpochMeans, NonFiniteError, OnPart, epoch_order
from trainers.engine.network import Moment, Network, make_predictor, scale

SECONDS_A_CALL = 1.0
LARGEST_XLA_BATCH = 1024  # above it, and in bfloat16, TensorFlow's own matrix products are faster than those of XLA
SUMS = ("loss", "penalty", "hits", "images", "gradient norm", "updates")
SURPLUS = "surplus"  # a further sum: what is minimised beyond loss and penalty


class TapeEngine:
    """Trains a `Network` with our own loop.

    Args:
        network: what is trained, in place.
        optimizer: of `network.variables`; has `apply(gradients, step, learning_rate=, weight_decay=)`, `state()`.
        recipe: how; its epochs, early stopping and validation are the caller's business.
        split: the training images.
        batch_size: images an update; the last update of an epoch takes the rest.
        seed: of the order of images, dropout and augmentation.
        teachers: functions from images (batch, 784) float32 to logits whose probabilities are learned too.
        taught: their logits for each view of an image, as `distillation.logits_of_views` computes them; None: they
            are computed at each step.
    """

    steps_a_call: int | None = None  # tests set it; None: as many as take about a second

    def __init__(self, network: Network, optimizer: Any, recipe: Recipe, split: Split, *, batch_size: int, seed: int,
                 teachers: tuple[Any, ...] = (), taught: np.ndarray | None = None):
        _start_xla()
        self.network, self._optimizer, self._recipe = network, optimizer, recipe
        self._batch_size, self._seed, self._teachers = batch_size, seed, teachers
        self._images, self._labels = tf.constant(split.images), tf.constant(split.labels)
        if taught is not None:
            _start_half_precision()
        self._taught = tf.constant(np.zeros((0, 0, 0, CLASSES), np.float32) if taught is None else taught)
        self.steps_an_epoch = -(-len(split.labels) // batch_size)
        self._augmentation = Augmentation.of(recipe)
        self._averages = averaging.averages(network) if recipe.ema else {}
        self.sums = SUMS + (SURPLUS,) * bool(recipe.label_smoothing or teachers)
        self._arguments = self._make_arguments()
        self._learned_steps_a_call = 8
        self.xla = network.for_xla and batch_size <= LARGEST_XLA_BATCH and not network.bfloat16
        self._norm = norm if self.xla else tf.linalg.global_norm
        rest = len(split.labels) % batch_size
        self._whole = self.steps_an_epoch - bool(rest and network.across_batch)  # batches of the full size
        self._run_steps = self._compiled(batch_size)
        self._run_rest = self._compiled(rest) if self._whole < self.steps_an_epoch else None
        self._predict = make_predictor(network)

    def _make_arguments(self) -> Arguments:
        recipe = self._recipe
        floats = {name: tf.constant(getattr(recipe, name), tf.float32) for name in Arguments._fields[3:]}
        return Arguments(seed=tf.constant(self._seed, tf.uint32), rates=self.network.rates,
                         amounts=Amounts(tf.constant(recipe.shift), tf.constant(recipe.erase)), **floats)

    def restart(self, network: Network, recipe: Recipe, seed: int) -> None:
        """Begins another run with the same compiled program.

        Args:
            network: of the same architecture; its values and rates are taken over.
            recipe: in which the same settings are on.
        """
        self.network.restart(network)
        self._optimizer.restart()
        averaging.restart(self._averages, self.network)
        self._recipe, self._seed = recipe, seed
        self._arguments = self._make_arguments()

    def program(self, batch_size: int) -> Any:
        """The `tf.function` of steps [begin, end) of an epoch, in batches of `batch_size`, not traced yet."""
        # AutoGraph would rewrite the source of all functions, which takes seconds in each process that trains.
        return tf.function(functools.partial(self._steps, batch_size), jit_compile=self.xla, autograph=False)

    def _compiled(self, batch_size: int) -> Callable[..., Any]:
        example = (self._of_epoch(0), tf.constant(0), tf.constant(0), tf.zeros(len(self.sums), tf.float64),
                   self._arguments)
        shapes = tf.nest.map_structure(tf.TensorSpec.from_tensor, example)
        return self.program(batch_size).get_concrete_function(*shapes)

    def _of_epoch(self, epoch: int) -> OfEpoch:
        order = epoch_order(len(self._labels), seed=self._seed, epoch=epoch)
        padded = self.steps_an_epoch * self._batch_size
        chosen = tf.constant(np.pad(order, (0, padded - len(order)), "edge"))
        rates = schedule.learning_rates(self._recipe, steps_an_epoch=self.steps_an_epoch, epoch=epoch)
        return OfEpoch(
            tf.gather(self._images, chosen), tf.cast(tf.gather(self._labels, chosen), tf.int32),
            tf.constant(epoch * self.steps_an_epoch, tf.int64), tf.constant(rates),
            tf.constant(shares_of_mixup(self._recipe, padded, seed=self._seed, epoch=epoch)),
            tf.gather(self._taught, chosen) if len(self._taught) else self._taught)

    def run_epoch(self, epoch: int, on_part: OnPart | None = None) -> EpochMeans:
        """Runs epoch number `epoch` (0 is the first); calls `on_part` a few times on the way.

        Raises:
            NonFiniteError: at the first update that is not finite; neither it nor a later one was applied.
        """
        of_epoch = self._of_epoch(epoch)
        done, totals = 0, tf.zeros(len(self.sums), tf.float64)
        while done < self.steps_an_epoch:
            until = min(done + (self.steps_a_call or self._learned_steps_a_call), self.steps_an_epoch)
            until = min(until, self._whole) if done < self._whole else until
            started = time.perf_counter()
            before = [tf.identity(variable) for variable in self.variables().values()]
            totals, failed = self._run(of_epoch, done, until, totals)
            if int(failed) >= 0:
                self._restore(before, of_epoch, done, int(failed))
                raise NonFiniteError(epoch * self.steps_an_epoch + int(failed))
            self._learn(until - done, time.perf_counter() - started)
            done = until
            if on_part:
                on_part(done, self._means(totals))
        return self._means(totals, float(tf.linalg.global_norm(self.network.kernels)))

    def _run(self, of_epoch: OfEpoch, begin: int, end: int, totals: Any) -> tuple[Any, Any]:
        steps = self._run_steps if begin < self._whole else self._run_rest
        inputs = (of_epoch, tf.constant(begin), tf.constant(end), totals, self._arguments)
        return steps(*inputs)  # type: ignore[misc]

    def _restore(self, values: list[Any], of_epoch: OfEpoch, begin: int, end: int) -> None:
        """Sets the variables to `values`, taken before step `begin` of an epoch, and replays the steps [begin, end).

        A branch in the compiled steps that skips an update costs an eighth of their time; this costs nothing until a
        run fails.
        """
        for variable, value in zip(self.variables().values(), values):
            variable.assign(value)
        if end > begin:
            self._run(of_epoch, begin, end, tf.zeros(len(self.sums), tf.float64))

    def _learn(self, steps: int, seconds: float) -> None:
        """Chooses the steps of the next call, after one that took `seconds` (some of it perhaps to compile).

        A call is at most four times as long as one before it.
        """
        aim = int(steps * SECONDS_A_CALL / max(seconds, 1e-6))
        self._learned_steps_a_call = max(1, min(aim, max(4 * steps, self._learned_steps_a_call)))

    def _steps(self, batch_size: int, of_epoch: OfEpoch, begin: Any, end: Any, totals: Any,
               arguments: Arguments) -> tuple[Any, Any]:
        """Steps [begin, end) of an epoch. Returns the sums, and the first step that was not finite or -1."""
        decay = arguments.weight_decay if self._recipe.weight_decay else None

        def goes_on(place: Any, _: Any, failed: Any) -> Any:
            return (place < end) & (failed < 0)

        def update(place: Any, sums_before: Any, _: Any) -> tuple[Any, Any, Any]:
            step = of_epoch.first_step + tf.cast(place, tf.int64)
            gradients, sums = self._gradients(batch_size, of_epoch, place, step, arguments)
            finite = tf.reduce_all(tf.math.is_finite(sums))
            # XLA updates a buffer in place only if every read of it is ordered before the write. Making the update
            # depend on `finite`, which depends on gradients and norms, creates that order; otherwise XLA copies all
            # weights at each step. A non-finite step may write garbage: `run_epoch` restores the variables and replays
            # up to it.
            applied = tf.where(finite, step, -1)
            self._optimizer.apply(gradients, applied, learning_rate=of_epoch.learning_rates[place], weight_decay=decay)
            averaging.update(self._averages, self.network, arguments.ema, step)
            return place + 1, sums_before + tf.cast(sums, tf.float64), tf.where(finite, -1, place)

        return tf.while_loop(goes_on, update, (begin, totals, tf.constant(-1)))[1:]

    def _gradients(self, batch_size: int, of_epoch: OfEpoch, place: Any, step: Any,
                   arguments: Arguments) -> tuple[list[Any], Any]:
        """Gradients of the objective on batch number `place` of an epoch, and its `sums`, float32.

        XLA needs all batches in one shape: the last one repeats an image, with a weight of zero.
        """
        start = place * self._batch_size
        pixels = tf.slice(of_epoch.pixels, [start, 0], [batch_size, PIXELS])
        images = scale(self._augmentation.apply(pixels, arguments.amounts, seed=arguments.seed, step=step))
        labels = tf.slice(of_epoch.labels, [start], [batch_size])
        real = tf.cast(start + tf.range(batch_size) < len(self._labels), tf.float32)
        count = tf.reduce_sum(real)
        shares = others = None
        if self._augmentation.mixup:
            shares = tf.slice(of_epoch.shares, [start], [batch_size])
            mixed = tf.cast(count, tf.int32)
            images, others = mix(images, shares, mixed), next_row(labels, mixed)
        with tf.GradientTape() as tape:
            logits = self.network.forward(images, Moment(arguments.seed, step, arguments.rates))
            losses = self.network.cross_entropy(labels, logits)
            if shares is not None:
                losses = shares * losses + (1 - shares) * self.network.cross_entropy(others, logits)
            loss = tf.reduce_sum(real * losses) / count
            penalty = self.network.penalty(arguments.rates)
            for added in self.network.losses_of_call():
                penalty += added
            taught = self._probabilities(of_epoch, start, images, shares, count, step, arguments)
            surplus = self._surplus(taught, logits, losses, real, count, arguments)
            objective = loss + penalty if surplus is None else loss + penalty + surplus
        gradients = tape.gradient(objective, self.network.variables)
        heavier = labels if shares is None else tf.where(shares >= 0.5, labels, others)
        hits = real * tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == heavier, tf.float32)
        size = self._norm(gradients)
        if self._recipe.clip_norm:  # Pascanu, Mikolov and Bengio (2013), Algorithm 1
            factor = tf.minimum(1.0, arguments.clip_norm / size)
            gradients = [gradient * factor for gradient in gradients]
        sums = [count * loss, count * penalty, tf.reduce_sum(hits), count, size, 1.0]
        return gradients, tf.stack(sums if surplus is None else [*sums, count * surplus])

    def _probabilities(self, of_epoch: OfEpoch, start: Any, images: Any, shares: Any, count: Any, step: Any,
                       arguments: Arguments) -> Any:
        """What teachers teach of the images of a batch, (batch, 10) float32; None without teachers."""
        temperature, batch_size = arguments.teacher_temperature, images.shape[0]
        if not self._teachers:
            return None
        if not len(self._taught):
            return distillation.probabilities([teacher(images) for teacher in self._teachers], temperature)
        views = tf.slice(of_epoch.taught, [start, 0, 0, 0], [batch_size, *self._taught.shape[1:]])
        seen = self._augmentation.view(batch_size, arguments.amounts, seed=arguments.seed, step=step)
        logits = tf.gather(views, seen, batch_dims=1)
        taught = distillation.probabilities(tf.unstack(logits, axis=1), temperature)
        return taught if shares is None else mix(taught, shares, tf.cast(count, tf.int32))

    def _surplus(self, taught: Any, logits: Any, losses: Any, real: Any, count: Any, arguments: Arguments) -> Any:
        """What smoothed labels and teachers add to the mean of `losses` in the objective; None without both."""
        extra = None
        if self._recipe.label_smoothing:
            # Szegedy et al. (2016), section 7: the cross entropy of (1 - e) * one-hot + e / K.
            uniform = tf.reduce_logsumexp(logits, axis=1) - tf.reduce_mean(logits, axis=1)
            extra = arguments.label_smoothing * (uniform - losses)
        if taught is not None:
            of_labels = losses if extra is None else losses + extra
            of_teachers = distillation.loss(taught, logits, arguments.teacher_temperature)
            change = arguments.teacher_weight * (of_teachers - of_labels)
            extra = change if extra is None else extra + change
        return None if extra is None else tf.reduce_sum(real * extra) / count

    def _means(self, totals: Any, weight_norm: float | None = None) -> EpochMeans:
        loss, penalty, hits, images, gradient_norm, updates, *surplus = totals.numpy().tolist()
        return EpochMeans(loss / images, penalty / images, hits / images, gradient_norm / updates, weight_norm,
                          surplus[0] / images if surplus else 0.0)

    def variables(self) -> dict[str, Any]:
        """Everything that changes in training, by name: weights, moving statistics, optimizer slots, averages."""
        network = self.network
        return {**dict(zip(network.names, network.variables)), **network.state, **self._optimizer.state(),
                **{f"ema/{name}": variable for name, variable in self._averages.items()}}

    def weights(self, *, averaged: bool = True) -> dict[str, Any]:
        """The variables that a saved model holds, by path: with `ema`, their averages, unless these are not wanted."""
        own = {**dict(zip(self.network.names, self.network.variables)), **self.network.state}
        return {name: self._averages.get(name, own[name]) if averaged else own[name] for name in self.network.weights}

    def counting(self) -> contextlib.AbstractContextManager[None]:
        """Within the block, the network has the weights that count: with `ema`, the averages."""
        return averaging.in_place(self._averages, self.network)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits (n, 10) float32 of images (n, 784) uint8 by the weights that count, dropout off."""
        with self.counting():
            return self._predict(images)

    def penalty(self) -> float:
        """The penalty at the weights that count."""
        with self.counting():
            return float(self.network.penalty(self._arguments.rates))

    def augmented(self, count: int) -> np.ndarray | None:
        """The first `count` images of the first batch of training as the network sees them, (count, 784) uint8.

        None if the recipe changes no image.
        """
        if self._augmentation == Augmentation():
            return None
        of_epoch, batch = self._of_epoch(0), min(self._batch_size, len(self._labels))
        images = self._augmentation.apply(of_epoch.pixels[:batch], self._arguments.amounts, seed=self._arguments.seed,
                                          step=tf.zeros((), tf.int64))
        if self._augmentation.mixup:
            mixed = mix(tf.cast(images, tf.float32), of_epoch.shares[:batch], batch)
            images = tf.cast(tf.round(mixed), tf.uint8)
        return images[:count].numpy()


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
        tf.function(tf.norm, jit_compile=True, autograph=False)(tf.zeros(9))


@functools.cache
def _start_half_precision() -> None:
    """Makes a tensor of float16, so that oneDNN's note that it has no products of them can be held back."""
    with without_noise():
        tf.zeros(1, tf.float16)
