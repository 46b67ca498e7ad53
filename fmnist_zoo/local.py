"""The initializer `local`: at first, a unit is connected to those near its place in the image.

The units of a hidden layer stand on a grid over the image, several at a place: 14 by 14 places in the first layer, 7
by 7 in the second, 4 by 4 in all others. A unit's first weights are drawn for those before it that stand less than two
steps of their own grid away, along rows and along columns: at most 4 by 4 places. All others are zero: locally
connected at first, and trained as any dense layer. So it starts with what convolutions have built in, that
neighbouring pixels belong together, and shares no weight. Related: d'Ascoli et al., "Finding the Needle in the
Haystack with Convolutions" (2019), start from a trained convolutional network; Neyshabur, "Towards Learning
Convolutions from Scratch" (2020), learns the local connections. Importing this module does not import NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

from fmnist_zoo.errors import SpecError

if TYPE_CHECKING:
    import numpy as np

SIDE, SMALLEST, REACH = 28, 4, 2.0


def sides(hidden: Sequence[int]) -> list[int]:
    """Places along a side of the grid, of the pixels and of each hidden layer: 28, 14, 7, 4, 4.

    Raises:
        SpecError: for units that do not fill the places of their layer evenly, and if there is no hidden layer.
    """
    if not hidden:
        raise SpecError("initializer=local is for hidden layers, and there are none")
    found = [SIDE]
    for number, units in enumerate(hidden, start=1):
        side = max((found[-1] + 1) // 2, SMALLEST)
        if units % side ** 2:
            raise SpecError(f"initializer=local puts the units of hidden layer {number} on {side} by {side} places; "
                            f"received {units}: take a multiple of {side ** 2}, or initializer=he_normal")
        found.append(side)
    return found


def kernel(dense: np.ndarray, before: int, after: int) -> np.ndarray:
    """A kernel (inputs, units) drawn by `he_normal`, with zeros out of reach, and He's variance for the inputs within.

    Args:
        before, after: the sides of the grids of inputs and units; both are flattened row by row, with all that stand
            at a place side by side.
    """
    import numpy as np

    centres = (np.arange(after) + 0.5) * before / after - 0.5  # where a unit's place is on the grid before it
    near = np.abs(np.arange(before)[:, np.newaxis] - centres) < REACH
    places = np.kron(near, near)
    inputs, units = dense.shape
    within = places.repeat(inputs // before ** 2, axis=0).repeat(units // after ** 2, axis=1)
    return np.where(within, dense * np.sqrt(inputs / within.sum(axis=0)), 0).astype(dense.dtype)
