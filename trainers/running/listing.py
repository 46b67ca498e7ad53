"""The runs below a log folder, a line each, read from their own small files.

A listing must be fast with thousands of runs: standard library alone, `metrics.csv` only of runs that are not finished,
and no file is read twice.
"""

from __future__ import annotations

import collections
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
from typing import Any, Iterable, Iterator, Sequence

from fmnist_zoo import card, registry
from fmnist_zoo.errors import UsageError
from fmnist_zoo.settings import suggestion
from fmnist_zoo.spec import Recipe, SpecError
from trainers.config import SETTINGS, ConfigError, RunConfig, decisive_differences, read_run
from trainers.running.folder import SWEEPS, RunFolder, finished, in_use, read_evaluation

FINISHED, RUNNING, INTERRUPTED, NAN, DAMAGED = "finished", "running", "interrupted", "NaN", "damaged"
RUN, SWEEP = "run", "sweep"
HIGHEST_FIRST = ("started", "epochs", "val_accuracy", "test_accuracy")
SCORES = ("val_loss", "val_accuracy", "test_accuracy")  # of several seeds with their deviation
AVERAGED = ("best_epoch", *SCORES, "seconds")
HEAD = ("model", "changes", "status", "epochs", "validation loss", "accuracy", "test accuracy", "seconds", "folder")
CHANGES_WIDTH = 60  # letters of the changes in a table
SHOWN = 5  # of many


@dataclasses.dataclass(slots=True)
class Line:
    """What a listing says of a run, or of a sweep as a whole. None is what is not known.

    Attributes:
        folder: its path.
        name: of the model, with the changes of its architecture; `model` is the name without them.
        changes: the settings that decide numbers and differ from the model's own, and Keras' callbacks; of a sweep its
            tuner and space, too.
        status: FINISHED, RUNNING (a process holds the folder), INTERRUPTED, NAN, or DAMAGED; `reason` explains the last
            two. A sweep is finished if all of its trials have ended.
        seed: of a run; `seeds`: how many the line stands for, of runs that differ in nothing else.
        data_sha256, split_sha256: of the images and labels, and of which are held out.
        validated_on: the images that the validation scores are of, in words.
        epochs, planned_epochs: trained, and of the recipe; of a sweep, trials that have ended, and all.
        best_epoch, val_loss, val_accuracy: of the selected weights, so far; of a sweep those of the best trial, on the
            half of the validation images that ranks the trials.
        test_accuracy: of these weights, if they were evaluated.
        val_loss_std, val_accuracy_std, test_accuracy_std: over several seeds.
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
    validated_on: str = ""
    epochs: int | None = None
    planned_epochs: int | None = None
    best_epoch: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    val_loss_std: float | None = None
    val_accuracy_std: float | None = None
    test_accuracy_std: float | None = None
    seconds: float | None = None
    started: float | None = None

    @property
    def model(self) -> str:
        return self.name.split(",")[0]

    @property
    def images(self) -> tuple[str, ...]:
        """Equal for lines whose validation scores compare."""
        return self.data_sha256, self.split_sha256, self.validated_on

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
    """(model's folder name, path) of each folder below `logdir` that may be a run's, those of several seeds in a folder
    of the model's among them; sweeps aside.

    Raises:
        ConfigError: if there is no such log folder.
    """
    if not os.path.isdir(logdir):
        raise ConfigError(f"{os.fspath(logdir)}: no such folder; --logdir names the log folder")
    for model in _within(logdir):
        if model.name != SWEEPS:
            for path in _nested(model.path):
                yield model.name, path


def _nested(path: str) -> Iterator[str]:
    """The folders in a folder, and those in the ones that hold no run."""
    for entry in _within(path):
        yield entry.path
        if not _holds_run(entry.path):
            yield from (one.path for one in _within(entry.path))


def _holds_run(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "config.json"))


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
        if _holds_run(path):
            yield run(path, model)


def named(word: str, logdir: str) -> list[Line]:
    """The run that a person names by its folder, or several that differ in their seed alone by a folder that holds
    them: that of a model, of `train --seeds`, or of a trial. All with or without the log folder before it.

    Raises:
        ConfigError: if there is no such run, or it is not clear which ones are meant.
    """
    lines: list[Line] = []
    for place in (word, os.path.join(logdir, word)):
        if lines:
            break
        folder = os.path.normpath(os.path.dirname(place) if os.path.basename(place) == "config.json" else place)
        if os.path.isfile(os.path.join(folder, "sweep.json")):
            raise ConfigError(f"{word}: is a sweep; name a trial of it, such as {os.path.join(word, '0000')}")
        found = [folder] if _holds_run(folder) else list(filter(_holds_run, _nested(folder)))
        lines = [run(path, os.path.basename(os.path.dirname(path))) for path in found]
    if not lines:
        missing = "no run in this folder" if os.path.isdir(word) else "no such folder"
        raise ConfigError(f"{word}: {missing}; a run is named by its folder, such as {logdir}/4D_drop03/<run>; "
                          "`python -m trainers.runs` lists them")
    groups = over_seeds(lines)
    several = [group for group in groups if len(group) > 1] or groups
    if len(several) > 1:
        folders = ", ".join(mean(group).folder for group in several[:SHOWN])
        raise ConfigError(f"{word}: has runs with other settings, or that are not finished; name a run, or a folder "
                          f"with several seeds: {folders}{', ...' * (len(several) > SHOWN)}")
    return several[0]


def run(path: str, model: str) -> Line:
    """The line of the run in a folder; `model` is the name of the model's folder, if the run's record does not read."""
    folder, line = RunFolder(path), Line(path, name=model)
    try:
        record, config = read_run(folder.config)
        line.name, line.changes = config.spec.name, changes(config)
        line.planned_epochs, line.started, line.seed = config.recipe.epochs, record["started"], config.seed
        line.data_sha256, line.split_sha256 = record["data"]["sha256"], record["data"]["split_sha256"]
        line.validated_on = ranked_on(config) if config.ranking else \
            f"{record['data']['validation']} images of {record['data']['name']}"
        if "callbacks" in record:
            line.changes = f"{line.changes} callbacks={','.join(record['callbacks'])}".lstrip()
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


def ranked_on(config: RunConfig) -> str:
    """What the validation scores of a sweep's trials are of."""
    return f"the half of {config.data} that ranks"


def changes(config: RunConfig) -> str:
    """The settings that decide numbers and differ from those of the model's base: `dropout=0.3_0.2 epochs=3`."""
    base = config.spec.name.split(",")[0]
    plain = _plain(base)
    found = [] if plain and not config.spec.build else config.spec.name.split(",")[1:]
    differing = decisive_differences(plain or RunConfig(config.spec, Recipe()), config)
    found += [f"{name}={SETTINGS[name].kind.write(new)}" for name, (_, new) in differing.items() if name in SETTINGS]
    return " ".join(found)


_config = functools.cache(RunConfig)  # building one takes longer than all else of a line


def _plain(model: str) -> RunConfig | None:
    """The config of a registered model without changes; None for another, such as one of a module of the user's."""
    try:
        return _config(registry.get_spec(model), registry.get_recipe(model))
    except SpecError:
        return None


def over_seeds(lines: Iterable[Line]) -> list[list[Line]]:
    """Finished runs on the same images that differ in their seed alone, by seed; any other line is alone.

    Of runs with the same seed, such as one and its replay, the newest counts. Of Keras' callbacks a record has the
    names alone: runs with callbacks of the same classes are taken for the same.
    """
    groups: dict[Any, dict[int | None, Line]] = {}
    for line in sorted(lines, key=lambda line: line.started or 0.0):
        key = ((line.name, _without_seed(line.changes), *line.images)
               if line.kind == RUN and line.status == FINISHED else line.folder)
        groups.setdefault(key, {})[line.seed] = line
    return [sorted(group.values(), key=lambda line: line.seed or 0) for group in groups.values()]


def mean(group: list[Line]) -> Line:
    """The runs of several seeds as one line, in the folder that holds them all."""
    if len(group) == 1:
        return group[0]
    numbers = {name: [value for line in group if (value := getattr(line, name)) is not None] for name in AVERAGED}
    known = {name: values for name, values in numbers.items() if len(values) == len(group)}
    means: dict[str, Any] = dict.fromkeys(AVERAGED) | {name: statistics.fmean(known[name]) for name in known}
    means |= {f"{name}_std": statistics.stdev(known[name]) for name in SCORES if name in known}
    changes = f"{_without_seed(group[0].changes)} ({len(group)} seeds)".strip()
    return dataclasses.replace(group[0], **means, changes=changes, seed=None, seeds=len(group),
                               folder=os.path.commonpath([os.path.dirname(line.folder) for line in group]))


def _without_seed(changes: str) -> str:
    return " ".join(one for one in changes.split() if not one.startswith("seed="))


def ordered(lines: Iterable[Line], sort: str) -> list[Line]:
    """Lines by one of `SORTS`: best or newest first, with "-" before it the other way round; unknown values last."""
    name = sort.removeprefix("-")
    if name not in SORTS:
        hint = suggestion(name, SORTS)
        raise UsageError(f"--sort={sort} is no column; {hint}{' ' * bool(hint)}these are: {', '.join(SORTS)}")
    found = sorted(lines, key=lambda line: (line.started or 0.0, line.folder), reverse=True)
    known = [line for line in found if getattr(line, name) is not None]
    known.sort(key=operator.attrgetter(name), reverse=(name in HIGHEST_FIRST) != sort.startswith("-"))
    return known + [line for line in found if getattr(line, name) is None]


def table(lines: Sequence[Line]) -> str:
    """Lines as an aligned table, with a mark at validation scores that do not compare with those of most lines."""
    scored = [line.images for line in lines if line.val_loss is not None]
    images, *others = [images for images, _ in collections.Counter(scored).most_common()] or [()]
    marks = {one: f" [{number}]" for number, one in enumerate(others, start=1)}
    rows = []
    for line in lines:
        mark = marks.get(line.images, " " * len(" [1]") if marks else "")
        rows.append((
            line.model, textwrap.shorten(line.changes, CHANGES_WIDTH, placeholder=" ...") or "-", line.status,
            "-" if line.epochs is None else f"{line.epochs}/{line.planned_epochs}" + " trials" * (line.kind == SWEEP),
            score(line.val_loss, line.val_loss_std) + mark, score(line.val_accuracy, line.val_accuracy_std) + mark,
            score(line.test_accuracy, line.test_accuracy_std),
            "-" if line.seconds is None else f"{line.seconds:.0f}", line.folder))
    note = "; ".join(f"[{number}] on {one[-1]}" for number, one in enumerate(others, start=1))
    return card.aligned([HEAD, *rows], numeric=HEAD[3:8]) + (
        f"\nvalidated on {images[-1]}, but {note}: these scores do not compare" if marks else "")


def score(value: float | None, deviation: float | None = None) -> str:
    return "-" if value is None else f"{value:.4f}" if deviation is None else f"{value:.4f} ± {deviation:.4f}"
