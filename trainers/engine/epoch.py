"""What all engines agree on: the order of an epoch's images, the means it returns, and the error that ends it.

Must not import TensorFlow: what shows a run's progress needs these names and nothing more.
"""

from __future__ import annotations

import dataclasses
from typing import Callable

import numpy as np


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
    """The order in which epoch number `epoch` (0 is the first) visits `images` training images: (images,) int32."""
    return np.random.default_rng([seed, epoch]).permutation(images).astype(np.int32)
