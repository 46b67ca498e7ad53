"""A run's `metrics.csv`: a row an epoch. Checkpoint and `result.json` note the digest of the rows that they count."""

from __future__ import annotations

import hashlib
import pathlib

from fmnist_zoo.files import append, atomic_write, quoted, require_regular
from trainers.config import ConfigError
from trainers.metrics_table import COLUMNS, Row

HEADER = ",".join(COLUMNS) + "\n"


class TableError(ConfigError):
    """A damaged `metrics.csv`: says which line and what to do."""


class MetricsTable:
    """The rows of the epochs 1, 2, ... of one run.

    What a killed process leaves of a row, a last line without its line end, counts as nothing.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path

    def rows(self) -> list[Row]:
        """All rows with their numbers read back; an empty cell is None. `TableError` if the file is damaged."""
        header, *lines = self._lines() or [HEADER.encode()]
        if header != HEADER.encode():
            raise self._damaged("its first line does not name the columns of a run")
        return [self._row(epoch, line.decode(errors="replace")) for epoch, line in enumerate(lines, start=1)]

    def _row(self, epoch: int, line: str) -> Row:
        try:
            row = {name: _number(cell) for name, cell in zip(COLUMNS, line.rstrip("\n").split(","), strict=True)}
        except ValueError as error:
            raise self._damaged(f"line {epoch + 1} does not read: {error}") from None
        if row["epoch"] != epoch:
            raise self._damaged(f"line {epoch + 1} is not the row of epoch {epoch}")
        return row

    def _damaged(self, what: str) -> TableError:
        return TableError(f"{self.path}: damaged: {what}; put the file back, or train the run again with "
                          f"--config={quoted(self.path.parent / 'config.json')}")

    def _lines(self) -> list[bytes]:
        """Header and rows as they are in the file, each with its line end."""
        try:
            require_regular(self.path)
        except FileNotFoundError:
            return []
        lines = self.path.read_bytes().splitlines(keepends=True)
        return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]

    def row_count(self) -> int:
        """How many rows there are, damaged or not; cheaper than reading them."""
        return max(0, len(self._lines()) - 1)

    def append(self, row: Row) -> None:
        """Adds an epoch's row and syncs it to the disk, or leaves the file as it was."""
        line = ",".join("" if row.get(name) is None else repr(row[name]) for name in COLUMNS) + "\n"
        append(self.path, line if self.path.exists() and self.path.stat().st_size else HEADER + line)

    def sha256(self, count: int) -> str:
        """SHA-256 of the header and the first `count` rows."""
        return hashlib.sha256(b"".join(self._lines()[:count + 1])).hexdigest()

    def check(self, count: int, sha256: str) -> None:
        """`TableError` unless the first `count` rows are those that were noted as `sha256`."""
        if self.row_count() < count:
            raise self._damaged(f"it has {self.row_count()} rows, and the run saved {count}")
        if count and sha256 != self.sha256(count):
            raise self._damaged(f"its rows of epochs 1 to {count} are not those that the run wrote")

    def cut(self, count: int) -> None:
        """Keeps the first `count` rows; whatever follows goes, damaged or not."""
        if self.path.exists():
            with atomic_write(self.path) as file:
                file.writelines(self._lines()[:count + 1] if count else [])


def _number(cell: str) -> int | float | None:
    """The number that `append` wrote."""
    return (int(cell) if cell.isdecimal() else float(cell)) if cell else None
