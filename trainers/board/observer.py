"""What a run tells TensorBoard, and when: the content of its events."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any, Mapping

import numpy as np

from fmnist_zoo import custom, metrics
from fmnist_zoo.backend import keras, tf
from fmnist_zoo.data import Split
from fmnist_zoo.spec import CLASS_NAMES
from trainers.board import events, hparams, pictures, texts
from trainers.config import RunConfig
from trainers.engine.network import Network, scale
from trainers.metrics_table import FULL_BATCH, RUN, SELECTED, TRAIN, Row, scalars

GRADIENT_PROBE = 1000
WORST = 24


class Observer:
    """Writes a run's events.

    Args:
        probe: training images; the histograms show gradients on the first of them, with dropout off.
        validation: the images that the pictures are about; may be empty.
        replay: the command that trains this run again.
        sweep: of a trial, as of `hparams.hyperparameters`, and the `objective` of its sweep.
    """

    def __init__(self, folder: pathlib.Path, config: RunConfig, network: Network, probe: Split, validation: Split, *,
                 replay: str, sweep: Mapping[str, Any] | None = None):
        self._folder, self._config, self._network, self._validation = folder, config, network, validation
        self._probe = Split(probe.images[:GRADIENT_PROBE], probe.labels[:GRADIENT_PROBE])
        self._replay, self._sweep = replay, sweep
        self._settings, self._run = events.EventWriter(folder), events.EventWriter(folder, events.CURVES)
        self._train = events.EventWriter(folder / "train")

    def start(self, model: keras.Model, batch_size: int, augmented: np.ndarray | None) -> None:
        """Before the first epoch of a run: HParams, the model's card, and its graphs.

        Also the `augmented` images, (n, 784) uint8, if there are some.
        """
        self._settings.summary(hparams.session_start(self._folder, self._config, batch_size, self._sweep), 0)
        self._settings.text("settings", texts.model(self._config, self._replay))
        images = tf.TensorSpec((None, *custom.input_shape(model)), tf.float32, name="images")
        traced = tf.function(lambda images: tf.identity(model(images), name="logits"), autograph=False)
        self._settings.graph(traced.get_concrete_function(images).graph.as_graph_def())
        with contextlib.suppress(Exception):  # Keras raises anything for a layer that it cannot describe
            self._settings.keras_graph(model.to_json())
        if augmented is not None:
            self._settings.image("pictures/augmented", pictures.sheet(augmented, columns=6), 0,
                                 description="training images of the first batch as the network sees them")

    def epoch(self, row: Row, validation_logits: np.ndarray) -> None:
        """After an epoch: scalars, and every `histogram_epochs` epochs histograms and pictures."""
        place = row["epoch"]
        if not self._config.spec.name.startswith(FULL_BATCH):
            row = {**row, "val_rounded_accuracy": None}
        training, validation = scalars(row, TRAIN), scalars(row, RUN)
        if self._config.ranking:  # a trial is one row: what both measure is of validation
            training, validation = {}, {**training, **validation}
        self._train.scalars(training, place)
        self._run.scalars(validation, place)
        every = self._config.histogram_epochs
        if every and row["epoch"] % every == 0:
            self._histograms(place)
            self._pictures(validation_logits, place)

    def selected(self, row: Row, ranking: dict[str, float], seconds: float, place: int) -> None:
        """What the HParams tab shows, which takes the last values: of the weights that count so far.

        TensorBoard draws all scalars. So these are curves, not one dot each at the end.

        Args:
            row: of the epoch that these weights are from.
            ranking: of a trial: `ranking_loss` and `ranking_accuracy`.
            seconds: of training, so far.
        """
        if not texts.worse_than_chance(row):  # it would flatten all axes of the HParams tab
            objective = ranking[self._sweep["objective"]] if ranking and self._sweep else None
            row = {**row, "ranking": objective, "total_seconds": seconds}
            self._run.scalars(scalars(row, RUN, SELECTED), place)

    def finish(self, result: dict[str, Any], row: Row, validation_logits: np.ndarray) -> None:
        """At the end, with the selected weights in the network: their metrics and pictures, the result as text.

        HParams shows success, or failure if the run ended worse than chance. The events are then synced.

        Args:
            result: the content of `result.json`.
            row: of the epoch that these weights are from.
        """
        final, place = result["final"], result["epochs"]
        if final["epoch"] != place:  # else it was said after that epoch
            self.selected(row, final, result["seconds"], place)
        every = self._config.histogram_epochs
        if every and (final["epoch"] != place or place % every):  # else they were drawn after the last epoch
            self._pictures(validation_logits, place)
        problem = texts.worse_than_chance(final)
        text = texts.result(self._config, result, validation_logits, self._validation.labels, self._replay)
        self._run.text("result", text, place)
        self._run.summary(hparams.session_end(success=not problem), place)
        self.sync()

    def fail(self, epoch: int, error: Exception) -> None:
        """After an error, such as a loss of NaN, when so many epochs were done: failure in HParams."""
        self._run.text("result", texts.failure(self._config, error, self._replay), epoch)
        self._run.summary(hparams.session_end(success=False), epoch)

    def flush(self) -> None:
        for writer in (self._settings, self._run, self._train):
            writer.flush()

    def sync(self) -> None:
        """Waits until the disk holds all events: a checkpoint notes the lengths of their files."""
        for writer in (self._settings, self._run, self._train):
            writer.sync()

    def close(self) -> None:
        """Closes all files, though the disk may not take what is left for one of them."""
        with contextlib.ExitStack() as stack:
            for writer in (self._settings, self._run, self._train):
                stack.callback(writer.close)

    def _histograms(self, place: int) -> None:
        """Weights, and gradients of the objective on the probe."""
        with tf.GradientTape() as tape:
            logits = self._network.forward(scale(tf.constant(self._probe.images)), of_twin=True)
            loss = tf.reduce_mean(self._network.cross_entropy(tf.cast(self._probe.labels, tf.int32), logits))
            objective = loss + self._network.penalty(self._network.rates, of_call=True)
        gradients = tape.gradient(objective, self._network.variables)
        for name, variable, gradient in zip(self._network.names, self._network.variables, gradients):
            self._run.histogram(f"weights/{name}", variable.numpy(), place)
            if gradient is not None:
                self._run.histogram(f"gradients/{name}", tf.convert_to_tensor(gradient).numpy(), place)

    def _pictures(self, logits: np.ndarray, place: int) -> None:
        """The pictures of an epoch; the last ones of a run are of the selected weights."""
        kernel = self._network.variables[0].numpy() if self._network.variables else np.empty(0)
        if pictures.of_pixels(kernel):
            self._run.image("pictures/first_layer", pictures.first_layer(kernel), place, description="weights of the "
                            "first layer's first 100 units or filters: red positive, blue negative")
        labels = self._validation.labels
        if not len(labels):
            return
        matrix = metrics.confusion_matrix(logits, labels)
        self._run.image("pictures/confusion", pictures.confusion(matrix), place,
                        description="validation images by true and predicted class: " + ", ".join(CLASS_NAMES))
        losses = metrics.cross_entropy(logits, labels)
        chosen = np.argsort(-losses, kind="stable")[:WORST]
        predicted = logits[chosen].argmax(axis=1)
        sheet = pictures.worst(self._validation.images[chosen], labels[chosen], predicted, losses[chosen])
        self._run.image("pictures/worst", sheet, place, description="the validation images with the largest loss: "
                        "true class, then predicted class and loss in nats")
