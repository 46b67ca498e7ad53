"""A hyper-parameter's values as levels: the listed values, or the bins of a range. NumPy alone."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Sequence

import numpy as np

from trainers.tuning.space import Parameter, Value

MOST_BINS = 6  # of a range


@dataclasses.dataclass(frozen=True)
class Levels:
    """The levels of one hyper-parameter that occur among some trials.

    Attributes:
        name: of the hyper-parameter.
        labels: a text for each level, such as `1e-4`, or `0.1 to 0.2` for the bin of a range.
        index: (trials,) int, each trial's level.
        ordered: whether the levels are numbers, from the smallest to the largest.
        values: (trials,) float, each trial's place in its range from 0 to 1, on the scale that is searched; None for
            listed values.
        log: whether that scale is logarithmic.
    """

    name: str
    labels: tuple[str, ...]
    index: np.ndarray
    ordered: bool
    values: np.ndarray | None = None
    log: bool = False

    @property
    def counts(self) -> np.ndarray:
        """(levels,) int: how many trials have each level; at least one."""
        return np.bincount(self.index, minlength=len(self.labels))

    def of(self, chosen: np.ndarray) -> Levels:
        """The levels that occur among some of the trials; `chosen` is (trials,) bool or their indices."""
        kept, index = np.unique(self.index[chosen], return_inverse=True)
        return dataclasses.replace(self, labels=tuple(self.labels[level] for level in kept), index=index,
                                   values=None if self.values is None else self.values[chosen])


def label(value: Any) -> str:
    """A value as a person writes it: 1e-4, not 0.0001 or 1e-04."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    text = f"{value:.6g}"
    if 0 < abs(value) < 1e-2:
        exponent = re.sub(r"e([+-])0*", r"e\1", f"{value:.5e}")
        mantissa, _, power = exponent.partition("e")
        text = min(text, f"{mantissa.rstrip('0').rstrip('.')}e{power}", key=len)
    return text


def levels(parameter: Parameter, values: Sequence[Value], parameters: int = 1) -> Levels:
    """The levels of trials that have these `values`; a range has fewer bins the more `parameters` are searched."""
    if parameter.kind == "choice":
        return _listed(parameter, values)
    low, high = (float(end) for end in parameter.values)
    numbers = np.asarray(values, float)
    whole = all(isinstance(end, int) for end in parameter.values)
    log = parameter.kind == "log"
    scaled = np.log(numbers / low) / np.log(high / low) if log else (numbers - low) / (high - low)
    scaled = np.clip(scaled, 0.0, 1.0)  # a point that was given may lie outside
    if whole and (parameter.count or 0) <= MOST_BINS:
        found, index = np.unique(numbers, return_inverse=True)
        return Levels(parameter.name, tuple(map(label, found)), index, True, scaled, log)
    bins = int(np.clip(len(numbers) // (parameters + 2) + 1, 3 if len(numbers) >= 12 else 2, MOST_BINS))
    kept, index = np.unique(np.minimum((scaled * bins).astype(int), bins - 1), return_inverse=True)
    texts = []
    for place, number in enumerate(kept):
        ends = np.array([number, number + 1]) / bins
        ends = low * (high / low) ** ends if log else low + (high - low) * ends
        if whole:
            ends = np.array([numbers[index == place].min(), numbers[index == place].max()])
        first, last = (label(end if whole else float(f"{end:.2g}")) for end in ends)
        texts.append(first if first == last else f"{first} to {last}")
    return Levels(parameter.name, tuple(texts), index, True, scaled, log)


def _listed(parameter: Parameter, values: Sequence[Value]) -> Levels:
    listed: list[Value] = list(parameter.values)
    listed += [value for value in dict.fromkeys(values) if value not in listed]  # a point that was given
    ordered = all(isinstance(value, (int, float)) for value in listed)
    if ordered:
        listed.sort()
    index = np.array([listed.index(value) for value in values], int)
    kept, index = np.unique(index, return_inverse=True)
    return Levels(parameter.name, tuple(label(listed[place]) for place in kept), index, ordered)
