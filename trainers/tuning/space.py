"""The space of a sweep, as text: `dropout=0,0.1,0.2; l2=log(1e-6..1e-2)`. Read, checked, counted; no TensorFlow.

    0,0.1,0.2        these values exactly
    0..0.5           a range, both ends included
    log(1e-6..1e-2)  a range, searched on a logarithmic scale

The names are those of settings. `dropout` is one rate for all hidden layers, or a schedule such as 0.3_0.2_0.1;
`dropout.1` is the rate of the first hidden layer.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Any, Mapping, Sequence

from fmnist_zoo import settings
from fmnist_zoo.errors import SpecError
from fmnist_zoo.registry import nearest
from fmnist_zoo.settings import Each, Kind, Number, Switch, Text, Whole
from trainers.config import DEPENDENT, SETTINGS, ConfigError, RunConfig, flat, located, overlay

NAMES = tuple(name for name, known in SETTINGS.items() if known.searched)
CHECKED = 2000  # combinations of a space that are tried out before it is taken; each takes a millisecond
_RANGE = re.compile(r"(?P<log>log\()?(?P<low>[^,()]+?)\.\.(?P<high>[^,()]+)(?(log)\))")

Value = float | int | str


class SpaceError(ConfigError):
    """A space that is not possible; quotes the part that is wrong."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A hyper-parameter and the values that are tried."""

    name: str
    values: tuple[Value, ...]  # of a range: its two ends
    kind: str = "choice"  # or the range "linear" or "log"

    @property
    def text(self) -> str:
        if self.kind == "choice":
            return f"{self.name}={','.join(map(str, self.values))}"
        low, high = self.values
        return f"{self.name}=log({low}..{high})" if self.kind == "log" else f"{self.name}={low}..{high}"

    @property
    def count(self) -> int | None:
        """How many values it has; None for a range of floats."""
        if self.kind == "choice":
            return len(self.values)
        low, high = self.values
        return high - low + 1 if isinstance(low, int) and isinstance(high, int) else None

    def holds(self, value: Value) -> bool:
        """Whether a value is one of those that are tried."""
        if self.kind == "choice":
            return value in self.values
        low, high = self.values
        return not isinstance(value, str) and low <= value <= high  # type: ignore[operator]

    def read(self, text: str) -> Value:
        """The value of which `str` makes this text."""
        if self.kind == "choice":
            return next(value for value in self.values if str(value) == text)
        return type(self.values[0])(text)


@dataclasses.dataclass(frozen=True)
class Space:
    """Hyper-parameters in the order of the text that `parse` has read."""

    parameters: tuple[Parameter, ...]

    @property
    def text(self) -> str:
        """The space in its canonical spelling, which `parse` reads back as the same space."""
        return "; ".join(parameter.text for parameter in self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def size(self) -> int | None:
        """The number of combinations; None if a range has no end of them."""
        counts = [parameter.count for parameter in self.parameters]
        return None if None in counts else math.prod(filter(None, counts))


def apply(base: RunConfig, values: Mapping[str, Value], *, given: Sequence[str] = (), rung: int | None = None,
          seed: int | None = None) -> RunConfig:
    """The run of a trial: `base` with a value for each hyper-parameter.

    Args:
        given: settings of `base` that the user gave. They keep their value where a searched one would change it: a
            searched optimizer comes with its default learning rate only if the user gave none.
        rung: epochs of a rung of successive halving, which trains the first part of the whole schedule.
        seed: default: that of `base`.
    """
    kept = {name: value for name, value in flat(base).items() if name in given and name in DEPENDENT}
    whole = {name: SETTINGS[name].kind.read(value) if isinstance(value, str) else value
             for name, value in values.items() if "." not in name}
    config = overlay(base, **{**kept, **whole}, seed=seed)
    if rung:
        config = overlay(config, epochs=rung, schedule_epochs=config.recipe.horizon or None)
    layers = {int(name.partition(".")[2]): value for name, value in values.items() if "." in name}
    if not layers:
        return config
    config.spec.refuse_settings(["dropout"])
    if max(layers) > len(config.spec.hidden):
        raise ConfigError(f"dropout.{max(layers)} needs {max(layers)} hidden layers; there are "
                          f"{len(config.spec.hidden)}")
    rates = list(config.spec.dropout or (0.0,) * len(config.spec.hidden))
    for layer, rate in layers.items():
        rates[layer - 1] = float(rate)
    return overlay(config, dropout=tuple(rates))


def parse(space: str | Mapping[str, Any], base: RunConfig, *, listed_only: bool = False) -> Space:
    """Reads a space, and tries its values on the model of `base`.

    Args:
        space: text, or a mapping of names to lists of values (or to text, as after the `=`).
        listed_only: refuse ranges, as for a grid.

    Raises:
        SpaceError: quotes the part that is wrong.
    """
    if not isinstance(space, (str, Mapping)):
        raise ConfigError(f"space must be text or a mapping of names to values, received {space!r:.80}")
    found = read(space if isinstance(space, str) else _spell(space))
    ranges = [parameter.text for parameter in found.parameters if parameter.kind != "choice"]
    if listed_only and ranges:
        raise SpaceError(f"--space: a grid needs its values listed, such as 0,0.1,0.2; in {ranges[0]!r}")
    _try(found.parameters, base)
    return found


def read(text: str) -> Space:
    """The space that a text spells, whichever model it is for; `SpaceError` quotes the part that is wrong."""
    found: list[Parameter] = []
    for clause in _clauses(text):
        try:
            found.append(_parameter(clause, [one.name for one in found]))
        except (SpecError, ConfigError) as error:
            raise SpaceError(f"--space: {error}; in {clause!r}") from None
    if not found:
        raise SpaceError("--space: nothing to search; write, for example, dropout=0,0.2,0.4; l2=0,1e-4")
    return Space(tuple(found))


def parse_start(start: Any, space: Space) -> list[dict[str, Value]]:
    """Reads the combinations that are tried first, such as `dropout=0.3; l2=0`; each has a value for each
    hyper-parameter.

    Args:
        start: one of them or a list of them, as text or as mappings.

    Raises:
        SpaceError: quotes the part that is wrong.
    """
    found: list[dict[str, Value]] = []
    for one in [start] if isinstance(start, (str, Mapping)) else start or ():
        if not isinstance(one, (str, Mapping)):
            raise SpaceError(f"--start is text or a mapping of names to values, received {one!r:.80}")
        text = one if isinstance(one, str) else _spell({name: [value] for name, value in one.items()})
        try:
            values = _point(text, space)
            if values in found:
                raise ConfigError("it is given twice")
        except (SpecError, ConfigError) as error:
            raise SpaceError(f"--start: {error}; in {text!r}") from None
        found.append(values)
    return found


def spell_start(start: Sequence[Mapping[str, Value]]) -> list[str]:
    """Combinations as texts that `parse_start` reads back."""
    return ["; ".join(f"{name}={value}" for name, value in values.items()) for values in start]


def _clauses(text: str) -> list[str]:
    return [clause.strip() for clause in text.split(";") if clause.strip()]


def _spell(space: Mapping[str, Any]) -> str:
    """A mapping of names to values as text; an inner list is a schedule or the widths of a model."""

    def word(value: Any) -> str:
        return "_".join(map(str, value)) or "none" if isinstance(value, (tuple, list)) else str(value)

    return "; ".join(f"{name}={','.join(map(word, values)) if isinstance(values, (tuple, list)) else values}"
                     for name, values in space.items())


def _point(text: str, space: Space) -> dict[str, Value]:
    """A combination as text."""
    parameters = {parameter.name: parameter for parameter in space.parameters}
    values: dict[str, Value] = {}
    for clause in _clauses(text):
        name, _, word = (part.strip() for part in clause.partition("="))
        if name not in parameters:
            raise ConfigError(f"{name!r} is not in --space ({space.text})")
        if name in values:
            raise ConfigError(f"{name} has two values")
        values[name] = _value(name, _kind(name), word)
        if not parameters[name].holds(values[name]):
            raise ConfigError(f"{name}={word} is outside --space ({parameters[name].text})")
    missing = [name for name in parameters if name not in values]
    if missing:
        raise ConfigError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    return {name: values[name] for name in parameters}


def _parameter(clause: str, earlier: Sequence[str]) -> Parameter:
    """One hyper-parameter, checked by itself."""
    name, equals, words = (part.strip() for part in clause.partition("="))
    if earlier and not equals and name not in NAMES:
        raise ConfigError("hyper-parameters are separated by semicolons, and the values of one by commas")
    kind = _kind(name)
    if not words:
        raise ConfigError(f"{name} needs values, such as {name}=0,0.1 or {name}=0..0.5")
    for other in earlier:
        same_field = name.partition(".")[0] == other.partition(".")[0]
        if name == other or same_field and "dropout" in (name, other):
            raise ConfigError(f"{name} and {other} both set the same; keep one")
    if (".." in words or "log" in words) and not isinstance(kind, Text):
        return _range(name, kind, words)
    values = tuple(_value(name, kind, word.strip()) for word in words.split(","))
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f"{value} is listed twice")
    return Parameter(name, values)


def _kind(name: str) -> Kind:
    """The values that a hyper-parameter takes."""
    field, dot, layer = name.partition(".")
    if field == "dropout" and dot:
        if not re.fullmatch("[1-9][0-9]*", layer):
            raise ConfigError(f"dropout.1 is the rate of the first hidden layer; received {name}")
        return Number(below=1.0)
    if name not in NAMES:
        raise ConfigError(f"no hyper-parameter is named {name!r}; {nearest(name, (*NAMES, 'dropout.1'))}")
    return SETTINGS[name].kind


def _range(name: str, kind: Kind, words: str) -> Parameter:
    matched = _RANGE.fullmatch(words.replace(" ", ""))
    if not matched:
        raise ConfigError("a range is 0..0.5 or log(1e-6..1e-2), without other values beside it")
    if not isinstance(kind, (Number, Whole)) and name != "dropout":
        raise ConfigError(f"{name} has no range; list its values")
    low, high = (_value(name, kind, matched[side]) for side in ("low", "high"))
    if isinstance(low, str) or isinstance(high, str) or not low < high:
        raise ConfigError(f"a range goes from a smaller number to a larger one, received {words}")
    if matched["log"] and low <= 0:
        raise ConfigError("the ends of a logarithmic range are above 0; to try 0 as well, list the values: 0,1e-5,1e-4")
    return Parameter(name, (low, high), "log" if matched["log"] else "linear")


def _value(name: str, kind: Kind, word: str) -> Value:
    """The value that a word spells. keras-tuner takes scalars, so a schedule and the widths of a model stay text.

    So do true and false, because Python would write them as True and False into tables and names.
    """
    value = settings.parse(name, kind, word)
    if isinstance(kind, Switch):
        return kind.write(value)
    if name == "teacher":
        return located("teacher", value)
    if isinstance(kind, Each):
        return value[0] if name == "dropout" and len(value) == 1 else kind.write(value)
    return value


def _try(parameters: Sequence[Parameter], base: RunConfig) -> None:
    """Tries each value of each two hyper-parameters together, the others at their first value."""
    first = {parameter.name: parameter.values[0] for parameter in parameters}
    pairs: list[tuple[Parameter, ...]] = [*itertools.combinations(parameters, 2)] or [tuple(parameters)]
    chosen = (dict(zip((one.name for one in pair), values)) for pair in pairs
              for values in itertools.product(*(one.values for one in pair)))
    for values in itertools.islice(chosen, CHECKED):
        try:
            apply(base, {**first, **values})
        except (SpecError, ConfigError) as error:
            said = ", ".join(f"{name}={value}" for name, value in values.items())
            raise SpaceError(f"--space: {said} is not possible for {base.spec.name}: {error}") from None
