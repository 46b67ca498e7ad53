"""The runs below a log folder, a line each, read from their own small files.

A listing must be fast with thousands of runs: standard library alone, `metrics.csv` only of runs that are not finished,
and no file is read twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import functools
import json
import math
import operator
import os
import pathlib
import textwrap
import time
from typing import Any, Iterable, Iterator

from fmnist_zoo import card, registry
from fmnist_zoo.errors import UsageError
from fmnist_zoo.spec import Recipe, SpecError
from trainers.config import SETTINGS, ConfigError, RunConfig, decisive_differences, read_run
from trainers.running.folder import SWEEPS, RunFolder, ends, in_use, read_evaluation

FINISHED, RUNNING, INTERRUPTED, NAN, DAMAGED = "finished", "running", "interrupted", "NaN", "damaged"
RUN, SWEEP = "run", "sweep"
NEWEST_FIRST = "started"
HIGHEST_FIRST = (NEWEST_FIRST, "epochs", "val_accuracy", "test_accuracy")
READ = ("epoch", "seconds", "val_loss", "val_accuracy")  # of metrics.csv
CHANGES_WIDTH = 60  # letters of the changes in a table


@dataclasses.dataclass(slots=True)
class Line:
    """What a listing says of a run, or of a sweep as a whole. None is what is not known.

    Attributes:
        folder: its path.
        model: the name of a registered model; `name` also lists the changes of the architecture.
        changes: the settings that decide numbers and differ from the model's own; of a sweep its tuner and space, too.
        status: FINISHED, RUNNING (a process holds the folder), INTERRUPTED, NAN, or DAMAGED; `reason` explains the last
            two. A sweep is finished if all of its trials have ended.
        epochs, planned_epochs: trained, and of the recipe. A sweep will have `trials`, and has
            `ended_trials` of them.
        best_epoch, val_loss, val_accuracy: of the weights that count, so far; of a sweep those of the
            best trial, on the half of the validation images that ranks the trials.
        test_accuracy: of these weights, if they were evaluated.
        seconds: of training.
        started: Unix time.
    """

    folder: str
    kind: str = RUN
    model: str = ""
    name: str = ""
    changes: str = ""
    status: str = DAMAGED
    reason: str = ""
    epochs: int | None = None
    planned_epochs: int | None = None
    trials: int | None = None
    ended_trials: int | None = None
    best_epoch: int | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    seconds: float | None = None
    started: float | None = None

    def matches(self, pattern: str) -> bool:
        """Whether the model's name, with or without its changes, matches a shell pattern such as `4D*`."""
        return any(fnmatch.fnmatchcase(name, pattern) for name in (self.model, self.name))

    def to_dict(self) -> dict[str, Any]:
        """For JSON and CSV; `started` in ISO 8601, UTC."""
        moment = None if self.started is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started))
        return {**{name: getattr(self, name) for name in COLUMNS}, "started": moment}


COLUMNS = tuple(field.name for field in dataclasses.fields(Line))
SORTS = tuple(name for name in COLUMNS if name not in ("changes", "reason"))


def folders(logdir: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """(model's folder name, path) of each folder below `logdir` that may be a run's; sweeps aside.

    Raises:
        ConfigError: if there is no such log folder.
    """
    if not os.path.isdir(logdir):
        raise ConfigError(f"{os.fspath(logdir)}: no such folder; --logdir names the log folder")
    for model in within(logdir):
        if model.name != SWEEPS:
            for run in within(model.path):
                yield model.name, run.path


def sweeps(logdir: str | os.PathLike[str]) -> list[str]:
    """The folders of the sweeps below `logdir`."""
    return [entry.path for entry in within(os.path.join(logdir, SWEEPS))
            if os.path.exists(os.path.join(entry.path, "sweep.json"))]


def within(path: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """The folders in a folder that are not hidden; none if it cannot be read, as `lost+found`."""
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        return [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    return []


def runs(logdir: str | os.PathLike[str], pattern: str = "*") -> Iterator[Line]:
    """A line for each run below `logdir` whose model matches a pattern; what another program wrote is left out."""
    for model, path in folders(logdir):
        if os.path.isfile(os.path.join(path, "config.json")) and (line := run(path, model, pattern)):
            yield line


def run(path: str, model: str, pattern: str = "*") -> Line | None:
    """The line of the run in a folder; None if it is no run's, or its model does not match the pattern.

    Args:
        model: the name of the model's folder, for a run whose record does not read.
    """
    folder, line = RunFolder(path), Line(path, model=model.split(",")[0], name=model)
    try:
        record, config = read_run(folder.config)
    except ConfigError as error:
        line.reason = str(error)
        return line if line.matches(pattern) and not _is_foreign(folder.config) else None
    line.name, line.model = config.spec.name, config.spec.name.split(",")[0]
    if not line.matches(pattern):
        return None
    line.changes, line.planned_epochs, line.started = changes(config), config.recipe.epochs, moment(record)
    result = folder.read_result()
    if result and ends(result, config):
        final = result["final"]
        line.status, line.epochs, line.seconds, line.best_epoch = (
            FINISHED, result["epochs"], number(result["seconds"]), final["epoch"])
        line.val_loss, line.val_accuracy = map(
            number, map(final.get, ("val_loss", "val_accuracy")))
        report = read_evaluation(folder.evaluation, weights_sha256=result["weights_sha256"],
                                 data_sha256=record["data"]["sha256"])
        line.test_accuracy = report["accuracy"] if report else None
        return line
    try:
        _describe_rows(line, folder.table.rows(only=READ), config)
    except (ConfigError, OSError) as error:
        line.reason = str(error)
        return line
    if in_use(path):
        line.status = RUNNING
    elif folder.failure.exists():
        line.status, line.reason = NAN, folder.read_failure()
    else:
        line.status = INTERRUPTED
    return line


def chosen(rows: list[dict[str, Any]], config: RunConfig) -> dict[str, Any] | None:
    """The row of the epoch whose weights count so far; None if there are no rows."""
    scored = [row for row in rows if row["val_loss"] is not None]
    if config.recipe.weights == "best" and scored:
        return min(scored, key=operator.itemgetter("val_loss"))
    return rows[-1] if rows else None


def _describe_rows(line: Line, rows: list[dict[str, Any]], config: RunConfig) -> None:
    line.epochs, line.seconds = len(rows), math.fsum(row["seconds"] or 0 for row in rows)
    if row := chosen(rows, config):
        line.best_epoch = row["epoch"]
        line.val_loss, line.val_accuracy = row["val_loss"], row["val_accuracy"]


def changes(config: RunConfig) -> str:
    """The settings that decide numbers and differ from those of the model's base: `dropout=0.3_0.2 epochs=3`."""
    base = config.spec.name.split(",")[0]
    plain = _plain(base)
    found = [] if plain else config.spec.name.split(",")[1:]
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


def number(value: Any) -> float | None:
    """A finite number that a file holds; None for anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and -1e300 < value < 1e300 else None  # whole numbers may be larger than any float


def moment(record: dict[str, Any]) -> float | None:
    """When a run or a sweep was started, Unix time, from its record."""
    found = number(record.get("started"))
    return found if found is not None and 0 <= found < 2**40 else None


def _is_foreign(path: pathlib.Path) -> bool:
    """Whether another program wrote a `config.json`: it is whole and holds no config of ours."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return not isinstance(content, dict) or "config" not in content


def ordered(lines: Iterable[Line], sort: str) -> list[Line]:
    """Lines by one of `SORTS`: best or newest first, with "-" before it the other way round; unknown values last."""
    name = sort.removeprefix("-")
    if name not in SORTS:
        raise UsageError(f"--sort={sort} is no column; these are: {', '.join(SORTS)}")
    found = sorted(lines, key=lambda line: (line.started or 0.0, line.folder), reverse=True)
    known = [line for line in found if getattr(line, name) is not None]
    known.sort(key=operator.attrgetter(name), reverse=(name in HIGHEST_FIRST) != sort.startswith("-"))
    return known + [line for line in found if getattr(line, name) is None]


HEAD = ("model", "changes", "status", "epochs", "validation loss", "accuracy", "test accuracy", "seconds", "folder")


def table(lines: Iterable[Line]) -> str:
    """Lines as an aligned table."""
    rows = [(line.model, _shortened(line.changes) or "-", line.status, _progress(line),
             score(line.val_loss), score(line.val_accuracy), score(line.test_accuracy),
             "-" if line.seconds is None else f"{line.seconds:.0f}", line.folder) for line in lines]
    return card.aligned([HEAD, *rows], numeric=HEAD[3:8])


def _shortened(changes: str) -> str:
    if len(changes) <= CHANGES_WIDTH:
        return changes
    return textwrap.shorten(changes, CHANGES_WIDTH, placeholder=" ...")


def score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _progress(line: Line) -> str:
    if line.trials is not None:
        return f"{line.ended_trials}/{line.trials} trials"
    return "-" if line.epochs is None else f"{line.epochs}/{line.planned_epochs}"
