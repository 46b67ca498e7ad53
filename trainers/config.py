"""A run, resolved: everything that decides its numbers, as plain data that goes to JSON and back. No TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

from fmnist_zoo import registry
from fmnist_zoo.errors import ZooError
from fmnist_zoo.spec import FULL_BATCH, OPTIMIZERS, ModelSpec, Recipe, SpecError

TRAINERS = ("tape", "fit", "scratch")
PRECISIONS = ("float32", "mixed_bfloat16")
CHANGE_NO_NUMBER = ("data_dir", "checkpoint_every", "histogram_every")  # where, and how often something is written
_RECIPE_FIELDS = tuple(field.name for field in dataclasses.fields(Recipe))
_SPEC_FIELDS = ("hidden", "dropout", "l1", "l2", "initializer")


class ConfigError(ZooError, ValueError):
    """Settings that do not go together, or a config file that does not read: says which and what to do."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A run = spec + recipe + seed + data; `config.json` holds it.

    Attributes:
        spec, recipe: what is built and how it is trained.
        trainer: the engine: "tape", "fit", or "scratch" (the low-level networks from their equations).
        precision: "float32", or "mixed_bfloat16": hidden layers compute in bfloat16; logits, weights, loss, optimizer
            and evaluation stay in float32.
        seed: initial weights, shuffle order and dropout masks follow from it.
        data, data_dir, allow_other_data: as in `fmnist_zoo.load_data`.
        checkpoint_every: epochs between checkpoints.
        histogram_every: epochs between histograms and pictures in TensorBoard; 0: none.
        ranking: one half of the validation images is kept apart, and measured once, with the weights that count. The
            other half chooses the epoch, so that runs can be ranked by images that chose nothing (a sweep's trials).
    """

    spec: ModelSpec
    recipe: Recipe
    trainer: str = "tape"
    precision: str = "float32"
    seed: int = 0
    data: str = "fashion_mnist"
    data_dir: str = ""
    allow_other_data: bool = False
    checkpoint_every: int = 1
    histogram_every: int = 3
    ranking: bool = False

    def __post_init__(self) -> None:
        if self.trainer not in TRAINERS:
            raise ConfigError(f"trainer must be one of {', '.join(TRAINERS)}; received {self.trainer!r}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}; received {self.precision!r}")
        if self.precision != "float32" and self.trainer != "tape":
            raise ConfigError(f"--precision={self.precision} is for --trainer=tape; received {self.trainer!r}")
        if self.precision != "float32" and not self.spec.hidden:
            raise ConfigError(f"--precision={self.precision} is for hidden layers; {self.spec.name} has none")
        for field, low, below in (("seed", 0, 2**32), ("checkpoint_every", 1, 2**31), ("histogram_every", 0, 2**31)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value < below:
                raise ConfigError(f"{field} must be a whole number in [{low}, {below}), received {value!r}")
        if self.data not in ("fashion_mnist", "mini"):
            raise ConfigError(f"data must be fashion_mnist or mini, received {self.data!r}")
        if not isinstance(self.ranking, bool) or self.ranking and not self.recipe.validation_size:
            raise ConfigError("ranking is true or false, and needs validation images; received "
                              f"{self.ranking!r} with validation_size={self.recipe.validation_size}")
        if not isinstance(self.data_dir, str) or not isinstance(self.allow_other_data, bool):
            raise ConfigError(f"data_dir must be text and allow_other_data true or false, received {self.data_dir!r} "
                              f"and {self.allow_other_data!r}")
        if self.data == "mini" and (self.data_dir or self.allow_other_data):
            raise ConfigError("--data=mini comes with the package: drop --data_dir and --allow_other_data")
        if self.allow_other_data and not (self.data_dir or os.environ.get("FMNIST_ZOO_DATA")):
            raise ConfigError("--allow_other_data needs --data_dir (or FMNIST_ZOO_DATA) to say where they lie")

        if self.trainer == "scratch":
            self._check_scratch()

    def _check_scratch(self) -> None:
        """The low-level page knows the report's Part A and no more."""
        if not self.spec.name.startswith("network_") or self.spec.initializer != "normal_0.05" or self.spec.dropout:
            raise ConfigError("--trainer=scratch trains the low-level networks (network_softmax, network_A, network_B "
                              f"and their L1 and L2 variants), without dropout; received {self.spec.name}")
        if self.recipe.optimizer not in ("adam", "sgd") or self.recipe.weight_decay:
            raise ConfigError("--trainer=scratch has adam and sgd, without weight decay, written from their equations; "
                              f"received {self.recipe.optimizer}, weight_decay {self.recipe.weight_decay:g}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
                "spec": self.spec.to_dict(), "recipe": dataclasses.asdict(self.recipe)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> RunConfig:
        """The inverse of `to_dict`; `ConfigError` for anything else."""
        try:
            return cls(**{**fields, "spec": ModelSpec(**fields["spec"]), "recipe": Recipe(**fields["recipe"])})
        except (TypeError, KeyError) as error:
            raise ConfigError(f"not a run's config: {error}") from error

    @property
    def identity(self) -> str:
        """What a checkpoint belongs to: everything that decides the numbers of an epoch, as text."""
        fields = self.to_dict()
        fields["spec"] = self.spec.architecture
        fields["recipe"].pop("epochs")
        return json.dumps({name: value for name, value in fields.items() if name not in CHANGE_NO_NUMBER},
                          sort_keys=True)

    @property
    def data_settings(self) -> dict[str, Any]:
        """The run's data, as arguments of `fmnist_zoo.load_data`."""
        return {"data": self.data, "data_dir": self.data_dir or None, "allow_other_data": self.allow_other_data,
                "validation_size": self.recipe.validation_size}

    def batch(self, images: int) -> int:
        """Images a step, of `images` fit images."""
        return images if self.recipe.batch_size == FULL_BATCH else min(int(self.recipe.batch_size), images)


def resolve(model: str | ModelSpec, **settings: Any) -> RunConfig:
    """The run of a model's recipe with `settings` (named as the flags are) laid over it; None means "not given"."""
    if isinstance(model, ModelSpec):
        try:
            recipe = registry.get_recipe(model.name)
        except SpecError:  # a spec of the caller's own, never registered
            recipe = Recipe()
        return overlay(RunConfig(spec=model, recipe=recipe), _fresh=True, **settings)
    return overlay(RunConfig(spec=registry.get_spec(model), recipe=registry.get_recipe(model)), _fresh=True, **settings)


def overlay(config: RunConfig, *, _fresh: bool = False, **settings: Any) -> RunConfig:
    """`config` with `settings` laid over it; what hangs on a changed setting, and is not named itself, follows it."""
    given = {name: value for name, value in settings.items() if value is not None}
    known = {*_SPEC_FIELDS, *_RECIPE_FIELDS, *(field.name for field in dataclasses.fields(RunConfig))}
    for name in given:
        if name not in known:
            raise ConfigError(f"a run has no setting {name!r}; {registry.nearest(name, sorted(known))}")
    spec = registry.derive(config.spec, **{name: given[name] for name in _SPEC_FIELDS if name in given})
    changes = {name: given[name] for name in _RECIPE_FIELDS if name in given}
    if changes.get("optimizer", config.recipe.optimizer) != config.recipe.optimizer:
        defaults = OPTIMIZERS.get(changes["optimizer"])  # None for an unknown name, which Recipe refuses
        if defaults:
            changes.setdefault("learning_rate", defaults.learning_rate)
            changes.setdefault("weight_decay", defaults.weight_decay)
    recipe = dataclasses.replace(config.recipe, **changes)
    if _fresh:  # runs of short epochs need not save or draw at each of them
        given.setdefault("checkpoint_every", max(1, recipe.epochs // 10))
        given.setdefault("histogram_every", max(1, recipe.epochs // 5))
    rest = {name: value for name, value in given.items() if name not in (*_SPEC_FIELDS, *_RECIPE_FIELDS)}
    return dataclasses.replace(config, spec=spec, recipe=recipe, **rest)


def differences(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Setting name to (old, new), for each that differs."""
    flat_old, flat_new = ({**config.to_dict(), **config.spec.architecture, **dataclasses.asdict(config.recipe)}
                          for config in (old, new))
    return {name: (flat_old[name], flat_new[name]) for name in flat_old
            if name not in ("spec", "recipe") and flat_old[name] != flat_new[name]}


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A run's `config.json`: {"config": ..., "data": ..., "environment": ...}; `path` may be its folder.

    Raises:
        ConfigError: if it is missing or does not read, naming the file.
    """
    path = pathlib.Path(path)
    try:
        path = path / "config.json" if path.is_dir() else path
        record = json.loads(path.read_text())
        RunConfig.from_dict(record["config"])
        for part, names in (("data", ("name", "sha256", "split_sha256", "fit", "validation")),
                            ("environment", ("versions", "cpu", "cores"))):
            missing = [name for name in names if name not in record[part]]
            if missing or not isinstance(record[part], dict):
                raise ConfigError(f"its {part} lacks {', '.join(missing) or 'everything'}")
        if not isinstance(record["data"]["fit"], int) or not record["data"]["fit"] > 0:
            raise ConfigError(f"its data have {record['data']['fit']!r} fit images")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: not the config.json of a run: {error}") from error
    return record
