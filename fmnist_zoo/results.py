"""The scores: `results.csv`, a row for each model and seed, and their means. Standard library alone.

`record.csv` beside it has what networks reach with more work at prediction, the mean over shifts of an image and
ensembles of all seeds, and networks that had a teacher. Its rows are never mixed with those of single networks.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import pathlib
import statistics
from typing import Any, Iterable, Mapping

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write

PATH = pathlib.Path(__file__).parent / "results.csv"
_TYPES: dict[str, type] = {
    "model": str, "seed": int, "epochs": int, "chosen_epoch": int, "val_accuracy": float, "test_accuracy": float,
    "test_nll": float, "test_ece": float, "seconds": float, "images_per_second": float, "data_sha256": str,
    "versions": str, "commit": str}
COLUMNS = tuple(_TYPES)
RECORD_TYPES: dict[str, type] = {
    "model": str, "kind": str, "seeds": str, "val_accuracy": float, "test_accuracy": float, "test_nll": float,
    "test_ece": float, "test_ece_calibrated": float, "weights_sha256": str, "data_sha256": str, "versions": str,
    "commit": str}


class ResultsError(ZooError, ValueError):
    """A table of results cannot be read: says which file, and where in it."""


@dataclasses.dataclass(frozen=True)
class Score:
    """A model over its seeds: means, and sample standard deviations (0 for one seed).

    Attributes:
        accuracy, nll, ece: of the 10,000 test images; nats for `nll`, 15 bins for `ece`.
        seconds: of training; the median, because other work on a machine only ever adds to it.
    """

    seeds: int
    accuracy: float
    accuracy_deviation: float
    nll: float
    nll_deviation: float
    ece: float
    ece_deviation: float
    seconds: float


def read(path: str | os.PathLike[str] = PATH, types: Mapping[str, type] = _TYPES) -> list[dict[str, Any]]:
    """All rows, with numbers as numbers; none if there is no such file. `types` are the columns that it must have.

    Columns may have any order. Further columns, which later versions may write, are kept as text.

    Raises:
        ResultsError: for a file that is not a table of results, naming the missing columns or the line.
    """
    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in types if name not in (reader.fieldnames or ())]
            if missing:
                raise ResultsError(f"{path}: not a table of results: it has no column {', '.join(missing)}")
            return [_typed(path, reader.line_num, row, types) for row in reader]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"{path}: cannot be read: {error}; install the package again") from error


def _typed(path: Any, line: int, row: dict[str, Any], types: Mapping[str, type]) -> dict[str, Any]:
    if None in row or None in row.values():  # csv's marks for a row with too many cells, or too few
        raise ResultsError(f"{path}, line {line}: has more or fewer cells than the header")
    try:
        found = {name: types.get(name, str)(text) for name, text in row.items()}
        if not all(math.isfinite(value) for value in found.values() if isinstance(value, float)):
            raise ValueError("a number in it is not finite")
        return found
    except ValueError as error:
        raise ResultsError(f"{path}, line {line}: cannot be read: {error}") from None


def write(rows: Iterable[dict[str, Any]], path: str | os.PathLike[str] = PATH,
          types: Mapping[str, type] = _TYPES) -> None:
    """Replaces the file, completely or not at all: the columns of `types`, then further ones of the rows; floats with
    all digits."""
    rows = list(rows)
    columns = dict.fromkeys([*types, *(name for row in rows for name in row)])
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def scores(rows: Iterable[dict[str, Any]] | None = None) -> dict[str, Score]:
    """Each model's score over its seeds; default: of the package's own rows."""
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in read() if rows is None else rows:
        by_model.setdefault(row["model"], []).append(row)
    return {model: _score(group) for model, group in by_model.items()}


def _score(rows: list[dict[str, Any]]) -> Score:
    def mean_and_deviation(name: str) -> tuple[float, float]:
        values = [row[name] for row in rows]
        return math.fsum(values) / len(values), statistics.stdev(values) if len(values) > 1 else 0.0

    return Score(len(rows), *mean_and_deviation("test_accuracy"), *mean_and_deviation("test_nll"),
                 *mean_and_deviation("test_ece"), statistics.median(row["seconds"] for row in rows))
