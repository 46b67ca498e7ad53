"""What the records of a sweep must hold: a record that reads as JSON may still be changed, or of another program."""

from __future__ import annotations

import itertools
import math
import pathlib
from typing import Any, Mapping, Sequence

from fmnist_zoo.card import printable
from trainers.config import ConfigError
from trainers.tuning.execution import COMPLETED, FAILED
from trainers.tuning.space import Parameter, Space

# Keys of `proposal.json` and `result.json`; later versions may add some.
PROPOSAL = ("values", "seed", "epochs", "parent", "ended_before")
RESULT = ("status", "reason", "objective", "objective_std", "epochs", "seconds", "executions", "order")
ADVICE = "restore the file, or delete the trial's folder: grid and random run the trial again"


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """`ValueError` for a `sweep.json` that no sweep writes, whose base run and space are checked elsewhere."""
    _require(manifest, {"space": str, "tuner": str, "objective": str, "data": dict})
    _require_count(manifest["executions"], "executions", 1)
    if not all(map(_is_texts, (manifest.get("given", []), manifest.get("start", [])))):
        raise ValueError("given and start are lists of texts")
    check_start(manifest)


def check_start(start: Mapping[str, Any]) -> None:
    """`ValueError` for what no start of a sweep writes down: its versions, its modules and how many trials it has."""
    for name in ("versions", "modules"):
        found = start["versions"] if name == "versions" else start.get(name, {})
        if not isinstance(found, dict) or not _is_texts(list(found.values())):
            raise ValueError(f"{name} are texts by name, and these are {found!r:.80}")
    if start.get("trials") is not None:
        _require_count(start["trials"], "trials", 0)


def check_proposal(trial: Any, space: Space) -> None:
    """`ValueError` for a `Trial` that no tuner proposes for the space."""
    if set(trial.values) != set(space.names):
        raise ValueError(f"it has values of {', '.join(trial.values)}")
    for parameter in space.parameters:
        if not _is_possible(parameter, trial.values[parameter.name]):
            raise ValueError(f"{parameter.name} is {trial.values[parameter.name]!r:.80}")
    _require_count(trial.seed, "seed", 0)
    _require_count(trial.ended_before, "ended_before", 0)
    if trial.epochs is not None:
        _require_count(trial.epochs, "epochs", 1)
    if trial.parent is not None and not (isinstance(trial.parent, str) and trial.parent.isdecimal()
                                         and int(trial.parent) < trial.number):
        raise ValueError(f"its parent is {trial.parent!r:.80}")


def check_result(path: pathlib.Path, result: Mapping[str, Any], metric: str, executions: int) -> None:
    """`ConfigError` for the `result.json` at `path` if no trial of so many executions, ranked by `metric`, has it."""
    missing = [name for name in RESULT if name not in result]
    try:
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        _check_result(result, metric, executions)
    except (TypeError, LookupError, ValueError) as error:
        raise ConfigError(f"{path}: not the result of a trial: {said(error)}; {ADVICE}") from error


def check_together(path: pathlib.Path, trials: Mapping[str, Any], ended: Sequence[Any]) -> None:
    """`ConfigError` for the sweep at `path` if its trials do not fit each other; `ended` are in their order."""
    for trial in trials.values():
        if trial.parent and trial.parent not in trials:
            raise ConfigError(f"{path}: trial {trial.name} continues {trial.parent}, which is gone; {ADVICE}")
    for before, after in itertools.pairwise(ended):
        if before.order == after.order:
            raise ConfigError(f"{path}: {before.name} and {after.name} both ended as number {after.order}; {ADVICE}")


def said(error: Exception) -> str:
    """An error in one line, which may quote what a file holds."""
    return printable(str(error) if isinstance(error, ValueError) else repr(error))[:300]


def _check_result(result: Mapping[str, Any], metric: str, executions: int) -> None:
    _require(result, {"status": str, "reason": str, "executions": list})
    _require_count(result["order"], "order", 0)
    if result["status"] not in (COMPLETED, FAILED):
        raise ValueError(f"status is {result['status']!r:.80}")
    known = () if result["status"] == FAILED else ("objective", "epochs", "seconds")
    for name in ("objective", "objective_std", "epochs", "seconds"):
        if not _is_number(result[name]) and (name in known or result[name] is not None):
            raise ValueError(f"{name} is {result[name]!r:.80}")
    if result["status"] == FAILED:
        return
    finals = [one["final"] for one in result["executions"]]
    if len(finals) != executions or not all(isinstance(final, dict) and all(map(_is_number, final.values()))
                                            and {"ranking_loss", "ranking_accuracy"} <= set(final) for final in finals):
        raise ValueError("it lacks the numbers of its executions")
    mean = math.fsum(final[metric] for final in finals) / executions
    if not isinstance(result["objective"], float) or not math.isclose(result["objective"], mean, rel_tol=1e-9):
        raise ValueError(f"objective is {result['objective']!r:.80}, and its executions have {mean}")


def _is_possible(parameter: Parameter, value: Any) -> bool:
    """Whether a value can be of a hyper-parameter; one that was given to be tried first may lie outside a range."""
    if isinstance(value, str):
        return value in parameter.values
    return _is_number(value) and (parameter.kind != "log" or value > 0)


def _is_number(value: Any) -> bool:
    """Whether it is a finite number; whole ones may be larger than any float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def _is_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _require(record: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    for name, kind in kinds.items():
        if not isinstance(record[name], kind):
            raise ValueError(f"{name} is {record[name]!r:.80}")


def _require_count(value: Any, name: str, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**53:
        raise ValueError(f"{name} is {value!r:.80}")
