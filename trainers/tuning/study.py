"""The folder of a sweep, `<logdir>/sweeps/<name>/`: what is searched, what was proposed, and the results.

    sweep.json          the manifest: space, base run, tuner, objective, data, and the versions of the first start
    starts.json         the versions of each start; sweeps of version 0.1 have none
    0000/proposal.json  a trial: its values, and how many trials had ended when it was proposed
    0000/0/             its executions: run folders, each with its own seed
    0000/result.json    its result
    trials.csv  best.json  objective.png

Manifest, proposals and results are the source of the last three files. No TensorFlow.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
import statistics
import textwrap
import time
from typing import Any, Mapping, NamedTuple

from fmnist_zoo import card, own
from fmnist_zoo.files import atomic_write, write_json
from trainers.config import ConfigError, RunConfig, resolve
from trainers.running.folder import RunFolder
from trainers.tuning.oracle import Proposal
from trainers.tuning.space import apply, parse


class Objective(NamedTuple):
    """What ranks the trials: a metric of the images that chose no epoch."""

    metric: str  # its key in `final` of a run's result.json
    lower_is_better: bool


OBJECTIVES = {"val_loss": Objective("ranking_loss", lower_is_better=True),
              "val_accuracy": Objective("ranking_accuracy", lower_is_better=False)}
# Keys of `proposal.json` and `result.json`; later versions may add some.
PROPOSAL = ("values", "seed", "epochs", "parent", "ended_before")
RESULT = ("status", "reason", "objective", "objective_std", "epochs", "seconds", "executions", "order")
COMPLETED, FAILED, RUNNING = "COMPLETED", "FAILED", "RUNNING"
_ADVICE = "restore the file, or delete the trial's folder: grid and random run the trial again"


@dataclasses.dataclass
class Trial:
    """A set of values to try, and its result; `epochs` and `parent` are those of its `Proposal`."""

    name: str  # of its folder: its number with at least four digits
    values: dict[str, Any]
    seed: int  # of its first execution; the others have the next ones
    epochs: int | None
    parent: str | None
    ended_before: int  # how many trials had ended when it was proposed
    result: dict[str, Any] | None = None  # content of `result.json` when it has ended

    @property
    def number(self) -> int:
        return int(self.name)

    @property
    def status(self) -> str:
        return self.result["status"] if self.result else RUNNING

    @property
    def order(self) -> int:
        """Its place among the ended trials, 0 for the first to end; -1 if it has not ended."""
        return self.result["order"] if self.result else -1

    @property
    def score(self) -> Any:
        """Its objective, a float; None if it has not completed."""
        return self.result["objective"] if self.result else None

    @property
    def text(self) -> str:
        """Its values in one line."""
        return " ".join(f"{name}={_short(value)}" for name, value in self.values.items())


class Study:
    """The content of a sweep's folder; `manifest` is that of its `sweep.json`."""

    def __init__(self, path: pathlib.Path, manifest: dict[str, Any]):
        self.path, self.manifest = path, manifest
        self.base = RunConfig.from_dict(manifest["base"])
        self.space = parse(manifest["space"], self.base)
        self.objective = OBJECTIVES[manifest["objective"]]
        self.executions: int = manifest["executions"]
        starts = path / "starts.json"
        self.starts = list(_read(starts, "restore or delete the file")["starts"]) if starts.exists() else []
        last = [manifest, *self.starts][-1]  # the last start
        self.versions: dict[str, str] = last["versions"]
        self.modules: dict[str, str] = last.get("modules", {})  # of the user's: see `provenance.modules`
        folders = [proposal.parent for proposal in path.glob("*/proposal.json") if proposal.parent.name.isdecimal()]
        found = sorted((self._read_trial(folder) for folder in folders), key=lambda trial: trial.number)
        self.trials = {trial.name: trial for trial in found}  # in the order of their numbers

    def _read_trial(self, folder: pathlib.Path) -> Trial:
        proposal, result = folder / "proposal.json", folder / "result.json"
        try:
            content = _read(proposal, _ADVICE)
            trial = Trial(folder.name, **{name: content[name] for name in PROPOSAL})
            self.config(trial, 0)
        except ConfigError:
            raise
        except (TypeError, LookupError, ValueError) as error:
            raise ConfigError(f"{proposal}: not the proposal of a trial: {error}; {_ADVICE}") from error
        if result.exists():
            trial.result = _read(result, _ADVICE)
            missing = [name for name in RESULT if name not in trial.result]
            if missing:
                raise ConfigError(f"{result}: lacks {', '.join(missing)}; {_ADVICE}")
        return trial

    @property
    def ended(self) -> list[Trial]:
        """The trials that have ended, in that order."""
        return sorted((trial for trial in self.trials.values() if trial.result), key=lambda trial: trial.order)

    @property
    def next_order(self) -> int:
        """The order number of the next trial to end."""
        return max((trial.order + 1 for trial in self.trials.values()), default=0)

    @property
    def ranked(self) -> list[Trial]:
        """Completed trials, best first; equal ones in the order of proposal."""
        completed = [trial for trial in self.trials.values() if trial.status == COMPLETED]
        return sorted(completed, key=lambda trial: trial.score, reverse=not self.objective.lower_is_better)

    def folder(self, trial: Trial, execution: int) -> pathlib.Path:
        """The run folder of an execution."""
        return self.path / trial.name / str(execution)

    def config(self, trial: Trial, execution: int) -> RunConfig:
        """The run of an execution. All trials have the same seeds: they start from equal weights, so pairs compare."""
        return apply(self.base, trial.values, given=self.manifest.get("given", ()), seed=trial.seed + execution,
                     epochs=trial.epochs)

    def add(self, proposal: Proposal) -> Trial:
        """Records a proposal. Values that were proposed before get the seeds after those that they had."""
        if proposal.parent:
            seed = self.trials[proposal.parent].seed
        else:
            before = [trial for trial in self.trials.values() if trial.values == proposal.values and not trial.parent]
            seed = self.base.seed + self.executions * len(before)
        trial = Trial(proposal.trial, proposal.values, seed, proposal.epochs, proposal.parent, self.next_order)
        folder = self.path / trial.name
        folder.mkdir(exist_ok=True)
        write_json(folder / "proposal.json", {name: getattr(trial, name) for name in PROPOSAL})
        self.trials[trial.name] = trial
        self.trials = dict(sorted(self.trials.items(), key=lambda item: item[1].number))
        return trial

    def complete(self, trial: Trial, outcomes: list[dict[str, Any]]) -> None:
        """Ends a trial; its objective is the mean over its executions."""
        scores = [outcome["final"][self.objective.metric] for outcome in outcomes]
        epochs = [outcome["epochs"] for outcome in outcomes]
        self._end(trial, {
            "status": COMPLETED, "reason": "", "objective": statistics.fmean(scores),
            "objective_std": statistics.stdev(scores) if len(scores) > 1 else None,
            "epochs": epochs[0] if len(set(epochs)) == 1 else statistics.fmean(epochs),
            "seconds": sum(outcome["seconds"] for outcome in outcomes), "executions": outcomes})

    def fail(self, trial: Trial, reason: str) -> None:
        """Ends a trial that cannot be finished; it is not ranked, and not run again."""
        self._end(trial, {"status": FAILED, "reason": reason, "objective": None, "objective_std": None,
                          "epochs": self.epochs_so_far(trial), "seconds": None, "executions": []})

    def _end(self, trial: Trial, result: dict[str, Any]) -> None:
        result["order"] = self.next_order
        write_json(self.path / trial.name / "result.json", result)
        trial.result = result
        self.write_tables()

    def add_start(self, environment: Mapping[str, Any]) -> None:
        """Records the versions and the commit of this start."""
        self.starts.append({"started": time.time(), **environment})
        self.versions = environment["versions"]
        write_json(self.path / "starts.json", {"starts": self.starts})

    def epochs_so_far(self, trial: Trial) -> int:
        """Epochs of its execution that is ahead of the others."""
        return max((RunFolder(self.folder(trial, execution)).table.row_count() for execution in range(self.executions)),
                   default=0)

    @property
    def columns(self) -> list[str]:
        """The columns of `trials.csv`."""
        return ["trial", *self.space.names,
                "objective", "objective_std", "epochs", "seed", "seconds", "status", "reason"]

    def row(self, trial: Trial) -> dict[str, Any]:
        """A trial's row of `trials.csv`."""
        result = trial.result or {"reason": "", "epochs": self.epochs_so_far(trial)}
        cells = {"trial": trial.name, **trial.values, **result, "seed": trial.seed, "status": trial.status}
        return {name: cells.get(name) for name in self.columns}

    def rows(self) -> list[dict[str, Any]]:
        """All trials: the completed ones ranked, then the others."""
        others = [trial for trial in self.trials.values() if trial.status != COMPLETED]
        return [self.row(trial) for trial in [*self.ranked, *others]]

    def table(self) -> str:
        """`rows` as aligned text."""
        rows = self.rows()
        shown = [name for name in self.columns if name not in ("objective_std", "reason")
                 or any(row[name] not in (None, "") for row in rows)]
        lines = [("rank", *shown)]
        for rank, row in enumerate(rows, 1):
            lines.append((str(rank) if row["status"] == COMPLETED else "-", *(_cell(row[name]) for name in shown)))
        return card.aligned(lines, numeric=[name for name in lines[0] if name not in ("status", "reason")])

    @property
    def retrain(self) -> str:
        """The command that trains the best trial, on all validation images and with pictures."""
        return f"python -m trainers.train --from_sweep={self.path}{own.flag(self.modules)}"

    def write_tables(self) -> None:
        """Writes `trials.csv` and `best.json`."""
        with atomic_write(self.path / "trials.csv", "w") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.row(trial) for trial in self.trials.values())
        ranked = self.ranked
        if ranked:
            config = dataclasses.replace(self.config(ranked[0], 0), ranking=False)
            write_json(self.path / "best.json", {**self.row(ranked[0]), "values": ranked[0].values,
                                                 "config": config.to_dict(), "retrain": self.retrain})


def retrain_config(path: str | os.PathLike[str]) -> RunConfig:
    """The run of `--from_sweep=PATH`: the best trial of a sweep's folder, or the trial in `<sweep>/0007`."""
    path = pathlib.Path(os.path.abspath(os.path.expanduser(path)))
    if (path / "proposal.json").exists() and path.name.isdecimal():
        study = load(path.parent)
        trial = study.trials[path.name]
    else:
        study = load(path)
        if not study.ranked:
            raise ConfigError(f"{path}: no trial of this sweep has completed")
        trial = study.ranked[0]
    config = study.config(trial, 0)
    every = resolve(config.spec, epochs=config.recipe.epochs).histogram_every
    return dataclasses.replace(config, ranking=False, histogram_every=every)


def load(path: str | os.PathLike[str]) -> Study:
    """The sweep in a folder; `ConfigError` if there is none, or a file of it is damaged."""
    path = pathlib.Path(os.path.expanduser(path))
    if not (path / "sweep.json").exists():
        raise ConfigError(f"{path}: holds no sweep (no sweep.json in it)")
    manifest = _read(path / "sweep.json", "restore the file, or start again with --overwrite")
    try:
        return Study(path, manifest)
    except (LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path / 'sweep.json'}: not the manifest of a sweep: {error}") from error


def _read(path: pathlib.Path, advice: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; {advice}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not what a sweep wrote; {advice}")
    return content


def _cell(value: Any) -> str:
    return "-" if value in (None, "") else textwrap.shorten(_short(value), 60, placeholder=" ...")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
