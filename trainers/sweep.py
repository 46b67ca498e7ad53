"""Searches dropout, L1, L2 and more with keras-tuner's oracles: `python -m trainers.sweep --model=4L`.

Trials train through the same loop as `trainers.train`, in worker processes. A sweep that was killed goes on by the same
command. Half of the validation images choose a trial's epoch, the other half rank the trials.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Mapping, Sequence

from absl import flags

from fmnist_zoo import registry
from fmnist_zoo.spec import OPTIMIZERS, ModelSpec
from trainers import cli as command
from trainers.running.folder import SWEEPS
from trainers.tuning import oracle as oracles, study as studies
from trainers.tuning.plan import MAX_TRIALS, Plan
from trainers.tuning.start import execute
from trainers.tuning.study import Study

USAGE = """
Searches hyper-parameters of a model with keras-tuner, logs each trial to TensorBoard's HParams tab, and loses nothing:
the same command goes on with a sweep that was stopped or killed.

    python -m trainers.sweep --model=4L --tuner=grid --space="dropout=0,0.2,0.4; l2=0,1e-5,1e-4"
    python -m trainers.sweep --model=4L --tuner=bayesian --space="dropout=0..0.5; l2=log(1e-6..1e-3)" --max_trials=20
    python -m trainers.sweep --show=tb_logs/sweeps/4L-grid-seed0

In --space, 0,0.1,0.2 are tried exactly; 0..0.5 is a range, log(1e-6..1e-2) a logarithmic one. Names: dropout (one rate,
or a schedule such as 0.3_0.2_0.1), dropout.1 (the first hidden layer's), l1, l2, learning_rate, weight_decay,
batch_size, epochs, optimizer, hidden (such as 300_100). Without --space: dropout, L1 and L2.
"""
GROUPS = {
    "What is searched": ("model", "space", "tuner", "max_trials", "objective", "executions", "seed", "zoo_module"),
    "How a trial trains": ("epochs", "batch_size", "optimizer", "learning_rate", "early_stopping"),
    "On what": ("data", "data_dir", "allow_other_data", "validation_size"),
    "Where it runs": ("workers", "scheduler", "max_failures"),
    "Where it goes": ("logdir", "name", "overwrite", "histogram_every"),
    "Other": ("show", "dry_run"),
}
SETTINGS = ("epochs", "batch_size", "optimizer", "learning_rate", "early_stopping", "seed", "data", "data_dir",
            "allow_other_data", "validation_size", "histogram_every")


def define_flags() -> flags.FlagValues:
    """The command's flags, on a `FlagValues` of its own."""
    values = flags.FlagValues()

    def text(name: str, help: str, default: str | None = None) -> None:
        flags.DEFINE_string(name, default, help, flag_values=values)

    def whole(name: str, help: str, default: int | None = None, low: int = 1) -> None:
        flags.DEFINE_integer(name, default, help, lower_bound=low, flag_values=values)

    text("model", "a name from `python -m fmnist_zoo`")
    text("space", "what is tried; see above")
    flags.DEFINE_enum("tuner", "random", oracles.TUNERS, "keras-tuner's oracle; hyperband trains few trials long",
                      flag_values=values)
    whole("max_trials", f"default {MAX_TRIALS} for random and bayesian; the whole plan for grid and hyperband. May be "
          "raised later")
    flags.DEFINE_enum("objective", "val_loss", tuple(studies.OBJECTIVES), "on the half of the validation images that "
                      "chose no epoch", flag_values=values)
    whole("executions", "runs of each trial, with seeds of their own; their mean ranks it", 1)
    whole("seed", "the oracle's proposals and the trials' seeds follow from it", 0, 0)
    text("zoo_module", "a module of yours that registers more models")
    whole("epochs", "of a trial; for hyperband, of its longest trials")
    text("batch_size", "images an update, or full")
    flags.DEFINE_enum("optimizer", None, list(OPTIMIZERS), "brings Keras' learning rate with it", flag_values=values)
    flags.DEFINE_float("learning_rate", None, "constant over the run", flag_values=values)
    whole("early_stopping", "epochs without a better validation loss after which a trial ends; 0: never", None, 0)
    flags.DEFINE_enum("data", None, ("fashion_mnist", "mini"), "mini: 2,000 real images that come with the package",
                      flag_values=values)
    text("data_dir", "a folder with the four IDX files, seen by every worker")
    flags.DEFINE_boolean("allow_other_data", None, "take another 28x28 ten-class IDX set from --data_dir",
                         flag_values=values)
    flags.DEFINE_float("validation_size", None, "share, or number, of the training images held out (default 0.1)",
                       flag_values=values)
    whole("workers", "trials at once on this machine, each with its share of the cores; 2 and more need the extra "
          "[distributed]", 1)
    text("scheduler", "a dask scheduler's address, such as tls://host:8786, instead of --workers", "")
    whole("max_failures", "failed trials of this start after which it ends", 5)
    text("logdir", "the log folder, for TensorBoard too", "tb_logs")
    text("name", "the sweep's folder below <logdir>/sweeps; default: model, tuner and seed", "")
    flags.DEFINE_boolean("overwrite", False, "move the sweep of this name aside and start anew", flag_values=values)
    whole("histogram_every", "epochs between histograms and pictures of a trial; 0, the default: none", None, 0)
    text("show", "a sweep's folder: its table, finished or running, and nothing else")
    flags.DEFINE_boolean("dry_run", False, "print the space, its size and the estimated time, and stop",
                         flag_values=values)
    return values


def sweep(model: str | ModelSpec, space: str | Mapping[str, Any] | None = None, *, tuner: str = "random",
          max_trials: int | None = None, objective: str = "val_loss", executions: int = 1, workers: int = 1,
          scheduler: str = "", max_failures: int = 5, logdir: str | os.PathLike[str] = "tb_logs", name: str = "",
          overwrite: bool = False, verbose: bool = False, **settings: Any) -> list[dict[str, Any]]:
    """Runs a sweep, or goes on with the one of the same name; workers import your script: guard it with `__main__`.

    Args:
        model: a name or a spec.
        space: as `--space`, or a mapping such as `{"dropout": [0, 0.2], "l2": "log(1e-6..1e-2)"}`; None: the default.
        tuner, max_trials, objective, executions, workers, scheduler, max_failures, name, overwrite: as the flags.
        verbose: print what the command prints.
        **settings: of the trials, named as the flags of `trainers.train`: `epochs`, `batch_size`, `data`, `seed`, ...

    Returns:
        The rows of `trials.csv` as dicts: completed trials ranked, best first, then the others.

    Raises:
        ValueError: for settings that cannot be (`SpaceError`, `ConfigError`, `SpecError`, `DataError`).
        SweepError, TrialError, PoolError: if the sweep cannot go on; what was done is kept.
    """
    plan = Plan(model, space, tuner=tuner, max_trials=max_trials, objective=objective, executions=executions,
                **settings)
    study, _ = execute(plan, workers=workers, scheduler=scheduler, max_failures=max_failures, logdir=logdir, name=name,
                       overwrite=overwrite, verbose=verbose, should_stop=lambda: False)
    return study.rows()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return command.main("sweep", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: flags.FlagValues) -> int:
    if values.show:
        study = studies.load(values.show)
        print(_told(study))
        return 0
    if values.zoo_module:
        registry.load_zoo_module(values.zoo_module)
    if not values.model:
        raise command.UsageError("which model? --model=NAME; `python -m fmnist_zoo` lists them")
    if values.scheduler and "workers" in command.given(values):
        raise command.UsageError("--scheduler brings its own workers: drop --workers")
    settings = {name: values[name].value for name in SETTINGS if name in command.given(values)}
    if "batch_size" in settings:
        settings["batch_size"] = command.batch_size(settings["batch_size"])
    plan = Plan(values.model, values.space, tuner=values.tuner, max_trials=values.max_trials,
                objective=values.objective, executions=values.executions, **settings)
    logdir = os.path.expanduser(values.logdir)
    if values.dry_run:
        print(plan.text(values.workers, os.path.join(logdir, SWEEPS, values.name or plan.name())))
        return 0
    with command.StopSignal() as stop:
        study, ended = execute(plan, workers=values.workers, scheduler=values.scheduler, verbose=True,
                               max_failures=values.max_failures, logdir=logdir, name=values.name,
                               overwrite=values.overwrite, should_stop=stop)
    print(_told(study))
    if not ended:
        print("interrupted; the same command goes on where it was")
        return 128 + stop.number
    return 0


def _told(study: Study) -> str:
    """The ranked table, and what comes next."""
    if not study.trials:
        return f"{study.path}: no trial has begun"
    running = sum(trial.result is None for trial in study.trials.values())
    lines = [study.table()]
    if study.ranked:
        lines += ["", f"{study.manifest['objective']} on validation images that chose no epoch; {len(study.ended)} "
                  f"trials ended{f', {running} not yet' if running else ''}; to train the best in full:",
                  f"  {studies.retrain(study.path)}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
