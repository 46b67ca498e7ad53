"""Makes `fmnist_zoo/mini` from the real data: `python -m tests.make_mini`. Run once; its output is in the package.

2,000 fit images (200 a class) and 500 test images (50 a class), drawn by a fixed seed, in file order, as IDX files that
the usual loader reads. Prints the digests that `fmnist_zoo/sources.py` holds.
"""

import gzip
import struct

import numpy as np

from fmnist_zoo import data, sources


def draw(labels: np.ndarray, each: int, seed: int) -> np.ndarray:
    """Sorted indices of `each` examples a class."""
    random = np.random.RandomState(seed)
    return np.sort(np.concatenate([random.permutation(np.flatnonzero(labels == k))[:each] for k in range(10)]))


def write(name: str, array: np.ndarray) -> None:
    """An IDX file; gzip with no time and no name in it, so that it is the same each time."""
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    with open(sources.MINI_FOLDER / f"{name}.gz", "wb") as file:
        file.write(gzip.compress(header + array.tobytes(), 9, mtime=0))
    print(f'    "{name}": "{sources.payload_sha256(sources.MINI_FOLDER / (name + ".gz"))}",')


if __name__ == "__main__":
    real = data.load_data(("fit", "test"))
    for split, images, labels, each in (("fit", sources.TRAIN_IMAGES, sources.TRAIN_LABELS, 200),
                                        ("test", sources.TEST_IMAGES, sources.TEST_LABELS, 50)):
        chosen = draw(real[split].labels, each, seed=2017)
        write(images, real[split].images[chosen].reshape(-1, 28, 28))
        write(labels, real[split].labels[chosen])
