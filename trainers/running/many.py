"""Many runs, one after another: a run that the log folder already holds is used, an interrupted one is resumed."""

from __future__ import annotations

import pathlib
from typing import Callable, Iterator, Sequence

from trainers.config import ConfigError, RunConfig, decisive_differences, read_record, read_run
from trainers.running import earlier, progress, provenance
from trainers.running.folder import RunFolder, create, finished, remove_if_unused


def existing_run(logdir: str, config: RunConfig) -> RunFolder | None:
    """A run below `logdir` with the same config, a finished one if there is one; None if there is none."""
    found = []
    for path in sorted((pathlib.Path(logdir) / config.spec.folder).glob("*/config.json")):
        try:
            old = read_run(path)[1]
        except ConfigError:
            continue
        if not decisive_differences(old, config):
            folder = RunFolder(path.parent)
            found.append((finished(folder, old), folder))
    return max(found, key=lambda entry: entry[0])[1] if found else None


def finish(runs: Sequence[RunConfig], logdir: str, should_stop: Callable[[], bool],
           reporter: progress.Reporter | None = None) -> Iterator[RunFolder]:
    """Brings runs to their end and yields their folders in turn; ends early if it is asked to stop.

    Prints a line before each run that it trains, and one for each run that was trained under another commit or other
    versions than those of this process. `reporter` shows the epochs; None: nothing does.
    """
    from trainers.running import run

    reporter = reporter or progress.Reporter()

    commit, done, spent = provenance.commit(), 0, 0.0
    for index, config in enumerate(runs):
        if should_stop():
            return
        folder = existing_run(logdir, config)
        if folder:
            _note_other_origin(folder, config, commit)
        if folder is None or not finished(folder, config):
            left = f"; about {progress.clock((len(runs) - index) * spent / done)} left" if done else ""
            print(f"[{index + 1}/{len(runs)}] {config.spec.name} ({config.trainer}, seed {config.seed}){left}",
                  flush=True)
            watch, expected = progress.Stopwatch(), None
            if folder is None:
                folder = create(logdir, config)
            else:
                expected, config = read_run(folder.path)
            before = earlier_runs(folder, config, logdir, should_stop, reporter)
            if before is None:
                remove_if_unused(folder)
                return
            outcome = run.execute(folder, config, reporter=reporter, should_stop=should_stop,
                                  expected=expected, earlier_runs=before)
            if outcome.result is None:
                return
            done, spent = done + 1, spent + watch.seconds()
        yield folder


def earlier_runs(folder: RunFolder, config: RunConfig, logdir: str, should_stop: Callable[[], bool],
                 reporter: progress.Reporter) -> dict[str, str] | None:
    """Trains what the run in `folder` needs first; the folders by their names in its recipe, None if it is stopped.

    Raises:
        SpecError, ConfigError: as `earlier.runs`, and for a first network whose weights the run could not have.
        RunError: as `run.execute`.
    """
    folders = {}
    for name, first in earlier.runs(config, folder.checkpoint.exists()).items():
        found = existing_run(logdir, first)
        if name == config.recipe.initial_weights and not (found and finished(found, first)):
            from trainers.running import initial

            initial.check(config, first)
        for done in finish([first], logdir, should_stop, reporter):
            folders[name] = str(done.path.absolute())
        if name not in folders:
            return None
    return folders


def _note_other_origin(folder: RunFolder, config: RunConfig, commit: str) -> None:
    now = {"commit": commit, "versions": provenance.versions(), "modules": config.spec.modules}
    others = [one for one in provenance.environments(read_record(folder.path))
              if {"commit": one.get("commit"), "versions": one["versions"], "modules": one.get("modules", {})} != now]
    if others:
        origin = "; and ".join(dict.fromkeys(map(provenance.describe, others)))
        print(f"{folder.path} is used, and was trained with {origin}; now it would be {provenance.describe(now)}",
              flush=True)
