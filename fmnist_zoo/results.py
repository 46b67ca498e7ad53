"""The scores: `results.csv`, a row a model and seed, and what is read out of it. Standard library alone."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import pathlib
import statistics
from typing import Any, Iterable

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write

PATH = pathlib.Path(__file__).parent / "results.csv"
COLUMNS = ("model", "seed", "epochs", "chosen_epoch", "validation_accuracy", "test_accuracy", "test_nll", "test_ece",
           "seconds", "images_per_second", "data_sha256", "versions", "commit")
_WHOLE = ("seed", "epochs", "chosen_epoch")
_TEXT = ("model", "data_sha256", "versions", "commit")


class ResultsError(ZooError, ValueError):
    """A file of results that does not read: says which, and where."""


@dataclasses.dataclass(frozen=True)
class Score:
    """A model over its seeds: means, and sample standard deviations (0 for one seed).

    Attributes:
        seeds: how many rows.
        accuracy, nll, ece: of the 10,000 test images; nats for `nll`, 15 bins for `ece`.
        seconds: of training, the median, because other work on a machine only ever adds to it.
    """

    seeds: int
    accuracy: float
    accuracy_deviation: float
    nll: float
    nll_deviation: float
    ece: float
    ece_deviation: float
    seconds: float


def read(path: str | os.PathLike[str] = PATH) -> list[dict[str, Any]]:
    """All rows, numbers as numbers; none if there is no such file.

    Raises:
        ResultsError: for a file that is not one of results, naming the line.
    """
    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ResultsError(f"{path}: its columns are {reader.fieldnames}, expected {list(COLUMNS)}")
            return [_typed(path, reader.line_num, row) for row in reader]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"{path}: cannot be read: {error}; install the package again") from error


def _typed(path: Any, line: int, row: dict[str, Any]) -> dict[str, Any]:
    try:
        return {name: text if name in _TEXT else int(text) if name in _WHOLE else float(text)
                for name, text in row.items()}
    except (TypeError, ValueError) as error:
        raise ResultsError(f"{path}, line {line}: does not read: {error}") from None


def write(rows: Iterable[dict[str, Any]], path: str | os.PathLike[str] = PATH) -> None:
    """Replaces the file, whole or not at all; floats with all their digits."""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([row[name] for name in COLUMNS] for row in rows)


def scores(rows: Iterable[dict[str, Any]] | None = None) -> dict[str, Score]:
    """Each model's score over its seeds; of the package's own rows by default."""
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in read() if rows is None else rows:
        by_model.setdefault(row["model"], []).append(row)
    return {model: _score(group) for model, group in by_model.items()}


def _score(rows: list[dict[str, Any]]) -> Score:
    def both(name: str) -> tuple[float, float]:
        values = [row[name] for row in rows]
        mean = math.fsum(values) / len(values)
        return mean, statistics.stdev(values) if len(values) > 1 else 0.0

    return Score(len(rows), *both("test_accuracy"), *both("test_nll"), *both("test_ece"),
                 statistics.median(row["seconds"] for row in rows))
