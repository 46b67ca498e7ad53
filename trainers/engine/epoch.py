"""What all engines agree on: the order of an epoch's images and their mixtures, its means, and the error that ends it.

Random numbers are counter-based, as those of `randomness`: no library's generator decides what a run sees.
Must not import TensorFlow: what shows a run's progress needs these names and nothing more.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Callable

import numpy as np

ORDER, MIXUP = 1 << 17, (1 << 17) + 1  # streams of random numbers, beyond those of layers and augmentations


class NonFiniteError(ArithmeticError):
    """The objective or its gradient became NaN or infinite at update number `step` (0 is the first)."""

    def __init__(self, step: int):
        super().__init__(f"the objective or its gradient became NaN or infinite at step {step}")
        self.step = step


@dataclasses.dataclass(frozen=True)
class EpochMeans:
    """Means over an epoch's updates, each value taken before its update; `weight_norm` is taken after the epoch.

    `loss`, `penalty`, `accuracy` and `surplus` weight each update by its number of images, `gradient_norm` does not.
    The norms are None where the engine does not compute them. `surplus` is what is minimised beyond loss and penalty:
    the parts of smoothed labels and teachers.
    """

    loss: float
    penalty: float
    accuracy: float
    gradient_norm: float | None = None
    weight_norm: float | None = None
    surplus: float = 0.0

    @property
    def objective(self) -> float:
        """What is minimised."""
        return self.loss + self.penalty + self.surplus


OnPart = Callable[[int, EpochMeans], None]  # called with the number of steps done, and the means so far


def epoch_order(images: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which epoch number `epoch` (0 is the first) visits `images` training images: (images,) int32.

    Images are sorted by a random word each; of two with the same word, the first one stays first.
    """
    drawn = words(images, seed=seed, epoch=epoch, stream=ORDER).astype(np.uint64)
    return (np.sort(drawn << 32 | np.arange(images, dtype=np.uint64)) & 0xFFFFFFFF).astype(np.int32)


def shares_of_mixup(amount: float, images: int, *, seed: int, epoch: int) -> np.ndarray | None:
    """The share of each image of an epoch in its mixture, (images,) float32 of Beta(amount, amount); None for 0."""
    if not amount:
        return None
    return _beta(amount)[words(images, seed=seed, epoch=epoch, stream=MIXUP) >> 16]


@functools.lru_cache(maxsize=1)
def _beta(amount: float) -> np.ndarray:
    """The quantiles of Beta(amount, amount) in the middle of each of 2^16 parts of [0, 1], float32."""
    from scipy import special

    return special.betaincinv(amount, amount, (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.float32)


def words(count: int, *, seed: int, epoch: int, stream: int) -> np.ndarray:
    """32 random bits for each of `count` places, (count,) uint32: those of `randomness.words` at step `epoch`."""
    key = np.array([0x9E3779B9], np.uint32)
    for part in (seed, epoch, 0, stream):
        key = _mix(key ^ np.uint32(part))
    return _mix(_mix(np.arange(count, dtype=np.uint32) ^ key) ^ _mix(key + np.uint32(0x85EBCA6B)))


def _mix(word: np.ndarray) -> np.ndarray:
    """That of `randomness`, (n,) uint32."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        word = (word ^ word >> np.uint32(shift)) * np.uint32(factor)
    return word ^ word >> np.uint32(16)
