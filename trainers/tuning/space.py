"""The space of a sweep, as text: `dropout=0,0.1,0.2; l2=log(1e-6..1e-2)`. Read, checked, counted; no TensorFlow.

    0,0.1,0.2        these values exactly
    0..0.5           a range, both ends included
    log(1e-6..1e-2)  a range, searched on a logarithmic scale

The names are those of settings, and of the arguments of a function of the user's. `dropout` is one rate for all hidden
layers, or a schedule such as 0.3_0.2_0.1; `dropout.1` is the rate of the first hidden layer.

What a function asks `hp` for, as keras-tuner's do, is a part of the space that no text has: keras-tuner's configs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Any, Mapping, Sequence

from fmnist_zoo import arguments, settings
from fmnist_zoo.errors import SpecError
from fmnist_zoo.settings import Each, Kind, Number, Switch, Text, Whole, nearest
from fmnist_zoo.spec import ModelSpec
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
    step: float | None = None  # of a range, between two values; on a logarithmic scale their ratio
    condition: str = ""  # "model=cnn": it has no value in other trials

    @property
    def text(self) -> str:
        if self.kind == "choice":
            return f"{self.name}={','.join(map(str, self.values))}{self.condition and ' if ' + self.condition}"
        low, high = self.values
        values = f"log({low}..{high})" if self.kind == "log" else f"{low}..{high}"
        step = f" by {self.step}" if self.step not in (None, 1) else ""
        return f"{self.name}={values}{step}{self.condition and ' if ' + self.condition}"

    @property
    def count(self) -> int | None:
        """How many values it has; None for a range of floats."""
        if self.kind == "choice":
            return len(self.values)
        low, high = self.values
        assert not isinstance(low, str) and not isinstance(high, str)
        if self.step:
            return 1 + int((math.log(high / low, self.step) if self.kind == "log" else (high - low) / self.step) + 1e-8)
        return high - low + 1 if isinstance(low, int) and isinstance(high, int) else None

    def holds(self, value: Value) -> bool:
        """Whether a value is one of those that are tried."""
        if self.kind == "choice":
            return value in self.values
        low, high = self.values
        return not isinstance(value, str) and low <= value <= high  # type: ignore[operator]

    def read(self, text: str) -> Value:
        """The value of which `write` makes this text."""
        if self.kind == "choice":
            return next(value for value in self.values if self.write(value) == text)
        return type(self.values[0])(text)

    @staticmethod
    def write(value: Value) -> str:
        """A value as a text that is not empty."""
        return '""' if value == "" else str(value)


@dataclasses.dataclass(frozen=True)
class Space:
    """Hyper-parameters: those that a function asks for, then those of the text that `parse` has read.

    Attributes:
        configs: of the former, as keras-tuner has them.
    """

    parameters: tuple[Parameter, ...]
    configs: tuple[Mapping[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """The space in one line."""
        return "; ".join(parameter.text for parameter in self.parameters)

    @property
    def own(self) -> tuple[Parameter, ...]:
        """The hyper-parameters that no function asks for; `read` reads their text back."""
        asked = {parameter.name for parameter in of_function(self.configs)}
        return tuple(parameter for parameter in self.parameters if parameter.name not in asked)

    def grown(self, configs: Sequence[Mapping[str, Any]]) -> Space:
        """The space with further hyper-parameters that a function asks for."""
        every = (*self.configs, *configs)
        merged = {parameter.name: parameter for parameter in (*self.parameters, *of_function(every))}
        return Space(tuple(merged.values()), every)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def size(self) -> int | None:
        """The number of combinations; None if a range has no end of them, or a function may ask for more."""
        counts = [parameter.count for parameter in self.parameters]
        return None if None in counts or self.configs else math.prod(filter(None, counts))


def of_function(configs: Sequence[Mapping[str, Any]]) -> tuple[Parameter, ...]:
    """The hyper-parameters that a function asks for, by keras-tuner's configs of them; of fixed ones there are none.

    One that has several configs, each in a scope of its own, is one with all their values.
    """
    found: dict[str, Parameter] = {}
    for one in configs:
        kind, config = one["class_name"], one["config"]
        name, sampling = arguments.label(config["name"]), "log" if config.get("sampling") == "log" else "linear"
        condition = " and ".join(f"{arguments.label(scope['config']['name'])}="
                                 f"{','.join(map(str, scope['config']['values']))}" for scope in config["conditions"])
        if kind in ("Choice", "Boolean"):
            new = Parameter(name, tuple(config.get("values", (False, True))), condition=condition)
        elif kind in ("Int", "Float"):
            step = config["step"]
            new = Parameter(name, (config["min_value"], config["max_value"]), sampling, step, condition)
        else:
            continue
        if (old := found.get(name)) and old.kind == new.kind != "choice":
            ends = [*old.values, *new.values]
            new = Parameter(name, (min(ends), max(ends)), new.kind)
        elif old:
            new = Parameter(name, tuple(dict.fromkeys((*old.values, *new.values))))
        found[name] = new
    return tuple(found.values())


def kinds_of(spec: ModelSpec, configs: Sequence[Mapping[str, Any]] = ()) -> dict[str, Kind]:
    """The values that the arguments of a function of the user's take, by label."""
    asked = {one["config"]["name"]: (one["config"].get("values") or [one["config"].get("min_value", False)])[0]
             for one in configs}
    every = {**dict(spec.arguments), **asked}
    return {arguments.label(name): arguments.kind_of(value) for name, value in every.items()}


def apply(base: RunConfig, values: Mapping[str, Value], *, given: Sequence[str] = (), rung: int | None = None,
          seed: int | None = None, compiled: Mapping[str, Any] = {}) -> RunConfig:
    """The run of a trial: `base` with a value for each hyper-parameter.

    Args:
        given: settings of `base` that the user gave. They keep their value where a searched one would change it: a
            searched optimizer comes with its default learning rate only if the user gave none.
        rung: epochs of a rung of successive halving, which trains the first part of the whole schedule.
        seed: default: that of `base`.
        compiled: what the function of the model gives to `compile`, as settings.
    """
    kept = {name: value for name, value in flat(base).items() if name in given and name in DEPENDENT}
    of_layers = {name: value for name, value in values.items() if re.fullmatch(r"dropout\.\d+", name)}
    whole = {name: SETTINGS[name].kind.read(value) if isinstance(value, str) and name in SETTINGS else value
             for name, value in values.items() if name not in of_layers}
    config = overlay(base, **{**compiled, **kept, **whole}, seed=seed)
    if rung:
        config = overlay(config, epochs=rung, schedule_epochs=config.recipe.horizon or None)
    layers = {int(name.partition(".")[2]): value for name, value in of_layers.items()}
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


def parse(space: str | Mapping[str, Any], base: RunConfig, *, listed_only: bool = False,
          configs: Sequence[Mapping[str, Any]] = ()) -> Space:
    """Reads a space, and tries its values on the model of `base`.

    Args:
        space: text, or a mapping of names to lists of values (or to text, as after the `=`).
        listed_only: refuse ranges, as for a grid.
        configs: of what the function of the model asks for, which `space` may give other values.

    Raises:
        SpaceError: quotes the part that is wrong.
    """
    if not isinstance(space, (str, Mapping)):
        raise ConfigError(f"space must be text or a mapping of names to values, received {space!r:.80}")
    found = read(space if isinstance(space, str) else _spell(space), kinds_of(base.spec, configs))
    ranges = [parameter.text for parameter in found.parameters if parameter.kind != "choice"]
    if listed_only and ranges:
        raise SpaceError(f"--space: a grid needs its values listed, such as 0,0.1,0.2; in {ranges[0]!r}")
    if found.parameters:
        _try(found.parameters, base)
    elif configs and not of_function(configs):
        raise SpaceError(f"--space: nothing to search, since the function of {base.spec.name} asks hp for fixed values "
                         "alone; write, for example, batch_size=64,128")
    elif not configs:
        raise SpaceError("--space: nothing to search; write, for example, dropout=0,0.2,0.4; l2=0,1e-4")
    return found


def read(text: str, kinds: Mapping[str, Kind] = {}) -> Space:
    """The space that a text spells, whichever model it is for; `SpaceError` quotes the part that is wrong.

    Args:
        kinds: the values of further names than those of settings.
    """
    found: list[Parameter] = []
    for clause in _clauses(text):
        try:
            found.append(_parameter(clause, [one.name for one in found], kinds))
        except (SpecError, ConfigError) as error:
            raise SpaceError(f"--space: {error}; in {clause!r}") from None
    return Space(tuple(found))


def parse_start(start: Any, space: Space, kinds: Mapping[str, Kind] = {}) -> list[dict[str, Value]]:
    """Reads the combinations that are tried first, such as `dropout=0.3; l2=0`; each has a value for each
    hyper-parameter.

    Args:
        start: one of them or a list of them, as text or as mappings.
        kinds: the values of further names than those of settings.

    Raises:
        SpaceError: quotes the part that is wrong.
    """
    found: list[dict[str, Value]] = []
    for one in [start] if isinstance(start, (str, Mapping)) else start or ():
        if not isinstance(one, (str, Mapping)):
            raise SpaceError(f"--start is text or a mapping of names to values, received {one!r:.80}")
        text = one if isinstance(one, str) else _spell({name: [value] for name, value in one.items()})
        try:
            values = _point(text, space, kinds)
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


def _point(text: str, space: Space, kinds: Mapping[str, Kind]) -> dict[str, Value]:
    """A combination as text."""
    parameters = {parameter.name: parameter for parameter in space.parameters}
    values: dict[str, Value] = {}
    for clause in _clauses(text):
        name, _, word = (part.strip() for part in clause.partition("="))
        if name not in parameters:
            raise ConfigError(f"{name!r} is not in --space ({space.text})")
        if name in values:
            raise ConfigError(f"{name} has two values")
        values[name] = _value(name, _kind(name, kinds), word)
        if not parameters[name].holds(values[name]):
            raise ConfigError(f"{name}={word} is outside --space ({parameters[name].text})")
    missing = [parameter.name for parameter in space.own if parameter.name not in values]
    if missing:
        raise ConfigError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    return {name: values[name] for name in parameters if name in values}


def _parameter(clause: str, earlier: Sequence[str], kinds: Mapping[str, Kind]) -> Parameter:
    """One hyper-parameter, checked by itself."""
    name, equals, words = (part.strip() for part in clause.partition("="))
    if earlier and not equals and name not in (*NAMES, *kinds):
        raise ConfigError("hyper-parameters are separated by semicolons, and the values of one by commas")
    kind = _kind(name, kinds)
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


def _kind(name: str, kinds: Mapping[str, Kind]) -> Kind:
    """The values that a hyper-parameter takes."""
    if name in kinds:
        return kinds[name]
    field, dot, layer = name.partition(".")
    if field == "dropout" and dot:
        if not re.fullmatch("[1-9][0-9]*", layer):
            raise ConfigError(f"dropout.1 is the rate of the first hidden layer; received {name}")
        return Number(below=1.0)
    if name in SETTINGS and name not in NAMES:
        raise ConfigError(f"{name} is not searched: give one value for all trials, as --{name}"
                          + " (--executions=3 trains each trial with three seeds)" * (name == "seed"))
    if name not in NAMES:
        raise ConfigError(f"no hyper-parameter is named {name!r}; {nearest(name, (*kinds, *NAMES, 'dropout.1'))}")
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
    if name not in SETTINGS:  # an argument
        return value
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
