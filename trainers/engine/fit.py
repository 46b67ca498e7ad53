"""The same run through `Model.fit`: Keras' own layers, loss, optimizers and loop.

It visits the images in the order of our loop, and reports loss and penalty apart. The dropout masks are Keras' own:
with dropout, its numbers agree with those of our loop statistically, not digit by digit. It gives no gradient norms.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from typing import Sequence

import numpy as np

from fmnist_zoo.backend import keras, tf
from fmnist_zoo.data import Split
from fmnist_zoo.spec import CLASSES, Recipe
from trainers.engine import optimizers, schedule
from trainers.engine.epoch import EpochMeans, NonFiniteError, OnPart, epoch_order
from trainers.engine.network import Network, make_predictor


def make_optimizer(recipe: Recipe, variables: Sequence[keras.Variable] = (), is_kernel: Sequence[bool] = ()
                   ) -> keras.Optimizer:
    """The Keras optimizer of a recipe. Of a model's trainable Keras `variables`, the kernels alone decay."""
    options: dict[str, float] = {}
    if recipe.weight_decay or recipe.optimizer == "adamw":  # no decay is None in Keras, but AdamW refuses None
        options["weight_decay"] = recipe.weight_decay
    if recipe.clip_norm:
        options["global_clipnorm"] = recipe.clip_norm
    optimizer = optimizers.make_keras(recipe, **options)
    optimizer.exclude_from_weight_decay(
        var_list=[variable for variable, kernel in zip(variables, is_kernel, strict=True) if not kernel])
    return optimizer


class FitEngine:
    """Trains the model of a network by one `Model.fit` an epoch; the rest is as in `TapeEngine`."""

    idle: Sequence[str] = ()

    def __init__(self, network: Network, recipe: Recipe, split: Split, *, batch_size: int, seed: int,
                 jit_compile: bool | str = "auto"):
        model = self._model = network.model
        self.network, self.predict, self._recipe = network, make_predictor(network), recipe
        self._batch_size, self._seed = batch_size, seed
        self._images = split.images.astype(np.float32) / np.float32(255)
        self._images, self._labels = self._images.reshape(-1, *network.shape), split.labels
        self.steps_an_epoch = -(-len(split.labels) // batch_size)
        optimizer = make_optimizer(recipe, model.trainable_variables, network.is_kernel)
        optimizer.build(model.trainable_variables)
        # Keras smooths one-hot labels alone, and the loss that is minimised includes the penalty. So both are metrics.
        smoothing = recipe.label_smoothing
        whole = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics = [keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
                   keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

        def smoothed(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            one_hot = tf.one_hot(tf.cast(tf.reshape(labels, (-1,)), tf.int32), CLASSES)
            return keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True, label_smoothing=smoothing)

        if smoothing:
            metrics.append(keras.metrics.MeanMetricWrapper(smoothed, name="smoothed"))
        model.compile(optimizer=optimizer, loss=smoothed if smoothing else whole, metrics=metrics,
                      jit_compile=jit_compile)

    def set_learning_rate(self, rate: float) -> None:
        """The constant learning rate of the epochs that follow."""
        self._recipe = dataclasses.replace(self._recipe, learning_rate=rate)

    def learning_rate(self, epoch: int) -> float:
        """That of the last update of epoch number `epoch`, 0 the first."""
        return schedule.last_learning_rate(self._recipe, steps_an_epoch=self.steps_an_epoch, epoch=epoch)

    def run_epoch(self, epoch: int, on_part: OnPart | None = None) -> EpochMeans:
        """Runs epoch number `epoch` (0 is the first); calls `on_part` every 100 steps.

        Raises:
            NonFiniteError: as soon as the running loss is not finite; that update was applied.
        """
        order = epoch_order(len(self._labels), seed=self._seed, epoch=epoch)
        rates = schedule.learning_rates(self._recipe, steps_an_epoch=self.steps_an_epoch, epoch=epoch)
        first_step = epoch * self.steps_an_epoch
        last: dict[str, float] = {}

        def on_batch_begin(batch: int, logs: dict[str, float] | None) -> None:
            self._model.optimizer.learning_rate = rates[batch]

        def on_batch_end(batch: int, logs: dict[str, float]) -> None:
            if not np.isfinite(logs["loss"]):
                raise NonFiniteError(first_step + batch)
            last.update(logs)
            if on_part and (batch + 1) % 100 == 0:
                on_part(batch + 1, self._means(last))

        batches = tf.data.Dataset.from_tensor_slices((self._images[order], self._labels[order])).batch(self._batch_size)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist")  # the run has a note of them
            self._model.fit(batches, epochs=epoch + 1, initial_epoch=epoch, shuffle=False, verbose=0,
                            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_begin=on_batch_begin,
                                                                      on_train_batch_end=on_batch_end)])
        return self._means(last)

    def _means(self, logs: dict[str, float]) -> EpochMeans:
        minimised = logs.get("smoothed", logs["cross_entropy"])
        penalty = logs["loss"] - minimised if self._model.losses else 0.0
        return EpochMeans(float(logs["cross_entropy"]), float(penalty), float(logs["accuracy"]),
                          surplus=float(minimised - logs["cross_entropy"]))

    def variables(self) -> dict[str, keras.Variable]:
        """Everything that changes in training: weights, the seed states of dropout, the optimizer's variables.

        They are numbered, because Keras' names depend on what was built before in the process.
        """
        everything = [*self._model.variables, *self._model.optimizer.variables]
        return {f"{place:03d}": variable for place, variable in enumerate(everything)}

    def weights(self, *, averaged: bool = True) -> dict[str, tf.Variable]:
        """The variables that a saved model holds, by path."""
        return {name: variable.value for name, variable in zip(self.network.weights, self._model.weights)}

    def counting(self) -> contextlib.AbstractContextManager[None]:
        """The network always has the weights that count."""
        return contextlib.nullcontext()

    def augmented(self, count: int) -> None:
        """`Model.fit` changes no image."""
