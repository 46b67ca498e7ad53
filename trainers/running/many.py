"""Many runs, one after another: those that stand in the log folder are used again, an interrupted one goes on."""

from __future__ import annotations

import pathlib
from typing import Callable, Iterator, Sequence

from trainers import config as configs
from trainers.config import RunConfig
from trainers.running import estimate, folder as folders


def standing(logdir: str, config: RunConfig) -> folders.RunFolder | None:
    """A run below `logdir` with the same config, finished or not; a finished one if there is one."""
    found = []
    for path in sorted((pathlib.Path(logdir) / config.spec.name).glob("*/config.json")):
        try:
            old = RunConfig.from_dict(configs.read_record(path)["config"])
        except ValueError:
            continue
        if not configs.decisive_differences(old, config):
            found.append((folders.finished(folders.RunFolder(path.parent), old), folders.RunFolder(path.parent)))
    return max(found, key=lambda entry: entry[0])[1] if found else None


class Progress:
    """A line before each run: what it is, how many are left, how long they should take, at the pace so far."""

    def __init__(self, runs: Sequence[RunConfig]):
        self._work = [estimate.seconds(config) for config in runs]
        self._names = [f"{config.spec.name} ({config.trainer}, seed {config.seed})" for config in runs]
        self._done = self._seconds = 0.0

    def before(self, index: int) -> None:
        left = sum(self._work[index:]) * self._seconds / self._done if self._done else None
        time = f"; about {estimate.clock(left)} left" if left else ""
        print(f"[{index + 1}/{len(self._work)}] {self._names[index]}{time}", flush=True)

    def after(self, index: int, seconds: float) -> None:
        self._done += self._work[index]
        self._seconds += seconds


def finish(runs: Sequence[RunConfig], logdir: str, should_stop: Callable[[], bool]) -> Iterator[folders.RunFolder]:
    """Brings runs to their end, reusing what stands, and yields each folder; fewer than `runs` if told to stop."""
    from trainers.running import progress, run

    telling = Progress(runs)
    for index, config in enumerate(runs):
        if should_stop():
            return
        folder = standing(logdir, config)
        if folder is None or not folders.finished(folder, config):
            telling.before(index)
            watch = progress.Stopwatch()
            if folder is None:
                folder, old, expected = folders.create(logdir, config), config, None
            else:
                record = configs.read_record(folder.path)
                old, expected = RunConfig.from_dict(record["config"]), record["data"]
            outcome = run.execute(folder, old, reporter=progress.Reporter(), should_stop=should_stop, expected=expected)
            if outcome.result is None:
                return
            telling.after(index, watch.seconds())
        yield folder
