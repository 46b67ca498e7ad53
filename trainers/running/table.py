"""A run's `metrics.csv`: a row an epoch. It is read by its own header, and damage in it is refused with one line.

A resumed run keeps the columns that its file has, so files of earlier and later versions stay whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import pathlib
from typing import Any, Collection

from fmnist_zoo.files import append, atomic_write, quoted
from trainers.config import ConfigError
from trainers.metrics_table import COLUMNS


class TableError(ConfigError):
    """A damaged `metrics.csv`: says which line and what to do."""


class MetricsTable:
    """The rows of the epochs 1, 2, ... of one run.

    What a killed process leaves of a row, a last line without its line end, counts as nothing.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path

    def rows(self, count: int | None = None, *, only: Collection[str] = ()) -> list[dict[str, Any]]:
        """The first `count` rows (None: all) with their numbers read back; an empty cell is None.

        Args:
            only: the columns that are read, "epoch" among them; none: all. Damage in others is then not found.

        Raises:
            TableError: if the file is damaged, naming the line.
        """
        header, *lines = self._lines() or [b""]
        if not header:
            if count:
                raise self._damaged(f"it has no rows, and the checkpoint was saved after epoch {count}")
            return []
        columns = header.decode(errors="replace").rstrip("\n").split(",")
        if not set(COLUMNS) <= set(columns) or len(set(columns)) < len(columns) or b"\r" in header:
            raise self._damaged("its first line does not name the columns of a run")
        if count is not None and len(lines) < count:
            raise self._damaged(f"it has {len(lines)} rows, and the checkpoint was saved after epoch {count}")
        read = [name if not only or name in only else "" for name in columns]
        return [self._row(read, epoch, line) for epoch, line in enumerate(lines[:count], start=1)]

    def _row(self, columns: list[str], epoch: int, line: bytes) -> dict[str, Any]:
        """A row of the file; columns without a name are not read."""
        cells = line.decode(errors="replace").rstrip("\n").split(",")
        try:
            row = {name: _number(cell) for name, cell in zip(columns, cells, strict=True) if name}
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
        if not self.path.exists():
            return []
        if not self.path.is_file():
            raise self._damaged("it is not a regular file")
        lines = self.path.read_bytes().splitlines(keepends=True)
        return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]

    def row_count(self) -> int:
        """How many rows there are, damaged or not; cheaper than reading them."""
        return max(0, len(self._lines()) - 1)

    def append(self, row: dict[str, Any]) -> None:
        """Adds an epoch's row and syncs it to the disk, or leaves the file as it was.

        Columns that the file does not have are left out.
        """
        first, header = ",".join(COLUMNS) + "\n", ""
        with contextlib.suppress(FileNotFoundError), open(self.path, encoding="utf-8", newline="") as file:
            header = file.readline()
        values = [row.get(name) for name in (header or first).rstrip("\n").split(",")]
        line = ",".join("" if value is None else repr(value) for value in values) + "\n"
        append(self.path, line if header else first + line)

    def digest(self, count: int) -> str:
        """SHA-256 of the header and the first `count` rows, which a checkpoint notes."""
        return hashlib.sha256(b"".join(self._lines()[:count + 1])).hexdigest()

    def check(self, count: int, sha256: str) -> None:
        """`TableError` unless the first `count` rows are whole, and those that were noted as `sha256`."""
        self.rows(count)
        if count and sha256 != self.digest(count):
            raise self._damaged(f"its rows of epochs 1 to {count} are not those that the run wrote")

    def cut(self, count: int) -> None:
        """Keeps the first `count` rows; whatever follows goes, damaged or not."""
        if self.path.exists():
            lines = self._lines()[:count + 1] if count else []
            with atomic_write(self.path) as file:
                file.writelines(lines)


def _number(cell: str) -> int | float | None:
    """`ValueError` for anything but a finite number in Python's own notation."""
    if not cell:
        return None
    number = int(cell) if cell.isdecimal() and len(cell) < 20 else float(cell)
    if not math.isfinite(number) or "_" in cell or cell != cell.strip() or not cell.isascii():
        raise ValueError(f"{cell!r} is not a number")
    return number
