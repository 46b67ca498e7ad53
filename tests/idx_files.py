"""IDX files for tests: written from arrays, or copied from the mini set."""

import gzip
import pathlib
import shutil
import struct

import numpy as np

from fmnist_zoo import sources


def payload(array: np.ndarray) -> bytes:
    """An IDX file's bytes, with the header."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """Writes `content`, compressed if the path ends with `.gz`; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)
    return path


def copy_mini(folder: pathlib.Path, *, plain: bool = False) -> pathlib.Path:
    """Copies the mini set's four files into a folder, uncompressed if `plain`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sources.MINI:
        shutil.copyfile(sources.MINI_FOLDER / f"{name}.gz", folder / f"{name}.gz")
        if plain:
            (folder / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
            (folder / f"{name}.gz").unlink()
    return folder


def damage(folder: pathlib.Path, name: str = sources.TRAIN_IMAGES) -> None:
    """Changes the last pixel or label in a file."""
    content = bytearray(gzip.decompress((folder / f"{name}.gz").read_bytes()))
    content[-1] ^= 1
    write(folder / f"{name}.gz", bytes(content))


def write_set(folder: pathlib.Path, *, train: int = 40, test: int = 20, suffix: str = ".gz") -> pathlib.Path:
    """Writes noise under Fashion-MNIST's four names, with labels 0 to 9 in turn."""
    random = np.random.default_rng(5)
    for images, labels, count in ((sources.TRAIN_IMAGES, sources.TRAIN_LABELS, train),
                                  (sources.TEST_IMAGES, sources.TEST_LABELS, test)):
        write(folder / f"{images}{suffix}", payload(random.integers(0, 256, (count, 28, 28))))
        write(folder / f"{labels}{suffix}", payload(np.arange(count) % 10))
    return folder
