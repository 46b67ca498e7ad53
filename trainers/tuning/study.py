"""The folder of a sweep, `<logdir>/sweeps/<name>/`: what is searched, what was proposed, and the results.

    sweep.json       the manifest: space, base run, tuner, objective, data, and each start with its versions
    0000/trial.json  a trial: its values, and its result when it has ended
    0000/0/          its executions: run folders, each with its own seed
    trials.csv  best.json
    report.html      what it has taught, and its plots: effects.png, combinations.png

The manifest and the trials are the source of the tables and the page. No TensorFlow.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import csv
import dataclasses
import itertools
import os
import pathlib
import shutil
import statistics
import textwrap
import time
from typing import Any, Iterable, Mapping, NamedTuple

from fmnist_zoo import card, custom
from fmnist_zoo.card import printable
from fmnist_zoo.files import atomic_write, make_folder, quoted, read_json, write_json
from trainers.config import SEEDS, ConfigError, RunConfig, as_run
from trainers.running.folder import RunFolder
from trainers.tuning.execution import COMPLETED, FAILED
from trainers.tuning.space import Parameter, Space, Value, apply, kinds_of, of_function, read

RUNNING = "RUNNING"  # the status of a trial that has not ended
BEST = 10  # trials whose weights are kept


class Objective(NamedTuple):
    """What ranks the trials: a metric of the images that chose no epoch."""

    metric: str  # its key in `final` of a run's result.json
    lower_is_better: bool


OBJECTIVES = {"val_loss": Objective("ranking_loss", lower_is_better=True),
              "val_accuracy": Objective("ranking_accuracy", lower_is_better=False)}


@dataclasses.dataclass(eq=False)
class Trial:
    """A set of values to try, and its result; the content of `trial.json`.

    Attributes:
        name: of its folder: its number with at least four digits.
        seed: of its first execution; the others have the next ones, 0 after the largest.
        epochs: of its rung of successive halving; None: the values or the base run say how many.
        parent: name of the trial whose training it continues.
        status: RUNNING, COMPLETED or FAILED.
        score: its objective, a float, the mean over its executions; None if it has not completed.
        objective_std: the standard deviation over them; None for one execution.
        trained_epochs: epochs of an execution, on average; None if it has not ended.
        seconds: of all executions together.
        executions: their outcomes, each with `final`, `epochs` and `seconds`; empty if it has not completed.
        compiled: what the function of the user's model gives to `compile`, as settings.
        unused: values that were proposed, and that the function did not ask for beside the others.
        found: hyper-parameters that the function asked for with these values for the first time: keras-tuner's configs.
    """

    name: str
    values: dict[str, Value]
    seed: int
    epochs: int | None = None
    parent: str | None = None
    status: str = RUNNING
    reason: str = ""
    score: Any = None
    objective_std: float | None = None
    trained_epochs: float | None = None
    seconds: float | None = None
    executions: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    compiled: dict[str, Any] = dataclasses.field(default_factory=dict)
    unused: dict[str, Value] = dataclasses.field(default_factory=dict)
    found: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def number(self) -> int:
        return int(self.name)

    @property
    def text(self) -> str:
        """Its values in one line."""
        return " ".join(f"{name}={_short(value)}" for name, value in self.values.items())


class Row(NamedTuple):
    """A row of `trials.csv`, in the order of its columns; `values` has a column for each hyper-parameter, and None for
    one that the trial does not have."""

    trial: str
    values: dict[str, Value | None]
    objective: float | None
    objective_std: float | None
    trained_epochs: float | None
    seed: int
    seconds: float | None
    status: str
    reason: str

    def cells(self) -> dict[str, Any]:
        """By the names of the columns."""
        own = self._asdict()
        return {"trial": own.pop("trial"), **own.pop("values"), **own}


RESULTS = Row._fields[2:]  # the columns behind those of the hyper-parameters


def write_rows(path: pathlib.Path, space: Space, rows: Iterable[Row]) -> None:
    """Writes `trials.csv`."""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", *space.names, *RESULTS])
        for row in rows:
            words = {name: Parameter.write(value) for name, value in row.values.items() if value is not None}
            writer.writerow([words.get(name, cell) for name, cell in row.cells().items()])


def read_rows(path: str | os.PathLike[str], space: Space) -> list[Row]:
    """What `write_rows` has written, with the types that it had."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    found = []
    for line in lines:
        cells = dict(zip(header, line, strict=True))
        values = {parameter.name: parameter.read(text) if (text := cells[parameter.name]) else None
                  for parameter in space.parameters}
        numbers = {name: float(cells[name]) if cells[name] else None
                   for name in ("objective", "objective_std", "trained_epochs", "seconds")}
        found.append(Row(cells["trial"], values, seed=int(cells["seed"]), status=cells["status"],
                         reason=cells["reason"], **numbers))
    return found


class Study:
    """The content of a sweep's folder.

    Attributes:
        manifest: the content of its `sweep.json`.
        base: the run whose settings the trials change.
        executions: runs of each trial.
        given: settings of the base that the user gave.
        starts: each start: `started` (Unix time, seconds), `versions`, `commit`, `modules`, `max_trials`; `planned`,
            about how many trials it expected; and `finished`, how many there were when nothing was left to do, or None.
        trials: by name, in the order of their numbers.
        ended: those that have ended.
        ranked: completed trials, best first, equal ones in the order of proposal; of successive halving those of the
            longest rung come first.
    """

    def __init__(self, path: pathlib.Path, manifest: dict[str, Any]):
        self.path, self.manifest = path, manifest
        self.base = RunConfig.from_config(manifest["base"])
        own = read(manifest["space"], kinds_of(self.base.spec)).parameters
        self.space = Space((*of_function(manifest["configs"]), *own), tuple(manifest["configs"]))
        self.objective = OBJECTIVES[manifest["objective"]]
        self.executions: int = manifest["executions"]
        self.given: list[str] = manifest["given"]
        self.starts: list[dict[str, Any]] = manifest["starts"]
        with os.scandir(path) as entries:
            names = sorted((entry.name for entry in entries if entry.name.isdecimal()), key=int)
        searched = () if self.space.configs else self.space.names  # what a function asks for, differs among trials
        found = [trial for name in names if (trial := _read_trial(str(path), name, searched))]
        for trial in found:
            self.space = self.space.grown(trial.found) if trial.found else self.space
        self.trials = {trial.name: trial for trial in found}
        self.ended = [trial for trial in found if trial.status != RUNNING]
        self.ranked = sorted((trial for trial in found if trial.status == COMPLETED), key=self._rank)
        self._seeds: dict[tuple[Any, ...], set[int]] = collections.defaultdict(set)  # that values were tried with
        for trial in found:
            self._seeds[tuple(trial.values.items())].add(trial.seed)
        self._continued = {trial.parent: trial for trial in found if trial.parent}
        for name, trial in self._continued.items():
            if name not in self.trials:
                raise ConfigError(f"{path}: trial {trial.name} continues {name}, which is gone: restore {path / name}, "
                                  f"or delete {path / trial.name}, too")

    @property
    def is_finished(self) -> bool:
        """Whether nothing was left to do at the end of the last start."""
        return bool(self.starts) and self.starts[-1]["finished"] == len(self.ended)

    @property
    def modules(self) -> dict[str, str]:
        """Of the user's, that the model needs: see `ModelSpec.modules`."""
        return self.starts[-1]["modules"] if self.starts else {}

    @property
    def shown(self) -> dict[str, Any]:
        """What TensorBoard shows alike for all trials, as of `hparams.hyperparameters`; the metric that ranks them."""
        return {"name": self.path.name, "started": self.manifest["started"], "model": self.base.spec.name,
                "objective": self.objective.metric,
                "by_layer": any(name.startswith("dropout.") for name in self.space.names)}

    def _rank(self, trial: Trial) -> tuple[int, float, int]:
        score = trial.score or 0.0
        return (-(trial.epochs or 0), score if self.objective.lower_is_better else -score, trial.number)

    def folder(self, trial: Trial, execution: int) -> pathlib.Path:
        """The run folder of an execution."""
        return self.path / trial.name / str(execution)

    def config(self, trial: Trial, execution: int) -> RunConfig:
        """The run of an execution. All trials have the same seeds: they start from equal weights, so pairs compare."""
        return apply(self.base, trial.values, given=self.given, rung=trial.epochs,
                     seed=(trial.seed + execution) % SEEDS, compiled=trial.compiled)

    def run_config(self, trial: Trial) -> RunConfig:
        """The run that trains a trial in full: for all epochs, on all validation images, written as often as a run."""
        return as_run(apply(self.base, trial.values, given=self.given, seed=trial.seed, compiled=trial.compiled))

    @property
    def next_number(self) -> int:
        """The first that no trial has: the next one, unless a person has deleted the folder of a trial."""
        count = len(self.trials)
        if not self.trials or int(next(reversed(self.trials))) == count - 1:
            return count
        return next(number for number in range(count) if f"{number:04}" not in self.trials)

    def add(self, values: dict[str, Value], epochs: int | None = None, parent: str | None = None, **built: Any
            ) -> Trial:
        """Records a new trial; `built` are `compiled`, `unused` and `found` of it.

        Values that were proposed before get the seeds after those that they had.
        """
        number, seeds = self.next_number, self._seeds[tuple(values.items())]
        every = ((self.base.seed + self.executions * times) % SEEDS for times in itertools.count())
        seed = self.trials[parent].seed if parent else next(seed for seed in every if seed not in seeds)
        trial = Trial(f"{number:04}", values, seed, epochs, parent, **built)
        if trial.found:
            self.space = self.space.grown(trial.found)
        make_folder(self.path / trial.name)
        self._write(trial)
        seeds.add(seed)
        if parent:
            self._continued[parent] = trial
        self.trials[trial.name] = trial
        if number + 1 < len(self.trials):
            self.trials = dict(sorted(self.trials.items(), key=lambda item: int(item[0])))
        return trial

    def complete(self, trial: Trial, outcomes: list[dict[str, Any]]) -> None:
        """Ends a trial; its objective is the mean over its executions."""
        scores = [outcome["final"][self.objective.metric] for outcome in outcomes]
        epochs = [outcome["epochs"] for outcome in outcomes]
        trial.status, trial.score, trial.executions = COMPLETED, statistics.fmean(scores), outcomes
        trial.objective_std = statistics.stdev(scores) if len(scores) > 1 else None
        trial.trained_epochs = epochs[0] if len(set(epochs)) == 1 else statistics.fmean(epochs)
        trial.seconds = sum(outcome["seconds"] for outcome in outcomes)
        self._write(trial)
        self.ended.append(trial)
        bisect.insort(self.ranked, trial, key=self._rank)

    def fail(self, trial: Trial, reason: str) -> None:
        """Ends a trial that cannot be finished; it is not ranked, and not run again."""
        trial.status, trial.reason, trial.trained_epochs = FAILED, reason, self.epochs_so_far(trial)
        self._write(trial)
        self.ended.append(trial)

    def _write(self, trial: Trial) -> None:
        write_json(self.path / trial.name / "trial.json",
                   {name: value for name, value in vars(trial).items() if name != "name"})

    def add_start(self, environment: Mapping[str, Any], *, max_trials: int, planned: int) -> None:
        """Records a start: its versions, commit and modules of the user's."""
        self.starts.append({"started": time.time(), **environment, "max_trials": max_trials, "planned": planned,
                            "finished": None})
        write_json(self.path / "sweep.json", self.manifest)

    def finish(self) -> None:
        """Records that nothing is left to do."""
        self.starts[-1]["finished"] = len(self.trials)
        write_json(self.path / "sweep.json", self.manifest)

    def epochs_so_far(self, trial: Trial) -> int:
        """Epochs of its execution that is ahead of the others."""
        return max(RunFolder(self.folder(trial, execution)).table.row_count() for execution in range(self.executions))

    def row(self, trial: Trial) -> Row:
        values = {name: trial.values.get(name) for name in self.space.names}
        return Row(trial.name, values, trial.score, trial.objective_std, trial.trained_epochs, trial.seed,
                   trial.seconds, trial.status, trial.reason)

    def rows(self) -> list[dict[str, Any]]:
        """All trials by the columns of `trials.csv`: the completed ones ranked, then the others."""
        others = [trial for trial in self.trials.values() if trial.status != COMPLETED]
        return [self.row(trial).cells() for trial in [*self.ranked, *others]]

    def table(self) -> str:
        """`rows` as aligned text, with the epochs so far of those that run."""
        rows = self.rows()
        for row in rows:
            if row["status"] == RUNNING:
                row["trained_epochs"] = self.epochs_so_far(self.trials[row["trial"]])
        shown = ["trial", *self.space.names, *(
            name for name in RESULTS if name not in ("objective_std", "reason")
            or any(row[name] not in (None, "") for row in rows))]
        lines = [("rank", *shown)]
        for rank, row in enumerate(rows, 1):
            lines.append((str(rank) if row["status"] == COMPLETED else "-", *(_cell(row[name]) for name in shown)))
        return card.aligned(lines, numeric=[name for name in lines[0] if name not in ("status", "reason")])

    @property
    def retrain(self) -> str:
        """The command that trains the best trial, on all validation images and with pictures."""
        return f"python -m trainers.train --from_sweep={quoted(self.path)}{custom.flag(self.modules)}"

    def write_tables(self) -> None:
        """Writes `trials.csv`, in the order of proposal, and `best.json`."""
        write_rows(self.path / "trials.csv", self.space, map(self.row, self.trials.values()))
        if self.ranked:
            best = self.ranked[0]
            write_json(self.path / "best.json", {
                **self.row(best).cells(), "values": best.values, "config": self.run_config(best).get_config(),
                "retrain": self.retrain})

    def clean(self, trial: Trial) -> None:
        """Removes the files of an ended trial that are needed for nothing: it keeps its record, curves and events.

        Weights are kept of the best trials, and a checkpoint as long as a trial may continue it. What was removed can
        be trained again with the same bits.
        """
        best = any(trial is one for one in self.ranked[:BEST])
        for execution in range(self.executions):
            folder = RunFolder(self.folder(trial, execution))
            with contextlib.suppress(OSError):  # what cannot be removed harms nothing
                if not best:
                    folder.model.unlink(missing_ok=True)
                    shutil.rmtree(folder.weights, ignore_errors=True)
                if folder.checkpoint.parent.exists() and not self._may_be_continued(trial):
                    shutil.rmtree(folder.checkpoint.parent, ignore_errors=True)

    def _rung(self, trial: Trial) -> list[Trial]:
        """The completed trials of as many epochs, the best first."""
        ends = [bisect_side(self.ranked, self._rank(trial)[0], key=lambda one: self._rank(one)[0])
                for bisect_side in (bisect.bisect_left, bisect.bisect_right)]
        return self.ranked[slice(*ends)]

    def _may_be_continued(self, trial: Trial) -> bool:
        """Of successive halving: whether a trial continues it, or may: it is in the better half of its rung."""
        if trial.name in self._continued:
            return self._continued[trial.name].status == RUNNING
        if trial.status != COMPLETED or not trial.epochs or trial.epochs == self.base.recipe.epochs or self.is_finished:
            return False
        rung = self._rung(trial)
        return any(trial is one for one in rung[:max(BEST, len(rung) // 2)])

    def clean_after(self, trial: Trial) -> None:
        """Removes what nothing needs now that a trial has ended, and none of its executions runs any more."""
        self.clean(trial)
        if trial.parent:
            self.clean(self.trials[trial.parent])
        if trial.status == COMPLETED:
            rung = self._rung(trial)
            for some, kept in ((self.ranked, BEST), (rung, max(BEST, len(rung) // 2))):
                for one in some[kept:kept + 1]:  # the one that is no longer among them
                    self.clean(one)


def load(path: str | os.PathLike[str]) -> Study:
    """The sweep in a folder; `ConfigError` if there is none, or a file of it is damaged."""
    path = pathlib.Path(os.path.expanduser(path))
    file = path / "sweep.json"
    if not file.exists():
        raise ConfigError(f"{path}: holds no sweep (no sweep.json in it); `python -m trainers.runs` lists the sweeps")
    try:
        return Study(path, read_json(file))
    except ConfigError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: not the manifest of a sweep: {_said(error)}; restore the file, or start again with "
                          "--overwrite") from error


def _read_trial(path: str, name: str, searched: tuple[str, ...]) -> Trial | None:
    """A trial of the sweep in `path`; None if the leader was killed before it recorded the trial."""
    file = os.path.join(path, name, "trial.json")
    try:
        content = read_json(file)
        content.pop("version", None)
        trial = Trial(name, **content)
        if searched and tuple(trial.values) != searched:
            raise ValueError(f"it has values of {', '.join(trial.values)}")
        return trial
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: not the record of a trial: {_said(error)}; restore the file, or delete the trial's "
                          "folder: another trial takes its place") from error


def retrain_config(path: str | os.PathLike[str]) -> RunConfig:
    """The run of `--from_sweep=PATH`: the best trial of a sweep's folder, or the trial in `<sweep>/0007`, in full."""
    path = pathlib.Path(os.path.abspath(os.path.expanduser(path)))
    of_trial = (path / "trial.json").exists()
    study = load(path.parent if of_trial else path)
    if not of_trial and not study.ranked:
        raise ConfigError(f"{path}: no trial of this sweep has completed")
    return study.run_config(study.trials[path.name] if of_trial else study.ranked[0])


def _said(error: Exception) -> str:
    """An error in one line, which may quote what a file holds."""
    return printable(str(error) if isinstance(error, (OSError, ValueError)) else repr(error))[:300]


def _cell(value: Any) -> str:
    text = "-" if value in (None, "") else " ".join(_short(value).split())
    return text if len(text) <= 60 else textwrap.shorten(text, 60, placeholder=" ...")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
