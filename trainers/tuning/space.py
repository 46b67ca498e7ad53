"""The space of a sweep, as text: `dropout=0,0.1,0.2; l2=log(1e-6..1e-2)`. Read, checked, counted; no TensorFlow.

    0,0.1,0.2        these values, each tried exactly as it is written
    0..0.5           a range, ends included
    log(1e-6..1e-2)  a range, searched on the logarithm

`dropout` is one rate for all hidden layers, or a schedule such as 0.3_0.2_0.1; `dropout.1` is the first hidden layer's.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Any, Mapping, Sequence

from fmnist_zoo import registry
from fmnist_zoo.spec import FULL_BATCH, SpecError
from trainers import config as configs
from trainers.config import ConfigError, RunConfig

NUMBERS = ("l1", "l2", "learning_rate", "weight_decay")
WHOLE = ("batch_size", "epochs")
NAMES = ("dropout", *NUMBERS, *WHOLE, "optimizer", "hidden")
_RANGE = re.compile(r"(?P<log>log\()?(?P<low>[^.,()]*(?:\.\d[^.,()]*)?)\.\.(?P<high>[^,()]*)(?(log)\))")

Value = float | int | str


class SpaceError(ConfigError):
    """A space that cannot be; shows the place in its text."""

    def __init__(self, text: str, start: int, end: int, problem: str):
        super().__init__(f"--space, character {start + 1}: {problem}\n  {text}\n  {' ' * start}"
                         f"{'^' * max(1, end - start)}")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A hyper-parameter: its values, or the two ends of its range.

    Attributes:
        name: as in the text.
        values: what is tried; for a range, its ends.
        kind: "choice", "linear" or "log".
    """

    name: str
    values: tuple[Value, ...]
    kind: str = "choice"

    @property
    def text(self) -> str:
        if self.kind == "choice":
            return f"{self.name}={','.join(map(str, self.values))}"
        low, high = self.values
        return f"{self.name}=log({low}..{high})" if self.kind == "log" else f"{self.name}={low}..{high}"


@dataclasses.dataclass(frozen=True)
class Space:
    """Hyper-parameters in the order of the text."""

    parameters: tuple[Parameter, ...]

    @property
    def text(self) -> str:
        """The space in its one canonical spelling, which reads back as itself."""
        return "; ".join(parameter.text for parameter in self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def size(self) -> int | None:
        """How many combinations there are; None if a range makes them endless."""
        if any(parameter.kind != "choice" for parameter in self.parameters):
            return None
        return math.prod(len(parameter.values) for parameter in self.parameters)

    def configs(self, base: RunConfig) -> list[RunConfig]:
        """The runs at its corners: what its cheapest and dearest trials are among."""
        ends = [dict.fromkeys(parameter.values) for parameter in self.parameters]
        shapes = [values if name in ("hidden", "epochs", "batch_size") else list(values)[:1]
                  for name, values in zip(self.names, ends)]
        return [apply(base, dict(zip(self.names, chosen))) for chosen in itertools.product(*shapes)]


def apply(base: RunConfig, values: Mapping[str, Value], **settings: Any) -> RunConfig:
    """The run of a trial: `values` by the names of a space, and `settings` of a run, laid over `base`."""
    given: dict[str, Any] = {name: value for name, value in values.items() if "." not in name}
    if "hidden" in given:
        given["hidden"] = _parts(str(given["hidden"]), int)
    if "dropout" in given:
        given["dropout"] = _parts(str(given["dropout"]), float)
    config = configs.overlay(base, **given, **settings)
    layers = {int(name.split(".")[1]): value for name, value in values.items() if "." in name}
    if layers:
        rates = list(config.spec.dropout or (0.0,) * len(config.spec.hidden))
        for layer, rate in layers.items():
            rates[layer - 1] = float(rate)
        config = configs.overlay(config, dropout=tuple(rates))
    return config


def parse(space: str | Mapping[str, Any], base: RunConfig, *, listed_only: bool = False) -> Space:
    """Reads a space and checks every value of it against the model.

    Args:
        space: text, or a mapping of names to lists of values (or to text, as it stands behind `=`).
        base: the run whose settings are searched.
        listed_only: ranges are refused, as for a grid.

    Raises:
        SpaceError: with the place in the text that is wrong.
    """
    if not isinstance(space, (str, Mapping)):
        raise ConfigError(f"space must be text or a mapping of names to values, received {space!r:.80}")
    text = space if isinstance(space, str) else "; ".join(f"{name}={_spelled(what)}" for name, what in space.items())
    text = text.replace("\n", " ")
    found: list[Parameter] = []
    places: list[tuple[int, int]] = []
    at = 0
    for clause in text.split(";"):
        start, at = at + len(clause) - len(clause.lstrip()), at + len(clause) + 1
        if clause.strip():
            parameter = _parameter(text, start, clause.strip(), base, listed_only)
            _refuse_twice(text, start, parameter, found)
            found.append(parameter)
            places.append((start, start + len(clause.strip())))
    if not found:
        raise SpaceError(text, 0, len(text), "nothing to search; such as dropout=0,0.2,0.4; l2=0,1e-4")
    _check_together(text, found, places, base)
    return Space(tuple(found))


def _spelled(what: Any) -> str:
    if isinstance(what, str) or not isinstance(what, Sequence):
        return str(what)
    return ",".join("_".join(map(str, one)) or "none" if isinstance(one, (tuple, list)) else str(one) for one in what)


def _parameter(text: str, start: int, clause: str, base: RunConfig, listed_only: bool) -> Parameter:
    name, equals, rest = clause.partition("=")
    name, behind = name.strip(), start + len(clause) - len(rest)
    _check_name(text, start, name, base)
    if not equals or not rest.strip():
        raise SpaceError(text, start, start + len(clause),
                         f"{name} needs values, such as {name}=0,0.1 or {name}=0..0.5")
    words = rest.strip()
    place = behind + len(rest) - len(rest.lstrip())
    if ".." in words or "log" in words:
        parameter = _range(text, place, name, words)
        if listed_only:
            raise SpaceError(text, place, place + len(words), "a grid needs its values listed, such as 0,0.1,0.2")
        for value in parameter.values:
            _check_value(text, place, place + len(words), base, name, value)
        return parameter
    values: list[Value] = []
    for word in rest.split(","):
        left = behind + len(word) - len(word.lstrip())
        right = left + len(word.strip())
        behind += len(word) + 1
        value = _value(text, left, right, name, word.strip())
        _check_value(text, left, right, base, name, value)
        if value in values:
            raise SpaceError(text, left, right, f"{word.strip()} stands there twice")
        values.append(value)
    return Parameter(name, tuple(values))


def _check_name(text: str, start: int, name: str, base: RunConfig) -> None:
    field, dot, layer = name.partition(".")
    layers = len(base.spec.hidden)
    if dot and field == "dropout":
        if not layer.isdecimal() or not 1 <= int(layer) <= layers or layer != str(int(layer)):
            known = f"dropout.1 to dropout.{layers}" if layers else "no hidden layer, and nothing to drop"
            raise SpaceError(text, start, start + len(name), f"{base.spec.name} has {known}; received {name}")
    elif name not in NAMES:
        raise SpaceError(text, start, start + max(1, len(name)), f"no hyper-parameter is named {name!r}; "
                         f"{registry.nearest(name, (*NAMES, 'dropout.1'))}")


def _range(text: str, start: int, name: str, words: str) -> Parameter:
    end = start + len(words)
    matched = _RANGE.fullmatch(words.replace(" ", ""))
    if not matched:
        raise SpaceError(text, start, end, "a range is written 0..0.5 or log(1e-6..1e-2), alone")
    if name not in (*NUMBERS, *WHOLE) and not name.startswith("dropout"):
        raise SpaceError(text, start, end, f"{name} has no range; list its values")
    low, high = (_value(text, start, end, name, matched[side]) for side in ("low", "high"))
    if isinstance(low, str) or isinstance(high, str) or not low < high:
        raise SpaceError(text, start, end, f"a range goes from a smaller number to a larger one, received {words}")
    if matched["log"] and low <= 0:
        raise SpaceError(text, start, end,
                         "a logarithm needs ends above 0; to try 0 as well, list the values: 0,1e-5,1e-4")
    return Parameter(name, (low, high), "log" if matched["log"] else "linear")


def _value(text: str, start: int, end: int, name: str, word: str) -> Value:
    """A word of the text as this hyper-parameter's value."""
    try:
        if name == "optimizer":
            return word
        if name == "hidden":
            return "_".join(map(str, _parts(word, int))) or "none"
        if name == "dropout" and "_" in word:
            return "_".join(map(str, _parts(word, float)))
        if name == "batch_size" and word == FULL_BATCH:
            return word
        return int(word) if name in WHOLE else float(word.replace("_", "?"))  # Python takes 1_0 for ten
    except ValueError:
        kind = "a whole number" if name in WHOLE else "widths such as 600_400_200" if name == "hidden" else "a number"
        raise SpaceError(text, start, end, f"{name} takes {kind}, received {word!r}") from None


def _parts(word: str, kind: Any) -> tuple[Any, ...]:
    return () if word == "none" else tuple(kind(part) for part in word.split("_"))


def _check_value(text: str, start: int, end: int, base: RunConfig, name: str, value: Value) -> None:
    if name == "hidden" and base.spec.dropout and len(set(base.spec.dropout)) > 1:
        base = configs.overlay(base, dropout=0.0)  # its schedule fits its own widths; checked together below
    try:
        apply(base, {name: value})
    except (SpecError, ConfigError) as error:
        if not (name == "dropout" and "_" in str(value)):  # its length may fit another `hidden`
            raise SpaceError(text, start, end, str(error)) from None
        if any(not 0 <= rate < 1 for rate in _parts(str(value), float)):
            raise SpaceError(text, start, end, str(error)) from None


def _refuse_twice(text: str, start: int, parameter: Parameter, found: list[Parameter]) -> None:
    for other in found:
        if parameter.name == other.name or {parameter.name.split(".")[0], other.name} == {"dropout"} \
                or {parameter.name, other.name.split(".")[0]} == {"dropout"}:
            raise SpaceError(text, start, start + len(parameter.name),
                             f"{parameter.name} and {other.name} both set the same; keep one")


def _check_together(text: str, found: list[Parameter], places: list[tuple[int, int]], base: RunConfig) -> None:
    """Widths and rates have to fit in every combination."""
    shaped = [parameter for parameter in found if parameter.name in ("hidden", "dropout")]
    if any(parameter.name == "hidden" for parameter in shaped):
        shaped += [dataclasses.replace(parameter, values=parameter.values[:1]) for parameter in found
                   if parameter.name.startswith("dropout.")]
    for chosen in itertools.product(*(parameter.values for parameter in shaped)):
        values = dict(zip((parameter.name for parameter in shaped), chosen))
        try:
            apply(base, values)
        except (SpecError, ConfigError, IndexError) as error:
            last = next(index for index, one in reversed(list(enumerate(found))) if one.name in values)
            problem = error if not isinstance(error, IndexError) else "fewer layers than rates"
            told = ", ".join(f"{name}={value}" for name, value in values.items())
            raise SpaceError(text, *places[last], f"{told} does not go together: {problem}") from None
