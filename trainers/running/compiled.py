"""What a compiled `keras.Model` says about its training, as settings of a run."""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping

from fmnist_zoo import custom, registry
from fmnist_zoo.backend import keras
from fmnist_zoo.settings import settings_of
from fmnist_zoo.spec import OPTIMIZERS, Recipe
from trainers.config import ConfigError, RunConfig
from trainers.engine.network import are_kernels
from trainers.engine.optimizers import MOMENTUM
from trainers.running.progress import Reporter

_losses = keras.losses
CROSS_ENTROPIES = (_losses.SparseCategoricalCrossentropy, _losses.CategoricalCrossentropy)
FUNCTIONS = (_losses.sparse_categorical_crossentropy, _losses.categorical_crossentropy)
NAMES = {"learning_rate": "learning_rate", "weight_decay": "weight_decay", "global_clipnorm": "clip_norm"}


def as_built(config: RunConfig, given: Mapping[str, Any], reporter: Reporter) -> RunConfig:
    """The run of a model of the user's as its function, or the caller of `train`, builds and compiles it.

    Args:
        given: settings that were given for the run.
        reporter: is given a line for each setting of `compile` that is not used.

    Raises:
        SpecError: if the function raises an error.
        ConfigError: as `settings`.
    """
    model, arguments = custom.returned(config.spec.builder)
    found, notes = settings(model, given, registry.recipe_of(config.spec))
    for note in notes:
        reporter.note(note)
    spec = dataclasses.replace(config.spec, arguments=arguments)
    recipe = dataclasses.replace(config.recipe, **found)
    return dataclasses.replace(config, spec=spec, recipe=recipe)


def settings(model: keras.Model, given: Mapping[str, Any], recipe: Recipe = Recipe()
             ) -> tuple[dict[str, Any], list[str]]:
    """The settings that `compile` of a model stands for, but for those that win; and notes on the latter.

    Args:
        given: settings that win; None means "not given".
        recipe: that the model was registered with, in which what is not at its default wins, too.

    Raises:
        ConfigError: for another loss than cross entropy, and for an optimizer, or a number of it, that no recipe has.
    """
    if not model.compiled:
        return {}, []
    registered = {name: getattr(recipe, name) for name, known in settings_of(Recipe).items()
                  if getattr(recipe, name) != known.default}
    given = registered | {name: value for name, value in given.items() if value is not None}
    found = _loss(model)
    if given.get("optimizer") is None:
        found |= _optimizer(model, given)
    else:
        found["optimizer"] = type(model.optimizer).__name__
    notes = [f"{name}={given[name]} is given: {name}={value} of compile is not used"
             for name, value in found.items() if given.get(name) not in (None, value)]
    return {name: value for name, value in found.items() if given.get(name) is None}, notes


def _loss(model: keras.Model) -> dict[str, Any]:
    loss = model.loss
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        loss = loss[0]
    try:
        loss = keras.losses.get(loss)
    except (ValueError, TypeError):  # several, for several outputs
        pass
    if model._compile_loss and model._compile_loss._user_loss_weights is not None:
        raise ConfigError(f"{model.name} is compiled with loss_weights, and one loss of weight 1 is what is trained: "
                          "compile it without")
    if loss is None or loss in FUNCTIONS:
        return {}
    if type(loss) not in CROSS_ENTROPIES:
        name = getattr(loss, "__name__", type(loss).__name__)
        raise ConfigError(f"{model.name} is compiled with the loss {name}, and cross entropy is what is trained: "
                          "compile it with sparse_categorical_crossentropy, or not at all")
    config = loss.get_config()
    usual = type(loss)().get_config()
    other = [f"{name}={value!r}" for name, value in config.items()
             if name not in ("name", "dtype", "from_logits", "label_smoothing") and value != usual.get(name)]
    if other:
        raise ConfigError(f"{model.name} is compiled with {type(loss).__name__}({', '.join(other)}), and its mean over "
                          f"all images is what is trained: compile it without {', '.join(other)}")
    smoothing = config.get("label_smoothing")
    return {"label_smoothing": smoothing} if smoothing else {}


def _optimizer(model: keras.Model, given: Mapping[str, Any]) -> dict[str, Any]:
    kind = type(model.optimizer)
    advice = "give optimizer='adam' or another, which takes its place"
    classes = {one.keras_class: name for name, one in OPTIMIZERS.items() if name != "momentum"}
    if kind.__name__ not in classes or kind is not getattr(keras.optimizers, kind.__name__, None):
        raise ConfigError(f"{model.name} is compiled with {kind.__name__}, which no recipe has; {advice}")
    config, usual = model.optimizer.get_config(), kind().get_config()
    found: dict[str, Any] = {"optimizer": classes[kind.__name__]}
    if kind is keras.optimizers.SGD and config["momentum"] == MOMENTUM:
        found["optimizer"], usual["momentum"] = "momentum", MOMENTUM
    if isinstance(config["learning_rate"], dict) and given.get("learning_rate") is None:
        raise ConfigError(f"{model.name} is compiled with the learning rate {config['learning_rate']['class_name']}; "
                          "give schedule='cosine' or another, and learning_rate")
    other = [f"{name}={value!r}" for name, value in config.items()
             if name not in (*NAMES, "name") and value != usual[name]]
    if other:
        raise ConfigError(f"{model.name} is compiled with {kind.__name__}({', '.join(other)}), which no recipe has; "
                          f"{advice}")
    if config["weight_decay"] and given.get("weight_decay") is None:
        _check_decay(model, advice)
    for name, ours in NAMES.items():
        value = config[name]
        if not isinstance(value, dict):
            found[ours] = float(f"{value or 0.0:.7g}")  # Keras keeps a learning rate in float32
    return found


def _check_decay(model: keras.Model, advice: str) -> None:
    """Refuses `exclude_from_weight_decay` of what decays in a run, the kernels; nothing else does."""
    if not any(getattr(model.optimizer, f"_exclude_from_weight_decay{kind}", None) for kind in ("", "_pattern")):
        return
    if not model.built:
        raise ConfigError(f"{model.name} is compiled with exclude_from_weight_decay, and has no variables yet: call it "
                          "on images first")
    left = [variable.path for variable, kernel in zip(model.trainable_variables, are_kernels(model), strict=True)
            if kernel and not model.optimizer._use_weight_decay(variable)]
    if left:
        raise ConfigError(f"{model.name} is compiled with exclude_from_weight_decay of {', '.join(left)}, and in a run "
                          f"all kernels decay; {advice}")
