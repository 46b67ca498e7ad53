"""Augmentation inside the compiled step: each image is shifted, flipped, erased and mixed by chance, at each update.

All chances are functions of (seed, step, place in the batch), so a resumed run sees the same images. Shifts, flips and
erased squares are one look-up of each pixel; nothing is stored.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from fmnist_zoo.backend import tf
from fmnist_zoo.spec import Recipe
from trainers.engine import randomness

SIDE = 28
SHIFT_DOWN, SHIFT_RIGHT, FLIP, ERASE_ROW, ERASE_COLUMN = range(5)  # streams of random numbers


class Amounts(NamedTuple):
    """How much, as int32 tensors: `shift` in pixels, `erase` the side of a square in pixels."""

    shift: Any
    erase: Any


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Which augmentations are on."""

    shift: bool = False
    flip: bool = False
    erase: bool = False
    mixup: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> Augmentation:
        return cls(recipe.shift > 0, recipe.flip, recipe.erase > 0, recipe.mixup > 0)

    def apply(self, pixels: Any, amounts: Amounts, *, seed: Any, step: Any) -> Any:
        """The images of a batch, shifted, flipped and erased: (batch, 784) uint8 of (batch, 784) uint8."""
        if not (self.shift or self.flip or self.erase):
            return pixels
        count = pixels.shape[0]

        def chance(stream: int, choices: Any) -> Any:
            """A whole number in [0, choices) for each image, (batch, 1, 1) int32; its bias is below 2^-26."""
            word = randomness.words((count, 1, 1), seed=seed, step=step, stream=randomness.AUGMENTATION + stream)
            return tf.cast(word % tf.cast(choices, tf.uint32), tf.int32)

        row, column = tf.reshape(tf.range(SIDE), (1, SIDE, 1)), tf.reshape(tf.range(SIDE), (1, 1, SIDE))
        seen = tf.ones((1, 1, 1), tf.bool)
        if self.erase:  # a square around any pixel, cut off at the border (DeVries and Taylor 2017)
            top = chance(ERASE_ROW, SIDE) - amounts.erase // 2
            left = chance(ERASE_COLUMN, SIDE) - amounts.erase // 2
            inside = (row >= top) & (row < top + amounts.erase) & (column >= left) & (column < left + amounts.erase)
            seen &= ~inside
        if self.flip:
            column = tf.where(chance(FLIP, 2) == 1, SIDE - 1 - column, column)
        if self.shift:
            row = row + chance(SHIFT_DOWN, 2 * amounts.shift + 1) - amounts.shift
            column = column + chance(SHIFT_RIGHT, 2 * amounts.shift + 1) - amounts.shift
            seen &= (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE)
        image = tf.reshape(tf.range(count), (count, 1, 1))
        place = tf.clip_by_value(image * (SIDE * SIDE) + row * SIDE + column, 0, count * SIDE * SIDE - 1)
        found = tf.gather(tf.reshape(pixels, (-1,)), place)
        return tf.reshape(tf.where(seen, found, tf.zeros((), tf.uint8)), (count, SIDE * SIDE))


def mix(images: Any, labels: Any, shares: Any, count: Any) -> tuple[Any, Any]:
    """Mixup (Zhang et al. 2018): each image with the next one of the batch, the last with the first.

    Args:
        images: (batch, 784) float32, of which the first `count` are real.
        labels: (batch,) int32.
        shares: of each image in its mixture, (batch,) float32 in [0, 1].

    Returns:
        The mixtures, and the labels of the other images.
    """
    place = tf.range(images.shape[0])
    other = tf.where(place + 1 < count, place + 1, 0)
    share = shares[:, None]
    return share * images + (1 - share) * tf.gather(images, other), tf.gather(labels, other)


def shares_of_mixup(recipe: Recipe, images: int, *, seed: int, epoch: int) -> np.ndarray:
    """The share of each image of an epoch in its mixture, (images,) float32; empty without mixup."""
    if not recipe.mixup:
        return np.zeros(0, np.float32)
    random = np.random.default_rng([seed, epoch, 1])  # the order of images is of [seed, epoch]
    return random.beta(recipe.mixup, recipe.mixup, images).astype(np.float32)
