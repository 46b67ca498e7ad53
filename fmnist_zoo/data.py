"""Fashion-MNIST as arrays: found, verified, parsed, split. Nothing here knows of models or of TensorFlow.

The 60,000 training images are split once and for all, class by class, into `fit` and `validation`; which image goes
where depends on the labels and the validation size alone. The 10,000 `test` images are opened only where the split
`test` is asked for by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import warnings
from typing import Iterator, NamedTuple, Sequence

import numpy as np

from fmnist_zoo import sources
from fmnist_zoo.idx import DataError, open_idx

SPLITS = ("fit", "validation", "test")
SETS = ("fashion_mnist", "mini")
ENVIRONMENT = "FMNIST_ZOO_DATA"
TRAINING_IMAGES = 60_000
_SPLIT_SEED = 20170825  # any number; the day Fashion-MNIST was published


class Split(NamedTuple):
    """Images (n, 784) uint8 and their labels (n,) uint8."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """The splits that were asked for; `data["fit"]`, or unpacked in the order of asking.

    Attributes:
        name: `fashion_mnist`, `mini`, or `other` for a set of the user's.
        folder: where the files lie.
        sha256: of the hex digests of the four payloads, joined in the order train images, train labels, test images,
            test labels. For `other` data, whose test files stay closed, of the files that were read.
        split_sha256: of the sorted indices (int64, little-endian) of the validation images within the training images.
        splits: name to arrays.
    """

    name: str
    folder: pathlib.Path
    sha256: str
    split_sha256: str
    splits: dict[str, Split]

    def __getitem__(self, name: str) -> Split:
        return self.splits[name]

    def __iter__(self) -> Iterator[Split]:
        return iter(self.splits.values())


def load_data(
    splits: Sequence[str] = ("fit", "validation"), *, data: str = "fashion_mnist",
    data_dir: str | os.PathLike[str] | None = None, allow_other_data: bool = False, validation_size: float = 0.1,
) -> Data:
    """Loads splits of Fashion-MNIST, each file verified by the SHA-256 of its payload.

    Args:
        splits: of "fit", "validation" and "test".
        data: "fashion_mnist", or "mini": 2,000 + 500 real images that come with the package.
        data_dir: a folder with the four IDX files (`.gz` or plain), and no other place; default: `FMNIST_ZOO_DATA`.
            Without both: our cache, the Keras cache, the Debian package's folder; else the files are fetched.
        allow_other_data: take any 28x28 ten-class IDX set from `data_dir`; shapes are checked, digests are told.
        validation_size: share (below 1) or number of training images held out, the same share of each class; 0: none.

    Raises:
        DataError: if a file is wrong or nothing can be had, saying which file or source; for unknown names.
    """
    _check(splits, data, data_dir, allow_other_data)
    if data == "mini":
        return _load("mini", sources.MINI_FOLDER, sources.MINI, splits, validation_size)
    named = data_dir or os.environ.get(ENVIRONMENT)
    if named:
        folder = pathlib.Path(os.path.expanduser(named))
        if allow_other_data:
            return _load("other", folder, {}, splits, validation_size)
        return _load("fashion_mnist", folder, sources.FASHION_MNIST, splits, validation_size)
    validation_count(validation_size, TRAINING_IMAGES)  # a wrong size is no fault of the folders below
    for folder in sources.places():
        try:
            if all(sources.find_file(folder, name) for name in sources.FASHION_MNIST):
                return _load("fashion_mnist", folder, sources.FASHION_MNIST, splits, validation_size)
        except DataError as error:
            warnings.warn(f"passed over: {error}", stacklevel=2)
    return _load("fashion_mnist", sources.fetch(), sources.FASHION_MNIST, splits, validation_size)


def _check(splits: Sequence[str], data: str, data_dir: object, allow_other_data: bool) -> None:
    if not isinstance(splits, (tuple, list)) or not splits or not set(splits) <= set(SPLITS) \
            or len(set(splits)) < len(splits):
        raise DataError(f"splits must be some of {SPLITS}, each once; received {splits!r}")
    if data not in SETS:
        raise DataError(f"data must be one of {', '.join(SETS)}; received {data!r}")
    if data == "mini" and (data_dir or allow_other_data):
        raise DataError("data=mini comes with the package: drop data_dir and allow_other_data")
    if allow_other_data and not (data_dir or os.environ.get(ENVIRONMENT)):
        raise DataError(f"allow_other_data needs data_dir (or {ENVIRONMENT}) to say where the other data lie")


def _load(
    name: str, folder: pathlib.Path, known: dict[str, str], splits: Sequence[str], validation_size: float,
) -> Data:
    """Reads what `splits` need from one folder; `known` are the payloads' digests, empty for other data."""
    digests: dict[str, str] = {}
    arrays: dict[str, Split] = {}
    split_digest = ""
    if {"fit", "validation"} & set(splits):
        labels = _read_labels(folder, sources.TRAIN_LABELS, known, digests)
        held_out = validation_mask(labels, validation_size)
        split_digest = hashlib.sha256(np.flatnonzero(held_out).astype("<i8").tobytes()).hexdigest()
        masks = {"fit": ~held_out, "validation": held_out}
        wanted = {split: masks[split] for split in splits if split in masks}
        images = _read_images(folder, sources.TRAIN_IMAGES, known, digests, wanted)
        arrays.update({split: Split(images[split], labels[mask]) for split, mask in wanted.items()})
    if "test" in splits:
        labels = _read_labels(folder, sources.TEST_LABELS, known, digests)
        everything = {"test": np.ones(len(labels), bool)}
        arrays["test"] = Split(_read_images(folder, sources.TEST_IMAGES, known, digests, everything)["test"], labels)
    joined = "".join((known or digests).get(file, "") for file in sources.FASHION_MNIST)
    return Data(name, folder, hashlib.sha256(joined.encode()).hexdigest(), split_digest,
                {split: arrays[split] for split in splits})


def validation_mask(labels: np.ndarray, size: float) -> np.ndarray:
    """True where a training image is held out: (n,) bool for labels (n,); `size` as in `load_data`."""
    return stratified_mask(labels, validation_count(size, len(labels)))


def validation_count(size: float, images: int) -> int:
    """How many of `images` training images a validation size holds out.

    Raises:
        DataError: for a size that is neither a share nor a number of images, or leaves none on one of the two sides.
    """
    number = isinstance(size, (int, float, np.integer, np.floating)) and not isinstance(size, bool)
    if not number or not 0 <= size < float("inf") or size == 1 or size > 1 and size != int(size):
        raise DataError("validation_size must be a share below 1 or a whole number of images above 1, "
                        f"received {size!r}")
    total = round(size * images) if size < 1 else int(size)
    if size and not total:
        raise DataError(f"validation_size={size} of {images} training images rounds to no image; a share of "
                        f"{1 / images:.2g} holds out one, and 0 is for no validation images")
    if total >= images:
        raise DataError(f"validation_size={size} of {images} training images leaves none to fit")
    return total


def stratified_mask(labels: np.ndarray, total: int) -> np.ndarray:
    """Chooses `total` examples by a fixed seed, the same share of each class: (n,) bool for labels (n,).

    Where a share is not a whole number of images, classes with the largest remainders get one more, up to the total.
    The generator is `RandomState`, because its stream is frozen (NEP 19); a Generator's may change with NumPy.
    """
    counts = np.bincount(labels, minlength=10)
    exact = counts * (total / max(len(labels), 1))
    shares = np.floor(exact).astype(int)
    largest_remainders = np.argsort(shares - exact, kind="stable")
    shares[largest_remainders[:total - shares.sum()]] += 1
    random = np.random.RandomState(_SPLIT_SEED)
    mask = np.zeros(len(labels), bool)
    for label, share in enumerate(shares):
        mask[random.permutation(np.flatnonzero(labels == label))[:share]] = True
    return mask


def halves(split: Split) -> tuple[Split, Split]:
    """The two halves of a split, each with half of every class, always the same."""
    mask = stratified_mask(split.labels, len(split.labels) // 2)
    return Split(split.images[~mask], split.labels[~mask]), Split(split.images[mask], split.labels[mask])


def _find(folder: pathlib.Path, name: str) -> pathlib.Path:
    path = sources.find_file(folder, name)
    if path is None:
        raise DataError(f"{folder / name}.gz: no such file")
    return path


def _verify(path: pathlib.Path, name: str, received: str, known: dict[str, str], digests: dict[str, str]) -> None:
    digests[name] = received
    if known and received != known[name]:
        raise DataError(f"{path}: not Fashion-MNIST's {name}: payload SHA-256 {received}, expected {known[name]} "
                        "(for another 28x28 ten-class set: --allow_other_data)")


def _read_labels(folder: pathlib.Path, name: str, known: dict[str, str], digests: dict[str, str]) -> np.ndarray:
    path = _find(folder, name)
    with open_idx(path, row=()) as reader:
        labels = np.concatenate([np.empty(0, np.uint8), *reader.blocks()])
    if labels.size and labels.max() > 9:
        raise DataError(f"{path}: a label of {labels.max()}; ten classes have labels 0 to 9")
    if not labels.size:
        raise DataError(f"{path}: no labels in it")
    _verify(path, name, reader.sha256, known, digests)
    return labels


def _read_images(
    folder: pathlib.Path, name: str, known: dict[str, str], digests: dict[str, str], wanted: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """(n, 784) uint8 for each mask of `wanted`, filled block by block, so that the file is never in memory whole."""
    path = _find(folder, name)
    with open_idx(path, row=(28, 28)) as reader:
        rows = len(next(iter(wanted.values())))
        if reader.shape[0] != rows:
            raise DataError(f"{path}: {reader.shape[0]} images for {rows} labels")
        arrays = {split: np.empty((int(mask.sum()), 784), np.uint8) for split, mask in wanted.items()}
        filled = dict.fromkeys(wanted, 0)
        start = 0
        for block in reader.blocks():
            for split, mask in wanted.items():
                chosen = block.reshape(len(block), 784)[mask[start:start + len(block)]]
                arrays[split][filled[split]:filled[split] + len(chosen)] = chosen
                filled[split] += len(chosen)
            start += len(block)
    _verify(path, name, reader.sha256, known, digests)
    return arrays
