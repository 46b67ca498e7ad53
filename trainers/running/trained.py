"""A trained model, from a finished run's folder or from the weights that come with the package.

NumPy and TensorFlow are imported within functions, so that a command can refuse wrong flags without them.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING, Any, Mapping

from fmnist_zoo import custom, registry, weights
from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import Record, quoted
from fmnist_zoo.spec import ARRAYS, ModelSpec, Recipe
from trainers.config import ConfigError, RunConfig, find_run, read_run, seeds_at
from trainers.running import provenance
from trainers.running.folder import RunFolder

if TYPE_CHECKING:
    import keras

    from fmnist_zoo.data import Data


class TrainedError(ZooError, ValueError):
    """A run that cannot be used as a trained model: says why and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A model with the weights that count.

    Attributes:
        title: its name in tables: the run's folder, or the model's name.
        spec, recipe, seed: what was built and how it was trained.
        model: Keras, (batch, 784) float32 in [0, 1] to (batch, 10) logits.
        epoch: how many its weights have seen: their place on TensorBoard's x axis.
        data: what it was trained on: `name`, `sha256`, `split_sha256`; empty if it may be measured on any data.
        data_settings: where those data are, as arguments of `fmnist_zoo.load_data`; empty if no file holds them.
        weights_sha256: of a run's weights, by `fmnist_zoo.weights.digest`; of their file's content, for shipped ones.
        folder: the run's; None for shipped weights.
        temperature: divides the logits to calibrate them; None if it has not been fitted.
    """

    title: str
    spec: ModelSpec
    recipe: Recipe
    seed: int
    model: keras.Model
    epoch: int
    data: Record
    data_settings: dict[str, Any]
    weights_sha256: str
    folder: pathlib.Path | None = None
    temperature: float | None = None


def from_zoo(name: str, data: str = "fashion_mnist") -> Trained:
    """A shipped model; `SpecError` or `WeightsError` if there is none of that name.

    Args:
        data: what it will be measured on. "mini" holds out other images than those that the model never saw.
    """
    from fmnist_zoo import models

    spec = registry.get_spec(name)
    entry = weights.entry(spec.name)
    recipe = Recipe.from_config(entry["recipe"])
    return Trained(spec.name, spec, recipe, entry["seed"], models.load_model(spec), entry["epoch"],
                   entry["data"] if data == entry["data"]["name"] else {},
                   {"validation_size": recipe.validation_size, "data": data}, entry["sha256"],
                   temperature=entry["temperature"])


def from_run(path: str | os.PathLike[str]) -> Trained:
    """The model of a finished run, not calibrated.

    Raises:
        ConfigError: if there is no run in that folder.
        TrainedError: if the run is not finished, or its weights are missing or were changed.
    """
    from fmnist_zoo import models

    folder, record, config, result = _finished(path)
    path = folder.weight_file(config.recipe.weights)
    again = (f"train the run again with python -m trainers.train --config={quoted(folder.config)}"
             f"{custom.flag(config.spec.modules)}")
    if not path.is_file():
        trial = folder.path.parent
        if (trial / "trial.json").exists():
            raise TrainedError(f"{folder.path}: has no weights, because a sweep keeps those of its best trials alone; "
                               f"train it again with python -m trainers.train --from_sweep={quoted(trial)}")
        raise TrainedError(f"{path}: is gone; {again}")
    model = models.build_model(config.spec, config.seed, weights=path)
    if weights.digest(model) != result["weights_sha256"]:
        raise TrainedError(f"{path}: these are not the weights that the run ended with; {again}")
    return Trained(str(folder.path), config.spec, config.recipe, config.seed, model, result["final"]["epoch"],
                   record["data"], {} if config.data == ARRAYS else config.data_settings, result["weights_sha256"],
                   folder=folder.path)


def _finished(path: str | os.PathLike[str]) -> tuple[RunFolder, Record, RunConfig, Record]:
    """Folder, record, config and result of a finished run."""
    folder = RunFolder(find_run(path))
    if not folder.config.is_file():
        if place := seeds_at(path):
            raise ConfigError(f"{place}: holds several seeds; name one of its folders, such as {place}/seed0")
        missing = "no run in this folder" if folder.path.is_dir() else "no such folder"
        raise ConfigError(f"{folder.path}: {missing}; a run is named by its folder, such as tb_logs/4D_drop03/<run>")
    (record, config), result = read_run(folder.path), folder.read_result()
    provenance.require_builder(folder.path, config.spec, record)
    if result:
        return folder, record, config, result
    module = custom.flag(config.spec.modules)
    if folder.failure.exists():
        reason = folder.read_failure() or "for an unknown reason"
        raise TrainedError(f"{folder.path}: this run failed ({reason}); train it again with other settings: "
                           f"python -m trainers.train --config={quoted(folder.config)}{module}")
    problem = (f"{folder.result}: damaged or changed; write it again" if folder.result.exists() else
               f"{folder.path}: this run is not finished; continue it")
    raise TrainedError(f"{problem} with python -m trainers.train --resume={quoted(folder.path)}{module}")


def spec_and_data(*, run: str = "", model: str = "") -> tuple[ModelSpec, Record]:
    """Spec and `data` of the model that `--run` or `--model` names, without TensorFlow; refuses what `load` refuses."""
    if run:
        _, record, config, _ = _finished(run)
        return config.spec, record["data"]
    spec = registry.get_spec(model)
    return spec, weights.entry(spec.name)["data"]


def weights_sha256(*, run: str = "", model: str = "") -> str:
    """`Trained.weights_sha256` of the model that `--run` or `--model` names, without TensorFlow."""
    return str(_finished(run)[3]["weights_sha256"] if run else weights.entry(registry.get_spec(model).name)["sha256"])


def load(*, run: str = "", model: str = "") -> Trained:
    """The model that `--run` names, or the shipped one that `--model` names."""
    return from_run(run) if run else from_zoo(model)


def load_data(trained: Trained, split: str, data_dir: str | None = None) -> Data:
    """The data that it was trained on, with one split: for "validation" the same images that chose its epoch.

    Args:
        data_dir: where the data are now; None: where the run had them.

    Raises:
        TrainedError: if they are other data, or are split differently.
        DataError: if there are none.
    """
    from fmnist_zoo import data

    settings = dict(trained.data_settings)
    if not settings:
        raise TrainedError(f"{trained.title} was trained on arrays that were given in Python, and no file holds them: "
                           "measure its model there, with fmnist_zoo.metrics")
    if data_dir:
        settings["data_dir"] = data_dir
    found = data.load_data((split,), **settings)
    received = {"sha256": found.sha256, "split_sha256": found.split_sha256}
    if not found.split_sha256:  # the training files were not read; the digest of other data is of what was read
        received = {} if found.name == "other" else {"sha256": found.sha256}
    for name, digest in received.items():
        if trained.data and digest != trained.data[name]:
            raise TrainedError(f"{trained.title} was trained on other data than those in {found.folder}: {name} "
                               f"{digest}, recorded {trained.data[name]}; name the folder of its own with --data_dir")
    return found


def check_ensemble(data: Mapping[str, Record]) -> None:
    """`TrainedError` unless models may be averaged; `data` maps their titles to what they were trained on."""
    if len(data) < 2:
        raise TrainedError(f"an ensemble has two members or more, received {', '.join(data)}; name another")
    if len({(one.get("sha256"), one.get("split_sha256")) for one in data.values()}) > 1:
        raise TrainedError("an ensemble is calibrated on validation images that no member was trained on, and these "
                           "hold out different ones: " + ", ".join(
                               f"{title} {one.get('split_sha256', 'unknown')[:12]} of {one.get('name', 'any')} "
                               f"{one.get('sha256', 'data')[:12]}" for title, one in data.items()))
