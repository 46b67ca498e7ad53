"""Reads IDX files (Y. LeCun, "The MNIST database"; the page ends with the format) without trusting them.

Whatever a header claims, at most `MOST_ROWS` are read, one block of rows at a time, and every byte is hashed.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import pathlib
import struct
import zlib
from typing import Any, Iterator, Sequence

import numpy as np

from fmnist_zoo.errors import ZooError

IMAGES_MAGIC, LABELS_MAGIC = 0x00000803, 0x00000801  # unsigned bytes in three dimensions, in one
ROWS_A_BLOCK = 4096
MOST_ROWS = 10_000_000  # a small file can be packed so that it holds a thousand times its size


class DataError(ZooError, ValueError):
    """Data are missing, damaged, or other data than were asked for: names the file or the source."""


def blocks(path: str | os.PathLike[str], *, row: tuple[int, ...], count: int | None = None,
           digest: Any = None) -> Iterator[np.ndarray]:
    """All rows of a gzip (`.gz`) or plain file in its order, uint8, at most `ROWS_A_BLOCK` at a time.

    Args:
        row: the shape that each row must have: (28, 28) for images, () for labels.
        count: how many rows there must be; None allows any number.
        digest: an object of hashlib; it is updated with the uncompressed payload, header included.

    Raises:
        DataError: if the file is missing, damaged or of another format; names it. This may show after some blocks.
    """
    path = pathlib.Path(path)
    digest = digest or hashlib.sha256()

    def take(size: int) -> bytes:
        payload = file.read(size)
        if len(payload) != size:
            raise DataError(f"{path}: cut short: the payload ends {size - len(payload)} bytes early")
        digest.update(payload)
        return payload

    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            magic, *shape = struct.unpack(f">{2 + len(row)}I", take(4 * (2 + len(row))))
            _check_header(path, magic, shape, row)
            if count not in (None, shape[0]):
                raise DataError(f"{path}: {shape[0]} images for {count} labels")
            width = int(np.prod(row, dtype=int))
            for start in range(0, shape[0], ROWS_A_BLOCK):
                rows = min(ROWS_A_BLOCK, shape[0] - start)
                yield np.frombuffer(take(rows * width), np.uint8).reshape(rows, *row)
            if file.read(1):
                raise DataError(f"{path}: more bytes than the {shape[0]} rows its header promises")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: corrupt or cut short: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _check_header(path: pathlib.Path, magic: int, shape: Sequence[int], row: tuple[int, ...]) -> None:
    expected = IMAGES_MAGIC if row else LABELS_MAGIC
    if magic != expected:
        raise DataError(f"{path}: not an IDX file of {'images' if row else 'labels'}: "
                        f"it starts with {magic:#010x} instead of {expected:#010x}")
    if tuple(shape[1:]) != row:
        raise DataError(f"{path}: rows of shape {tuple(shape[1:])}, expected {row}")
    if shape[0] > MOST_ROWS:
        raise DataError(f"{path}: its header claims {shape[0]} rows; at most {MOST_ROWS} are read")
