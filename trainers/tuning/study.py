"""The folder of a sweep, `<logdir>/sweeps/<name>/`: what is searched, what was proposed, and the results.

    sweep.json          the manifest: space, base run, tuner, objective, data, and the versions of the first start
    starts.json         the versions of each start
    0000/proposal.json  a trial: its values, and how many trials had ended when it was proposed
    0000/0/             its executions: run folders, each with its own seed
    0000/result.json    its result
    journal.jsonl       proposals and results that the disk may not hold in their own files yet: see `journal`
    trials.csv  best.json
    report.html         what it has taught, and its plots: effects.png, combinations.png

Manifest, proposals and results are the source of tables, page and plots. No TensorFlow.
"""

from __future__ import annotations

import bisect
import collections
import csv
import dataclasses
import io
import os
import pathlib
import statistics
import textwrap
import time
from typing import Any, Iterable, Mapping, NamedTuple

from fmnist_zoo import card, custom
from fmnist_zoo.files import atomic_write, quoted, write_json
from trainers.config import SEEDS, ConfigError, RunConfig, as_run
from trainers.running.folder import RunFolder
from trainers.tuning import shapes
from trainers.tuning.execution import COMPLETED, FAILED
from trainers.tuning.journal import Journal, read
from trainers.tuning.oracle import Proposal
from trainers.tuning.shapes import ADVICE, PROPOSAL, said
from trainers.tuning.space import apply, parse


class Objective(NamedTuple):
    """What ranks the trials: a metric of the images that chose no epoch."""

    metric: str  # its key in `final` of a run's result.json
    lower_is_better: bool


OBJECTIVES = {"val_loss": Objective("ranking_loss", lower_is_better=True),
              "val_accuracy": Objective("ranking_accuracy", lower_is_better=False)}
RUNNING = "RUNNING"


@dataclasses.dataclass
class Trial:
    """A set of values to try, and its result."""

    name: str  # of its folder: its number with at least four digits
    values: dict[str, Any]
    seed: int  # of its first execution; the others have the next ones, 0 after the largest
    epochs: int | None
    parent: str | None
    ended_before: int  # how many trials had ended when it was proposed
    result: dict[str, Any] | None = None  # content of `result.json` when it has ended

    @property
    def proposal(self) -> Proposal:
        return Proposal(self.name, self.values, self.epochs, self.parent)

    @property
    def number(self) -> int:
        return int(self.name)

    @property
    def status(self) -> str:
        return self.result["status"] if self.result else RUNNING

    @property
    def reason(self) -> str:
        """Why it failed; empty if it did not."""
        return self.result["reason"] if self.result else ""

    @property
    def objective_std(self) -> float | None:
        """The standard deviation of its executions' objectives; None with fewer than two."""
        return self.result["objective_std"] if self.result else None

    @property
    def trained_epochs(self) -> Any:
        """Epochs that it has trained, the mean over its executions; None if it has not ended."""
        return self.result["epochs"] if self.result else None

    @property
    def seconds(self) -> float | None:
        """Of all its executions together; None if it has not completed."""
        return self.result["seconds"] if self.result else None

    @property
    def executions(self) -> list[dict[str, Any]]:
        """The outcomes of its executions, each with `final`, `epochs`, `seconds`; empty if it has not completed."""
        return self.result["executions"] if self.result else []

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
    """The content of a sweep's folder. The lists are kept in order: what a trial costs must not grow with their number.

    Attributes:
        manifest: the content of its `sweep.json`.
        journal: writes what `add`, `complete` and `fail` record, at its `commit`.
        trials: by name, in the order of their numbers.
        ended: the trials that have ended, in that order.
        ranked: completed trials, best first; equal ones in the order of proposal.
    """

    def __init__(self, path: pathlib.Path, manifest: dict[str, Any]):
        shapes.check_manifest(manifest)
        self.path, self.manifest = path, manifest
        self.base = RunConfig.from_config(manifest["base"])
        self.space = parse(manifest["space"], self.base)
        self.objective = OBJECTIVES[manifest["objective"]]
        self.executions: int = manifest["executions"]
        self.journal = Journal(path)
        self.starts = list((read(path / "starts.json", "restore or delete the file") or {"starts": []})["starts"])
        last = [manifest, *self.starts][-1]  # the last start
        shapes.check_start(last)
        self.versions: dict[str, str] = last["versions"]
        self.modules: dict[str, str] = last.get("modules", {})  # of the user's: see `ModelSpec.modules`
        self.trials: dict[str, Trial] = {}
        self._drawn: collections.Counter[tuple[Any, ...]] = collections.Counter()  # how often values were proposed
        self._lines: dict[str, str] = {}  # of `trials.csv`, of ended trials
        self._best: Trial | None = None  # that `best.json` holds
        self._read_trials()

    @property
    def shown(self) -> dict[str, Any]:
        """What TensorBoard's HParams tab shows alike for all trials, as of `hparams.session_start`."""
        return {"model": self.base.spec.name, "by_layer": any(name.startswith("dropout.") for name in self.space.names)}

    def _read_trials(self) -> None:
        self._left = self.journal.read()
        with os.scandir(self.path) as entries:
            names = {entry.name for entry in entries if entry.name.isdecimal()}.union(map(os.path.dirname, self._left))
        found = [trial for name in sorted(names, key=int) if (trial := self._read_trial(self.path / name))]
        self.trials.update((trial.name, trial) for trial in found)
        self._drawn.update(self._key(trial.values) for trial in found if not trial.parent)
        self.ended = sorted((trial for trial in found if trial.result), key=lambda trial: trial.order)
        shapes.check_together(self.path, self.trials, self.ended)
        self.ranked = sorted((trial for trial in found if trial.status == COMPLETED), key=self._rank)

    def _read_trial(self, folder: pathlib.Path) -> Trial | None:
        """The trial in a folder; None if the leader was killed before it recorded the proposal."""
        proposal, result = folder / "proposal.json", folder / "result.json"
        content = read(proposal, ADVICE, self._left.get(f"{folder.name}/proposal.json"))
        if content is None:
            return None
        try:
            trial = Trial(folder.name, **{name: content[name] for name in PROPOSAL})
            trial.result = read(result, ADVICE, self._left.get(f"{folder.name}/result.json"))
            shapes.check_proposal(trial, self.space)
            if trial.result is None:
                self.config(trial, 0)
        except ConfigError:
            raise
        except (TypeError, LookupError, ValueError, AttributeError) as error:
            raise ConfigError(f"{proposal}: not the proposal of a trial: {said(error)}; {ADVICE}") from error
        if trial.result is not None:
            shapes.check_result(result, trial.result, self.objective.metric, self.executions)
        return trial

    def _key(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(map(values.get, self.space.names))

    def _rank(self, trial: Trial) -> tuple[float, int]:
        return (trial.score if self.objective.lower_is_better else -trial.score, trial.number)

    @property
    def next_order(self) -> int:
        """The order number of the next trial to end."""
        return self.ended[-1].order + 1 if self.ended else 0

    def folder(self, trial: Trial, execution: int) -> pathlib.Path:
        """The run folder of an execution."""
        return self.path / trial.name / str(execution)

    def config(self, trial: Trial, execution: int) -> RunConfig:
        """The run of an execution. All trials have the same seeds: they start from equal weights, so pairs compare."""
        return apply(self.base, trial.values, given=self.manifest.get("given", ()), epochs=trial.epochs,
                     seed=(trial.seed + execution) % SEEDS)

    def add(self, proposal: Proposal) -> Trial:
        """Records a proposal. Values that were proposed before get the seeds after those that they had."""
        if proposal.parent:
            seed = self.trials[proposal.parent].seed
        else:
            seed = (self.base.seed + self.executions * self._drawn[self._key(proposal.values)]) % SEEDS
            self._drawn[self._key(proposal.values)] += 1
        trial = Trial(proposal.trial, proposal.values, seed, proposal.epochs, proposal.parent, self.next_order)
        self.journal.add(f"{trial.name}/proposal.json", {name: getattr(trial, name) for name in PROPOSAL})
        last = next(reversed(self.trials.values()), trial)
        self.trials[trial.name] = trial
        if trial.number < last.number:  # its folder was deleted
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
        self.journal.add(f"{trial.name}/result.json", result)
        trial.result = result
        self.ended.append(trial)
        if trial.status == COMPLETED:
            bisect.insort(self.ranked, trial, key=self._rank)

    def recover(self) -> None:
        """Writes what a killed leader left in the journal."""
        self.journal.recover(self._left)

    def add_start(self, environment: Mapping[str, Any]) -> None:
        """Records the versions and the commit of this start, and how many trials there will be, where that is known."""
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

    def row(self, trial: Trial, *, so_far: bool = True) -> dict[str, Any]:
        """A trial's row of `trials.csv`; `so_far`: with the epochs of a running trial, which its own files have."""
        result = trial.result or {"reason": "", "epochs": self.epochs_so_far(trial) if so_far else None}
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
        return f"python -m trainers.train --from_sweep={quoted(self.path)}{custom.flag(self.modules)}"

    def write_tables(self, *, so_far: bool = True) -> None:
        """Writes `trials.csv`, and `best.json` if it would change; `so_far`: as for `row`."""
        for trial in self.ended[len(self._lines):]:
            self._lines[trial.name] = _line(self.row(trial).values())
        with atomic_write(self.path / "trials.csv", "w") as file:
            file.write(_line(self.columns))
            file.writelines(self._lines.get(trial.name) or _line(self.row(trial, so_far=so_far).values())
                            for trial in self.trials.values())
        if self.ranked and self._best is not self.ranked[0]:
            best = self.ranked[0]
            config = as_run(self.config(best, 0))
            write_json(self.path / "best.json", {**self.row(best), "values": best.values, "config": config.get_config(),
                                                 "retrain": self.retrain})
            self._best = best


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
    return as_run(study.config(trial, 0))


def load(path: str | os.PathLike[str]) -> Study:
    """The sweep in a folder; `ConfigError` if there is none, or a file of it is damaged."""
    path = pathlib.Path(os.path.expanduser(path))
    if not (path / "sweep.json").exists():
        raise ConfigError(f"{path}: holds no sweep (no sweep.json in it); `python -m trainers.runs` lists the sweeps")
    manifest = read(path / "sweep.json", "restore the file, or start again with --overwrite")
    try:
        return Study(path, manifest)  # type: ignore[arg-type]
    except ConfigError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path / 'sweep.json'}: not the manifest of a sweep, or its starts.json is damaged: "
                          f"{said(error)}") from error


def _cell(value: Any) -> str:
    text = "-" if value in (None, "") else " ".join(_short(value).split())
    return text if len(text) <= 60 else textwrap.shorten(text, 60, placeholder=" ...")


def _line(cells: Iterable[Any]) -> str:
    """Cells as a line of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
