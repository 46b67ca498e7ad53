"""The layers of a model as plain data: the one list from which it is built, counted, named in files, and shown.

Standard library alone, because listings must not wait for imports.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Sequence

DENSE, ACTIVATION, DROPOUT, ADD = "dense", "activation", "dropout", "add"
BATCH, LAYER = "batch", "layer"  # normalization over the batch, or over the units of a layer
STANDARDIZED, WHITENED = "standardized", "whitened"  # a fixed linear layer in front of all others
_INPUT_NAMES = {STANDARDIZED: "input_standardization", WHITENED: "input_whitening"}


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: in the Keras model; its arrays are stored under it.
        kind: DENSE, ACTIVATION, DROPOUT, ADD, BATCH, LAYER, STANDARDIZED or WHITENED.
        fan_in, units: entries of its input and of its output, an image.
        index: of its block; 0 for the first hidden layer. Initial weights and dropout masks follow from it.
        activation: what a dense layer applies to its output, or an activation layer to its input; empty for nothing.
        rate: of dropout.
        source: of ADD, the layer whose output is added to the input.
    """

    name: str
    kind: str
    fan_in: int
    units: int
    index: int
    activation: str = ""
    rate: float = 0.0
    source: str = ""

    @property
    def arrays(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its arrays by name, in Keras' order."""
        matrix: tuple[int, ...] = (self.fan_in, self.units)
        vector: tuple[int, ...] = (self.units,)
        normalization = {"gamma": vector, "beta": vector}
        known = {
            DENSE: {"kernel": matrix, "bias": vector},
            WHITENED: {"kernel": matrix, "bias": vector},
            STANDARDIZED: {"kernel": vector, "bias": vector},
            LAYER: normalization,
            BATCH: {**normalization, "moving_mean": vector, "moving_variance": vector},
        }
        return known.get(self.kind, {})

    @property
    def weight_count(self) -> int:
        """Entries of its weight matrix; 0 for all but dense layers."""
        return self.fan_in * self.units if self.kind == DENSE else 0

    @property
    def fixed(self) -> int:
        """Entries of its arrays that gradients do not change."""
        inputs = self.kind in _INPUT_NAMES
        return sum(math.prod(shape) for name, shape in self.arrays.items() if inputs or name.startswith("moving"))

    @property
    def parameters(self) -> int:
        """Entries of its arrays that gradients change."""
        return sum(map(math.prod, self.arrays.values())) - self.fixed


def plan(widths: Sequence[int], *, dropout: Sequence[float], activation: str, normalization: str, residual: bool,
         expansion: int, input: str) -> tuple[Layer, ...]:
    """The layers of a model; `widths` are its units from the pixels to the logits, the rest is as in `ModelSpec`."""
    found = [Layer(_INPUT_NAMES[input], input, widths[0], widths[0], 0)] if input in _INPUT_NAMES else []
    for index, (fan_in, units) in enumerate(zip(widths, widths[1:-1])):
        summed = residual and index > 0 and fan_in == units
        block = _block(index, fan_in, units, rate=dropout[index] if dropout else 0.0, activation=activation,
                       normalization=normalization, summed=summed, expansion=expansion)
        if summed:
            block.append(Layer(f"add_{index + 1}", ADD, units, units, index, source=found[-1].name))
        found += block
    return (*found, Layer("logits", DENSE, widths[-2], widths[-1], len(widths) - 2))


def _block(index: int, fan_in: int, units: int, *, rate: float, activation: str, normalization: str, summed: bool,
           expansion: int) -> list[Layer]:
    """A hidden layer of a spec, without the sum: see the docstring of `ModelSpec`."""
    number = index + 1

    def norm(width: int) -> list[Layer]:
        return [Layer(f"norm_{number}", normalization, width, width, index)] if normalization != "none" else []

    def drop(width: int) -> list[Layer]:
        return [Layer(f"dropout_{number}", DROPOUT, width, width, index, rate=rate)] if rate else []

    def dense(width: int, activation: str = "") -> Layer:
        return Layer(f"dense_{number}", DENSE, width, units, index, activation)

    if expansion and index == 0:
        return [dense(fan_in), *drop(units)]
    if expansion:
        wide = units * expansion
        expand = Layer(f"expand_{number}", DENSE, fan_in, wide, index, activation)
        return [*norm(fan_in), expand, *drop(wide), dense(wide)]
    if summed or normalization == "none":
        return [*norm(fan_in), dense(fan_in, activation), *drop(units)]
    return [dense(fan_in), *norm(units), Layer(f"activation_{number}", ACTIVATION, units, units, index, activation),
            *drop(units)]
