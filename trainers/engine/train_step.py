"""The same loop in Keras' own form: a `keras.Model` with a `train_step`, which `fit` calls for each batch.

Read it beside `lowlevel`, where all of it is written out, and `loop`, which the commands run. No command uses this
page; a test trains it to the numbers of `loop`.
"""

from __future__ import annotations

import numpy as np

from fmnist_zoo import models
from fmnist_zoo.backend import keras, tf
from fmnist_zoo.data import Split
from fmnist_zoo.spec import ModelSpec, Recipe
from trainers.engine.epoch import epoch_order


class Classifier(keras.Model):
    """Made by `Classifier(pixels, logits)`, as any functional model; `fit` works once it is compiled."""

    def __init__(self, *tensors: keras.KerasTensor, **options: str):
        super().__init__(*tensors, **options)
        self.mean_loss = keras.metrics.Mean(name="loss")
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One update, on images (batch, 784) float32 in [0, 1] and labels (batch,); returns the means so far."""
        images, labels = data
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            objective = tf.reduce_mean(losses) + sum(self.losses)  # the layers' L1 and L2
        self.optimizer.apply(tape.gradient(objective, self.trainable_variables), self.trainable_variables)
        self.mean_loss.update_state(losses)
        self.accuracy.update_state(labels, logits)
        return {metric.name: metric.result() for metric in (self.mean_loss, self.accuracy)}


def train(spec: ModelSpec, recipe: Recipe, split: Split, *, seed: int) -> tuple[Classifier, list[dict[str, float]]]:
    """A model of the zoo, trained by Adam on batches in the order of `loop`; also the means of each epoch."""
    built = models.build(spec, seed)
    model = Classifier(built.inputs[0], built.outputs[0])
    model.compile(keras.optimizers.Adam(recipe.learning_rate))
    images, rows = split.images.astype(np.float32) / 255, []
    for epoch in range(recipe.epochs):
        order = epoch_order(len(split.labels), seed=seed, epoch=epoch)
        history = model.fit(images[order], split.labels[order].astype(np.int32), batch_size=recipe.batch_size,
                            shuffle=False, verbose=0).history
        rows.append({name: values[0] for name, values in history.items()})
    return model, rows
