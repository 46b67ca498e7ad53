"""Trains one model: `python -m trainers.train --model=4D_drop03`.

On two cores 4D_drop03 takes about a second an epoch at the recipe's batch size of 256, and ends near a validation
accuracy of 0.90. `train` does the same from Python. TensorFlow is imported only once everything that can be refused
without it has been.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Callable, Sequence, Unpack

from absl import flags

from fmnist_zoo import registry
from fmnist_zoo.errors import UsageError
from fmnist_zoo.settings import DATA, MODEL, OUTPUT, TRAINING, settings_of
from fmnist_zoo.spec import ModelSpec
from trainers import cli
from trainers.config import ConfigError, RunConfig, differences, overlay, read_record, resolve
from trainers.running import provenance
from trainers.running.folder import RunFolder, create, finished, latest_unfinished, remove_if_unused
from trainers.settings import Settings

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
    "What is trained": ("model", *cli.settings_in(MODEL)),
    "How": cli.settings_in(TRAINING),
    "On what": cli.settings_in(DATA),
    "Where it goes": ("logdir", "run_name", *cli.settings_in(OUTPUT)),
    "Earlier runs": ("resume", "config", "from_sweep"),
    "Other": ("dry_run",),
}


def define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    cli.define_settings(values)
    for name, default, help in (
        ("model", None, "a name from `python -m fmnist_zoo`"),
        ("logdir", "tb_logs", "the log folder, for TensorBoard too"),
        ("run_name", "", "the run's folder below <logdir>/<model>; default: the time and the seed"),
        ("resume", None, "a run's folder, or latest: continues from its last checkpoint; only --epochs may change, to "
         "more"),
        ("config", None, "a run's config.json: the same run again, in a new folder; other flags change it"),
        ("from_sweep", None, "a sweep's folder (its best trial) or a trial's: trained in full; other flags change it"),
    ):
        flags.DEFINE_string(name, default, help, flag_values=values)
    flags.DEFINE_boolean("dry_run", False, "print the resolved run and stop", flag_values=values)
    return values


def train(model: str | ModelSpec, *, logdir: str | os.PathLike[str] = "tb_logs", run_name: str = "",
          verbose: bool = False, **settings: Unpack[Settings]) -> Run:
    """Trains a model of the zoo in a new run folder. Settings that are not given follow the model's recipe.

    Args:
        model: a name or a spec.
        logdir, run_name: the run's folder is `<logdir>/<model>/<run_name>`; by default the time and the seed name it.
        verbose: print what the command prints.
        **settings: named as the command's flags: `epochs`, `batch_size` (an int or "full"), `dropout`, ...

    TensorFlow's op determinism is switched on for the whole process; no global random state is read or changed.

    Returns:
        A `Run`: `history` (rows of `metrics.csv`), `model` (Keras, the weights that count), `folder`, `result`.

    Raises:
        ValueError: for settings that are not possible (`SpecError`, `ConfigError`) and for wrong data (`DataError`).
        RunError: if the objective becomes NaN or infinite, or the disk is full.
    """
    return _start(resolve(model, **settings), logdir, run_name, verbose=verbose)


def _start(config: RunConfig, logdir: str | os.PathLike[str], run_name: str, *, verbose: bool = True,
           expected: dict[str, Any] | None = None, should_stop: Callable[[], bool] = lambda: False) -> Run:
    """Makes a folder and trains the run in it; removes the folder if the run fails before its first epoch."""
    folder = create(logdir, config, run_name)
    try:
        return _execute(folder, config, expected=expected, verbose=verbose, should_stop=should_stop)
    except BaseException:
        remove_if_unused(folder)
        raise


def _execute(folder: RunFolder, config: RunConfig, *, expected: dict[str, Any] | None, verbose: bool,
             should_stop: Callable[[], bool]) -> Run:
    from trainers.running import progress, run

    return run.execute(folder, config, reporter=progress.for_output() if verbose else progress.Reporter(),
                       should_stop=should_stop, expected=expected)


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main("train", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: flags.FlagValues) -> int:
    values.logdir = os.path.expanduser(values.logdir)
    if values.resume:
        return _resume(values)
    config, expected = _new_run(values)
    if values.dry_run:
        print(dry_run_text(config, values.logdir, values.run_name))
        return 0
    with cli.StopSignal() as stop:
        run = _start(config, values.logdir, values.run_name, expected=expected, should_stop=stop)
        return _report(run, stop)


def _new_run(values: flags.FlagValues) -> tuple[RunConfig, dict[str, Any] | None]:
    """The run that the flags describe, and the `data` part of the record that it replays."""
    given = cli.given_settings(values)
    sources = [name for name in ("model", "config", "from_sweep") if values[name].value]
    if not sources:
        raise UsageError("which model? --model=NAME; `python -m fmnist_zoo` lists them")
    if len(sources) > 1:
        raise ConfigError(f"--{sources[0]} and --{sources[1]} both say what is trained; drop "
                          f"--{sources[0]}={values[sources[0]].value} or --{sources[1]}")
    if values.from_sweep:
        from trainers.tuning.study import retrain_config

        config = retrain_config(values.from_sweep)
        provenance.require_builder(values.from_sweep, {"config": config.to_dict(), "environment": {}})
        return overlay(config, **given), None
    if values.config:
        record = read_record(values.config)
        provenance.require_builder(values.config, record)
        other_data = {"data", "allow_other_data", "validation_size"} & set(given)
        return overlay(RunConfig.from_dict(record["config"]), **given), None if other_data else record["data"]
    return resolve(values.model, **given), None


def _resume(values: flags.FlagValues) -> int:
    given = cli.given_settings(values)
    for name in ("config", "from_sweep", "run_name"):
        if values[name].value:
            raise ConfigError(f"--resume continues in the run's own folder, as it is configured: drop --{name}")
    architecture = {name: given[name] for name in settings_of(ModelSpec) if name in given}
    spec = registry.get_spec(values.model, **architecture) if values.model else None
    if values.resume == "latest":
        folder = latest_unfinished(values.logdir, spec.folder if spec else None)
    else:
        path = os.path.abspath(os.path.expanduser(values.resume))
        folder = RunFolder(os.path.dirname(path) if os.path.basename(path) == "config.json" else path)
    record = read_record(folder.path)
    provenance.require_builder(folder.path, record)
    old = RunConfig.from_dict(record["config"])
    if spec and spec.name != old.spec.name:
        raise ConfigError(f"--model={spec.name} disagrees with the run in {folder.path}, which is of {old.spec.name}")
    new = overlay(old, **given)
    for name, (before, after) in differences(old, new).items():
        if name == "epochs" and after > before or name == "data_dir":
            continue
        raise ConfigError(f"--{name}={after} disagrees with the run in {folder.path}, which has {before}; "
                          "on resume only --epochs may change, to more")
    if values.dry_run:
        print(dry_run_text(new, str(folder.path.parent.parent), folder.path.name))
        return 0
    if finished(folder, new):
        result, advice = folder.read_result() or {}, "more --epochs continue from its end"
        if result["stopped_early"]:
            advice = f"it stopped early, after epoch {result['epochs']}; --config with --early_stopping=0 trains longer"
        print(f"{folder.path} is finished: {advice}")
        return 0
    with cli.StopSignal() as stop:
        return _report(_execute(folder, new, expected=record["data"], verbose=True, should_stop=stop), stop)


def _report(run: Run, stop: cli.StopSignal) -> int:
    """Prints what the run came to; returns the exit code."""
    print(run.summary())
    return 0 if run.result else 128 + stop.number


def dry_run_text(config: RunConfig, logdir: str, run_name: str) -> str:
    """The resolved run as JSON, and the folder it would have."""
    where = os.path.join(logdir, config.spec.folder, run_name or f"<time>-seed{config.seed}")
    return json.dumps({**config.to_dict(), "parameters": config.spec.parameters, "folder": where}, indent=2)


if __name__ == "__main__":
    sys.exit(main())
