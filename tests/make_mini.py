"""Makes `fmnist_zoo/mini` from the real data: `python -m tests.make_mini`. Its output is part of the package.

Writes 2,000 fit images (200 of each class) and 500 test images (50 of each class), drawn by a fixed seed, in the order
of the files they come from, as IDX files. Prints the digests that `fmnist_zoo/sources.py` contains.
"""

import gzip

import numpy as np

from fmnist_zoo import data, sources
from tests.idx_files import payload


def draw(labels: np.ndarray, each: int, seed: int) -> np.ndarray:
    """Sorted indices of `each` examples of every class."""
    random = np.random.RandomState(seed)
    return np.sort(np.concatenate([random.permutation(np.flatnonzero(labels == k))[:each] for k in range(10)]))


def write(name: str, array: np.ndarray) -> None:
    """Writes an IDX file and prints its digest; its gzip header has neither a time nor a name, so it never changes."""
    path = sources.MINI_FOLDER / f"{name}.gz"
    path.write_bytes(gzip.compress(payload(array), 9, mtime=0))
    print(f'    "{name}": "{sources.payload_sha256(path)}",')


if __name__ == "__main__":
    real = data.load_data(("fit", "test"))
    for split, images, labels, each in (("fit", sources.TRAIN_IMAGES, sources.TRAIN_LABELS, 200),
                                        ("test", sources.TEST_IMAGES, sources.TEST_LABELS, 50)):
        chosen = draw(real[split].labels, each, seed=2017)
        write(images, real[split].images[chosen].reshape(-1, 28, 28))
        write(labels, real[split].labels[chosen])
