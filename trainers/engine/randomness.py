"""Random numbers as functions of (seed, step, stream) and of a place, without state: so a resumed run equals an
uninterrupted one.

A counter-based generator (Salmon et al. 2011). XLA computes its bits in registers where they are used; with Philox an
epoch takes a sixth longer. Dropout layers have the streams 0, 1, ...; augmentations have those from `AUGMENTATION` on.
"""

from __future__ import annotations

from typing import Sequence

from fmnist_zoo.backend import tf

AUGMENTATION = 1 << 16


def words(shape: Sequence[int], *, seed: tf.Tensor, step: tf.Tensor, stream: int) -> tf.Tensor:
    """32 random bits for each entry of `shape`: uint32.

    It applies two rounds of a mixing function to the place of an entry, each with its own key.

    Args:
        seed: a scalar uint32, or an int.
        step: a scalar int64, the number of the update.
    """
    low, high = tf.unstack(tf.bitcast(step, tf.uint32))
    return _words([tf.cast(seed, tf.uint32), low, high, tf.constant(stream, tf.uint32)], tuple(shape))


# Where the loop is not compiled by XLA, this still runs as one pass.
@tf.function(jit_compile=True, autograph=False)
def _words(parts: Sequence[tf.Tensor], shape: tuple[int, ...]) -> tf.Tensor:
    key = tf.constant(0x9E3779B9, tf.uint32)
    for part in parts:
        key = _mix(key ^ part)
    entries = 1
    for size in shape:
        entries *= size
    place = tf.reshape(tf.range(entries), shape)
    return _mix(_mix(tf.cast(place, tf.uint32) ^ key) ^ _mix(key + 0x85EBCA6B))


def _mix(word: tf.Tensor) -> tf.Tensor:
    """A permutation of uint32 in which each bit of the result depends on all bits of `word`.

    It is `lowbias32` of Wellons, "Prospecting for hash functions" (2018), the least biased that was found there with
    two multiplications.
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        word = (word ^ tf.bitwise.right_shift(word, tf.constant(shift, tf.uint32))) * tf.constant(factor, tf.uint32)
    return word ^ tf.bitwise.right_shift(word, tf.constant(16, tf.uint32))
