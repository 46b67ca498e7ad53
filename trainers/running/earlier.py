"""The trained models that a recipe names, as teachers or for its initial weights, and the runs that train them first.

A name is the folder of a finished run, a trained model of the zoo, or `module:model`. The last is a model that a module
registers; it is trained before the run itself, by its own recipe, on the same data and with the same seed, into the
same log folder. A run of it that is there already is used.
"""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Sequence

from fmnist_zoo import registry, weights
from fmnist_zoo.errors import ZooError
from fmnist_zoo.spec import ARRAYS, ModelSpec, Recipe
from trainers.config import ConfigError, RunConfig, names_in, resolve
from trainers.engine import threads
from trainers.running import trained
from trainers.running.folder import RunFolder
from trainers.running.progress import Reporter
from trainers.running.trained import Trained

if TYPE_CHECKING:
    from fmnist_zoo.data import Data

SETTINGS = {"initial_weights": "initial_weights", "teacher": "teachers"}  # what a run's record calls it
INHERITED = ("seed", "data", "data_dir", "allow_other_data", "threads", "histogram_every")


def check(config: RunConfig, after: tuple[str, ...] = ()) -> None:
    """`ConfigError`, without TensorFlow, for names that are no trained model, or whose run is not finished.

    Args:
        after: the names that led to this run, which comes before theirs.
    """
    for setting, name in _named(config.recipe):
        if name in after:
            raise ConfigError(f"--{setting}={name} would be trained before itself: {' needs '.join((*after, name))}; "
                              "the recipe of a registered model names another one")
        try:
            first = _before(name, config) if _of_module(name) else None
            spec = first.spec if first else _spec(name)
        except ZooError as error:
            raise ConfigError(f"--{setting}: {error}") from error
        dense = not (spec.build or config.spec.build)
        if setting == "initial_weights" and dense and spec.hidden != config.spec.hidden:
            raise ConfigError(f"--{setting}={name} has hidden layers of {_units(spec)} units, and {config.spec.name} "
                              f"of {_units(config.spec)}; name a network with the same hidden layers")
        if first:
            check(first, (*after, name))


def _spec(name: str) -> ModelSpec:
    """That of a trained model."""
    if "model" in (argument := _argument(name, {})):
        shipped = registry.get_spec(name).name
        if shipped not in weights.manifest():
            raise ConfigError(f"no trained weights come with {shipped!r}; name the folder of a finished run of it, or "
                              "module:model, which is trained first")
    return trained.spec_and_data(**argument)[0]


def _units(spec: ModelSpec) -> str:
    return ", ".join(map(str, spec.hidden)) or "no"


def refuse_modules(recipe: Recipe) -> None:
    """`ConfigError` for a model that would have to be trained first."""
    for setting, name in _named(recipe):
        if _of_module(name):
            module, _, model = name.partition(":")
            raise ConfigError(f"--{setting}={name} is trained before each run, and a sweep has many: train it once by "
                              f"python -m trainers.train --zoo_module={module} --model={model}, and name its folder")


def runs(config: RunConfig, begun: bool) -> dict[str, RunConfig]:
    """The runs that come before a run, by their names in its recipe; `SpecError`, `ConfigError` for impossible ones.

    Args:
        begun: the run has a checkpoint, and no more need of its initial weights.
    """
    return {name: _before(name, config) for _, name in _named(config.recipe, begun) if _of_module(name)}


def load(recipe: Recipe, folders: Mapping[str, str], record: Mapping[str, Any], data: Data, reporter: Reporter, *,
         begun: bool) -> tuple[dict[str, list[Trained]], dict[str, list[dict[str, Any]]]]:
    """The models that a recipe names, and what a run's record says of them. Imports TensorFlow.

    Args:
        folders: of the runs that were trained first, by their names in the recipe.
        record: that of the run that is resumed or replayed; empty for a new run.
        data: those of the run.
        reporter: is given a line for each model that may know images which validate the run.
        begun: as in `runs`; what the record says of the initial weights is then kept.

    Returns:
        The models of each setting, and entries of the record: for each model `title`, `weights_sha256`, and
        `same_split`, whether it was trained on the same images, with the same ones held out. One that was
        trained first has the `seconds` of its training, too.

    Raises:
        ConfigError: if the models are not those recorded.
        ZooError: if there is no such trained model, or its run is not finished.
    """
    models: dict[str, list[Trained]] = {}
    entries = {"initial_weights": record["initial_weights"]} if begun and recipe.initial_weights else {}
    for setting, entry in SETTINGS.items():
        names = [name for one, name in _named(recipe, begun) if one == setting]
        models[setting] = [trained.load(**_argument(name, folders)) for name in names]
        found = []
        for name, one in zip(names, models[setting]):
            title = name if name in folders else one.title
            same = one.data.get("sha256") == data.sha256 and one.data["split_sha256"] == data.split_sha256
            seconds = {"seconds": _seconds(folders[name])} if name in folders else {}
            found.append({"title": title, "weights_sha256": one.weights_sha256, "same_split": same, **seconds})
            if not same and len(data["validation"].labels):
                reporter.note(_may_know(setting, title))
        if found:
            _refuse_others(setting, found, record.get(entry))
            entries[entry] = found
    return models, entries


def _refuse_others(setting: str, found: list[dict[str, Any]], recorded: list[dict[str, Any]] | None) -> None:
    for field in ("title", "weights_sha256"):
        now, before = [one[field] for one in found], [one[field] for one in recorded or found]
        if now != before:
            what = "the teachers have" if setting == "teacher" else f"{setting} has"
            raise ConfigError(f"{what} changed since the recorded run began: {field} {', '.join(now)}, recorded "
                              f"{', '.join(before)}; put back what was there, or begin a new run with --{setting}")


def notes(texts: Mapping[str, Sequence[str]], data: Mapping[str, str]) -> list[str]:
    """What to tell the user, without TensorFlow, of models that may know images which validate the trials of a sweep.

    Args:
        texts: what the trials' recipes have for each setting of `SETTINGS`.
        data: `sha256` and `split_sha256` of the data of the sweep.
    """
    found = {(setting, name): trained.spec_and_data(**_argument(name, {}))[1]
             for setting, several in texts.items() for text in several for name in names_in(text)}
    return [_may_know(setting, name) for (setting, name), known in found.items()
            if any(known[key] != data[key] for key in data)]


def _may_know(setting: str, title: str) -> str:
    if setting == "teacher":
        return (f"teacher {title} was trained on other data, or with other images held out: it may have learned images "
                "that validate its student, whose validation scores are then too good")
    return (f"the initial weights are those of {title}, which was trained on other data, or with other images held "
            "out: it may have learned images that validate this run, and then the validation scores are too good")


def _named(recipe: Recipe, begun: bool = False) -> Iterator[tuple[str, str]]:
    """Each setting that names trained models, with each name; of a run that has begun, only what it still needs."""
    for setting in ("teacher",) if begun else SETTINGS:
        for name in names_in(getattr(recipe, setting)):
            yield setting, name


def _of_module(name: str) -> bool:
    module, colon, model = name.partition(":")
    return bool(colon and model) and os.sep not in name and all(part.isidentifier() for part in module.split("."))


def _before(name: str, config: RunConfig) -> RunConfig:
    """The run of `module:model` that comes before a run with `config`."""
    module, _, model = name.partition(":")
    threads.use(config.threads)  # the module imports Keras, and TensorFlow's threads are set before or never
    registry.load_zoo_module(module)
    if config.data == ARRAYS:
        raise ConfigError(f"{name} is trained first, on the data of the run, and these were given in Python as arrays: "
                          "train it on them, and name its folder")
    return resolve(model, validation_size=config.recipe.validation_size,
                   **{one: getattr(config, one) or None for one in INHERITED})


def _seconds(folder: str) -> float:
    return float((RunFolder(pathlib.Path(folder)).read_result() or {})["seconds"])


def _argument(name: str, folders: Mapping[str, str]) -> dict[str, str]:
    path = folders.get(name, name)
    return {"run" if os.path.isabs(path) else "model": path}
