"""The features before a model's last layer, for TensorBoard's projector: points, labels, and images as a sprite."""

from __future__ import annotations

import csv
import pathlib
from typing import TYPE_CHECKING

from google.protobuf import text_format
from tensorboard.plugins.projector import projector_config_pb2

from fmnist_zoo import models, prediction
from fmnist_zoo.data import Split, stratified_sample
from fmnist_zoo.files import atomic_write
from fmnist_zoo.spec import CLASS_NAMES
from trainers.board import pictures

if TYPE_CHECKING:
    import keras

POINTS = 2000


def write(folder: pathlib.Path, model: keras.Model, split: Split) -> None:
    """Writes the projector's files and its configuration; TensorBoard shows them only if `folder` holds events.

    The images are always the same: at most `POINTS` of `split`, the same share of each class.
    """
    images, labels = stratified_sample(split, POINTS)
    pixels = prediction.as_pixels(images)
    features = prediction.outputs_of(models.feature_model(model), pixels).reshape(len(pixels), -1)
    predicted = prediction.outputs_of(model, pixels).argmax(axis=1)
    with atomic_write(folder / "features.tsv", "w") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(
            [f"{value:.5g}" for value in row] for row in features.tolist())
    with atomic_write(folder / "labels.tsv", "w") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("class", "predicted", "right"))
        writer.writerows((CLASS_NAMES[label], CLASS_NAMES[guess], "yes" if label == guess else "no")
                         for label, guess in zip(labels, predicted))
    with atomic_write(folder / "sprite.png") as file:
        file.write(pictures.png(pictures.sprite(images)))
    config = projector_config_pb2.ProjectorConfig()
    embedding = config.embeddings.add(tensor_name="features", tensor_path="features.tsv", metadata_path="labels.tsv")
    embedding.tensor_shape.extend(features.shape)
    embedding.sprite.image_path = "sprite.png"
    embedding.sprite.single_image_dim.extend((28, 28))
    with atomic_write(folder / "projector_config.pbtxt", "w") as file:
        file.write(text_format.MessageToString(config))
