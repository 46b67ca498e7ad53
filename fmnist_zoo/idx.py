"""Reads IDX files (Y. LeCun, "The MNIST database"; the page ends with the format) without trusting them.

A header may not claim more than the file's size allows, at most one block of rows is allocated at a time, and every
byte that is read is hashed.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import pathlib
import struct
import zlib
from typing import IO, Iterator

import numpy as np

from fmnist_zoo.errors import ZooError

IMAGES_MAGIC, LABELS_MAGIC = 0x00000803, 0x00000801  # unsigned bytes in three dimensions, in one
ROWS_A_BLOCK = 4096
DEFLATE_LIMIT = 1032  # the largest factor of deflate (zlib's technical details, "Maximum compression factor")


class DataError(ZooError, ValueError):
    """Data are missing, damaged, or other data than were asked for: names the file or the source."""


class IdxReader:
    """An open IDX file of unsigned bytes.

    Attributes:
        shape: from the header, checked against the file's size and the expected shape of a row.
        sha256: hex digest of the uncompressed payload with its header; empty until all blocks have been read.
    """

    def __init__(self, path: pathlib.Path, file: IO[bytes], *, row: tuple[int, ...]):
        self.path, self.sha256, self._file, self._row = path, "", file, row
        self._hash = hashlib.sha256()
        magic = IMAGES_MAGIC if row else LABELS_MAGIC
        header = self._read(4 * (2 + len(row)))
        received, *shape = struct.unpack(f">{2 + len(row)}I", header)
        if received != magic:
            raise DataError(f"{path}: not an IDX file of {'images' if row else 'labels'}: "
                            f"it starts with {received:#010x} instead of {magic:#010x}")
        if tuple(shape[1:]) != row:
            raise DataError(f"{path}: rows of shape {tuple(shape[1:])}, expected {row}")
        self.shape = tuple(shape)
        most = os.path.getsize(path) * (DEFLATE_LIMIT if path.suffix == ".gz" else 1)
        if int(np.prod(shape, dtype=object)) > most:
            raise DataError(f"{path}: its header claims {shape[0]} rows, more than a file of "
                            f"{os.path.getsize(path)} bytes can hold")

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows in the file's order, uint8, at most `ROWS_A_BLOCK` at a time. Sets `sha256` at the end."""
        width = int(np.prod(self._row, dtype=int))
        for start in range(0, self.shape[0], ROWS_A_BLOCK):
            rows = min(ROWS_A_BLOCK, self.shape[0] - start)
            yield np.frombuffer(self._read(rows * width), np.uint8).reshape(rows, *self._row)
        if self._file.read(1):
            raise DataError(f"{self.path}: more bytes than the {self.shape[0]} rows its header promises")
        self.sha256 = self._hash.hexdigest()

    def _read(self, count: int) -> bytes:
        payload = self._file.read(count)
        if len(payload) != count:
            raise DataError(f"{self.path}: cut short: the payload ends {count - len(payload)} bytes early")
        self._hash.update(payload)
        return payload


@contextlib.contextmanager
def open_idx(path: str | os.PathLike[str], *, row: tuple[int, ...]) -> Iterator[IdxReader]:
    """Opens a gzip (`.gz`) or plain file as an `IdxReader`.

    Args:
        row: the shape that each row must have: (28, 28) for images, () for labels.

    Raises:
        DataError: if the file is missing, damaged or of another format, also while blocks are read; names the file.
    """
    path = pathlib.Path(path)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            yield IdxReader(path, file, row=row)  # type: ignore[arg-type]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: corrupt or cut short: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
