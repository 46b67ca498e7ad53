"""The trained models that a recipe names: one for a run's first weights, and its teachers.

A name is the folder of a finished run, or a model of the zoo that comes with weights.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Iterator, Mapping, Sequence

from fmnist_zoo import registry, weights
from fmnist_zoo.errors import SpecError, ZooError
from fmnist_zoo.files import Record
from fmnist_zoo.spec import ModelSpec, Recipe
from trainers.config import ConfigError, RunConfig, names_in
from trainers.running import trained
from trainers.running.progress import Reporter
from trainers.running.trained import Trained

if TYPE_CHECKING:
    import keras
    import numpy as np

    from fmnist_zoo.data import Data

SETTINGS = {"initial_weights": "initial_weights", "teacher": "teachers"}  # what a run's record calls it
COMPARED, TOLERANCE = 256, 1e-2  # images on which both networks must agree, and by how much logits may differ


def check(config: RunConfig) -> None:
    """`ConfigError`, without TensorFlow, for names that are no trained model, or one with other hidden layers."""
    for setting, name in _named(_texts(config.recipe)):
        with _errors_of(setting, name):
            spec = trained.spec_and_data(**_argument(name))[0]
        if setting != "initial_weights" or config.spec.build:
            continue
        if spec.build:  # as dense layers it fits the model that was registered with it
            if name != registry.recipe_of(config.spec).initial_weights:
                continue
            spec = registry.get_spec(config.spec.name.partition(",")[0])
        if spec.hidden != config.spec.hidden:
            raise ConfigError(f"--{setting}={name} has hidden layers of {_units(spec)} units, and {config.spec.name} "
                              f"of {_units(config.spec)}; name a network with the same hidden layers, or none with "
                              f"--{setting}=")


def digests(texts: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """`Trained.weights_sha256` of each model that `texts`, as `notes` takes them, name; without TensorFlow."""
    found = {}
    for setting, name in _named(texts):
        with _errors_of(setting, name):
            found[name] = trained.weights_sha256(**_argument(name))
    return found


def changed(recipe: Recipe, record: Record) -> str:
    """The setting, with its value, whose models have other weights now than a run's record says; empty if none has."""
    for setting, entry in SETTINGS.items():
        text = getattr(recipe, setting)
        now = digests({setting: [text]})
        if [now[name] for name in names_in(text)] != [one["weights_sha256"] for one in record.get(entry, [])]:
            return f"{setting}={text}"
    return ""


def load_named(recipe: Recipe, data: Data, reporter: Reporter, recorded: Record, *, resumed: bool, begun: bool
               ) -> tuple[dict[str, list[Trained]], dict[str, list[Record]]]:
    """The models that a recipe names, and what a run's record says of them. Imports TensorFlow.

    Args:
        data: those of the run.
        reporter: is given a line for each model that was trained on other data, or with other images held out.
        recorded: the record that is resumed or replayed; empty for a new run.
        resumed: the run continues, and other models than the recorded ones are refused; a replay notes them.
        begun: the run has a checkpoint, and no more need of its first weights, of which the recorded entry is kept.

    Returns:
        The models of each setting, and entries of the record: for each model `title`, `weights_sha256`, and `data`
        (`sha256` and `split_sha256` of what it was trained on).

    Raises:
        ConfigError: if there is no such trained model, its run is not finished, or a run is resumed, and the models
            are not those recorded.
    """
    models: dict[str, list[Trained]] = {setting: [] for setting in SETTINGS}
    entries: dict[str, list[Record]] = {}
    own = {"sha256": data.sha256, "split_sha256": data.split_sha256}
    for setting, name in _named(_texts(recipe)):
        entry = SETTINGS[setting]
        if begun and setting == "initial_weights":
            entries[entry] = recorded[entry]
            continue
        with _errors_of(setting, name):
            one = trained.load(**_argument(name))
        known = {digest: one.data.get(digest, "") for digest in own}
        models[setting].append(one)
        entries.setdefault(entry, []).append(
            {"title": one.title, "weights_sha256": one.weights_sha256, "data": known})
        note = _other_data(setting, one.title, known, own)
        if note and (known["sha256"] != data.sha256 or len(data["validation"].labels)):
            reporter.note(note)
    for setting, entry in SETTINGS.items():
        for what in ("title", "weights_sha256"):
            found = entries.get(entry, [])
            now, before = (", ".join(one[what] for one in some) for some in (found, recorded.get(entry, found)))
            if now != before and resumed:
                raise ConfigError(f"{entry}: {what} {now}, recorded {before}: put back what was there when this run "
                                  f"began, or begin a new one with --{setting}")
            if now != before:
                reporter.note(f"{entry}: {what} {now}, recorded {before}")
    return models, entries


@contextlib.contextmanager
def _errors_of(setting: str, name: str) -> Iterator[None]:
    """Errors of a trained model as `ConfigError` that name the setting."""
    try:
        yield
    except ZooError as error:
        advice = f"; the folder of that name is ./{name}" if os.path.isdir(name) and os.sep not in name else ""
        raise ConfigError(f"--{setting}: {error}{advice}") from error


def notes(texts: Mapping[str, Sequence[str]], data: Mapping[str, str]) -> list[str]:
    """What to tell the user, without TensorFlow, of models that were trained on other data than a sweep.

    Args:
        texts: what the trials' recipes have for each setting of `SETTINGS`.
        data: `sha256` and `split_sha256` of the data of the sweep.
    """
    found = {(setting, name): trained.spec_and_data(**_argument(name))[1] for setting, name in _named(texts)}
    every = (_other_data(setting, name, known, data) for (setting, name), known in found.items())
    return [note for note in every if note]


def _other_data(setting: str, title: str, known: Mapping[str, str], own: Mapping[str, str]) -> str:
    """A note on a model that was trained on other data than a run's own; empty for one that was not."""
    what = f"teacher {title}" if setting == "teacher" else f"initial weights {title}"
    if known["sha256"] != own["sha256"]:
        return (f"{what}: trained on other data (sha256 {known['sha256'][:12]}, here {own['sha256'][:12]}); if they "
                "hold images that validate this run, its validation scores are too good")
    if known["split_sha256"] != own["split_sha256"]:
        return (f"{what}: trained with other images held out; it may have learned images that validate this run, whose "
                "validation scores are then too good")
    return ""


def transfer(model: keras.Model, spec: ModelSpec, source: Trained, images: np.ndarray) -> None:
    """Gives `model` the weights of `source`: as they are, or written as dense layers (`unrolling.dense_arrays`).

    Args:
        images: (count, 784) uint8; on the first of them the two networks must agree.

    Raises:
        ConfigError: if the two have other layers, or are not the same function.
    """
    import numpy as np

    from fmnist_zoo import prediction, unrolling

    problem = f"{spec.name} cannot start from the weights of {source.title}"
    alike = weights.shapes(source.model) == weights.shapes(model)
    try:
        arrays = source.model.get_weights() if alike else unrolling.dense_arrays(source.model)
    except SpecError as error:
        raise ConfigError(f"{problem}: {error}") from error
    expected, received = ([array.shape for array in some] for some in (model.get_weights(), arrays))
    if received != expected:
        raise ConfigError(f"{problem}: that has arrays of shapes {received}, expected {expected}")
    weights.assign(model, arrays)
    pixels = prediction.as_pixels(images[:COMPARED])
    logits, theirs = (prediction.outputs_of(one, pixels) for one in (model, source.model))
    if not np.allclose(logits, theirs, rtol=TOLERANCE, atol=TOLERANCE):
        raise ConfigError(f"{problem}: with them it computes other logits (up to {np.abs(logits - theirs).max():.2g} "
                          "apart); its activations must be those of that network")


def _texts(recipe: Recipe) -> dict[str, list[str]]:
    """What a recipe has for each setting that names trained models, as `notes` takes it."""
    return {setting: [getattr(recipe, setting)] for setting in SETTINGS}


def _named(texts: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Each setting with each name of a trained model in its texts."""
    for setting, several in texts.items():
        for name in (name for text in several for name in names_in(text)):
            yield setting, name


def _units(spec: ModelSpec) -> str:
    return ", ".join(map(str, spec.hidden)) or "no"


def _argument(name: str) -> dict[str, str]:
    return {"run" if os.path.isabs(name) else "model": name}
