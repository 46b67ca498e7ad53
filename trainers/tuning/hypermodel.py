"""A function of the user's that asks `hp` for its hyper-parameters, called as keras-tuner's tuners call it.

Which it asks for is found by calls: one with the defaults, and one for each conditional scope that was not active
before. More may appear as it is called with the values of a trial. A hyper-parameter is kept as keras-tuner's config of
it, plain data. Importing this module imports keras-tuner.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, Iterable, Mapping, NamedTuple

from fmnist_zoo import arguments, backend, custom, registry
from trainers.config import RunConfig
from trainers.tuning.space import Parameter, Space, Value

if TYPE_CHECKING:
    import keras

with backend.without_noise():
    import keras_tuner

Config = Mapping[str, Any]  # `class_name` and `config` of a hyper-parameter


class Built(NamedTuple):
    """What was found as a trial's model was built."""

    values: dict[str, Value]  # those that the function asked for, by label
    settings: dict[str, Any]  # what its `compile` stands for
    found: list[dict[str, Any]]  # hyper-parameters that the space did not have
    notes: list[str]  # on what of `compile` is not used


def found(known: custom.Builder) -> list[Config]:
    """The hyper-parameters that a function asks for, in its order. The arguments that it is given are fixed.

    Raises:
        SpecError: if the function raises an error, or does not ask for one of the arguments.
    """
    hp, tried = hyperparameters([], dict(known.arguments)), []
    while True:
        custom.returned(known, hp)
        configs = replaced(configs_of(hp), {name: _fixed(name, value) for name, value in known.arguments})
        scopes = [scope for scope in hp.inactive_scopes if scope not in tried]
        if not scopes:
            return configs
        tried.append(scopes[0])
        hp = hyperparameters(configs, {condition.name: condition.values[0] for condition in scopes[0]})


def build(config: RunConfig, space: Space, given: Mapping[str, Any]) -> Built:
    """Calls the function of a trial's config; `SpecError` and `ConfigError` if that model cannot be trained.

    Args:
        space: the hyper-parameters that are known.
        given: settings that win over those of `compile`.
    """
    from trainers.running import compiled

    known, new = config.spec.builder, list[dict[str, Any]]()
    if known.takes_hp:
        hp = hyperparameters([], dict(known.arguments))
        model, values = custom.returned(known.given(()), hp)
        seen = [(one["config"]["name"], one["config"]["conditions"]) for one in space.configs]
        new = [one for one in configs_of(hp) if (one["config"]["name"], one["config"]["conditions"]) not in seen]
    else:
        model, values = custom.returned(known)
    settings, notes = compiled.settings(model, given, registry.recipe_of(config.spec))
    if model.compiled and "learning_rate" not in settings:
        base = config.spec.name.partition(",")[0]
        for name, value in values:
            if (label := arguments.label(name)) in space.names and _is_rate(value, model):
                notes.append(f"{label} decides nothing if it is for that learning rate alone; "
                             f"--model={base},{label}={arguments.write(value)} takes it out of the search")
    return Built({arguments.label(name): value for name, value in values}, settings, new, notes)


def hyperparameters(configs: Iterable[Config], values: Mapping[str, Any] = {}) -> keras_tuner.HyperParameters:
    """keras-tuner's object; what is active without a value has its default."""
    hp = keras_tuner.HyperParameters.from_config({"space": copy.deepcopy(list(configs)), "values": values})
    for one in hp.space:
        if hp.is_active(one):
            hp.values.setdefault(one.name, one.default)
    return hp


def configs_of(hp: keras_tuner.HyperParameters) -> list[dict[str, Any]]:
    return list(hp.get_config()["space"])


def replaced(configs: Iterable[Config], others: Mapping[str, Config]) -> list[Config]:
    """The same hyper-parameters, in their scopes, but for those that `others` has by name."""
    return [{**new, "config": {**new["config"], "conditions": one["config"]["conditions"]}}
            if (new := others.get(one["config"]["name"])) else one for one in configs]


def config_of(parameter: Parameter) -> Config:
    """A hyper-parameter as keras-tuner has it."""
    hp, values = keras_tuner.HyperParameters(), list(parameter.values)
    if parameter.kind != "choice":
        kind = hp.Int if isinstance(values[0], int) else hp.Float
        kind(parameter.name, *values, sampling=parameter.kind)
    else:
        if len({type(value) for value in values}) > 1:  # a Choice takes values of one type
            values = list(map(str, values))
        hp.Choice(parameter.name, values, default=values[0])
    (config,) = configs_of(hp)
    if isinstance(values[0], bool):  # a Choice makes 1 and 0 of them
        config["config"]["values"] = values
    return config


def _is_rate(value: arguments.Scalar, model: keras.Model) -> bool:
    """Whether it is the learning rate that a model is compiled with."""
    rate = model.optimizer.get_config()["learning_rate"]  # float32, or the config of a schedule
    return isinstance(value, float) and isinstance(rate, float) and math.isclose(value, rate, rel_tol=1e-6)


def _fixed(name: str, value: arguments.Scalar) -> Config:
    hp = keras_tuner.HyperParameters()
    hp.Fixed(name, value)
    return configs_of(hp)[0]
