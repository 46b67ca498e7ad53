"""A sweep's folder, `<logdir>/sweeps/<name>/`: what it searches, what was proposed, what came of it. No TensorFlow.

    sweep.json                  the manifest: space, base run, tuner, objective, data, versions
    0000/proposal.json          a trial: its values, and how many trials had ended when it was proposed
    0000/0/                     its executions: run folders, each with its own seed
    0000/result.json            what came of it; with the proposals the truth from which all else is made
    trials.csv  best.json  objective.png
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
import statistics
import textwrap
from typing import Any

from fmnist_zoo import card
from fmnist_zoo.files import atomic_write, write_json
from trainers import config as configs
from trainers.config import ConfigError, RunConfig
from trainers.running import folder as folders
from trainers.tuning import space as spaces
from trainers.tuning.oracle import Proposal

OBJECTIVES = {"val_loss": ("ranking_loss", True), "val_accuracy": ("ranking_accuracy", False)}  # and lower is better
PROPOSAL = ("values", "seed", "epochs", "parent", "ended_before")  # of a proposal.json, which may hold more
RESULT = ("status", "reason", "objective", "objective_std", "epochs", "seconds", "executions", "order")
_ADVICE = "put the file back, or take the trial's folder away: grid and random run it again"
COMPLETED, FAILED, RUNNING = "COMPLETED", "FAILED", "RUNNING"


@dataclasses.dataclass
class Trial:
    """One set of values. `ended_before` tells when it was proposed: after that many trials had ended."""

    name: str
    values: dict[str, Any]
    seed: int
    epochs: int | None
    parent: str | None
    ended_before: int
    result: dict[str, Any] | None = None

    @property
    def status(self) -> str:
        return self.result["status"] if self.result else RUNNING

    @property
    def order(self) -> int:
        """When it ended: 0 is the first."""
        return self.result["order"] if self.result else -1

    @property
    def text(self) -> str:
        """Its values in one line."""
        return " ".join(f"{name}={_short(value)}" for name, value in self.values.items())


class Study:
    """What stands in a sweep's folder.

    Args:
        path: the folder.
        manifest: content of its `sweep.json`.
    """

    def __init__(self, path: pathlib.Path, manifest: dict[str, Any]):
        self.path, self.manifest = path, manifest
        self.base = RunConfig.from_dict(manifest["base"])
        self.space = spaces.parse(manifest["space"], self.base)
        self.metric, self.lower_is_better = OBJECTIVES[manifest["objective"]]
        self.executions: int = manifest["executions"]
        self.trials: dict[str, Trial] = {}
        for proposal in sorted(path.glob("*/proposal.json")):
            if proposal.parent.name.isdecimal():
                self.trials[proposal.parent.name] = self._trial(proposal)

    def _trial(self, proposal: pathlib.Path) -> Trial:
        result = proposal.parent / "result.json"
        try:
            content = _read(proposal, _ADVICE)
            trial = Trial(proposal.parent.name, **{name: content[name] for name in PROPOSAL})
            self.config(trial, 0)
        except (TypeError, LookupError, ValueError) as error:
            raise error if isinstance(error, ConfigError) else ConfigError(
                f"{proposal}: not the proposal of a trial: {error}; {_ADVICE}") from error
        if result.exists():
            trial.result = _read(result, _ADVICE)
            missing = [name for name in RESULT if name not in trial.result]
            if missing:
                raise ConfigError(f"{result}: lacks {', '.join(missing)}; {_ADVICE}")
        return trial

    @property
    def ended(self) -> list[Trial]:
        """Trials that came to an end, in that order."""
        return sorted((trial for trial in self.trials.values() if trial.result), key=lambda trial: trial.order)

    @property
    def ends(self) -> int:
        """How many trials have ended, were they all still there."""
        return max((trial.order + 1 for trial in self.ended), default=0)

    @property
    def ranked(self) -> list[Trial]:
        """Completed trials, best first; ties in the order of proposal."""
        done = [trial for trial in self.trials.values() if trial.status == COMPLETED]
        sign = 1 if self.lower_is_better else -1
        return sorted(done, key=lambda trial: (sign * trial.result["objective"], trial.name))  # type: ignore[index]

    def folder(self, trial: Trial, execution: int) -> pathlib.Path:
        return self.path / trial.name / str(execution)

    def config(self, trial: Trial, execution: int) -> RunConfig:
        """The run of an execution. All trials have the same seeds, so that they start equal and compare in pairs."""
        return spaces.apply(self.base, trial.values, given=self.manifest.get("given", ()), seed=trial.seed + execution,
                            epochs=trial.epochs)

    def add(self, proposal: Proposal) -> Trial:
        """Writes down what the oracle proposed. Values that were tried already get the seeds after those they had."""
        again = [trial for trial in self.trials.values() if trial.values == proposal.values and not trial.parent]
        seed = self.base.seed + self.executions * len(again)
        if proposal.parent:
            seed = self.trials[proposal.parent].seed
        trial = Trial(proposal.trial, proposal.values, seed, proposal.epochs, proposal.parent, self.ends)
        folder = self.path / trial.name
        folder.mkdir(exist_ok=True)
        write_json(folder / "proposal.json", {name: getattr(trial, name) for name in PROPOSAL})
        self.trials = dict(sorted({**self.trials, trial.name: trial}.items()))
        return trial

    def complete(self, trial: Trial, outcomes: list[dict[str, Any]]) -> None:
        """A trial came to its end: the mean over its executions, and their deviation."""
        scores = [outcome["final"][self.metric] for outcome in outcomes]
        epochs = [outcome["epochs"] for outcome in outcomes]
        self._end(trial, {
            "status": COMPLETED, "reason": "", "objective": statistics.fmean(scores),
            "objective_std": statistics.stdev(scores) if len(scores) > 1 else None,
            "epochs": epochs[0] if len(set(epochs)) == 1 else statistics.fmean(epochs),
            "seconds": sum(outcome["seconds"] for outcome in outcomes), "executions": outcomes})

    def fail(self, trial: Trial, reason: str) -> None:
        """A trial cannot be finished; it is never ranked and never run again."""
        self._end(trial, {"status": FAILED, "reason": reason, "objective": None, "objective_std": None,
                          "epochs": self.epochs_so_far(trial), "seconds": None, "executions": []})

    def _end(self, trial: Trial, result: dict[str, Any]) -> None:
        trial_result = {**result, "order": self.ends}
        write_json(self.path / trial.name / "result.json", trial_result)
        trial.result = trial_result
        self.write_tables()

    def epochs_so_far(self, trial: Trial) -> int:
        return max((len(folders.RunFolder(self.folder(trial, execution)).rows())
                    for execution in range(self.executions)), default=0)

    def row(self, trial: Trial) -> dict[str, Any]:
        """A trial's row of `trials.csv`."""
        result = trial.result or {"objective": None, "objective_std": None, "seconds": None, "reason": "",
                                  "epochs": self.epochs_so_far(trial)}
        return {"trial": trial.name, **{name: trial.values[name] for name in self.space.names},
                "objective": result["objective"], "objective_std": result["objective_std"],
                "epochs": result["epochs"], "seed": trial.seed, "seconds": result["seconds"],
                "status": trial.status, "reason": result["reason"]}

    def rows(self) -> list[dict[str, Any]]:
        """All trials: the completed ones ranked, then the others."""
        ranked = self.ranked
        return [self.row(trial) for trial in [*ranked, *(one for one in self.trials.values() if one not in ranked)]]

    def table(self) -> str:
        """What a person sees: the ranked trials, then the others."""
        def cell(value: Any) -> str:
            return "-" if value in (None, "") else textwrap.shorten(_short(value), 60, placeholder=" ...")

        rows = self.rows()
        shown = [name for name in self.columns if name not in ("objective_std", "reason") or
                 any(row[name] not in (None, "") for row in rows)]
        lines = [("rank", *shown), *((str(rank + 1) if row["status"] == COMPLETED else "-",
                                      *(cell(row[name]) for name in shown)) for rank, row in enumerate(rows))]
        return card.aligned(lines, numeric=[name for name in lines[0] if name not in ("status", "reason")])

    def write_tables(self) -> None:
        """`trials.csv` and `best.json` anew; both can be made again from the trials' own files."""
        with atomic_write(self.path / "trials.csv", "w") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.row(trial) for trial in self.trials.values())
        if self.ranked:
            best = self.ranked[0]
            config = dataclasses.replace(self.config(best, 0), ranking=False)
            write_json(self.path / "best.json", {**self.row(best), "values": best.values, "config": config.to_dict(),
                                                 "retrain": retrain(self.path)})

    @property
    def columns(self) -> list[str]:
        return ["trial", *self.space.names,
                "objective", "objective_std", "epochs", "seed", "seconds", "status", "reason"]


def retrain(path: pathlib.Path) -> str:
    """The command that trains the best of a sweep, on all validation images and with pictures."""
    return f"python -m trainers.train --from_sweep={path}"


def retrain_config(path: str | os.PathLike[str]) -> RunConfig:
    """The run behind `--from_sweep=PATH`: the best of a sweep's folder, or a trial of it (`<sweep>/0007`)."""
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
    every = configs.resolve(config.spec, epochs=config.recipe.epochs).histogram_every
    return dataclasses.replace(config, ranking=False, histogram_every=every)


def load(path: str | os.PathLike[str]) -> Study:
    """The sweep that stands in a folder; `ConfigError` if none does."""
    path = pathlib.Path(os.path.expanduser(path))
    if not (path / "sweep.json").exists():
        raise ConfigError(f"{path}: holds no sweep (no sweep.json in it)")
    manifest = _read(path / "sweep.json", "put the file back, or start anew with --overwrite")
    try:
        return Study(path, manifest)
    except (LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path / 'sweep.json'}: not the manifest of a sweep: {error}") from error


def _read(path: pathlib.Path, advice: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: does not read: {error}; {advice}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not what a sweep wrote; {advice}")
    return content


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
