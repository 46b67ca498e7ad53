"""Reads IDX files (Y. LeCun, "The MNIST database"; the page ends with the format) without trusting them.

What a header claims is compared with what was read, and no memory is taken on its word.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import pathlib
import struct
import zlib

import numpy as np

from fmnist_zoo.errors import ZooError

IMAGES_MAGIC, LABELS_MAGIC = 0x00000803, 0x00000801  # unsigned bytes in three dimensions, in one
LARGEST = 2**30  # bytes that are read; a small file can be packed so that it holds a thousand times its size


class DataError(ZooError, ValueError):
    """Data are missing, damaged, or other data than were asked for: names the file or the source."""


def read(path: str | os.PathLike[str], *, row: tuple[int, ...], count: int | None = None) -> tuple[np.ndarray, str]:
    """The rows of a gzip (`.gz`) or plain file, uint8, and the SHA-256 of its uncompressed payload with its header.

    Args:
        row: the shape that each row must have: (28, 28) for images, () for labels.
        count: how many rows there must be; None allows any number.

    Raises:
        DataError: if the file is missing, damaged or of another format; names it.
    """
    path, header = pathlib.Path(path), 4 * (2 + len(row))
    payload = _payload(path)
    if len(payload) < header:
        raise DataError(f"{path}: cut short: it has {len(payload)} bytes, and its header alone has {header}")
    magic, rows, *shape = struct.unpack_from(f">{2 + len(row)}I", payload)
    expected = IMAGES_MAGIC if row else LABELS_MAGIC
    if magic != expected:
        raise DataError(f"{path}: not an IDX file of {'images' if row else 'labels'}: "
                        f"it starts with {magic:#010x} instead of {expected:#010x}")
    if tuple(shape) != row:
        raise DataError(f"{path}: rows of shape {tuple(shape)}, expected {row}")
    if count not in (None, rows):
        raise DataError(f"{path}: {rows} images for {count} labels")
    missing = header + rows * math.prod(row) - len(payload)
    if missing > 0:
        raise DataError(f"{path}: cut short: the payload ends {missing} bytes early")
    if missing < 0:
        raise DataError(f"{path}: more bytes than the {rows} rows its header promises")
    return np.frombuffer(payload, np.uint8, offset=header).reshape(rows, *row), hashlib.sha256(payload).hexdigest()


def _payload(path: pathlib.Path) -> bytearray:
    payload = bytearray()
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            while block := file.read(2**20):
                payload += block
                if len(payload) > LARGEST:
                    raise DataError(f"{path}: holds more than {LARGEST} bytes, which are not read")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: corrupt or cut short: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return payload
