"""The GradientTape loop: an epoch of updates in a few compiled calls.

The images stay in memory as uint8. One call runs about a second of steps as one program, compiled by XLA where
`jit_compile` says so; between two calls Python reports progress and notices Ctrl-C. How an epoch is divided into calls
does not change its numbers: the sums are passed from call to call, the order of the images is a function of
(seed, epoch), and dropout and augmentation are functions of (seed, step). Rates, factors and the seed are arguments of
the program. What is off is None, and not in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from typing import Any, Callable, Hashable, Iterator, NamedTuple, Sequence

import numpy as np

from fmnist_zoo.backend import tf, without_noise
from fmnist_zoo.data import Split
from fmnist_zoo.spec import CLASSES, Recipe
from trainers.config import ConfigError
from trainers.engine import augmentation, objective, schedule
from trainers.engine.averaging import Averages
from trainers.engine.epoch import EpochMeans, NonFiniteError, OnPart, epoch_order, shares_of_mixup
from trainers.engine.network import Network, make_predictor, scale
from trainers.engine.objective import Batch
from trainers.engine.twin import Moment, Rates

SECONDS_A_CALL = 1.0
Forward = Callable[[tf.Tensor], tf.Tensor]  # images (batch, 784) float32 to logits (batch, 10)


class Arguments(NamedTuple):
    """What a compiled program takes from a run, as tensors: the seed is uint32, shift and erase int32, others float32.

    All after `rates` are settings of its recipe.
    """

    seed: tf.Tensor
    rates: Rates
    shift: tf.Tensor | None
    erase: tf.Tensor | None
    weight_decay: tf.Tensor | None
    label_smoothing: tf.Tensor | None
    ema: tf.Tensor | None
    clip_norm: tf.Tensor | None
    teacher_weight: tf.Tensor | None
    teacher_temperature: tf.Tensor | None

    @classmethod
    def of(cls, seed: int, rates: Rates, recipe: Recipe) -> Arguments:
        def setting(name: str) -> tf.Tensor | None:
            value = getattr(recipe, name)
            return tf.constant(value, tf.int32 if name in ("shift", "erase") else tf.float32) if value else None

        return cls(tf.constant(seed, tf.uint32), rates, *map(setting, cls._fields[2:]))


class OfEpoch(NamedTuple):
    """What a compiled program takes from an epoch.

    Attributes:
        pixels: the images in the order of the epoch, filled up to whole batches with the last one, (steps * batch, 784)
            uint8. TensorFlow gathers them ahead of the steps that need them, where XLA would wait for each.
        labels: theirs, (steps * batch,) int32.
        first_step: the number of its first update, int64.
        learning_rates: one for each update, (steps,) float32.
        shares: of each image in its mixture, (steps * batch,) float32; None without mixup.
        taught: the teachers' probabilities for each image as the student sees it, (steps * batch, 10) float32, right
            for the steps of the call alone; None without teachers.
    """

    pixels: tf.Tensor
    labels: tf.Tensor
    first_step: tf.Tensor
    learning_rates: tf.Tensor
    shares: tf.Tensor | None
    taught: tf.Tensor | None


class Sums(NamedTuple):
    """What is added up over the updates of an epoch, float32 of an update; `surplus` is as in `EpochMeans`.

    Loss, penalty and surplus are multiplied by the number of images.
    """

    loss: tf.Tensor
    penalty: tf.Tensor
    surplus: tf.Tensor
    hits: tf.Tensor
    images: tf.Tensor
    gradient_norm: tf.Tensor
    updates: tf.Tensor


class TapeEngine:
    """Trains a network, in place, with our own loop.

    Args:
        network: a `Network`, or one that is written like it.
        optimizer: of `network.variables`; has `apply(gradients, step, learning_rate=, weight_decay=)` and `state()`.
        recipe: how; its epochs, early stopping and validation are the caller's business.
        split: the training images.
        batch_size: images an update; the last update of an epoch takes the rest.
        seed: of the order of images, dropout and augmentation.
        jit_compile: whether XLA compiles the steps.
        teachers: functions from images (batch, 784) float32 to logits whose probabilities are learned too.

    Attributes:
        predict: a function from images (n, 784) uint8 to the network's logits (n, 10) float32, dropout off.
        key: of the compiled program, where `factory` keeps it.
        idle: names of the variables that no gradient reaches.
    """

    key: Hashable = None
    idle: Sequence[str] = ()
    steps_a_call: int | None = None  # tests set it; None: as many as take about a second

    def __init__(self, network: Network, optimizer: Any, recipe: Recipe, split: Split, *, batch_size: int, seed: int,
                 jit_compile: bool, teachers: Sequence[Forward] = ()):
        self.network, self._optimizer, self._batch_size = network, optimizer, batch_size
        self._teachers = teachers if recipe.teacher_weight else ()
        self._images, self._labels = tf.constant(split.images), tf.constant(split.labels)
        self._averages = Averages(network, on=bool(recipe.ema))
        self._first_slots = {name: variable.numpy() for name, variable in optimizer.state().items()}
        self._begin(recipe, seed)
        self.steps_an_epoch, rest = -(-len(split.labels) // batch_size), len(split.labels) % batch_size
        self._whole = self.steps_an_epoch - bool(rest and not network.fills_up)  # batches of the full size
        self._jit_compile, self._norm = jit_compile, norm if jit_compile else tf.linalg.global_norm
        self._run_steps = self._program(batch_size)
        self._run_rest = self._program(rest) if self._whole < self.steps_an_epoch else None
        self._called: list[Any] = []
        self._learned_steps_a_call = 8
        self._teach = tf.function(self._look, autograph=False)
        self.predict = make_predictor(network)

    def _begin(self, recipe: Recipe, seed: int) -> None:
        self._recipe, self._seed = recipe, seed
        self._arguments = Arguments.of(seed, self.network.rates, recipe)

    def restart(self, recipe: Recipe, seed: int) -> None:
        """Begins another run, whose first weights the network has, by the same program: the same settings are on."""
        for name, variable in self._optimizer.state().items():
            variable.assign(self._first_slots[name])
        self._averages.restart()
        self._begin(recipe, seed)

    def _program(self, batch_size: int) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """Steps [begin, end) of an epoch, in batches of `batch_size`; XLA compiles them when they are first called."""
        # AutoGraph would rewrite the source of all functions, which takes seconds in each process that trains.
        steps = tf.function(functools.partial(self._steps, batch_size), jit_compile=self._jit_compile, autograph=False)
        steps.get_concrete_function(self._of_epoch(0), tf.constant(0), tf.constant(0), _no_sums(), self._arguments)
        return steps

    def set_learning_rate(self, rate: float) -> None:
        """The constant learning rate of the epochs that follow."""
        self._recipe = dataclasses.replace(self._recipe, learning_rate=rate)

    def learning_rate(self, epoch: int) -> float:
        """That of the last update of epoch number `epoch`, 0 the first."""
        return schedule.last_learning_rate(self._recipe, steps_an_epoch=self.steps_an_epoch, epoch=epoch)

    def try_program(self) -> None:
        """Compiles the steps before the first of them is run.

        Raises:
            ConfigError: if XLA cannot compile the model.
        """
        try:
            self._run(self._of_epoch(0), 0, 0, _no_sums())
        except tf.errors.OpError as error:
            reason = " ".join(error.message.partition("[[")[0].split())
            raise ConfigError(f"jit_compile=true: XLA cannot compile {self.network.model.name} ({reason:.200}); train "
                              "with jit_compile=false") from error

    def _of_epoch(self, epoch: int) -> OfEpoch:
        order = epoch_order(len(self._labels), seed=self._seed, epoch=epoch)
        padded = self.steps_an_epoch * self._batch_size
        chosen = tf.constant(np.pad(order, (0, padded - len(order)), "edge"))
        rates = schedule.learning_rates(self._recipe, steps_an_epoch=self.steps_an_epoch, epoch=epoch)
        shares = shares_of_mixup(self._recipe.mixup, padded, seed=self._seed, epoch=epoch)
        return OfEpoch(
            tf.gather(self._images, chosen), tf.cast(tf.gather(self._labels, chosen), tf.int32),
            tf.constant(epoch * self.steps_an_epoch, tf.int64), tf.constant(rates),
            None if shares is None else tf.constant(shares), tf.zeros((padded, CLASSES)) if self._teachers else None)

    def run_epoch(self, epoch: int, on_part: OnPart | None = None) -> EpochMeans:
        """Runs epoch number `epoch` (0 is the first); calls `on_part` a few times on the way.

        Raises:
            NonFiniteError: at the first update that is not finite; no later one was made.
        """
        of_epoch, totals, done = self._of_epoch(epoch), _no_sums(), 0
        while done < self.steps_an_epoch:
            end = self._whole if done < self._whole else self.steps_an_epoch
            until = min(done + (self.steps_a_call or self._learned_steps_a_call), end)
            started = time.perf_counter()
            totals, failed = self._run(of_epoch, done, until, totals)
            if int(failed) >= 0:
                raise NonFiniteError(epoch * self.steps_an_epoch + int(failed))
            self._learn(until - done, time.perf_counter() - started)
            done = until
            if on_part:
                on_part(done, self._means(totals))
        return self._means(totals, float(tf.linalg.global_norm(self.network.kernels)))

    def _run(self, of_epoch: OfEpoch, begin: int, end: int, totals: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Steps [begin, end), all of one size. Returns the sums, and the first step that was not finite or -1."""
        steps = self._run_steps if begin < self._whole else self._run_rest
        places = tf.constant(begin), tf.constant(end)
        if self._teachers:
            of_epoch = of_epoch._replace(taught=self._teach(of_epoch, *places, self._arguments))
        # XLA reads or compiles a program in its first call, and writes of each that it reads that it is no text.
        with contextlib.nullcontext() if steps in self._called else without_noise():
            self._called.append(steps)
            return steps(of_epoch, *places, totals, self._arguments)  # type: ignore[misc]

    def _learn(self, steps: int, seconds: float) -> None:
        """Chooses the steps of the next call, after one that took `seconds` (some of it perhaps to compile).

        A call is at most four times as long as one before it.
        """
        aim = int(steps * SECONDS_A_CALL / max(seconds, 1e-6))
        self._learned_steps_a_call = max(1, min(aim, max(4 * steps, self._learned_steps_a_call)))

    def _steps(self, batch_size: int, of_epoch: OfEpoch, begin: tf.Tensor, end: tf.Tensor, totals: tf.Tensor,
               arguments: Arguments) -> tuple[tf.Tensor, tf.Tensor]:
        def goes_on(place: tf.Tensor, _: tf.Tensor, failed: tf.Tensor) -> tf.Tensor:
            return (place < end) & (failed < 0)

        def update(place: tf.Tensor, before: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            step = of_epoch.first_step + tf.cast(place, tf.int64)
            batch = self._batch(batch_size, of_epoch, place, step, arguments)
            gradients, sums = self._gradients(batch, Moment(arguments.seed, step, arguments.rates), arguments)
            sums = tf.stack(sums)
            # XLA updates a buffer in place only if every read of it is ordered before the write. Making the update
            # depend on `finite`, which depends on gradients and norms, creates that order; otherwise XLA copies all
            # weights at each step.
            finite = tf.reduce_all(tf.math.is_finite(sums))
            rate = tf.where(finite, of_epoch.learning_rates[place], 0.0)
            self._optimizer.apply(gradients, step, learning_rate=rate, weight_decay=arguments.weight_decay)
            self._averages.update(arguments.ema, step)
            return place + 1, before + tf.cast(sums, tf.float64), tf.where(finite, -1, place)

        return tf.while_loop(goes_on, update, (begin, totals, tf.constant(-1)))[1:]

    def _batch(self, batch_size: int, of_epoch: OfEpoch, place: tf.Tensor, step: tf.Tensor, arguments: Arguments
               ) -> Batch:
        """Batch number `place` of an epoch. XLA needs all batches in one shape, so the last one may repeat an image."""
        start = place * self._batch_size

        def rows(whole: tf.Tensor) -> tf.Tensor:
            return tf.slice(whole, [start, *[0] * (len(whole.shape) - 1)], [batch_size, *whole.shape[1:]])

        images = scale(augmentation.apply(rows(of_epoch.pixels), shift=arguments.shift, erase=arguments.erase,
                                          flip=self._recipe.flip, seed=arguments.seed, step=step))
        labels, real = rows(of_epoch.labels), tf.cast(start + tf.range(batch_size) < len(self._labels), tf.float32)
        batch = Batch(images, labels, real, count := tf.reduce_sum(real))
        if of_epoch.taught is not None:
            batch = batch._replace(taught=rows(of_epoch.taught))
        if of_epoch.shares is not None:
            shares, mixed = rows(of_epoch.shares), tf.cast(count, tf.int32)
            batch = batch._replace(images=augmentation.mix(images, shares, mixed), shares=shares,
                                   others=augmentation.next_row(labels, mixed))
        return batch

    def _gradients(self, batch: Batch, moment: Moment, arguments: Arguments) -> tuple[list[tf.Tensor], Sums]:
        """Gradients of the objective on a batch, and what it adds to the sums."""
        with tf.GradientTape() as tape:
            logits = self.network.forward(batch.images, moment)
            losses = batch.losses(logits, self.network.cross_entropy)
            loss, penalty = batch.mean(losses), self.network.penalty(arguments.rates, of_call=True)
            surplus = self._surplus(batch, logits, losses, arguments)
            total = loss + penalty if surplus is None else loss + penalty + surplus
        gradients = [None if gradient is None else tf.convert_to_tensor(gradient)  # some are IndexedSlices
                     for gradient in tape.gradient(total, self.network.variables)]
        size, count = self._norm([gradient for gradient in gradients if gradient is not None]), batch.count
        if arguments.clip_norm is not None:  # Pascanu et al. (2013), Algorithm 1
            factor = tf.minimum(1.0, arguments.clip_norm / size)
            gradients = [None if gradient is None else gradient * factor for gradient in gradients]
        surplus = 0.0 if surplus is None else surplus
        return gradients, Sums(count * loss, count * penalty, count * surplus, batch.hits(logits), count, size, 1.0)

    @staticmethod
    def _surplus(batch: Batch, logits: tf.Tensor, losses: tf.Tensor, arguments: Arguments) -> tf.Tensor | None:
        """The mean of what smoothed labels and teachers add to `losses`, a scalar; None without both."""
        extra = None
        if arguments.label_smoothing is not None:
            extra = objective.smoothing(losses, logits, arguments.label_smoothing)
        if batch.taught is not None:
            of_labels = losses if extra is None else losses + extra
            of_teachers = objective.distillation(batch.taught, logits, arguments.teacher_temperature)
            change = arguments.teacher_weight * (of_teachers - of_labels)
            extra = change if extra is None else extra + change
        return None if extra is None else batch.mean(extra)

    def _look(self, of_epoch: OfEpoch, begin: tf.Tensor, end: tf.Tensor, arguments: Arguments) -> tf.Tensor:
        """`taught` of an epoch for the steps [begin, end), zero elsewhere.

        It runs ahead of the steps and by TensorFlow's own kernels, which are several times as fast for convolutions.
        """
        def look(place: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            step = of_epoch.first_step + tf.cast(place, tf.int64)
            images = self._batch(self._batch_size, of_epoch, place, step, arguments).images
            logits = [teacher(images) for teacher in self._teachers]
            return place + 1, found.write(place, objective.probabilities(logits, arguments.teacher_temperature))

        empty = tf.TensorArray(tf.float32, self.steps_an_epoch, element_shape=(self._batch_size, CLASSES))
        found = tf.while_loop(lambda place, _: place < end, look, (begin, empty))[1]
        return tf.reshape(found.stack(), (-1, CLASSES))

    @staticmethod
    def _means(totals: tf.Tensor, weight_norm: float | None = None) -> EpochMeans:
        sums = Sums(*totals.numpy().tolist())
        return EpochMeans(sums.loss / sums.images, sums.penalty / sums.images, sums.hits / sums.images,
                          sums.gradient_norm / sums.updates, weight_norm, sums.surplus / sums.images)

    def variables(self) -> dict[str, tf.Variable]:
        """Everything that changes in training, by name: weights, moving statistics, optimizer slots, averages."""
        return {**self.weights(averaged=False), **self.network.state, **self._optimizer.state(),
                **{f"ema/{name}": variable for name, variable in self._averages.means.items()}}

    def weights(self, *, averaged: bool = True) -> dict[str, tf.Variable]:
        """The variables that a saved model holds, by path: with `ema`, their averages, unless these are not wanted."""
        own = {**dict(zip(self.network.names, self.network.variables)), **self.network.state}
        means = self._averages.means if averaged else {}
        return {name: means.get(name, own[name]) for name in self.network.weights}

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Within the block, the network has the weights that count (with `ema`, the averages), and so has its model."""
        with self._averages.in_place():
            self.network.sync()
            yield

    def augmented(self, count: int) -> np.ndarray | None:
        """The first `count` images of the first batch of training as the network sees them, (count, 784) uint8.

        None if the recipe changes no image.
        """
        recipe = self._recipe
        if not (recipe.shift or recipe.flip or recipe.erase or recipe.mixup):
            return None
        with without_noise():
            batch = self._batch(self._batch_size, self._of_epoch(0), tf.constant(0), tf.zeros((), tf.int64),
                                self._arguments)
        return tf.cast(tf.round(255.0 * batch.images[:count]), tf.uint8).numpy()


def norm(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Euclidean norm of all entries of `tensors`, a float32 scalar: `tf.linalg.global_norm`, but fast under XLA.

    XLA adds up a scalar one entry after another, and the entries of a vector side by side. So each tensor is reduced to
    a vector of 32 partial norms first (or fewer, if 32 does not divide its size).
    """
    return tf.linalg.global_norm([tf.norm(tf.reshape(tensor, (math.gcd(tensor.shape.num_elements(), 32), -1)), axis=0)
                                  for tensor in tensors])


def _no_sums() -> tf.Tensor:
    return tf.zeros(len(Sums._fields), tf.float64)
