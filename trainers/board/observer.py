"""What a run tells TensorBoard, and when: the content of its events."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from fmnist_zoo import building, card, metrics
from fmnist_zoo.backend import tf
from fmnist_zoo.data import Split
from fmnist_zoo.spec import CLASS_NAMES
from trainers.board import events, hparams, pictures
from trainers.config import RunConfig
from trainers.engine.epoch import EpochMeans
from trainers.engine.network import Network, scale

GRADIENT_PROBE = 1000
WORST = 24


class Observer:
    """Writes a run's events.

    Args:
        probe: training images; the histograms show gradients on the first of them, with dropout off.
        validation: the images that the pictures are about; may be empty.
    """

    def __init__(self, folder: pathlib.Path, config: RunConfig, network: Network, probe: Split, validation: Split):
        self._config, self._network, self._validation = config, network, validation
        self._probe = Split(probe.images[:GRADIENT_PROBE], probe.labels[:GRADIENT_PROBE])
        self._writers = [events.EventWriter(folder / name) for name in events.WRITERS]
        self._run, self._train, self._valid = self._writers

    def start(self, model: Any, *, batch_size: int, replay: str, augmented: np.ndarray | None = None) -> None:
        """Before the first epoch of a run: HParams, the model's card with the command `replay`, and the graph.

        Also the `augmented` images, (n, 784) uint8, if there are some.
        """
        self._run.summary(hparams.session_start(hparams.hyperparameters(self._config, batch_size)), 0)
        text = f"```\n{card.card(self._config.spec, self._config.recipe)}\n```\n\nreplay it\n\n```\n{replay}\n```\n"
        self._run.text("model", text)
        images = tf.TensorSpec((None, *building.input_shape(model)), tf.float32)
        graph = tf.function(model).get_concrete_function(images).graph
        if augmented is not None:
            self._train.image("augmented", pictures.sheet(augmented, columns=6), 0,
                              description="training images of the first batch as the network sees them")
        self._run.graph(graph.as_graph_def().SerializeToString())

    def epoch(self, row: dict[str, Any], means: EpochMeans, validation_logits: np.ndarray) -> None:
        """After an epoch: scalars, and every `histogram_every` epochs histograms and pictures.

        `row` is the epoch's row of `metrics.csv`.
        """
        step = row["step"]
        of_training = ("loss", "penalty", "objective", "accuracy", "loss_eval", "accuracy_eval")
        self._train.scalars({name: row[f"train_{name}"] for name in of_training}, step)
        self._train.scalars({name: row[name] for name in ("epoch", "learning_rate", "images_per_second")}, step)
        if means.gradient_norm is not None and means.weight_norm is not None:
            self._train.scalars({"norm/gradient": means.gradient_norm, "norm/weight": means.weight_norm}, step)
        if row["validation_loss"] is not None:
            of_validation = ("loss", "penalty", "accuracy", "rounded_accuracy")
            self._valid.scalars({name: row[f"validation_{name}"] for name in of_validation}, step)
            self._valid.scalars({"objective": row["validation_loss"] + row["validation_penalty"]}, step)
        every = self._config.histogram_every
        if every and row["epoch"] % every == 0:
            self._histograms(step)
            self._pictures(validation_logits, step)

    def finish(self, final: dict[str, float], validation_logits: np.ndarray, step: int) -> None:
        """At the end, with the weights that count in the network: their metrics, pictures, and success in HParams."""
        self._run.scalars({f"final/{name}": value for name, value in final.items()}, step)
        if self._config.histogram_every:
            self._pictures(validation_logits, step, suffix="_final")
        self._run.summary(hparams.session_end(success=True), step)

    def fail(self, step: int) -> None:
        """After an error, such as a loss of NaN: failure in HParams."""
        self._run.summary(hparams.session_end(success=False), step)

    def flush(self) -> None:
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    def _histograms(self, step: int) -> None:
        """Weights, and gradients of the objective on the probe."""
        with tf.GradientTape() as tape:
            logits = self._network.forward(scale(tf.constant(self._probe.images)))
            loss = tf.reduce_mean(self._network.cross_entropy(tf.cast(self._probe.labels, tf.int32), logits))
            objective = loss + self._network.penalty(self._network.rates)
        gradients = tape.gradient(objective, self._network.variables)
        for name, variable, gradient in zip(self._network.names, self._network.variables, gradients):
            self._train.histogram(f"weights/{name}", variable.numpy(), step)
            if gradient is not None:
                self._train.histogram(f"gradients/{name}", gradient.numpy(), step)

    def _pictures(self, logits: np.ndarray, step: int, suffix: str = "") -> None:
        kernel = next((variable.numpy() for name, variable in zip(self._network.names, self._network.variables)
                       if not name.startswith("input_")), np.empty(0))
        if pictures.of_pixels(kernel):
            self._train.image(f"first_layer{suffix}", pictures.first_layer(kernel), step, description="weights of the "
                              "first layer's first 100 units or filters: red positive, blue negative")
        labels = self._validation.labels
        if not len(labels):
            return
        matrix = metrics.confusion_matrix(logits, labels)
        self._valid.image(f"confusion{suffix}", pictures.confusion(matrix), step,
                          description="validation images by true and predicted class: " + ", ".join(CLASS_NAMES))
        losses = metrics.cross_entropy(logits, labels)
        chosen = np.argsort(-losses, kind="stable")[:WORST]
        predicted = logits[chosen].argmax(axis=1)
        sheet = pictures.worst(self._validation.images[chosen], labels[chosen], predicted, losses[chosen])
        self._valid.image(f"worst{suffix}", sheet, step, description="the validation images with the largest loss: "
                          "true class, then predicted class and loss in nats")
