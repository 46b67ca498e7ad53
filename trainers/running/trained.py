"""A trained model, wherever it comes from: a finished run's folder, or the weights that come with the package.

NumPy and TensorFlow are imported where they are used, so that a command can refuse what it is given before that.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING, Any

from fmnist_zoo import registry, weights
from fmnist_zoo.errors import ZooError
from fmnist_zoo.spec import ModelSpec, Recipe
from trainers.config import ConfigError, RunConfig, read_record
from trainers.running.folder import RunFolder

if TYPE_CHECKING:
    from fmnist_zoo.data import Data


class TrainedError(ZooError, ValueError):
    """A run that cannot be used as a trained model: says why, and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A model with the weights that count.

    Attributes:
        title: what a table calls it: the run's folder, or the model's name.
        spec, recipe, seed: what was built and how it was trained.
        model: Keras, (batch, 784) float32 in [0, 1] to (batch, 10) logits.
        step: updates that its weights have seen.
        data: what it was trained on: `name`, `sha256`, `split_sha256`; empty: it may be tried on any.
        data_settings: where those data are, as arguments of `fmnist_zoo.load_data`.
        weights_sha256: of the weights, as `checkpoints.digest` of the run, or of the shipped file.
        folder: the run's; None for shipped weights.
        temperature: that calibrates it; None where it is still to be fitted (`calibrated`).
    """

    title: str
    spec: ModelSpec
    recipe: Recipe
    seed: int
    model: Any
    step: int
    data: dict[str, Any]
    data_settings: dict[str, Any]
    weights_sha256: str
    folder: pathlib.Path | None = None
    temperature: float | None = None


def from_zoo(name: str, data: str = "fashion_mnist") -> Trained:
    """The shipped model of a name; `SpecError` or `WeightsError` if there is none.

    Args:
        data: what it is to be tried on. "mini" has other images held out than those it was trained without.
    """
    from fmnist_zoo import models

    spec = registry.get_spec(name)
    entry = weights.entry(spec.name)
    recipe = Recipe(**entry["recipe"])
    settings = {"validation_size": recipe.validation_size, "data": data}
    return Trained(spec.name, spec, recipe, entry["seed"], models.load_model(spec), entry["step"],
                   entry["data"] if data == entry["data"]["name"] else {}, settings, entry["sha256"],
                   temperature=entry["temperature"])


def from_run(path: str | os.PathLike[str]) -> Trained:
    """The model of a finished run; not calibrated yet.

    Raises:
        ConfigError: if there is no run in that folder.
        TrainedError: if it has not come to its end, or its weights are not those that it ended with.
    """
    from fmnist_zoo import models
    from trainers.engine import lowlevel
    from trainers.running import checkpoints

    folder, record, result = _finished(path)
    config = RunConfig.from_dict(record["config"])
    kept = folder.weights / f"{config.recipe.weights}.weights.h5"
    if not kept.is_file():
        raise TrainedError(f"{kept}: is gone; train the run anew with "
                           f"python -m trainers.train --config={folder.config}")
    model = models.build_model(config.spec, config.seed, weights=kept)
    names = weights.layer_names(config.spec) if config.trainer != "scratch" else lowlevel.names(config.spec)
    if checkpoints.digest(dict(zip(names, model.get_weights()))) != result.get("weights_sha256"):
        raise TrainedError(f"{kept}: these are not the weights that the run ended with; train it anew with "
                           f"python -m trainers.train --config={folder.config}")
    fit = record["data"]["fit"]
    step = result["final"]["epoch"] * -(-fit // config.batch(fit))
    return Trained(str(folder.path), config.spec, config.recipe, config.seed, model, step, record["data"],
                   config.data_settings, result["weights_sha256"], folder=folder.path)


def _finished(path: str | os.PathLike[str]) -> tuple[RunFolder, dict[str, Any], dict[str, Any]]:
    """Folder, record and result of a finished run."""
    folder = RunFolder(pathlib.Path(os.path.expanduser(path)))
    if not folder.config.is_file():
        missing = "no run in this folder" if folder.path.is_dir() else "no such folder"
        raise ConfigError(f"{folder.path}: {missing}; a run is named by its folder, such as tb_logs/4D_drop03/<run>")
    record, result = read_record(folder.path), folder.read_result()
    if result is None:
        raise TrainedError(f"{folder.path}: this run has not come to its end; go on with "
                           f"python -m trainers.train --resume={folder.path}")
    return folder, record, result


def spec_and_data(*, run: str = "", model: str = "") -> tuple[ModelSpec, dict[str, Any]]:
    """Spec and `data` of what `--run` or `--model` name: told, or refused as `load` would, without TensorFlow."""
    if run:
        record = _finished(run)[1]
        return RunConfig.from_dict(record["config"]).spec, record["data"]
    spec = registry.get_spec(model)
    return spec, weights.entry(spec.name)["data"]


def load(*, run: str = "", model: str = "") -> Trained:
    """What `--run` or `--model` name; shipped weights for a model."""
    return from_run(run) if run else from_zoo(model)


def validation(trained: Trained, data_dir: str | None = None) -> Data:
    """The data whose `validation` split chose its epoch, the same to the bit.

    Raises:
        TrainedError: if those in `data_dir` (or where the run had them) are others, or are split otherwise.
        DataError: if there are none.
    """
    from fmnist_zoo.data import load_data

    found = load_data(("validation",), **settings(trained, data_dir))
    check(trained, found)
    return found


def settings(trained: Trained, data_dir: str | None = None) -> dict[str, Any]:
    """Arguments of `fmnist_zoo.load_data`: where its data are, or are now."""
    return {**trained.data_settings, **({"data_dir": data_dir} if data_dir else {})}


def check(trained: Trained, found: Data) -> None:
    """`TrainedError` if `found` are other data than it was trained on, or held out otherwise.

    Of a set of the user's (`--allow_other_data`) only the files that training read can be held to its record.
    """
    if not trained.data:
        return
    known = {"sha256": found.sha256} if found.name != "other" or found.split_sha256 else {}
    known.update({"split_sha256": found.split_sha256} if found.split_sha256 else {})
    for name, received in known.items():
        if received != trained.data[name]:
            raise TrainedError(f"{trained.title} was trained on other data than those in {found.folder}: {name} "
                               f"{received}, recorded {trained.data[name]}; name its own with --data_dir")


def calibrated(trained: Trained, data_dir: str | None = None) -> Trained:
    """`trained` with its temperature, fitted on its validation images if it is not known; 1 without such images."""
    if trained.temperature is not None:
        return trained
    from fmnist_zoo import metrics, prediction

    split = validation(trained, data_dir)["validation"]
    logits = prediction.outputs_of(trained.model, prediction.as_pixels(split.images))
    temperature = metrics.fit_temperature(logits, split.labels) if len(split.labels) else 1.0
    return dataclasses.replace(trained, temperature=temperature)
