"""The same run through `Model.fit`: Keras' own layers, loss, optimizers and loop.

It visits the images in the order of our loop, and reports loss and penalty apart. The dropout masks are Keras' own:
with dropout, its numbers agree with those of our loop statistically, not digit by digit. It gives no gradient norms.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fmnist_zoo.backend import keras, tf
from fmnist_zoo.spec import OPTIMIZERS, Recipe
from trainers.engine.epoch import EpochMeans, NonFiniteError, OnPart, epoch_order
from trainers.engine.optimizers import MOMENTUM


def make_optimizer(recipe: Recipe) -> Any:
    """The Keras optimizer of a recipe; kernels decay, biases do not."""
    options: dict[str, Any] = {"momentum": MOMENTUM} if recipe.optimizer == "momentum" else {}
    if recipe.weight_decay or recipe.optimizer == "adamw":  # no decay is None in Keras, but AdamW refuses None
        options["weight_decay"] = recipe.weight_decay
    make = getattr(keras.optimizers, OPTIMIZERS[recipe.optimizer].keras_class)
    optimizer = make(learning_rate=recipe.learning_rate, **options)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


class FitEngine:
    """Trains a Keras model of the zoo by one `Model.fit` an epoch; the other arguments are those of `TapeEngine`."""

    def __init__(self, model: Any, recipe: Recipe, images: np.ndarray, labels: np.ndarray, *,
                 batch_size: int, seed: int):
        self._model, self._batch_size, self._seed = model, batch_size, seed
        self._images, self._labels = images.astype(np.float32) / np.float32(255), labels
        self.steps_an_epoch = -(-len(labels) // batch_size)
        optimizer = make_optimizer(recipe)
        optimizer.build(model.trainable_variables)
        model.compile(
            optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
                     keras.metrics.SparseCategoricalAccuracy(name="accuracy")])

    def run_epoch(self, epoch: int, on_part: OnPart | None = None) -> EpochMeans:
        """Runs epoch number `epoch` (0 is the first); calls `on_part` every 100 steps.

        Raises:
            NonFiniteError: as soon as the running loss is not finite; that update was applied.
        """
        order = epoch_order(len(self._labels), seed=self._seed, epoch=epoch)
        first_step = epoch * self.steps_an_epoch
        last: dict[str, float] = {}

        def on_batch_end(batch: int, logs: dict[str, float]) -> None:
            if not np.isfinite(logs["loss"]):
                raise NonFiniteError(first_step + batch)
            last.update(logs)
            if on_part and (batch + 1) % 100 == 0:
                on_part(batch + 1, self._means(last))

        batches = tf.data.Dataset.from_tensor_slices((self._images[order], self._labels[order])).batch(self._batch_size)
        self._model.fit(batches, epochs=epoch + 1, initial_epoch=epoch, shuffle=False, verbose=0,
                        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=on_batch_end)])
        return self._means(last)

    def _means(self, logs: dict[str, float]) -> EpochMeans:
        penalty = logs["loss"] - logs["cross_entropy"] if self._model.losses else 0.0
        return EpochMeans(float(logs["cross_entropy"]), float(penalty), float(logs["accuracy"]))

    def variables(self) -> dict[str, Any]:
        """Everything that changes in training: weights, the seed states of dropout, the optimizer's variables.

        They are numbered, because Keras' names depend on what was built before in the process.
        """
        everything = [*self._model.variables, *self._model.optimizer.variables]
        return {f"{place:03d}": variable for place, variable in enumerate(everything)}
