"""Fashion-MNIST as arrays: finds, verifies and splits it. Knows neither models nor TensorFlow.

The 60,000 training images are split, class by class, into `fit` and `validation`. Which image goes where depends on the
labels and the validation size alone, and never changes. The files of the 10,000 `test` images are opened only if the
split `test` is asked for by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import warnings
from typing import NamedTuple, NoReturn, Sequence

import numpy as np

from fmnist_zoo import idx, sources
from fmnist_zoo.files import local_path
from fmnist_zoo.idx import DataError
from fmnist_zoo.settings import Size

SPLITS = ("fit", "validation", "test")
SETS = ("fashion_mnist", "mini")
ENVIRONMENT = "FMNIST_ZOO_DATA"
TRAINING_IMAGES = 60_000
_SPLIT_SEED = 20170825  # any number would do; the day on which Fashion-MNIST was published


class Split(NamedTuple):
    """Images (n, 784) uint8 and their labels (n,) uint8."""

    images: np.ndarray
    labels: np.ndarray

    def where(self, mask: np.ndarray) -> Split:
        """The examples at which `mask`, (n,) bool, is true."""
        return Split(self.images[mask], self.labels[mask])


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """The splits that were asked for: `data["fit"]`, or `data.fit`.

    It does not unpack into pairs: `keras.datasets` returns training and test images in two pairs, and this is fit and
    validation.

    Attributes:
        name: `fashion_mnist`, `mini`, `other` for a user's own files, or `arrays` for arrays given in Python.
        folder: of the files.
        sha256: SHA-256 of the hex digests of the four payloads, joined in the order train images, train labels, test
            images, test labels. For `other` data, only files that were read count; test files are not opened for this.
        split_sha256: of the sorted indices (int64, little-endian) of the validation images within the training images.
    """

    name: str
    folder: pathlib.Path
    sha256: str
    split_sha256: str
    splits: dict[str, Split]

    def __getitem__(self, name: str) -> Split:
        if name not in self.splits:
            advice = f"name it: load_data(({name!r},))" if name in SPLITS else f"splits are {', '.join(SPLITS)}"
            raise DataError(f"no split {name!r} was loaded, only {', '.join(self.splits)}; {advice}")
        return self.splits[name]

    @property
    def fit(self) -> Split:
        """The images that train."""
        return self["fit"]

    @property
    def validation(self) -> Split:
        """The training images that are held out."""
        return self["validation"]

    @property
    def test(self) -> Split:
        """The 10,000 test images."""
        return self["test"]

    def __iter__(self) -> NoReturn:
        raise TypeError("the result of load_data does not unpack: its second pair would be validation, not test. Write "
                        + "; ".join(["data = load_data(...)", *(f"{name}_images, {name}_labels = data.{name}"
                                                                for name in self.splits)]))


def load_data(
    splits: Sequence[str] = ("fit", "validation"), *, data: str = "fashion_mnist",
    data_dir: str | os.PathLike[str] | None = None, allow_other_data: bool = False, validation_size: float = 0.1,
) -> Data:
    """Loads splits of Fashion-MNIST; verifies each file by the SHA-256 of its payload.

    Args:
        splits: any of "fit", "validation" and "test".
        data: "fashion_mnist", or "mini": 2,000 + 500 of its images, which come with the package.
        data_dir: the folder of the four IDX files (`.gz` or plain); no other folder is tried. Default:
            `FMNIST_ZOO_DATA`. Without both: our cache, Keras' cache, the Debian package's folder; else a download.
        allow_other_data: accept any 28x28 ten-class IDX set in `data_dir`; shapes are checked, digests are recorded.
        validation_size: the share (below 1) or number of training images to hold out, the same share of each class;
            0 holds out none.

    Raises:
        DataError: for unknown names, and if a file is damaged or there are no data; names the file or the sources.
    """
    _check(splits, data, data_dir, allow_other_data)
    if data == "mini":
        return _load("mini", sources.MINI_FOLDER, sources.MINI, splits, validation_size)
    named = data_dir or os.environ.get(ENVIRONMENT)
    if named:
        folder = pathlib.Path(local_path(named, "data_dir"))
        if allow_other_data:
            return _load("other", folder, {}, splits, validation_size)
        return _load("fashion_mnist", folder, sources.FASHION_MNIST, splits, validation_size)
    validation_count(validation_size, TRAINING_IMAGES)  # before a folder is blamed for a wrong size
    for folder in sources.places():
        try:
            if all(sources.find_file(folder, name) for name in sources.FASHION_MNIST):
                return _load("fashion_mnist", folder, sources.FASHION_MNIST, splits, validation_size)
        except DataError as error:
            warnings.warn(f"skipped: {error}", stacklevel=2)
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
        raise DataError(f"allow_other_data needs data_dir (or {ENVIRONMENT}) to name the folder of the other data")


def _load(
    name: str, folder: pathlib.Path, known: dict[str, str], splits: Sequence[str], validation_size: float,
) -> Data:
    """Reads the files that `splits` need from one folder; `known` are the payloads' digests, empty for other data."""
    files, arrays, split_digest = _Files(folder, known), {}, ""
    if {"fit", "validation"} & set(splits):
        whole = files.pair(sources.TRAIN_IMAGES, sources.TRAIN_LABELS)
        held_out = validation_mask(whole.labels, validation_size)
        split_digest = hashlib.sha256(np.flatnonzero(held_out).astype("<i8").tobytes()).hexdigest()
        arrays = {"fit": whole.where(~held_out), "validation": whole.where(held_out)}
    if "test" in splits:
        arrays["test"] = files.pair(sources.TEST_IMAGES, sources.TEST_LABELS)
    joined = "".join((known or files.digests).get(file, "") for file in sources.FASHION_MNIST)
    return Data(name, folder, hashlib.sha256(joined.encode()).hexdigest(), split_digest,
                {split: arrays[split] for split in splits})


class _Files:
    """Reads and verifies the files of one folder; `digests` holds the SHA-256 of the payloads read, by file name."""

    def __init__(self, folder: pathlib.Path, known: dict[str, str]):
        self._folder, self._known = folder, known
        self.digests: dict[str, str] = {}

    def pair(self, images: str, labels: str) -> Split:
        """The images and the labels in two files."""
        path, classes = self._read(labels, ())
        if not classes.size:
            raise DataError(f"{path}: no labels in it")
        if classes.max() > 9:
            raise DataError(f"{path}: a label of {classes.max()}; ten classes have labels 0 to 9")
        _, pixels = self._read(images, (28, 28), len(classes))
        return Split(pixels.reshape(len(classes), 784), classes)

    def _read(self, name: str, row: tuple[int, ...], count: int | None = None) -> tuple[pathlib.Path, np.ndarray]:
        path = sources.find_file(self._folder, name)
        if path is None:
            raise DataError(f"{self._folder / name}.gz: no such file")
        rows, received = idx.read(path, row=row, count=count)
        self.digests[name] = received
        if self._known and received != self._known[name]:
            raise DataError(f"{path}: not Fashion-MNIST's {name}: payload SHA-256 {received}, expected "
                            f"{self._known[name]} (for another 28x28 ten-class set: --allow_other_data)")
        return path, rows


def validation_mask(labels: np.ndarray, size: float) -> np.ndarray:
    """True where a training image is held out: (n,) bool for labels (n,); `size` as in `load_data`."""
    return stratified_mask(labels, validation_count(size, len(labels)))


def validation_count(size: float, images: int) -> int:
    """How many of `images` training images a validation size holds out.

    Raises:
        SpecError: for a size that is neither a share nor a number of images.
        DataError: for one that leaves no image on one of the two sides.
    """
    size = Size().check("validation_size", size)
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
    return split.where(~mask), split.where(mask)


def stratified_sample(split: Split, size: int) -> Split:
    """At most `size` examples of a split, the same share of each class, always the same."""
    return split.where(stratified_mask(split.labels, min(size, len(split.labels))))
