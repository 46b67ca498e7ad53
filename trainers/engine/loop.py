"""The GradientTape loop: an epoch of updates in a few compiled calls.

The images stay in memory as uint8. One call runs about a second of steps as one program, compiled by XLA where
`jit_compile` says so; between two calls Python reports progress and notices Ctrl-C. How an epoch is divided into calls
does not change its numbers: the sums are passed from call to call, the order of the images is a function of
(seed, epoch), and dropout and augmentation are functions of (seed, step). Rates, factors and the seed are arguments of
the program. What is off is not in it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from typing import Any, Callable, Hashable, Iterator, NamedTuple, Sequence

import numpy as np

from fmnist_zoo.backend import tf, without_noise
from fmnist_zoo.data import Split
from fmnist_zoo.spec import CLASSES, PIXELS, Recipe
from trainers.config import ConfigError, RunConfig
from trainers.engine import averaging, distillation, schedule
from trainers.engine.augmentation import Amounts, Augmentation, mix, next_row, shares_of_mixup
from trainers.engine.epoch import EpochMeans, NonFiniteError, OnPart, epoch_order
from trainers.engine.network import Network, make_predictor, scale
from trainers.engine.twin import Moment, Rates

SECONDS_A_CALL = 1.0


class Arguments(NamedTuple):
    """What a compiled program takes from a run, as tensors: its seed (uint32) and the numbers of its recipe."""

    seed: Any
    rates: Rates
    amounts: Amounts
    weight_decay: Any
    label_smoothing: Any
    ema: Any
    clip_norm: Any
    teacher_weight: Any
    teacher_temperature: Any


class OfEpoch(NamedTuple):
    """What a compiled program takes from an epoch.

    Attributes:
        pixels: the images in the order of the epoch, filled up to whole batches with the last one, (steps * batch, 784)
            uint8. TensorFlow gathers them ahead of the steps that need them, where XLA would wait for each.
        labels: theirs, (steps * batch,) int32.
        first_step: the number of its first update, int64.
        learning_rates: one for each update, (steps,) float32.
        shares: of each image in its mixture, (steps * batch,) float32; empty without mixup.
        taught: the teachers' probabilities for each image as the student sees it, (steps * batch, 10) float32, or
            (0, 10) without teachers. They are right for the steps of the call alone.
    """

    pixels: Any
    labels: Any
    first_step: Any
    learning_rates: Any
    shares: Any
    taught: Any


class Batch(NamedTuple):
    """The images of an update.

    Attributes:
        images: (batch, 784) float32 in [0, 1], augmented and mixed.
        labels: (batch,) int32.
        shares, others: with mixup, the share of the image of `labels` in each mixture, (batch,) float32, and the labels
            of the other image; else None.
        real: (batch,) float32: 0 for an image that fills up the last batch, else 1.
        count: the sum of `real`.
    """

    images: Any
    labels: Any
    shares: Any
    others: Any
    real: Any
    count: Any

    def mean(self, values: Any) -> Any:
        """Of one value an image, over the real images."""
        return tf.reduce_sum(self.real * values) / self.count


class Sums(NamedTuple):
    """What is added up over the updates of an epoch, float32 of an update; `surplus` is as in `EpochMeans`.

    Loss, penalty and surplus are multiplied by the number of images.
    """

    loss: Any
    penalty: Any
    surplus: Any
    hits: Any
    images: Any
    gradient_norm: Any
    updates: Any


class TapeEngine:
    """Trains a `Network` with our own loop.

    Args:
        network: what is trained, in place.
        optimizer: of `network.variables`; has `apply(gradients, step, learning_rate=, weight_decay=)`, `state()`.
        recipe: how; its epochs, early stopping and validation are the caller's business.
        split: the training images.
        batch_size: images an update; the last update of an epoch takes the rest.
        seed: of the order of images, dropout and augmentation.
        jit_compile: whether XLA compiles the steps.
        teachers: functions from images (batch, 784) float32 to logits whose probabilities are learned too.

    Attributes:
        key: of the compiled program, where `factory` keeps it.
        idle: names of the variables that no gradient reaches.
    """

    key: Hashable = None
    idle: Sequence[str] = ()
    steps_a_call: int | None = None  # tests set it; None: as many as take about a second

    def __init__(self, network: Network, optimizer: Any, recipe: Recipe, split: Split, *, batch_size: int, seed: int,
                 jit_compile: bool, teachers: tuple[Any, ...] = ()):
        _start_xla()
        self.network, self._optimizer, self._recipe = network, optimizer, recipe
        self._batch_size, self._seed, self._teachers, self._jit_compile = batch_size, seed, teachers, jit_compile
        self._images, self._labels = tf.constant(split.images), tf.constant(split.labels)
        self.steps_an_epoch = -(-len(split.labels) // batch_size)
        self._augmentation = Augmentation.of(recipe)
        self._averages = averaging.averages(network) if recipe.ema else {}
        self._arguments = self._make_arguments()
        self._learned_steps_a_call = 8
        self._norm = norm if jit_compile else tf.linalg.global_norm
        rest = len(split.labels) % batch_size
        self._whole = self.steps_an_epoch - bool(rest and not network.fills_up)  # batches of the full size
        self._called: list[Any] = []
        self._run_steps = self._compiled(batch_size)
        self._run_rest = self._compiled(rest) if self._whole < self.steps_an_epoch else None
        self._teach = tf.function(self._look, autograph=False)
        self._predict = make_predictor(network)

    def _make_arguments(self) -> Arguments:
        recipe = self._recipe
        floats = {name: tf.constant(getattr(recipe, name), tf.float32) for name in Arguments._fields[3:]}
        return Arguments(seed=tf.constant(self._seed, tf.uint32), rates=self.network.rates,
                         amounts=Amounts(tf.constant(recipe.shift), tf.constant(recipe.erase)), **floats)

    def try_program(self) -> None:
        """Compiles the steps before the first of them is run.

        Raises:
            ConfigError: if XLA cannot compile the model.
        """
        try:
            with without_noise():
                self._run(self._of_epoch(0), 0, 0, tf.zeros(len(Sums._fields), tf.float64))
        except tf.errors.OpError as error:
            reason = " ".join(error.message.partition("[[")[0].split())
            raise ConfigError(f"jit_compile=true: XLA cannot compile {self.network.model.name} ({reason:.200}); train "
                              "with jit_compile=false") from error

    def restart(self, model: Any, config: RunConfig) -> None:
        """Begins another run with the same compiled program.

        Args:
            model: of the same architecture; its weights are taken over.
            config: with a recipe in which the same settings are on.
        """
        self.network.restart(model, config.spec)
        self._optimizer.restart()
        averaging.restart(self._averages, self.network)
        self._recipe, self._seed = config.recipe, config.seed
        self._arguments = self._make_arguments()

    def program(self, batch_size: int) -> Any:
        """The `tf.function` of steps [begin, end) of an epoch, in batches of `batch_size`, not traced yet."""
        # AutoGraph would rewrite the source of all functions, which takes seconds in each process that trains.
        return tf.function(functools.partial(self._steps, batch_size), jit_compile=self._jit_compile, autograph=False)

    def _compiled(self, batch_size: int) -> Callable[..., Any]:
        example = (self._of_epoch(0), tf.constant(0), tf.constant(0), tf.zeros(len(Sums._fields), tf.float64),
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
            tf.zeros((padded if self._teachers else 0, CLASSES)))

    def run_epoch(self, epoch: int, on_part: OnPart | None = None) -> EpochMeans:
        """Runs epoch number `epoch` (0 is the first); calls `on_part` a few times on the way.

        Raises:
            NonFiniteError: at the first update that is not finite; neither it nor a later one was applied.
        """
        of_epoch = self._of_epoch(epoch)
        done, totals = 0, tf.zeros(len(Sums._fields), tf.float64)
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
        places = tf.constant(begin), tf.constant(end)
        if self._teachers:
            of_epoch = of_epoch._replace(taught=self._teach(of_epoch, *places, self._arguments))
        with self._first_call(steps):
            return steps(of_epoch, *places, totals, self._arguments)  # type: ignore[misc]

    def _first_call(self, steps: Any) -> contextlib.AbstractContextManager[None]:
        """XLA reads or compiles a program in its first call, and writes of each that it reads that it is no text."""
        if steps in self._called:
            return contextlib.nullcontext()
        self._called.append(steps)
        return without_noise()

    def _restore(self, values: list[Any], of_epoch: OfEpoch, begin: int, end: int) -> None:
        """Sets the variables to `values`, taken before step `begin` of an epoch, and replays the steps [begin, end).

        A branch in the compiled steps that skips an update costs an eighth of their time; this costs nothing until a
        run fails.
        """
        for variable, value in zip(self.variables().values(), values):
            variable.assign(value)
        if end > begin:
            self._run(of_epoch, begin, end, tf.zeros(len(Sums._fields), tf.float64))

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
            batch = self._batch(batch_size, of_epoch, place, step, arguments)
            taught = tf.slice(of_epoch.taught, [place * self._batch_size, 0], [batch_size, CLASSES]) \
                if self._teachers else None
            gradients, sums = self._gradients(batch, taught, Moment(arguments.seed, step, arguments.rates), arguments)
            sums = tf.stack(sums)
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

    def _batch(self, batch_size: int, of_epoch: OfEpoch, place: Any, step: Any, arguments: Arguments) -> Batch:
        """Batch number `place` of an epoch. XLA needs all batches in one shape, so the last one may repeat an image."""
        start = place * self._batch_size
        pixels = tf.slice(of_epoch.pixels, [start, 0], [batch_size, PIXELS])
        images = scale(self._augmentation.apply(pixels, arguments.amounts, seed=arguments.seed, step=step))
        labels = tf.slice(of_epoch.labels, [start], [batch_size])
        real = tf.cast(start + tf.range(batch_size) < len(self._labels), tf.float32)
        count = tf.reduce_sum(real)
        if not self._augmentation.mixup:
            return Batch(images, labels, None, None, real, count)
        shares, mixed = tf.slice(of_epoch.shares, [start], [batch_size]), tf.cast(count, tf.int32)
        return Batch(mix(images, shares, mixed), labels, shares, next_row(labels, mixed), real, count)

    def _gradients(self, batch: Batch, taught: Any, moment: Moment, arguments: Arguments) -> tuple[list[Any], Sums]:
        """Gradients of the objective on a batch, and what it adds to the sums. `taught`: by the teachers, or None."""
        with tf.GradientTape() as tape:
            logits = self.network.forward(batch.images, moment)
            losses = self._losses(batch, logits)
            loss, penalty = batch.mean(losses), self.network.penalty_of_call(arguments.rates)
            objective, extra = loss + penalty, self._extra(taught, logits, losses, arguments)
            surplus = tf.zeros(())
            if extra is not None:
                surplus = batch.mean(extra)
                objective += surplus
        gradients = [tf.convert_to_tensor(gradient) if gradient is not None else None  # some are IndexedSlices
                     for gradient in tape.gradient(objective, self.network.variables)]
        size = self._norm([gradient for gradient in gradients if gradient is not None])
        count, hits = batch.count, batch.real * self._hits(batch, logits)
        return self._clipped(gradients, size, arguments), Sums(
            count * loss, count * penalty, count * surplus, tf.reduce_sum(hits), count, size, 1.0)

    def _losses(self, batch: Batch, logits: Any) -> Any:
        """The cross entropy of each image, (batch,)."""
        losses = self.network.cross_entropy(batch.labels, logits)
        if batch.shares is None:
            return losses
        return batch.shares * losses + (1 - batch.shares) * self.network.cross_entropy(batch.others, logits)

    @staticmethod
    def _hits(batch: Batch, logits: Any) -> Any:
        """1 for each image whose largest logit is of its label (of the larger share, in a mixture), else 0."""
        labels = batch.labels if batch.shares is None else tf.where(batch.shares >= 0.5, batch.labels, batch.others)
        return tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == labels, tf.float32)

    def _clipped(self, gradients: list[Any], size: Any, arguments: Arguments) -> list[Any]:
        """Gradients of norm `size`, with `clip_norm` at most of that (Pascanu et al. 2013, Algorithm 1)."""
        if not self._recipe.clip_norm:
            return gradients
        factor = tf.minimum(1.0, arguments.clip_norm / size)
        return [gradient if gradient is None else gradient * factor for gradient in gradients]

    def _look(self, of_epoch: OfEpoch, begin: Any, end: Any, arguments: Arguments) -> Any:
        """`taught` of an epoch for the steps [begin, end), zero elsewhere.

        It runs ahead of the steps and by TensorFlow's own kernels, which are several times as fast for convolutions.
        """
        def look(place: Any, found: Any) -> tuple[Any, Any]:
            step = of_epoch.first_step + tf.cast(place, tf.int64)
            images = self._batch(self._batch_size, of_epoch, place, step, arguments).images
            logits = [teacher(images) for teacher in self._teachers]
            return place + 1, found.write(place, distillation.probabilities(logits, arguments.teacher_temperature))

        empty = tf.TensorArray(tf.float32, self.steps_an_epoch, element_shape=(self._batch_size, CLASSES))
        found = tf.while_loop(lambda place, _: place < end, look, (begin, empty))[1]
        return tf.reshape(found.stack(), (-1, CLASSES))

    def _extra(self, taught: Any, logits: Any, losses: Any, arguments: Arguments) -> Any:
        """What smoothed labels and teachers add to `losses` in the objective, (batch,); None without both."""
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
        return extra

    def _means(self, totals: Any, weight_norm: float | None = None) -> EpochMeans:
        sums = Sums(*totals.numpy().tolist())
        return EpochMeans(sums.loss / sums.images, sums.penalty / sums.images, sums.hits / sums.images,
                          sums.gradient_norm / sums.updates, weight_norm, sums.surplus / sums.images)

    def variables(self) -> dict[str, Any]:
        """Everything that changes in training, by name: weights, moving statistics, optimizer slots, averages."""
        network = self.network
        return {**dict(zip(network.names, network.variables)), **network.state, **self._optimizer.state(),
                **{f"ema/{name}": variable for name, variable in self._averages.items()}}

    def weights(self, *, averaged: bool = True) -> dict[str, Any]:
        """The variables that a saved model holds, by path: with `ema`, their averages, unless these are not wanted."""
        own = {**dict(zip(self.network.names, self.network.variables)), **self.network.state}
        return {name: self._averages.get(name, own[name]) if averaged else own[name] for name in self.network.weights}

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Within the block, the network has the weights that count (with `ema`, the averages), and so has its model."""
        with averaging.in_place(self._averages, self.network):
            self.network.sync()
            yield

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
        batch = self._batch(self._batch_size, self._of_epoch(0), tf.constant(0), tf.zeros((), tf.int64),
                            self._arguments)
        return tf.cast(tf.round(255.0 * batch.images[:count]), tf.uint8).numpy()


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
