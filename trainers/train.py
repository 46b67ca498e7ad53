"""Trains one model: `python -m trainers.train --model=4D_drop03`.

On two cores 4D_drop03 takes about a second an epoch at the recipe's batch size of 256, and ends near a validation
accuracy of 0.90. `train` does the same from Python. TensorFlow is imported only once everything that can be refused
without it has been.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Sequence

from absl import flags

from fmnist_zoo import registry
from fmnist_zoo.spec import OPTIMIZERS, ModelSpec
from trainers import cli as command, config as configs
from trainers.config import ConfigError, RunConfig
from trainers.running import folder as folders

if TYPE_CHECKING:
    from trainers.running.run import Run

USAGE = """
Trains one model of the zoo on Fashion-MNIST, logs to TensorBoard, and leaves a folder that can be resumed and replayed.

    python -m trainers.train --model=4D_drop03
    python -m trainers.train --model=4L --dropout=0.4,0.3,0.2 --l2=1e-5 --epochs=10
    python -m trainers.train --resume=latest

Flags that are not given follow the model's recipe; `python -m fmnist_zoo NAME` shows it.
"""
GROUPS = {
    "What is trained": ("model", "hidden", "dropout", "l1", "l2", "zoo_module"),
    "How": ("trainer", "precision", "epochs", "batch_size", "optimizer", "learning_rate", "weight_decay",
            "early_stopping", "seed"),
    "On what": ("data", "data_dir", "allow_other_data", "validation_size"),
    "Where it goes": ("logdir", "run_name", "checkpoint_every", "histogram_every"),
    "Earlier runs": ("resume", "config", "from_sweep"),
    "Other": ("dry_run",),
}
SETTINGS = (  # flags that are settings of a run, by the same name
    "hidden", "dropout", "l1", "l2", "trainer", "precision", "epochs", "batch_size", "optimizer", "learning_rate",
    "weight_decay", "early_stopping", "seed", "data", "data_dir", "allow_other_data", "validation_size",
    "checkpoint_every", "histogram_every")


def define_flags() -> flags.FlagValues:
    """The command's flags, on a `FlagValues` of its own."""
    values = flags.FlagValues()

    def text(name: str, help: str, default: str | None = None) -> None:
        flags.DEFINE_string(name, default, help, flag_values=values)

    def number(name: str, help: str, kind: Any = flags.DEFINE_float) -> None:
        kind(name, None, help, flag_values=values)

    text("model", "a name from `python -m fmnist_zoo`")
    text("hidden", "units of the hidden layers, such as 300,100; none for no hidden layer")
    text("dropout", "share dropped after each hidden layer: one rate, or one a layer such as 0.3,0.2,0.1")
    number("l1", "factor of the sum of |W| in the objective")
    number("l2", "factor of the sum of W^2 in the objective")
    text("zoo_module", "a module of yours that registers more models")
    flags.DEFINE_enum("trainer", None, configs.TRAINERS, "tape: our GradientTape loop (the default); fit: Model.fit; "
                      "scratch: network_* from their equations",
                      flag_values=values)
    flags.DEFINE_enum("precision", None, configs.PRECISIONS, "mixed_bfloat16: hidden layers compute in "
                      "bfloat16, on processors that multiply it in hardware; for large batches", flag_values=values)
    number("epochs", "passes over the fit images", flags.DEFINE_integer)
    text("batch_size", "images an update, or full")
    flags.DEFINE_enum("optimizer", None, list(OPTIMIZERS), "brings Keras' learning rate with it", flag_values=values)
    number("learning_rate", "constant over the run")
    number("weight_decay", "decoupled decay of the weight matrices (AdamW's)")
    number("early_stopping", "epochs without a better validation loss after which the run ends; 0: never",
           flags.DEFINE_integer)
    number("seed", "initial weights, shuffle order and dropout follow from it (default 0)", flags.DEFINE_integer)
    flags.DEFINE_enum("data", None, ("fashion_mnist", "mini"), "mini: 2,000 real images that come with the package, to "
                      "try things out", flag_values=values)
    text("data_dir", "a folder with the four IDX files; else FMNIST_ZOO_DATA, the caches, or a download")
    flags.DEFINE_boolean("allow_other_data", None, "take another 28x28 ten-class IDX set from --data_dir",
                         flag_values=values)
    number("validation_size", "share, or number, of the training images held out (default 0.1)")
    text("logdir", "the log folder, for TensorBoard too", "tb_logs")
    text("run_name", "the run's folder below <logdir>/<model>; default: the time and the seed", "")
    number("checkpoint_every", "epochs between checkpoints", flags.DEFINE_integer)
    number("histogram_every", "epochs between histograms and pictures in TensorBoard; 0: none", flags.DEFINE_integer)
    text("resume", "a run's folder, or latest: goes on from its last checkpoint; only --epochs may change, to more")
    text("config", "a run's config.json: the same run again, in a new folder; other flags change it")
    text("from_sweep", "a sweep's folder (its best trial) or a trial's: trained in full; other flags change it")
    flags.DEFINE_boolean("dry_run", False, "print the resolved run and stop", flag_values=values)
    return values


def train(model: str | ModelSpec, *, logdir: str = "tb_logs", run_name: str = "", verbose: bool = False,
          **settings: Any) -> Run:
    """Trains a model of the zoo in a new run folder; what is not given follows the model's recipe.

    Args:
        model: a name or a spec.
        logdir, run_name: the run's folder is `<logdir>/<model>/<run_name>`; by default the time and the seed name it.
        verbose: print what the command prints.
        **settings: named as the command's flags: `epochs`, `batch_size` (an int or "full"), `optimizer`,
            `learning_rate`, `dropout`, `l1`, `l2`, `hidden`, `seed`, `data`, `trainer`, ...

    TensorFlow's op determinism is switched on for the whole process; no global random state is read or changed.

    Returns:
        A `Run`: `history` (rows of `metrics.csv`), `model` (Keras, the weights that count), `folder`, `result`.

    Raises:
        ValueError: for settings that cannot be (`SpecError`, `ConfigError`) and for data that are wrong (`DataError`).
        RunError: if the objective is not finite any more, or the disk is full.
    """
    return _start(configs.resolve(model, **settings), logdir, run_name, verbose=verbose)


def _start(config: RunConfig, logdir: str, run_name: str, *, expected: dict[str, Any] | None = None,
           verbose: bool = True, should_stop: Any = lambda: False) -> Run:
    """A new folder, then the run in it; if it fails before its first epoch, an empty folder does not stay."""
    folder = folders.create(logdir, config, run_name)
    try:
        return _execute(folder, config, expected=expected, verbose=verbose, should_stop=should_stop)
    except BaseException:
        folders.remove_if_unused(folder)
        raise


def _execute(folder: folders.RunFolder, config: RunConfig, *, expected: dict[str, Any] | None,
             verbose: bool, should_stop: Any) -> Run:
    from trainers.running import progress, run

    return run.execute(folder, config, reporter=progress.for_output() if verbose else progress.Reporter(),
                       should_stop=should_stop, expected=expected)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return command.main("train", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: flags.FlagValues) -> int:
    values.logdir = os.path.expanduser(values.logdir)
    if values.zoo_module:
        registry.load_zoo_module(values.zoo_module)
    settings = _settings(values)
    if values.resume:
        return _resume(values, settings)
    expected = None
    if values.config and values.from_sweep:
        raise ConfigError("--config and --from_sweep both say what is run; drop one")
    if values.model and (values.config or values.from_sweep):
        source = "config" if values.config else "from_sweep"
        raise ConfigError(f"--{source} says which model; drop --model={values.model}, or drop --{source}")
    if values.from_sweep:
        from trainers.tuning import study as studies

        config = configs.overlay(studies.retrain_config(values.from_sweep), **settings)
    elif values.config:
        record = configs.read_record(values.config)
        other_data = {"data", "allow_other_data", "validation_size"} & set(settings)
        expected = None if other_data else record["data"]
        config = configs.overlay(RunConfig.from_dict(record["config"]), **settings)
    elif values.model:
        config = configs.resolve(values.model, **settings)
    else:
        raise command.UsageError("which model? --model=NAME; `python -m fmnist_zoo` lists them")
    if values.dry_run:
        print(dry_run_text(config, values.logdir, values.run_name))
        return 0
    with command.StopSignal() as stop:
        return _tell(_start(config, values.logdir, values.run_name, expected=expected, should_stop=stop), stop)


def _tell(run: Run, stop: command.StopSignal) -> int:
    print(run.summary())
    return 0 if run.result else 128 + stop.number


def _settings(values: flags.FlagValues) -> dict[str, Any]:
    """The flags that were given, as settings of a run."""
    settings = {name: values[name].value for name in SETTINGS if name in command.given(values)}
    if "hidden" in settings:
        settings["hidden"] = () if settings["hidden"] == "none" else _numbers("hidden", settings["hidden"], int)
    if "dropout" in settings:
        settings["dropout"] = _numbers("dropout", settings["dropout"], float)
    if "batch_size" in settings:
        settings["batch_size"] = command.batch_size(settings["batch_size"])
    return settings


def _numbers(name: str, text: str, kind: Any) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        wanted = "whole numbers" if kind is int else "numbers"
        raise command.UsageError(f"--{name} takes {wanted} with commas between them, received {text!r}") from None


def _resume(values: flags.FlagValues, settings: dict[str, Any]) -> int:
    for name in ("config", "from_sweep", "run_name"):
        if values[name].value:
            raise ConfigError(f"--resume goes on in the run's own folder, as it is configured: drop --{name}")
    model = registry.get_spec(values.model, **_architecture(settings)).name if values.model else None
    if values.resume == "latest":
        folder = folders.latest_unfinished(values.logdir, model)
    else:
        path = os.path.abspath(os.path.expanduser(values.resume))
        folder = folders.RunFolder(os.path.dirname(path) if os.path.basename(path) == "config.json" else path)
    record = configs.read_record(folder.path)
    old = RunConfig.from_dict(record["config"])
    if model and model != old.spec.name:
        raise ConfigError(f"--model={model} disagrees with the run in {folder.path}, which is of {old.spec.name}")
    new = configs.overlay(old, **settings)
    for name, (before, after) in configs.differences(old, new).items():
        if name == "epochs" and after > before or name == "data_dir":
            continue
        raise ConfigError(f"--{name}={after} disagrees with the run in {folder.path}, which has {before}; "
                          "on resume only --epochs may change, to more")
    if values.dry_run:
        print(dry_run_text(new, str(folder.path.parent.parent), folder.path.name))
    elif folders.finished(folder, new):
        result = folder.read_result() or {}
        print(f"{folder.path} is finished: " + (
            f"it stopped early, after epoch {result['epochs']}; train on without --early_stopping by --config"
            if result["stopped_early"] else "more --epochs go on from its end"))
    else:
        with command.StopSignal() as stop:
            return _tell(_execute(folder, new, expected=record["data"], verbose=True, should_stop=stop), stop)
    return 0


def _architecture(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in ("hidden", "dropout", "l1", "l2")}


def dry_run_text(config: RunConfig, logdir: str, run_name: str) -> str:
    """The resolved run as JSON, and the folder it would have."""
    where = os.path.join(logdir, config.spec.name, run_name or "<time>-seed" + str(config.seed))
    return json.dumps({**config.to_dict(), "parameters": config.spec.parameters, "folder": where}, indent=2)


if __name__ == "__main__":
    sys.exit(main())
