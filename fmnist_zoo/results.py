"""The scores: `results.csv`, a row for each model and seed, and their means. Standard library alone.

A student's row names its `teacher`, and a network that began as another one its `initial_weights`. An ensemble of the
networks of several seeds is a row of its own kind: its `seed` is all of theirs, joined by spaces.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import pathlib
import statistics
from typing import Any, Callable, Iterable

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write

PATH = pathlib.Path(__file__).parent / "results.csv"


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def _seeds(text: str) -> str:
    return " ".join(str(int(word)) for word in text.split()) or str(int(text))


def _optional(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: read(text) if text else None


_READ: dict[str, Callable[[str], Any]] = {
    "model": str, "seed": _seeds, "teacher": str, "epochs": _optional(int), "chosen_epoch": _optional(int),
    "val_accuracy": _finite, "test_accuracy": _finite, "test_nll": _finite, "test_ece": _finite,
    "seconds": _optional(_finite), "images_per_second": _optional(_finite), "processor": str, "data_sha256": str,
    "versions": str, "commit": str, "initial_weights": str, "earlier": str}
COLUMNS = tuple(_READ)


class ResultsError(ZooError, ValueError):
    """A table of results cannot be read: says which file, and where in it."""


@dataclasses.dataclass(frozen=True)
class Score:
    """A model over its seeds: means, and sample standard deviations (0 for one seed).

    Attributes:
        accuracy, nll, ece: of the 10,000 test images; nats for `nll`, 15 bins for `ece`.
        seconds: of training; the median, because other work on a machine only ever adds to it. None: not measured.
        earlier: whether a row was measured with an earlier engine or recipe than the present one.
        together: the test accuracy of the networks of all seeds as an ensemble; None: not measured.
    """

    seeds: int
    accuracy: float
    accuracy_deviation: float
    nll: float
    nll_deviation: float
    ece: float
    ece_deviation: float
    seconds: float | None
    earlier: bool = False
    together: float | None = None


def read(path: str | os.PathLike[str] = PATH) -> list[dict[str, Any]]:
    """All rows, with numbers as numbers, None where a number is not known; none if there is no such file.

    `seed` is text. Columns may have any order. Columns that are not in `COLUMNS` are kept as text.

    Raises:
        ResultsError: for a file that is not a table of results, naming the missing columns or the line.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ResultsError(f"{path}: not a table of results: it has no column {', '.join(missing)}")
            return [_typed(path, reader.line_num, row) for row in reader]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"{path}: cannot be read: {error}; install the package again") from error


def _typed(path: Any, line: int, row: dict[str, Any]) -> dict[str, Any]:
    if None in row or None in row.values():  # csv's marks for a row with too many cells, or too few
        raise ResultsError(f"{path}, line {line}: has more or fewer cells than the header")
    try:
        return {name: _READ.get(name, str)(text) for name, text in row.items()}
    except ValueError as error:
        raise ResultsError(f"{path}, line {line}: cannot be read: {error}") from None


def write(rows: Iterable[dict[str, Any]], path: str | os.PathLike[str] = PATH) -> None:
    """Replaces the file, completely or not at all: `COLUMNS`, then further ones of the rows; floats with all digits."""
    rows = list(rows)
    columns = dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def is_ensemble(row: dict[str, Any]) -> bool:
    return " " in row["seed"]


def scores(rows: Iterable[dict[str, Any]] | None = None) -> dict[str, Score]:
    """Each model's score over its single networks; default: of the package's own rows."""
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in read() if rows is None else rows:
        by_model.setdefault(row["model"], []).append(row)
    return {model: _score(group) for model, group in by_model.items() if not all(map(is_ensemble, group))}


def _score(rows: list[dict[str, Any]]) -> Score:
    singles = [row for row in rows if not is_ensemble(row)]

    def mean_and_deviation(name: str) -> tuple[float, float]:
        values = [row[name] for row in singles]
        return math.fsum(values) / len(values), statistics.stdev(values) if len(values) > 1 else 0.0

    seconds = [row["seconds"] for row in singles if row["seconds"] is not None]
    return Score(len(singles), *mean_and_deviation("test_accuracy"), *mean_and_deviation("test_nll"),
                 *mean_and_deviation("test_ece"), statistics.median(seconds) if seconds else None,
                 any(row["earlier"] for row in singles),
                 next((row["test_accuracy"] for row in rows if is_ensemble(row)), None))
