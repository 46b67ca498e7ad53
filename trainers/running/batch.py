"""Runs one after another: a run that the log folder already holds is used, an interrupted one is resumed."""

from __future__ import annotations

import contextlib
import pathlib
import time
from typing import Callable, Iterator, Sequence

from fmnist_zoo.files import Record
from trainers.config import ConfigError, RunConfig, decisive_differences, read_run
from trainers.running import dependencies, progress, provenance
from trainers.running.folder import NewFolder, RunFolder, finished


def finish(runs: Sequence[RunConfig], logdir: str, should_stop: Callable[[], bool],
           reporter: progress.Reporter | None = None, *, name: str = "", expected: Record | None = None,
           current: bool = False) -> Iterator[RunFolder]:
    """Brings runs to their end and yields their folders in turn; ends early if it is asked to stop.

    A run that the log folder holds is used if its settings, its data (images and split), its teachers and its first
    weights are the same. Prints a line before each run that it trains, and one for each run that was trained under
    another commit or other versions than those of this process.

    Args:
        reporter: shows the epochs; None: nothing does.
        name: the runs are `<logdir>/<model>/<name>/seed<seed>`, and no other ones are used.
        expected: the record that they replay, as `run.execute` takes it.
        current: only runs are used of which all was trained by today's `provenance.engine`.

    Raises:
        ConfigError: if another run has the name of one, before any is trained; else as `run.execute`.
        DataError, RunError: as `run.execute`.
    """
    from trainers.running import run

    reporter = reporter or progress.Reporter()
    commit, done, spent = provenance.commit(), 0, 0.0
    if name:  # refuses a run that is in the way of a later one before the first one is trained
        for config in runs:
            existing_run(logdir, config, f"{name}/seed{config.seed}", current=current)
    for index, config in enumerate(runs):
        if should_stop():
            return
        run_name = name and f"{name}/seed{config.seed}"
        folder, record = existing_run(logdir, config, run_name, current=current)
        if folder:
            _note_other_origin(folder, record, config, commit)
        if folder is None or not finished(folder.read_result(), config):
            started = time.perf_counter()
            with contextlib.ExitStack() as held:
                place = held.enter_context(run.opened(folder)) if folder else NewFolder(logdir, config, run_name)
                left = f"; about {progress.clock((len(runs) - index) * spent / done)} left" if done else ""
                print(f"[{index + 1}/{len(runs)}] {config.spec.name} ({config.trainer}, seed {config.seed}){left}",
                      flush=True)
                config = place.config if isinstance(place, run.Opened) and place.config else config
                outcome = run.execute(place, config, reporter=reporter, should_stop=should_stop, expected=expected)
            if outcome.result is None:
                return
            folder = RunFolder(outcome.folder)
            done, spent = done + 1, spent + time.perf_counter() - started
        yield folder


def existing_run(logdir: str, config: RunConfig, run_name: str = "", *, current: bool = False
                 ) -> tuple[RunFolder | None, Record]:
    """A run below `logdir` with the same config, data and named models, a finished one if there is one; its record.

    A `current` one was trained by today's engine alone. The data are read only where a record has the same settings. Of
    runs that had parts from Python, none is the same.

    Raises:
        ConfigError: if the run of the name that is given is another one, or a model that a recipe names is gone.
    """
    model, found = pathlib.Path(logdir) / config.spec.folder, []
    engine = provenance.engine(config) if current else ""
    paths = [model / run_name / "config.json"] if run_name else [*model.glob("*/config.json"),
                                                                 *model.glob("*/*/config.json")]
    for path in sorted(filter(pathlib.Path.exists, paths)):
        try:
            (record, old), folder = read_run(path), RunFolder(path.parent)
            done = finished(folder.read_result(), old)
        except ConfigError:
            if run_name:
                raise
            continue
        if current and {one["engine"] for one in provenance.environments(record)} != {engine}:
            continue
        has = ", ".join(f"{name}={value}" for name, (value, _) in decisive_differences(old, config).items())
        if not has and (models := dependencies.changed(config.recipe, record)):
            has = f"other weights of {models} than are there now"
        if not has and not provenance.from_python(record) and _is_on(record, config):
            found.append((done, folder, record))
        elif run_name:
            raise ConfigError(f"{path.parent}: is a run with {has or 'other data, or callbacks'}; choose another "
                              "--run_name")
    return max(found, key=lambda entry: entry[0])[1:] if found else (None, {})


def _is_on(record: Record, config: RunConfig) -> bool:
    """Whether a record's data are those of a run with `config`: the same images, the same ones held out."""
    from fmnist_zoo.data import load_data

    data = load_data(**config.data_settings)
    return bool((record["data"]["sha256"], record["data"]["split_sha256"]) == (data.sha256, data.split_sha256))


def _note_other_origin(folder: RunFolder, record: Record, config: RunConfig, commit: str) -> None:
    now = {"commit": commit, "versions": provenance.versions(), "modules": config.spec.modules}
    others = [one for one in provenance.environments(record) if {name: one[name] for name in now} != now]
    if others:
        origin = "; and ".join(dict.fromkeys(map(provenance.describe, others)))
        print(f"{folder.path} is used, and was trained with {origin}; now it would be {provenance.describe(now)}",
              flush=True)
