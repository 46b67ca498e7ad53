"""The features before a model's last layer, for TensorBoard's projector: points, labels, and images as a sprite."""

from __future__ import annotations

import csv
import pathlib

import numpy as np
from google.protobuf import text_format
from tensorboard.plugins.projector import projector_config_pb2

from fmnist_zoo.data import Split, stratified_mask
from fmnist_zoo.files import atomic_write
from fmnist_zoo.spec import CLASS_NAMES
from trainers.board import pictures

POINTS = 2000


def points(split: Split) -> Split:
    """The images to show: at most `POINTS`, the same share of each class, always the same images."""
    mask = stratified_mask(split.labels, min(POINTS, len(split.labels)))
    return Split(split.images[mask], split.labels[mask])


def write(folder: pathlib.Path, features: np.ndarray, shown: Split, predicted: np.ndarray) -> None:
    """Writes the projector's files and its configuration.

    Args:
        folder: where to; TensorBoard shows it only if it holds events.
        features: (n, units) float32, of the images `shown`.
        predicted: (n,) predicted classes.
    """
    with atomic_write(folder / "features.tsv", "w") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(
            [f"{value:.5g}" for value in row] for row in features.tolist())
    with atomic_write(folder / "labels.tsv", "w") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("class", "predicted", "right"))
        writer.writerows((CLASS_NAMES[label], CLASS_NAMES[guess], "yes" if label == guess else "no")
                         for label, guess in zip(shown.labels, predicted))
    with atomic_write(folder / "sprite.png") as file:
        file.write(pictures.png(pictures.sprite(shown.images)))
    config = projector_config_pb2.ProjectorConfig()
    embedding = config.embeddings.add(tensor_name="features", tensor_path="features.tsv", metadata_path="labels.tsv")
    embedding.tensor_shape.extend(features.shape)
    embedding.sprite.image_path = "sprite.png"
    embedding.sprite.single_image_dim.extend((28, 28))
    with atomic_write(folder / "projector_config.pbtxt", "w") as file:
        file.write(text_format.MessageToString(config))
