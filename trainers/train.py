"""Trains one model: `python -m trainers.train --model=4D_drop03`.

On two cores 4D_drop03 takes one to four seconds an epoch at the recipe's batch size of 256, and ends near a validation
accuracy of 0.90. `train` does the same from Python. TensorFlow is imported only once everything that can be refused
without it has been.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence, Unpack

from fmnist_zoo import card, prototype, registry
from fmnist_zoo.errors import UsageError
from fmnist_zoo.files import quoted
from fmnist_zoo.settings import DATA, MODEL, OUTPUT, TRAINING, settings_of
from fmnist_zoo.spec import ARRAYS, ModelSpec
from trainers import cli
from trainers.config import (
    LOGDIR,
    ConfigError,
    RunConfig,
    as_run,
    differences,
    find_run,
    find_sweep,
    overlay,
    read_run,
    resolve,
    seeds_at,
)
from trainers.engine import process
from trainers.running import batch, dependencies, listing, progress, provenance, seeds
from trainers.running.folder import NewFolder, RunFolder, completed, finished
from trainers.settings import SettingsWithoutData

if TYPE_CHECKING:
    import keras
    import numpy as np
    from keras.callbacks import Callback

    from fmnist_zoo.data import Data
    from trainers.running.run import Opened, Run

    Images = str | Data | tuple[np.ndarray, np.ndarray]
    OnEpoch = Callable[[dict[str, Any]], Any]

SEEDS = "seeds"  # the folder of several seeds, if no --run_name is given
USAGE = """
Trains one model of the zoo on Fashion-MNIST, logs to TensorBoard, and leaves a folder that can be resumed and replayed.

    python -m trainers.train --model=4D_drop03
    python -m trainers.train --model=4L --dropout=0.4,0.3,0.2 --l2=1e-5 --epochs=10
    python -m trainers.train --model=4D_drop03 --seeds=5
    python -m trainers.train --resume=latest

Flags that are not given follow the model's recipe; `python -m fmnist_zoo NAME` shows it.
"""
GROUPS = {
    "What is trained": ("model", *cli.settings_in(MODEL)),
    "How": (*cli.settings_in(TRAINING), "seeds"),
    "On what": cli.settings_in(DATA),
    "Where it goes": ("logdir", "run_name", *cli.settings_in(OUTPUT)),
    "Earlier runs": ("resume", "config", "from_sweep"),
    "Other": ("dry_run",),
}


def define_flags() -> cli.Flags:
    values = cli.Flags()
    cli.define_settings(values)
    values.text("model", "a name from `python -m fmnist_zoo`")
    values.text("run_name", "the run's folder below <logdir>/<model>; default: the time and the seed; with --seeds, "
                "seeds", "")
    values.seed_list("seeds", "a run for each of several seeds: how many, from 0 on, or a list such as 0,3,7. They are "
                     "<logdir>/<model>/seeds/seed0, ...; the same command continues what is not finished")
    values.path("resume", "a run, such as 4L/first, or latest: continues from its last checkpoint; only --epochs may "
                "change, to more")
    values.path("config", "a run's config.json: the same run again, in a new folder; other flags change it")
    values.path("from_sweep", "a sweep's folder (its best trial) or a trial's: trained in full; other flags change it")
    values.path("logdir", "the log folder, for TensorBoard too", LOGDIR)
    values.switch("dry_run", "print the resolved run and stop")
    return values


def train(model: str | ModelSpec | Callable[[], Any] | keras.Model, *, data: Images | None = None,
          logdir: str | os.PathLike[str] = LOGDIR, run_name: str = "", verbose: bool | None = None,
          on_epoch: OnEpoch | None = None, callbacks: Sequence[Callback] | Callback | None = None,
          **settings: Unpack[SettingsWithoutData]) -> Run:
    """Trains a model in a new run folder. Settings that are not given follow the model's recipe.

    Args:
        model: a name, a spec, or a function that returns a new `keras.Model` in each call, as `fmnist_zoo.register`
            takes one; or a `keras.Model`, of which a clone is trained from its weights. What its `compile` was given is
            taken into the recipe, unless a setting says otherwise.
        data: "fashion_mnist", "mini", a pair of images (n, 784) or (n, 28, 28) uint8 and labels (n,) from 0 to 9, of
            which `validation_size` are held out, or a `fmnist_zoo.Data` with the split "fit" and, to validate,
            "validation". No file holds images that are given here: `resume` needs them again.
        logdir: the log folder, for TensorBoard too; the run's folder is `<logdir>/<model>/<run_name>`.
        run_name: default: the time and the seed. `seeds/seed0`, and so on, are several seeds in a folder.
        verbose: whether to show progress; None: if this is a notebook or standard output is a terminal.
        on_epoch: called after each epoch with its row of `metrics.csv`, a dict. If it returns True, the run ends there
            as by Ctrl-C: saved, without a result, and `resume` continues it. So does one in which it raises an error,
            which `train` then raises.
        callbacks: of `keras.callbacks`, which are called after each epoch (not each batch) with the row as `logs`.
            `resume` needs them again.
        **settings: named as the command's flags: `epochs`, `batch_size` (an int or "full"), `dropout`, ...; and
            arguments of a function that builds the model.

    The process is left as it was found: TensorFlow's determinism, Keras' dtypes, random states, the environment. A call
    in another thread waits until this one ends.

    Returns:
        A `Run`: `history` (rows of `metrics.csv`), `model` (Keras, the weights that count), `folder`, `result`.

    Raises:
        KeyboardInterrupt: after Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, once the epoch is finished and saved; the text says
            how to continue. After a second signal, and before the first update, at once.
        ValueError: for settings that are not possible (`SpecError`, `ConfigError`) and for wrong data (`DataError`).
        TypeError: if `model`, `on_epoch` or a callback is of another type.
        RunError: if the objective becomes NaN or infinite, or the disk is full.
    """
    process.refuse_scopes()
    reporter = progress.for_caller(verbose)
    in_files = data is None or isinstance(data, str)
    config, images = resolve(model, logdir=logdir, data=data if in_files else ARRAYS, **settings), None
    if not in_files:
        from fmnist_zoo.arrays import from_python

        images = from_python(data, config.recipe.validation_size)
        if not isinstance(data, (tuple, list)):  # `Data`, with a split of its own
            if settings.get("validation_size") is not None:
                raise ConfigError(f"validation_size={settings['validation_size']}: the data have a split of their own; "
                                  "drop it")
            recipe = dataclasses.replace(config.recipe, validation_size=len(images["validation"].labels))
            config = dataclasses.replace(config, recipe=recipe)
    config = _as_built(config, settings, reporter)
    return _execute(NewFolder(logdir, config, run_name), config, reporter=reporter, data=images, on_epoch=on_epoch,
                    callbacks=_several(callbacks))


def _several(callbacks: Sequence[Callback] | Callback | None) -> Sequence[Callback]:
    """One callback alone as a list, as `Model.fit` takes it."""
    return callbacks if isinstance(callbacks, (list, tuple)) else [] if callbacks is None else [callbacks]


def _as_built(config: RunConfig, given: Mapping[str, Any], reporter: progress.Reporter) -> RunConfig:
    """The run of a model of the user's as its function, or the caller of `train`, compiles it."""
    if not config.spec.build:
        return config
    with cli.StopSignal():
        process.start_tensorflow(config.threads)
        from trainers.running import compiled

        return compiled.as_built(config, given, reporter)


def resume(path: str | os.PathLike[str], *, epochs: int | None = None, data: Images | None = None,
           model: keras.Model | None = None, verbose: bool | None = None, on_epoch: OnEpoch | None = None,
           callbacks: Sequence[Callback] | Callback | None = None) -> Run:
    """Continues the run in a folder from its last checkpoint; the arguments are those of `train`.

    Args:
        epochs: more than the run was planned with; None: those that it was planned with.
        data: the same images as before, if they were given in Python; other ones are refused.
        model: the same `keras.Model` as before, if one was given. Once the run has a checkpoint, its weights do not
            matter.
        callbacks: of the same classes as before, if there were any.

    Raises:
        ValueError, RunError: as `train`.
    """
    from trainers.running import run

    with run.opened(_folder(path)) as found:
        if model is not None:
            _check_model(found, model)
        config = _continued(found, {} if epochs is None else {"epochs": epochs})
        images = None
        if data is not None and not isinstance(data, str):
            from fmnist_zoo.arrays import from_python

            images = from_python(data, config.recipe.validation_size)
        elif data not in (None, config.data):
            raise ConfigError(f"data={data!r} disagrees with the run in {found.path}, which has {config.data}")
        record, several = found.record or {}, _several(callbacks)
        recorded, given = record.get("callbacks", []), [type(one).__name__ for one in several]
        arguments = {"data": images, "model": model, "callbacks": callbacks}
        if any(arguments[name] is None for name in provenance.from_python(record)):
            _refuse_python(found)
        if given != recorded:
            raise ConfigError(f"callbacks=[{', '.join(given)}] disagree with the run in {found.path}, which has "
                              f"[{', '.join(recorded)}]")
        return _execute(found, config, reporter=progress.for_caller(verbose), data=images, on_epoch=on_epoch,
                        callbacks=several)


def _execute(place: Opened | NewFolder, config: RunConfig, *, reporter: progress.Reporter,
             expected: dict[str, Any] | None = None, data: Data | None = None, on_epoch: OnEpoch | None = None,
             callbacks: Sequence[Callback] = ()) -> Run:
    """Trains; `cli.Interrupted` after the checkpoint if a signal has asked for it."""
    if on_epoch is not None and not callable(on_epoch):
        raise TypeError(f"on_epoch is a function that takes an epoch's row; received {on_epoch!r:.80}")
    from trainers.running import run

    handing, stop = progress.Handing(reporter, on_epoch or (lambda row: None)), cli.StopSignal()
    try:
        with stop:
            done = run.execute(place, config, reporter=handing, should_stop=lambda: stop() or handing.stop,
                               expected=expected, data=data, callbacks=callbacks)
    except cli.Interrupted as error:
        raise cli.Interrupted(error.number, run.left(place, config).summary()) from None
    if handing.error:
        raise handing.error
    if stop.number and not done.result:
        raise cli.Interrupted(stop.number, done.summary())
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main("train", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: cli.Flags) -> int:
    if values.resume:
        return _resume(values)
    config, expected = _new_run(values)
    if values.seeds:
        return _seeds(values, config, expected)
    place = NewFolder(values.logdir, config, values.run_name)
    if values.dry_run:
        dependencies.check(config)
        print(dry_run_text(config, place.path))
        return 0
    print(_execute(place, config, expected=expected, reporter=progress.for_output()).summary())
    return 0


def _new_run(values: cli.Flags) -> tuple[RunConfig, dict[str, Any] | None]:
    """The run that the flags describe, and the record that it replays, less what the flags change."""
    given = cli.given_settings(values)
    sources = [name for name in ("model", "config", "from_sweep") if values[name].value]
    if not sources:
        raise UsageError("which model? --model=NAME; `python -m fmnist_zoo` lists them")
    if len(sources) > 1:
        raise ConfigError(f"--{sources[0]} and --{sources[1]} both say what is trained; drop "
                          f"--{sources[0]}={values[sources[0]].value} or --{sources[1]}")
    if values.from_sweep:
        from trainers.tuning.study import retrain_config

        path = find_sweep(values.from_sweep, values.logdir)
        config = retrain_config(path)
        provenance.require_builder(path, config.spec, {})
        return overlay(config, logdir=values.logdir, **given), None
    if values.config:
        path = find_run(values.config, values.logdir)
        record, old = read_run(path)
        provenance.require_builder(path, old.spec, record)
        if old.ranking:
            print("this config is a trial's: it is trained as a run, with all validation images", file=sys.stderr)
            old = as_run(old)
        if "model" in record:
            raise ConfigError(f"{values.config}: its model was given in Python as a keras.Model, and no file holds the "
                              "weights that it began with; train it again there: trainers.train.train(model, ...)")
        if "callbacks" in record:
            print(f"the recorded run had callbacks ({', '.join(record['callbacks'])}), which no file holds: this "
                  "one has none", file=sys.stderr)
        changed = {"data": {"data", "allow_other_data", "validation_size"}, "teachers": {"teacher"},
                   "initial_weights": {"initial_weights"}, "starts": set()}
        same = {part: record[part] for part, names in changed.items() if part in record and not names & set(given)}
        return overlay(old, logdir=values.logdir, **given), same
    return _as_built(resolve(values.model, logdir=values.logdir, **given), given, progress.for_output()), None


def _seeds(values: cli.Flags, config: RunConfig, expected: dict[str, Any] | None) -> int:
    """Trains the run with several seeds, less what the log folder holds of them."""
    if values["seed"].present:
        raise UsageError("--seed and --seeds both name seeds; drop one")
    runs, name = [overlay(config, seed=seed) for seed in values.seeds], values.run_name or SEEDS
    folder = os.path.join(values.logdir, config.spec.folder, name)
    if values.dry_run:
        dependencies.check(config)
        print(dry_run_text(config, pathlib.Path(folder), seeds=values.seeds))
        return 0
    lines, number = [], 0
    try:
        with cli.StopSignal() as stop:
            for done in batch.finish(runs, values.logdir, stop, progress.for_output(), name=name, expected=expected):
                lines.append(listing.run(str(done.path), config.spec.name))
        number = stop.number
    except cli.Interrupted as error:
        number = error.number
    if len(lines) < len(runs):
        raise cli.Interrupted(number, f"interrupted: {len(lines)} of {len(runs)} seeds are finished; the same command "
                              "continues")
    print(f"{card.counted(len(runs), 'seed')} of {config.spec.name}: " + ", ".join(
        f"{title} {seeds.mean_and_deviation([getattr(line, figure) for line in lines])}"
        for title, figure in (("validation loss", "val_loss"), ("accuracy", "val_accuracy"))))
    for what, how in (("compare", f"python -m trainers.runs --compare {quoted(folder)} OTHER --plot=curves.png"),
                      ("evaluate", f"python -m trainers.evaluate --run={quoted(folder)}")):
        print(f"  {what:<12}  {how}")
    return 0


def _resume(values: cli.Flags) -> int:
    given = cli.given_settings(values)
    for name in ("config", "from_sweep", "run_name", "seeds"):
        if values[name].value:
            raise ConfigError(f"--resume continues in the run's own folder, as it is configured: drop --{name}")
    architecture = {name: given[name] for name in settings_of(ModelSpec) if name in given}
    spec = registry.get_spec(values.model, **architecture) if values.model else None
    from trainers.running import run

    with run.latest_unfinished(values.logdir, spec.name if spec else "") if values.resume == "latest" \
            else run.opened(_folder(values.resume, values.logdir)) as found:
        config = _continued(found, given, spec)
        _refuse_python(found)
        result = found.folder.read_result()
        over = finished(result, config)
        if values.dry_run:
            print(dry_run_text(config, found.path))
            return 0
        if result and over:
            print(completed(found.folder, config, result))
            return 0
        print(_execute(found, config, reporter=progress.for_output()).summary())
        return 0


def _folder(path: str | os.PathLike[str], logdir: str | os.PathLike[str] = LOGDIR) -> RunFolder:
    """The folder of the run that is named, see `find_run`; `ConfigError` if no run has begun in it."""
    folder = RunFolder(find_run(path, logdir))
    if not folder.config.is_file():
        if place := seeds_at(path, logdir):
            raise ConfigError(f"{place}: holds several seeds: the command that began them continues them, or name one "
                              "of its folders")
        read_run(folder.config)  # raises
    return folder


def _check_model(found: Opened, model: keras.Model) -> None:
    """Lets the run continue with a model that is given again; `ConfigError` if it is another one."""
    record = found.record or {}
    if "model" not in record or not found.config or not prototype.is_model(model):
        raise ConfigError(f"model={model!r:.80} is for a run that began with a keras.Model; that in {found.path} did "
                          "not, or this is none: drop it")
    prototype.add_again(found.config.spec, record["model"], model, begun=found.checkpoint is not None)


def _refuse_python(found: Opened) -> None:
    """`ConfigError` if parts of a run were given in Python, and no file holds them."""
    assert found.record, "no run has begun in this folder"
    if provenance.from_python(found.record):
        raise ConfigError(f"{found.path}: parts of it were given in Python, and no file holds them; continue it there: "
                          f"{provenance.resume_call(found.path, found.record)}")


def _continued(found: Opened, given: Mapping[str, Any], spec: ModelSpec | None = None) -> RunConfig:
    """The config of the run in a folder, with the settings that a resumed run may change.

    Raises:
        ConfigError: for other settings than recorded, by name, or another model than `spec`.
    """
    assert found.record and found.config, "no run has begun in this folder"
    folder, old = found.path, found.config
    provenance.require_builder(folder, old.spec, found.record)
    if spec and spec.name != old.spec.name:
        raise ConfigError(f"--model={spec.name} disagrees with the run in {folder}, which is of {old.spec.name}")
    horizon = {"schedule_epochs": old.recipe.horizon or None}  # a checkpoint never continues under another one
    new = overlay(old, logdir=found.logdir or LOGDIR, **{**horizon, **given})
    for name, (before, after) in differences(old, new).items():
        if name == "epochs" and after > before or name == "data_dir":
            continue
        raise ConfigError(f"--{name}={after} disagrees with the run in {folder}, which has {before}; "
                          "on resume only --epochs may change, to more")
    stored = dataclasses.replace(new.recipe, schedule_epochs=old.recipe.schedule_epochs)
    return dataclasses.replace(new, recipe=stored)


def dry_run_text(config: RunConfig, folder: pathlib.Path, **more: Any) -> str:
    """The resolved run as JSON, and the folder it would have."""
    return json.dumps({**config.get_config(), **more, "parameters": config.spec.parameters, "folder": str(folder)},
                      indent=2)


if __name__ == "__main__":
    sys.exit(main())
