"""Augmentation inside the compiled step: each image is shifted, flipped, erased and mixed by chance, at each update.

All chances are functions of (seed, step, place in the batch), so a resumed run sees the same images. Shifts, flips and
erased squares are one look-up of each pixel; nothing is stored.
"""

from __future__ import annotations

from fmnist_zoo.backend import tf
from trainers.engine import randomness

SIDE = 28
SHIFT_DOWN, SHIFT_RIGHT, FLIP, ERASE_ROW, ERASE_COLUMN = range(5)  # streams of random numbers


def apply(pixels: tf.Tensor, *, shift: tf.Tensor | None, flip: bool, erase: tf.Tensor | None, seed: tf.Tensor,
          step: tf.Tensor) -> tf.Tensor:
    """The images of a batch, shifted, flipped and erased: (batch, 784) uint8 of (batch, 784) uint8.

    Args:
        shift: the most pixels, both ways, int32; None: none is shifted.
        flip: whether half of them are mirrored, left to right.
        erase: the side of the square, in pixels, int32; None: nothing is erased.
    """
    if shift is None and not flip and erase is None:
        return pixels
    count = pixels.shape[0]

    def chance(stream: int, choices: tf.Tensor) -> tf.Tensor:
        """A whole number in [0, choices) for each image, (batch, 1, 1) int32; its bias is below 2^-26."""
        word = randomness.words((count, 1, 1), seed=seed, step=step, stream=randomness.AUGMENTATION + stream)
        return tf.cast(word % tf.cast(choices, tf.uint32), tf.int32)

    row, column = tf.reshape(tf.range(SIDE), (1, SIDE, 1)), tf.reshape(tf.range(SIDE), (1, 1, SIDE))
    seen = tf.ones((1, 1, 1), tf.bool)
    if erase is not None:  # a square around any pixel, cut off at the border (DeVries and Taylor 2017)
        top, left = (chance(stream, SIDE) - erase // 2 for stream in (ERASE_ROW, ERASE_COLUMN))
        seen &= (row < top) | (row >= top + erase) | (column < left) | (column >= left + erase)
    if flip:
        column = tf.where(tf.equal(chance(FLIP, 2), 1), SIDE - 1 - column, column)
    if shift is not None:
        row += chance(SHIFT_DOWN, 2 * shift + 1) - shift
        column += chance(SHIFT_RIGHT, 2 * shift + 1) - shift
        seen &= (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE)
    image = tf.reshape(tf.range(count), (count, 1, 1))
    place = tf.clip_by_value(image * (SIDE * SIDE) + row * SIDE + column, 0, count * SIDE * SIDE - 1)
    found = tf.gather(tf.reshape(pixels, (-1,)), place)
    return tf.reshape(tf.where(seen, found, tf.zeros((), tf.uint8)), (count, SIDE * SIDE))


def mix(rows: tf.Tensor, shares: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Mixup (Zhang et al. 2018): each row of a batch with the next one, the last with the first.

    Args:
        rows: (batch, n) float32, of which the first `count` are of real images.
        shares: of each image in its mixture, (batch,) float32 in [0, 1].
    """
    return shares[:, None] * rows + (1 - shares[:, None]) * next_row(rows, count)


def next_row(rows: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Of each image the row of that which it is mixed with; `rows` as in `mix`, of any type and shape."""
    place = tf.range(rows.shape[0])
    return tf.gather(rows, tf.where(place + 1 < count, place + 1, 0))
