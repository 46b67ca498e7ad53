"""Images of a person's own, given in Python, as `Data`: checked, digested and split like those of the files."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

import numpy as np

from fmnist_zoo.data import Data, DataError, Split, validation_mask
from fmnist_zoo.spec import ARRAYS, CLASSES, PIXELS


def from_python(data: Any, validation_size: float = 0.1) -> Data:
    """A person's own images as `load_data` returns those of the files, with the splits fit and validation.

    Args:
        data: `Data` with these splits (without validation, that one is empty); or a pair of images, (n, 784) or
            (n, 28, 28) uint8, pixels from 0 to 255, and labels, (n,) integers from 0 to 9.
        validation_size: how many of a pair are held out, as in `load_data`.

    Raises:
        DataError: for anything else, for other shapes, types or labels, without images to fit, and as `load_data` for a
            wrong validation size.
    """
    if isinstance(data, Data):
        return _from_splits(data)
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise DataError("data is fashion_mnist, mini, a pair (images, labels), or a fmnist_zoo.Data; received "
                        f"{type(data).__name__}" + (f" of {len(data)}" if isinstance(data, (tuple, list)) else ""))
    whole = _checked("data", *data)
    held_out = validation_mask(whole.labels, validation_size)
    return _data(whole, held_out, {"fit": whole.where(~held_out), "validation": whole.where(held_out)})


def _from_splits(data: Data) -> Data:
    if "fit" not in data.splits:
        raise DataError(f"data has no split fit to train on; received {', '.join(data.splits) or 'no split'}")
    fit = _checked('data["fit"]', *data["fit"])
    validation = Split(np.empty((0, PIXELS), np.uint8), np.empty(0, np.uint8))
    if "validation" in data.splits and len(data["validation"].labels):
        validation = _checked('data["validation"]', *data["validation"])
    if len(validation.labels) == 1:
        raise DataError('data["validation"] is a single image: hold out none, or two at least')
    whole = Split(*map(np.concatenate, zip(fit, validation)))
    held_out = np.arange(len(whole.labels)) >= len(fit.labels)
    return _data(whole, held_out, {"fit": fit, "validation": validation})


def _data(whole: Split, held_out: np.ndarray, splits: dict[str, Split]) -> Data:
    digests = "".join(hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for array in whole)
    split_digest = hashlib.sha256(np.flatnonzero(held_out).astype("<i8").tobytes()).hexdigest()
    return Data(ARRAYS, pathlib.Path("memory"), hashlib.sha256(digests.encode()).hexdigest(), split_digest, splits)


def _checked(name: str, images: Any, labels: Any) -> Split:
    """Images (n, 784) uint8 and labels (n,) uint8, n > 0; `DataError` for anything that is not such."""
    try:
        pixels, classes = np.asarray(images), np.asarray(labels)
    except (TypeError, ValueError) as error:  # such as lists of different lengths
        raise DataError(f"{name}: not arrays: {' '.join(str(error).split()):.120}; of two pairs, as Keras' "
                        "load_data returns them, give the first") from None
    if pixels.shape[1:] not in ((PIXELS,), (28, 28)):
        raise DataError(f"{name}: images have the shape (n, 784) or (n, 28, 28); received {pixels.shape}")
    if pixels.dtype != np.uint8:
        in_bytes = pixels.dtype.kind in "iuf" and pixels.max(initial=0) > 1
        raise DataError(f"{name}: images are uint8, pixels from 0 to 255; received {pixels.dtype}: convert them, such "
                        f"as {'images' if in_bytes else '(255 * images)'}.round().astype('uint8')")
    if classes.shape != (len(pixels),):
        raise DataError(f"{name}: {len(pixels)} images have labels of shape ({len(pixels)},); received {classes.shape}")
    if not len(pixels):
        raise DataError(f"{name}: no images in it")
    if not np.issubdtype(classes.dtype, np.integer):
        raise DataError(f"{name}: labels are integers from 0 to 9; received {classes.dtype}")
    if classes.min() < 0 or classes.max() >= CLASSES:
        wrong = classes.min() if classes.min() < 0 else classes.max()
        raise DataError(f"{name}: a label of {wrong}; ten classes have labels 0 to 9")
    return Split(np.ascontiguousarray(pixels.reshape(len(pixels), PIXELS)), classes.astype(np.uint8))
