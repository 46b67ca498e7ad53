"""The scores: `results.csv`, a row for each model and seed, and their means. Standard library alone.

A student's row names its `teacher`, and a network that began as another one its `initial_weights`, with the seconds in
which these were trained. `engine` is the SHA-256 of the code and the recipe that trained it. Two kinds of rows stand
apart: that of an ensemble of several seeds, whose `seed` is all of them, joined by spaces; and that of a network which
was trained on all 60,000 images, and has no `val_accuracy`.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
import statistics
from typing import Iterable

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import Record, atomic_write

PATH = pathlib.Path(__file__).parent / "results.csv"
COLUMNS = ("model", "seed", "teacher", "epochs", "chosen_epoch", "val_accuracy", "test_accuracy", "test_nll",
           "test_ece", "seconds", "images_per_second", "processor", "data_sha256", "versions", "commit",
           "initial_weights", "start_seconds", "teacher_seconds", "weights_sha256", "engine")
NUMBERS: dict[str, type[int] | type[float]] = {  # the other columns are text
    "epochs": int, "chosen_epoch": int, "val_accuracy": float, "test_accuracy": float, "test_nll": float,
    "test_ece": float, "seconds": float, "images_per_second": float, "start_seconds": float, "teacher_seconds": float}


class ResultsError(ZooError, ValueError):
    """A table of results cannot be read: says which file, and where in it."""


@dataclasses.dataclass(frozen=True)
class Score:
    """A model over its seeds: means, and sample standard deviations (0 for one seed).

    Attributes:
        accuracy, nll, ece: of the 10,000 test images; nats for `nll`, 15 bins for `ece`.
        seconds: of training; the median, because other work on a machine only ever adds to it. None: not measured.
        earlier: whether a row does not say which engine trained it, so that it is of a version before 1.0.
        together: the test accuracy of the networks of all seeds as an ensemble; None: not measured.
        of_all: the mean test accuracy of networks of all 60,000 training images; None: not measured.
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
    of_all: float | None = None


def read(path: str | os.PathLike[str] = PATH) -> list[Record]:
    """All rows, with numbers as numbers, None where a number is not known; none if there is no such file.

    Raises:
        ResultsError: for a file that is not a table of results, naming its columns or the line.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ResultsError(f"{path}: not a table of results: its columns are {reader.fieldnames}, expected "
                                   f"{', '.join(COLUMNS)}")
            return [_typed(path, reader.line_num, row) for row in reader]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"{path}: cannot be read: {error}; install the package again") from error


def _typed(path: str | os.PathLike[str], line: int, row: Record) -> Record:
    if None in row or None in row.values():  # csv's marks for a row with too many cells, or too few
        raise ResultsError(f"{path}, line {line}: has more or fewer cells than the header")
    try:
        return row | {name: read(row[name]) if row[name] else None for name, read in NUMBERS.items()}
    except ValueError as error:
        raise ResultsError(f"{path}, line {line}: cannot be read: {error}") from None


def write(rows: Iterable[Record], path: str | os.PathLike[str] = PATH) -> None:
    """Replaces the file, completely or not at all; floats with all digits."""
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def is_ensemble(row: Record) -> bool:
    return " " in row["seed"]


def is_single(row: Record) -> bool:
    """Whether it is of one network that was trained without the validation images."""
    return not is_ensemble(row) and row["val_accuracy"] is not None


def key(row: Record) -> tuple[str, str, bool]:
    """What tells rows apart: model, seed, and whether it is of all training images."""
    return row["model"], row["seed"], row["val_accuracy"] is None


def scores(rows: Iterable[Record] | None = None) -> dict[str, Score]:
    """Each model's score over its single networks; default: of the package's own rows."""
    by_model: dict[str, list[Record]] = {}
    for row in read() if rows is None else rows:
        by_model.setdefault(row["model"], []).append(row)
    return {model: _score(group) for model, group in by_model.items() if any(map(is_single, group))}


def _score(rows: list[Record]) -> Score:
    singles = list(filter(is_single, rows))
    of_all = [row["test_accuracy"] for row in rows if row["val_accuracy"] is None]
    found: Record = {}
    for name in ("accuracy", "nll", "ece"):
        values = [row[f"test_{name}"] for row in singles]
        found[name] = statistics.fmean(values)
        found[f"{name}_deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
    seconds = [row["seconds"] for row in singles if row["seconds"] is not None]
    return Score(seeds=len(singles), **found, seconds=statistics.median(seconds) if seconds else None,
                 earlier=not all(row["engine"] for row in singles),
                 together=next((row["test_accuracy"] for row in rows if is_ensemble(row)), None),
                 of_all=statistics.fmean(of_all) if of_all else None)
