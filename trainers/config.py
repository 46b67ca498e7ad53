"""A run, resolved: everything that decides its numbers, as plain data that goes to JSON and back. No TensorFlow."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import pathlib
import re
from typing import TYPE_CHECKING, Any, Callable, Mapping

from fmnist_zoo import arguments, custom, registry
from fmnist_zoo.card import printable
from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import local_path, opened
from fmnist_zoo.settings import (
    DATA,
    OUTPUT,
    TRAINING,
    Automatic,
    Choice,
    Setting,
    Switch,
    Text,
    Whole,
    check_settings,
    nearest,
    setting,
    settings_of,
)
from fmnist_zoo.spec import ARRAYS, FULL_BATCH, OPTIMIZERS, ModelSpec, Recipe

if TYPE_CHECKING:
    import keras

DATA_VARIABLE = "FMNIST_ZOO_DATA"
LOGDIR = "tb_logs"  # the log folder, unless another is named
THREADS, THREADS_VARIABLE = 2, "TF_NUM_INTRAOP_THREADS"
DEPENDENT = ("learning_rate", "weight_decay")  # settings that a new optimizer resets to its own defaults
SEEDS = 2**32  # how many there are
MIXED = "mixed_bfloat16"
LARGEST_XLA_BATCH = 1024  # above it, in bfloat16 and for convolutions, TensorFlow's own kernels are faster
TRAINED = ("teacher", "initial_weights")  # settings that name trained models
TAPE_ALONE = ("ema", "shift", "flip", "erase", "mixup", "initial_weights", "teacher")
SCRATCH = ("hidden", "l1", "l2", "epochs", "batch_size", "learning_rate", "validation_size", "early_stopping",
           "weights")  # the settings of model and recipe of which `scratch` takes any value


class ConfigError(ZooError, ValueError):
    """Settings that exclude each other, or a config file that does not read: says which and what to do."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A run = spec + recipe + seed + data; `config.json` holds it.

    Attributes:
        precision: with "mixed_bfloat16", logits, weights, loss, optimizer and evaluation stay in float32.
        data, data_dir, allow_other_data: as in `fmnist_zoo.load_data`; `data` is ARRAYS where Python gave the images.
        ranking: one half of the validation images chooses the epoch. The other half is measured once, with the weights
            that count, so that a sweep ranks its trials by images that chose nothing.

    Raises:
        SpecError: for a value that a setting cannot have.
        ConfigError: for settings that exclude each other.
    """

    spec: ModelSpec
    recipe: Recipe
    trainer: str = setting("tape", Choice(("tape", "fit", "scratch")), "tape: our GradientTape loop (the default); "
                           "fit: Model.fit; scratch: network_* from their equations", group=TRAINING, column=True)
    precision: str = setting("float32", Choice(("float32", MIXED)), f"{MIXED}: hidden layers compute in bfloat16, on "
                             "processors that multiply it in hardware; for large batches", group=TRAINING, column=True)
    jit_compile: bool | str = setting("auto", Automatic(), "whether XLA compiles the steps; auto: for the zoo's models "
                                      f"in float32, up to batch {LARGEST_XLA_BATCH}", group=TRAINING)
    seed: int = setting(0, Whole(below=SEEDS), "initial weights, shuffle order and dropout follow from it (default 0)",
                        group=TRAINING, column=True)
    threads: int = setting(THREADS, Whole(low=1, below=1025), f"of TensorFlow within an operation (default {THREADS}); "
                           "the last digits of a run depend on it", group=TRAINING)
    data: str = setting("fashion_mnist", Choice(("fashion_mnist", "mini"), (ARRAYS,)), "mini: 2,000 real images that "
                        "come with the package, to try things out", group=DATA, column=True)
    data_dir: str = setting("", Text(), "a folder with the four IDX files; default: FMNIST_ZOO_DATA, the caches, or a "
                            "download", group=DATA, decides=False)
    allow_other_data: bool = setting(False, Switch(), "take another 28x28 ten-class IDX set from --data_dir",
                                     group=DATA)
    checkpoint_every: int = setting(0, Whole(below=2**31), "epochs between checkpoints; 0, the default: one after the "
                                    "first epoch that ends a minute or more after the last", group=OUTPUT,
                                    decides=False)
    histogram_every: int | str = setting("auto", Whole(below=2**31, word="auto"), "epochs between histograms and "
                                         "pictures in TensorBoard; 0: none; auto: a fifth of the run; in a sweep, the "
                                         "default is 0", group=OUTPUT, decides=False)
    ranking: bool = False

    def __post_init__(self) -> None:
        check_settings(self)
        if self.precision != "float32" and self.trainer != "tape":
            raise ConfigError(f"--precision={self.precision} is for --trainer=tape; received {self.trainer!r}")
        if self.precision != "float32" and not (self.spec.hidden or self.spec.build):
            raise ConfigError(f"--precision={self.precision} is for hidden layers; {self.spec.name} has none")
        if self.ranking and not self.recipe.validation_size:
            raise ConfigError("a sweep ranks its trials by validation images; received validation_size=0")
        if self.data != "fashion_mnist" and (self.data_dir or self.allow_other_data):
            whence = "comes with the package" if self.data == "mini" else "are given in Python"
            raise ConfigError(f"--data={self.data} {whence}: drop --data_dir and --allow_other_data")
        self._check_trainer()

    def _check_trainer(self) -> None:
        """Refuses the settings that `fit` and `scratch` do not have, by name."""
        found = flat(self)
        if self.trainer == "fit":
            received = [name for name in TAPE_ALONE if found[name] != SETTINGS[name].default]
            if received:
                raise ConfigError(f"--trainer=fit has no {', '.join(received)}, or computes it otherwise; use "
                                  "--trainer=tape")
        if self.trainer == "scratch":
            if self.spec.build:
                raise ConfigError(f"--trainer=scratch trains low-level networks of the zoo; {self.spec.name} is built "
                                  f"by {custom.readable(self.spec.build)}: use --trainer=tape or fit")
            allowed = {"initializer": ("normal_0.05",), "optimizer": ("adam", "sgd")}
            holders = {**settings_of(ModelSpec), **settings_of(Recipe)}
            received = [f"{name}={known.kind.write(found[name])}" for name, known in holders.items()
                        if name not in SCRATCH and found[name] not in allowed.get(name, (known.default,))]
            if received:
                raise ConfigError("--trainer=scratch trains low-level networks from their equations (network_softmax, "
                                  "network_A, network_B, L1 and L2): ReLU layers from N(0, 0.05), no dropout, a "
                                  "constant learning rate, adam or sgd; received "
                                  f"{self.spec.name} with {', '.join(received)}")

    def get_config(self) -> dict[str, Any]:
        """For JSON; `from_config` is the inverse."""
        return {**vars(self), "spec": self.spec.get_config(), "recipe": self.recipe.get_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RunConfig:
        """The inverse of `get_config`; `ConfigError` if it is not such a dict."""
        try:
            return cls(**{**config, "spec": ModelSpec.from_config(config["spec"]),
                          "recipe": Recipe.from_config(config["recipe"])})
        except (TypeError, KeyError) as error:
            raise ConfigError(f"not a run's config: {error}") from error

    @property
    def identity(self) -> str:
        """The settings that decide the numbers of an epoch, without those at their default: JSON, for a checkpoint."""
        defaults = {name: known.default for name, known in SETTINGS.items() if known.decides}
        defaults |= {"build": "", "ranking": False}
        fields = flat(self)
        found = {name: fields[name] for name in defaults if fields[name] != defaults[name]}
        given = {"arguments": dict(self.spec.arguments)} if self.spec.arguments else {}
        return json.dumps({**found, **given}, sort_keys=True)

    @property
    def data_settings(self) -> dict[str, Any]:
        """The run's data, as arguments of `fmnist_zoo.load_data`; `ConfigError` for arrays given in Python."""
        if self.data == ARRAYS:
            raise ConfigError("the images of this run were given in Python as arrays, and no file holds them: give "
                              "them again there, to train(..., data=(images, labels))")
        return {"data": self.data, "data_dir": self.data_dir or None, "allow_other_data": self.allow_other_data,
                "validation_size": self.recipe.validation_size}

    @property
    def compiles(self) -> bool:
        """Whether XLA compiles the steps of the run: `jit_compile`, or what "auto" comes to."""
        if self.jit_compile != "auto":
            return bool(self.jit_compile)
        batch_size = self.recipe.batch_size
        small = batch_size != FULL_BATCH and int(batch_size) <= LARGEST_XLA_BATCH
        return small and self.precision == "float32" and not self.spec.build and self.trainer != "fit"

    @property
    def histogram_epochs(self) -> int:
        """Epochs between histograms: `histogram_every`, or what "auto" comes to; 0: none."""
        return max(1, self.recipe.epochs // 5) if self.histogram_every == "auto" else int(self.histogram_every)

    def batch(self, images: int) -> int:
        """Images a step, of `images` fit images."""
        return images if self.recipe.batch_size == FULL_BATCH else min(int(self.recipe.batch_size), images)


SETTINGS: dict[str, Setting] = {**settings_of(ModelSpec), **settings_of(Recipe), **settings_of(RunConfig)}


def flat(config: RunConfig) -> dict[str, Any]:
    """All settings of a run by name, whichever part of the config holds them; and `build` and `ranking`.

    So are the arguments of a model of the user's, by label. `schedule_epochs` is the recipe's horizon, which decides
    the numbers of an epoch, given or not.
    """
    everything = {**vars(config), **vars(config.recipe), **vars(config.spec),
                  "schedule_epochs": config.recipe.horizon}
    return {**{name: everything[name] for name in (*SETTINGS, "build", "ranking")},
            **{arguments.label(name): value for name, value in config.spec.arguments}}


def resolve(model: str | ModelSpec | Callable[..., keras.Model] | keras.Model, *,
            logdir: str | os.PathLike[str] = LOGDIR, **settings: Any) -> RunConfig:
    """A new run: the model's recipe with `settings` laid over it; None means "not given".

    Args:
        model: as `fmnist_zoo.registry.spec_of` takes it.

    What depends on the environment is looked up here, once, so that the run's record holds it: the threads that
    `TF_NUM_INTRAOP_THREADS` asks for, the folder of other data, and runs below `logdir` that settings name.
    """
    spec = registry.spec_of(model)
    recipe = registry.recipe_of(spec)
    given = {name: getattr(recipe, name) for name in TRAINED} | _given(spec, settings)  # a recipe may name a folder
    threads = os.environ.get(THREADS_VARIABLE, "")
    if threads.isdecimal() and int(threads):
        given.setdefault("threads", int(threads))
    if given.get("allow_other_data") and not given.get("data_dir") and given.get("data") != "mini":
        given["data_dir"] = os.environ.get(DATA_VARIABLE, "")
        if not given["data_dir"]:
            raise ConfigError(f"--allow_other_data needs --data_dir (or {DATA_VARIABLE}): the folder of the other data")
    return overlay(RunConfig(spec, recipe), logdir=logdir, **given)


def names_in(text: str) -> list[str]:
    """The trained models that a setting names. The name of a changed model has commas of its own."""
    return re.split(r",(?![\w+-][\w.+-]*=)", text) if text else []


def find_run(name: str | os.PathLike[str], logdir: str | os.PathLike[str] = LOGDIR) -> str:
    """The folder of the run that a person names: with the log folder before it or without, such as `4L/first`, or by
    its `config.json`; of a trial its first execution. What names no run is returned as it is."""
    path = local_path(name)
    for place in (path, os.path.join(logdir, path)):
        place = os.path.dirname(place) if os.path.basename(place) == "config.json" else place
        place = os.path.join(place, "0") if os.path.isfile(os.path.join(place, "trial.json")) else place
        if os.path.isfile(os.path.join(place, "config.json")):
            return os.path.normpath(place)
    return os.path.normpath(path)


def find_sweep(name: str | os.PathLike[str], logdir: str | os.PathLike[str] = LOGDIR) -> str:
    """The folder of the sweep or trial that a person names, by its path or as below `sweeps` of the log folder."""
    path = local_path(name)
    for place in (path, os.path.join(logdir, path), os.path.join(logdir, "sweeps", path)):
        if any(os.path.isfile(os.path.join(place, record)) for record in ("sweep.json", "trial.json")):
            return os.path.normpath(place)
    return path


def seeds_at(name: str | os.PathLike[str], logdir: str | os.PathLike[str] = LOGDIR) -> str:
    """The folder of several seeds that a person names where one run is wanted, or an empty text."""
    path = local_path(name)
    return next((place for place in (path, os.path.join(logdir, path)) if glob.glob(
        os.path.join(glob.escape(place), "seed*", "config.json"))), "")


def located(setting: str, names: Any, logdir: str | os.PathLike[str] = LOGDIR) -> str:
    """`teacher` or `initial_weights` with runs' folders as absolute paths: a record serves in any working folder.

    What has a separator is a run, as `find_run` finds it (`./first`); a name without one is that of a model.
    """
    found = names_in(SETTINGS[setting].kind.check(setting, names))
    if setting == "initial_weights" and len(found) > 1:
        raise ConfigError(f"--initial_weights names one trained model; received {len(found)}: {', '.join(found)}")
    paths = [local_path(name.strip(), setting) for name in found]
    runs = {path: seeds_at(path, logdir) or find_run(path, logdir) for path in paths if os.sep in path}
    return ",".join(os.path.abspath(runs[path]) if path in runs else path for path in paths)


def _given(spec: ModelSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are None; `ConfigError` for unknown names, which may be arguments of a user's own model."""
    for name in settings:
        if name not in SETTINGS and name != "ranking" and not (spec.build and spec.builder.takes(name)):
            own = map(arguments.label, spec.builder.defaults) if spec.build else ()
            raise ConfigError(f"a run has no setting {name!r}; {nearest(name, sorted((*SETTINGS, *own)))}")
    return {name: value for name, value in settings.items() if value is not None}


def overlay(config: RunConfig, *, logdir: str | os.PathLike[str] = LOGDIR, **settings: Any) -> RunConfig:
    """`config` with `settings` laid over it; None means "not given".

    Settings that depend on a changed one and were not given are recomputed: a new optimizer comes with its default
    learning rate and weight decay.
    """
    given = _given(config.spec, settings)
    optimizer = given.get("optimizer", config.recipe.optimizer)
    if optimizer != config.recipe.optimizer and optimizer in OPTIMIZERS:
        for name in DEPENDENT:
            given.setdefault(name, getattr(OPTIMIZERS[optimizer], name))
    given |= {name: located(name, given[name], logdir) for name in TRAINED if name in given}
    if given.get("data_dir"):  # a record serves in any working folder
        named = SETTINGS["data_dir"].kind.check("data_dir", given["data_dir"])
        given["data_dir"] = os.path.abspath(local_path(named, "data_dir"))
    parts: dict[str, dict[str, Any]] = {"spec": {}, "recipe": {}, "run": {}}
    for name, value in given.items():
        part = "recipe" if name in settings_of(Recipe) else "run" if name in (*settings_of(RunConfig), "ranking") else \
            "spec"
        parts[part][name] = value
    recipe = dataclasses.replace(config.recipe, **parts["recipe"])
    if given.get("schedule_epochs") and not recipe.horizon:
        raise ConfigError(f"schedule_epochs={recipe.schedule_epochs} is the length of a schedule, and the learning "
                          "rate is constant: give --schedule or --warmup, or drop it")
    return dataclasses.replace(config, spec=registry.derive(config.spec, **parts["spec"]), recipe=recipe,
                               **parts["run"])


def as_run(trial: RunConfig) -> RunConfig:
    """The run in full of a trial's config: with all validation images, and written as often as a run is."""
    output = {name: SETTINGS[name].default for name in ("checkpoint_every", "histogram_every")}
    return dataclasses.replace(trial, ranking=False, **output)


def differences(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Setting name to (old, new), for each that differs."""
    before, after = flat(old), flat(new)
    return {name: (before.get(name), after.get(name)) for name in {**before, **after}
            if before.get(name) != after.get(name)}


def decisive_differences(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Those `differences` on which numbers depend, the number of epochs included."""
    undecisive = [name for name, known in SETTINGS.items() if not known.decides and name != "epochs"]
    return {name: pair for name, pair in differences(old, new).items() if name not in undecisive}


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A run's `config.json`, as `read_run` returns it."""
    return read_run(path)[0]


def read_run(path: str | os.PathLike[str]) -> tuple[dict[str, Any], RunConfig]:
    """A run's `config.json`, a dict of `config`, `data`, `environment` and more, and the config that it holds.

    Args:
        path: its own, or that of the run's folder.

    Raises:
        ConfigError: if it is missing or does not read, with the file's name.
    """
    path = pathlib.Path(local_path(path))
    try:
        path = path / "config.json" if path.is_dir() else path
        record = opened(json.loads(path.read_bytes()))  # of a pipe, too: --config=<(command)
        config = RunConfig.from_config(record["config"])
        record["data"], record["environment"], record["started"], record["starts"]
    except OSError as error:
        advice = "; `python -m trainers.runs` lists the runs" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{path}: cannot be read: {error.strerror}{advice}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not the config.json of a run: {printable(str(error))}") from error
    return record, config
