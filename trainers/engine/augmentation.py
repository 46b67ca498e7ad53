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
        chance = _Chance(pixels.shape[0], seed, step)
        outside = None
        if self.erase:  # a square around any pixel, cut off at the border (DeVries and Taylor 2017)
            row, column = _grid()
            top, left = (chance(stream, SIDE) - amounts.erase // 2 for stream in (ERASE_ROW, ERASE_COLUMN))
            outside = (row < top) | (row >= top + amounts.erase) | (column < left) | (column >= left + amounts.erase)
        moves = {"flip": chance(FLIP, 2)} if self.flip else {}
        if self.shift:
            for name, stream in (("down", SHIFT_DOWN), ("right", SHIFT_RIGHT)):
                moves[name] = chance(stream, 2 * amounts.shift + 1) - amounts.shift
        return _moved(pixels, outside, **moves)


class _Chance(NamedTuple):
    """The chances of a batch of images at an update."""

    images: int
    seed: Any
    step: Any

    def __call__(self, stream: int, choices: Any) -> Any:
        """A whole number in [0, choices) for each image, (images, 1, 1) int32; its bias is below 2^-26."""
        word = randomness.words((self.images, 1, 1), seed=self.seed, step=self.step,
                                stream=randomness.AUGMENTATION + stream)
        return tf.cast(word % tf.cast(choices, tf.uint32), tf.int32)


def _grid() -> tuple[Any, Any]:
    """The row and the column of each pixel, int32, as (1, 28, 1) and (1, 1, 28)."""
    return tf.reshape(tf.range(SIDE), (1, SIDE, 1)), tf.reshape(tf.range(SIDE), (1, 1, SIDE))


def _moved(pixels: Any, seen: Any, *, flip: Any = None, down: Any = None, right: Any = None) -> Any:
    """Images (batch, 784) uint8 whose pixels are looked up elsewhere: `down` and `right` of their place, mirrored.

    Args:
        seen: the pixels that are not black in any case, (batch, 28, 28) bool; None for all.
        flip: 1 where an image is mirrored, 0 elsewhere, (batch, 1, 1) int32 or a number; so are `down` and `right`, in
            pixels. None: no image is moved that way.
    """
    if seen is None and flip is None and down is None:
        return pixels
    row, column = _grid()
    seen = tf.ones((1, 1, 1), tf.bool) if seen is None else seen
    if flip is not None:
        column = tf.where(tf.equal(flip, 1), SIDE - 1 - column, column)
    if down is not None:
        row, column = row + down, column + right
        seen &= (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE)
    count = pixels.shape[0]
    image = tf.reshape(tf.range(count), (count, 1, 1))
    place = tf.clip_by_value(image * (SIDE * SIDE) + row * SIDE + column, 0, count * SIDE * SIDE - 1)
    found = tf.gather(tf.reshape(pixels, (-1,)), place)
    return tf.reshape(tf.where(seen, found, tf.zeros((), tf.uint8)), (count, SIDE * SIDE))


def mix(rows: Any, shares: Any, count: Any) -> Any:
    """Mixup (Zhang et al. 2018): each row of a batch with the next one, the last with the first.

    Args:
        rows: (batch, n) float32, of which the first `count` are of real images.
        shares: of each image in its mixture, (batch,) float32 in [0, 1].
    """
    return shares[:, None] * rows + (1 - shares[:, None]) * next_row(rows, count)


def next_row(rows: Any, count: Any) -> Any:
    """Of each image the row of that which it is mixed with; `rows` as in `mix`, of any type and shape."""
    place = tf.range(rows.shape[0])
    return tf.gather(rows, tf.where(place + 1 < count, place + 1, 0))


def shares_of_mixup(recipe: Recipe, images: int, *, seed: int, epoch: int) -> np.ndarray:
    """The share of each image of an epoch in its mixture, (images,) float32; empty without mixup."""
    if not recipe.mixup:
        return np.zeros(0, np.float32)
    random = np.random.default_rng([seed, epoch, 1])  # the order of images is of [seed, epoch]
    return random.beta(recipe.mixup, recipe.mixup, images).astype(np.float32)
