"""The runs below a log folder, a line each, read from their own small files.

A listing must be fast with thousands of runs: standard library alone, `metrics.csv` only of runs that are not finished,
and no file is read twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import functools
import math
import operator
import os
import statistics
import textwrap
import time
from typing import Any, Iterable, Iterator

from fmnist_zoo import card, registry
from fmnist_zoo.errors import UsageError
from fmnist_zoo.spec import Recipe, SpecError
from trainers.config import SETTINGS, ConfigError, RunConfig, decisive_differences, read_run
from trainers.running.folder import SWEEPS, RunFolder, finished, in_use, read_evaluation

FINISHED, RUNNING, INTERRUPTED, NAN, DAMAGED = "finished", "running", "interrupted", "NaN", "damaged"
RUN, SWEEP = "run", "sweep"
HIGHEST_FIRST = ("started", "epochs", "val_accuracy", "test_accuracy")
AVERAGED = ("best_epoch", "val_loss", "val_accuracy", "test_accuracy", "seconds")
HEAD = ("model", "changes", "status", "epochs", "validation loss", "accuracy", "test accuracy", "seconds", "folder")
CHANGES_WIDTH = 60  # letters of the changes in a table


@dataclasses.dataclass(slots=True)
class Line:
    """What a listing says of a run, or of a sweep as a whole. None is what is not known.

    Attributes:
        folder: its path.
        name: of the model, with the changes of its architecture; `model` is the name without them.
        changes: the settings that decide numbers and differ from the model's own; of a sweep its tuner and space, too.
        status: FINISHED, RUNNING (a process holds the folder), INTERRUPTED, NAN, or DAMAGED; `reason` explains the last
            two. A sweep is finished if all of its trials have ended.
        seed: of a run; `seeds`: how many the line stands for, of runs that differ in nothing else.
        data_sha256, split_sha256: of a run's images and labels, and of which are held out.
        epochs, planned_epochs: trained, and of the recipe; of a sweep, trials that have ended, and all.
        best_epoch, val_loss, val_accuracy: of the selected weights, so far; of a sweep those of the best trial, on the
            half of the validation images that ranks the trials.
        test_accuracy: of these weights, if they were evaluated.
        seconds: of training.
        started: Unix time.
    """

    folder: str
    kind: str = RUN
    name: str = ""
    changes: str = ""
    status: str = DAMAGED
    reason: str = ""
    seed: int | None = None
    seeds: int = 1
    data_sha256: str = ""
    split_sha256: str = ""
    epochs: int | None = None
    planned_epochs: int | None = None
    best_epoch: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    seconds: float | None = None
    started: float | None = None

    @property
    def model(self) -> str:
        return self.name.split(",")[0]

    def matches(self, pattern: str) -> bool:
        """Whether the model's name, with or without its changes, matches a shell pattern such as `4D*`."""
        return any(fnmatch.fnmatchcase(name, pattern) for name in (self.model, self.name))

    def to_dict(self) -> dict[str, Any]:
        """For JSON and CSV; `started` in ISO 8601, UTC."""
        moment = None if self.started is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started))
        return {**{name: getattr(self, name) for name in COLUMNS}, "started": moment}


COLUMNS = ("model", *(field.name for field in dataclasses.fields(Line)))
SORTS = tuple(name for name in COLUMNS if name not in ("changes", "reason", "data_sha256", "split_sha256"))


def folders(logdir: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """(model's folder name, path) of each folder below `logdir` that may be a run's; sweeps aside.

    Raises:
        ConfigError: if there is no such log folder.
    """
    if not os.path.isdir(logdir):
        raise ConfigError(f"{os.fspath(logdir)}: no such folder; --logdir names the log folder")
    for model in _within(logdir):
        if model.name != SWEEPS:
            for run in _within(model.path):
                yield model.name, run.path


def sweeps(logdir: str | os.PathLike[str]) -> list[str]:
    """The folders of the sweeps below `logdir`."""
    return [entry.path for entry in _within(os.path.join(logdir, SWEEPS))
            if os.path.exists(os.path.join(entry.path, "sweep.json"))]


def _within(path: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """The folders in a folder that are not hidden; none if it cannot be read, as `lost+found`."""
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        return [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    return []


def runs(logdir: str | os.PathLike[str]) -> Iterator[Line]:
    """A line for each run below `logdir`."""
    for model, path in folders(logdir):
        if os.path.isfile(os.path.join(path, "config.json")):
            yield run(path, model)


def run(path: str, model: str) -> Line:
    """The line of the run in a folder; `model` is the name of the model's folder, if the run's record does not read."""
    folder, line = RunFolder(path), Line(path, name=model)
    try:
        record, config = read_run(folder.config)
        line.name, line.changes = config.spec.name, changes(config)
        line.planned_epochs, line.started, line.seed = config.recipe.epochs, record["started"], config.seed
        line.data_sha256, line.split_sha256 = record["data"]["sha256"], record["data"]["split_sha256"]
        result = folder.read_result()
        if result and finished(result, config):
            final = result["final"]
            line.status, line.epochs, line.seconds = FINISHED, result["epochs"], result["seconds"]
            line.best_epoch, line.val_loss, line.val_accuracy = map(final.get, ("epoch", "val_loss", "val_accuracy"))
            report = read_evaluation(folder.evaluation, weights_sha256=result["weights_sha256"],
                                     data_sha256=record["data"]["sha256"])
            line.test_accuracy = report["accuracy"] if report else None
            return line
        rows = folder.table.rows()
    except (ConfigError, OSError) as error:
        line.reason = str(error)
        return line
    line.epochs, line.seconds = len(rows), math.fsum(row["seconds"] or 0 for row in rows)
    scored = [row for row in rows if row["val_loss"] is not None]
    if rows:
        best = config.recipe.weights == "best" and scored
        row = min(scored, key=operator.itemgetter("val_loss")) if best else rows[-1]
        line.best_epoch, line.val_loss, line.val_accuracy = row["epoch"], row["val_loss"], row["val_accuracy"]
    line.status = RUNNING if in_use(path) else NAN if folder.failure.exists() else INTERRUPTED
    line.reason = folder.read_failure() if line.status == NAN else ""
    return line


def changes(config: RunConfig) -> str:
    """The settings that decide numbers and differ from those of the model's base: `dropout=0.3_0.2 epochs=3`."""
    base = config.spec.name.split(",")[0]
    plain = _plain(base)
    found = [] if plain and not config.spec.build else config.spec.name.split(",")[1:]
    differing = decisive_differences(plain or RunConfig(config.spec, Recipe()), config)
    found += [f"{name}={SETTINGS[name].kind.write(new)}" for name, (_, new) in differing.items() if name in SETTINGS]
    return " ".join(found)


@functools.cache
def _plain(model: str) -> RunConfig | None:
    """The config of a registered model without changes; None for another, such as one of a module of the user's."""
    try:
        return RunConfig(registry.get_spec(model), registry.get_recipe(model))
    except SpecError:
        return None


def over_seeds(lines: Iterable[Line]) -> list[Line]:
    """Finished runs on the same data that differ in their seed alone as one line, with the means of their numbers.

    Of runs with the same seed, such as one and its replay, the newest counts.
    """
    groups: dict[Any, dict[int | None, Line]] = {}
    for line in sorted(lines, key=lambda line: line.started or 0.0):
        key = ((line.name, _without_seed(line.changes), line.data_sha256, line.split_sha256)
               if line.kind == RUN and line.status == FINISHED else line.folder)
        groups.setdefault(key, {})[line.seed] = line
    return [_mean(list(group.values())) for group in groups.values()]


def _mean(group: list[Line]) -> Line:
    if len(group) == 1:
        return group[0]
    numbers = {name: [value for line in group if (value := getattr(line, name)) is not None] for name in AVERAGED}
    means: dict[str, Any] = {name: statistics.fmean(known) if len(known) == len(group) else None
                             for name, known in numbers.items()}
    changes = f"{_without_seed(group[0].changes)} ({len(group)} seeds)".strip()
    return dataclasses.replace(group[0], **means, changes=changes, seed=None, seeds=len(group),
                               folder=os.path.join(os.path.dirname(group[0].folder), "*"))


def _without_seed(changes: str) -> str:
    return " ".join(one for one in changes.split() if not one.startswith("seed="))


def ordered(lines: Iterable[Line], sort: str) -> list[Line]:
    """Lines by one of `SORTS`: best or newest first, with "-" before it the other way round; unknown values last."""
    name = sort.removeprefix("-")
    if name not in SORTS:
        raise UsageError(f"--sort={sort} is no column; these are: {', '.join(SORTS)}")
    found = sorted(lines, key=lambda line: (line.started or 0.0, line.folder), reverse=True)
    known = [line for line in found if getattr(line, name) is not None]
    known.sort(key=operator.attrgetter(name), reverse=(name in HIGHEST_FIRST) != sort.startswith("-"))
    return known + [line for line in found if getattr(line, name) is None]


def table(lines: Iterable[Line]) -> str:
    """Lines as an aligned table."""
    rows = [(line.model, textwrap.shorten(line.changes, CHANGES_WIDTH, placeholder=" ...") or "-", line.status,
             "-" if line.epochs is None else f"{line.epochs}/{line.planned_epochs}" + " trials" * (line.kind == SWEEP),
             score(line.val_loss), score(line.val_accuracy), score(line.test_accuracy),
             "-" if line.seconds is None else f"{line.seconds:.0f}", line.folder) for line in lines]
    return card.aligned([HEAD, *rows], numeric=HEAD[3:8])


def score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
