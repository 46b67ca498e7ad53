"""From images to what a model takes: arrays as they are, photographs by Fashion-MNIST's own pipeline. No TensorFlow.

What a file is, its first bytes say, not its name. Files are not trusted: anything wrong with one becomes a
`PhotographError`, and no memory is allocated on the word of a header.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import warnings
from typing import IO, Any, Iterator, Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fmnist_zoo import data, idx
from fmnist_zoo.errors import ZooError
from fmnist_zoo.idx import DataError
from fmnist_zoo.spec import PIXELS

SIDE = 28
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # Pillow's other decoders never see a file
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".npy", ".idx", ".idx.gz", "idx3-ubyte", "idx3-ubyte.gz")
INVERT = ("auto", "yes", "no")
WORKING_SIDE = 1024  # photographs are reduced to it first, which bounds the cost of large ones
JUDGED_SIDE = 128  # ground and garment are separated at this size: averaging removes most of the noise
MIDDLE = 128  # a ground of this grey or more is bright
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's mode `L`
TOLERANCE = 0.05 * 255 * 3**0.5  # as in the paper: 5 % of the largest distance between two colours
BRIGHT = 25  # a pixel that shows more than this is of an object
APART = 0.25  # share of these pixels outside the largest part, of which all that is less than three pixels away is one
TURNED = 0.035  # cosine by which a picture that lies on its side is more like a garment once it is turned
_NPY, _GZIP, _IDX = b"\x93NUMPY", b"\x1f\x8b", tuple(bytes((0, 0, kind)) for kind in (8, 9, 11, 12, 13, 14))


class PredictionError(ZooError, ValueError):
    """Images that a model of the zoo does not take: says why, and what was received."""


class PhotographError(PredictionError):
    """A file without images that a model takes: says why."""


def as_pixels(images: Any) -> np.ndarray:
    """Images (n, 28, 28) or (n, 784), uint8 or floats in [0, 1], as a model takes them: (n, 784) float32 in [0, 1].

    Raises:
        PredictionError: for any other array, with what was received.
    """
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise PredictionError(f"images must be one array, received {type(images).__name__}: {error}") from None
    received = _checked(array)
    pixels = array.reshape(len(array), PIXELS)
    if array.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    if pixels.size and not (0 <= pixels.min() and pixels.max() <= 1):  # NaN fails every comparison
        raise PredictionError(f"float images must be in [0, 1], {received} with values from {pixels.min():g} to "
                              f"{pixels.max():g}: divide by 255, or use uint8")
    return pixels.astype(np.float32)


def _checked(array: np.ndarray) -> str:
    """What was received, for messages; `PredictionError` unless shape and dtype are those of images."""
    received = f"received {array.dtype} of shape {array.shape}"
    if array.ndim not in (2, 3) or array.shape[1:] not in ((SIDE, SIDE), (PIXELS,)):
        one = ": for one image, pass images[None]" if array.shape in ((SIDE, SIDE), (PIXELS,)) else ""
        raise PredictionError(f"images must be (n, 28, 28) or (n, 784), {received}{one}")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise PredictionError(f"images must be uint8 (0 to 255) or floats in [0, 1], {received}")
    return received


def expand(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The files that `words` name, each with an error message, which is empty for files that may be read.

    A folder becomes all files below it that end with one of `SUFFIXES`, sorted. Hidden files, hidden folders and links
    to folders are skipped.
    """
    for word in words:
        broken: list[OSError] = []
        files = [] if os.path.isdir(word) else [word]
        for where, folders, names in os.walk(word, onerror=broken.append) if not files else ():
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [os.path.join(where, name) for name in names
                      if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        yield from ((str(error.filename), f"cannot be read: {error.strerror}") for error in broken)
        yield from ((name, "") for name in sorted(files))
        if not files and not broken:
            yield word, f"holds no file that ends with one of {' '.join(SUFFIXES)}"


def read(path: str | os.PathLike[str], invert: str = "auto") -> np.ndarray:
    """The images of a file, a bright garment on black: (n, 28, 28) uint8, n > 0.

    Args:
        path: PNG, JPEG, WebP, BMP or GIF (its first frame), one image of any size; IDX, plain or `.gz`, of 28x28 bytes;
            npy of shape (28, 28), (n, 28, 28) or (n, 784), uint8 or floats in [0, 1], which are rounded to 8 bits.
        invert: "yes" or "no": whether intensities are negated. "auto": photographs with a bright ground are negated;
            IDX and npy are not, since they are taken to be in Fashion-MNIST's own form.

    Raises:
        PhotographError: if the file is none of these, damaged or without images.
    """
    path = pathlib.Path(path)
    try:
        images = _read(path, invert)
    except Exception as error:  # decoders raise anything for damaged files
        raise PhotographError(_reason(path, error)) from error
    if not len(images):
        raise PhotographError("holds no image: its shape begins with 0")
    return images


def _reason(path: pathlib.Path, error: Exception) -> str:
    if isinstance(error, (PredictionError, DataError)):
        return str(error).removeprefix(f"{path}: ")
    if isinstance(error, OSError) and not isinstance(error, UnidentifiedImageError):
        return f"cannot be read: {error.strerror or error}"
    known = {UnidentifiedImageError: "none of PNG, JPEG, WebP, BMP, GIF, npy and IDX, or damaged at its start",
             Image.DecompressionBombWarning: (large := f"more than {Image.MAX_IMAGE_PIXELS} pixels; reduce it"),
             Image.DecompressionBombError: large, MemoryError: "needs more memory than there is"}
    return known.get(type(error), f"damaged: {' '.join(f'{type(error).__name__} {error}'.split())}")


def _read(path: pathlib.Path, invert: str) -> np.ndarray:
    if path.is_dir():
        raise PhotographError("is a folder; name the files in it")
    if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
        raise PhotographError("is no regular file; copy it to one")
    with open(path, "rb") as file:
        start = file.read(len(_NPY))
    if not start:
        raise PhotographError("is empty: 0 bytes")
    if start.startswith(_GZIP) and path.suffix != ".gz":
        raise PhotographError("is compressed by gzip; let its name end with .gz if it is IDX, or unpack it")
    if start.startswith((_NPY, _GZIP, *_IDX)):
        images = _npy(path) if start == _NPY else idx.read(path, row=(SIDE, SIDE))[0]
        return 255 - images if invert == "yes" else images
    picture = photograph(path, invert)
    if picture.min() == picture.max():
        raise PhotographError("the picture holds nothing: no part of it differs from its ground, the colour of its "
                              "corners")
    return picture[None]


def _npy(path: pathlib.Path) -> np.ndarray:
    try:
        with warnings.catch_warnings(action="ignore"):  # about old headers that can be read
            array: np.ndarray = np.load(path, mmap_mode="r")  # refuses objects, and sizes beyond the file
    except ValueError as error:
        raise PhotographError(f"no npy file of numbers, or cut short: {error}") from error
    array = array[None] if array.shape == (SIDE, SIDE) else array
    _checked(array)
    if array.dtype != np.uint8:
        array = np.rint(as_pixels(array) * 255).astype(np.uint8)
    return np.array(array).reshape(-1, SIDE, SIDE)


def photograph(file: str | os.PathLike[str] | IO[bytes], invert: str = "auto") -> np.ndarray:
    """One picture as a model wants it: (28, 28) uint8, a bright garment on black.

    The pipeline is Fashion-MNIST's (Xiao, Rasul, Vollgraf 2017, section 2): edges of the colour of the corners are
    trimmed, the longest edge becomes 28, the shorter one is extended to centre the garment, intensities are negated,
    the result is 8-bit grey. Two steps differ. The paper skips rows and columns and then sharpens; a Lanczos resize
    makes both unnecessary. The paper's photographs have an even white ground; here, a ground of another shade, with
    noise or a shadow, becomes the black that it is in the set. A picture of 28x28 is at most negated.

    Args:
        file: a path or an open file, of one of `FORMATS`. EXIF's orientation is honoured. Transparent parts become
            ground: of the colour of the opaque corners, else black or white, whichever contrasts with the garment.
        invert: as for `read`; "auto" negates if the ground, the median of the corners, is bright.

    Raises:
        Pillow's errors for other formats and damaged files, and its warning of too many pixels as an error.
    """
    picture = _decoded(file)
    ground = _ground(_small(picture), invert)
    image = Image.new("RGB", picture.size, tuple(ground.tolist()))
    image.paste(picture, mask=picture)
    if invert == "yes" or invert == "auto" and ground @ LUMA >= MIDDLE:
        image, ground = ImageOps.invert(image), 255 - ground
    return np.asarray(image.convert("L") if image.size == (SIDE, SIDE) else _fitted(image, ground))


def doubt(image: np.ndarray) -> str:
    """Why a picture as `photograph` returns it, (28, 28) uint8, may show no garment, or not as the set does; or "".

    Two measures: whether it falls into parts that do not touch, as several objects and text do; and whether, turned by
    a quarter, it is more like one of the 2,000 images of the set that come with the package. They doubt 0.2 % of the
    test images, and 0.5 % of them as photographs: enlarged on a bright ground with noise.
    """
    from scipy import ndimage

    bright = image > BRIGHT
    parts = np.bincount(ndimage.label(ndimage.binary_dilation(bright), np.ones((3, 3)))[0][bright])[1:]
    if parts.size and parts.max() < (1 - APART) * parts.sum():
        return "it has parts that do not touch, as several objects have"
    upright, *turned = ((_known() @ _direction(np.rot90(image, quarters))).max() for quarters in (0, 1, 3))
    return "turned by a quarter, it looks more like one" if max(turned) > upright + TURNED else ""


@functools.cache
def _known() -> np.ndarray:
    """The directions of the images of the package, (2000, 784)."""
    found = data.load_data(("fit", "validation"), data="mini")
    return np.stack([_direction(image) for image in (*found["fit"].images, *found["validation"].images)])


def _direction(image: np.ndarray) -> np.ndarray:
    """An image as a vector (784,) float32 of length 1; of a black one 0."""
    vector = image.astype(np.float32).ravel()
    return vector / max(float(np.linalg.norm(vector)), 1.0)


def _decoded(file: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """The picture as RGBA, upright, no edge above `WORKING_SIDE`."""
    with warnings.catch_warnings(action="ignore"):  # about oddities of files that can be read
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image: Image.Image = Image.open(file, formats=FORMATS)
        with image:
            image.draft(None, (WORKING_SIDE, WORKING_SIDE))  # decodes a large JPEG at a fraction of its size
            image.load()
            with contextlib.suppress(Exception):  # damaged EXIF; if only rewriting it fails, the picture is turned
                ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):  # a PNG of 16-bit greys, which Pillow would clip instead of scaling
                deep = np.asarray(image)
                alpha = np.where(deep == image.info.get("transparency"), 0, 255)
                image = Image.fromarray(np.stack([deep >> 8, alpha], axis=-1).astype(np.uint8))
            image = image.convert("RGBA")
    image.thumbnail((WORKING_SIDE, WORKING_SIDE))
    return image


def _small(image: Image.Image) -> np.ndarray:
    """A reduced copy with no edge above `JUDGED_SIDE`, (height, width, channels) uint8."""
    image = image.copy()
    image.thumbnail((JUDGED_SIDE, JUDGED_SIDE))  # `Image.reduce` is coarser
    return np.asarray(image)


def _corners(pixels: np.ndarray) -> np.ndarray:
    """The pixels in the four corners, squares of a twentieth of the shorter edge: (n, channels)."""
    edge = max(1, min(pixels.shape[:2]) // 20)
    ends = np.r_[:edge, -edge:0]
    return pixels[ends][:, ends].reshape(-1, pixels.shape[2])


def _ground(pixels: np.ndarray, invert: str) -> np.ndarray:
    """The colour behind the garment, (3,) uint8, of RGBA pixels (height, width, 4) uint8."""
    corners = _corners(pixels)
    opaque = corners[corners[:, 3] >= MIDDLE, :3]
    if 2 * len(opaque) >= len(corners):
        return np.median(opaque, axis=0).astype(np.uint8)
    garment = pixels[pixels[..., 3] >= MIDDLE, :3]
    white = invert == "yes" or invert == "auto" and len(garment) and (garment @ LUMA).mean() < MIDDLE
    return np.full(3, 255 if white else 0, np.uint8)


def _fitted(image: Image.Image, ground: np.ndarray) -> Image.Image:
    """The garment of an RGB picture: trimmed, its longer edge resized to 28, centred in 28x28 of grey."""

    def distance(pixels: np.ndarray) -> np.ndarray:  # Euclidean, from the ground's colour
        return np.linalg.norm(pixels - ground.astype(float), axis=-1)

    noise = 4 * np.median(distance(_corners(_small(image))))
    tolerance = np.clip(noise, TOLERANCE, 3 * TOLERANCE)  # limited: a patterned ground does not hide a garment
    for _ in range(2):  # roughly in the whole picture, then precisely in what is left
        seen = Image.fromarray(distance(_small(image)) > tolerance)
        if box := seen.getbbox():
            scale = np.divide(image.size * 2, seen.size * 2)  # rounded outwards, so that no edge of a garment is lost
            image = image.crop((*np.floor(box * scale)[:2].astype(int), *np.ceil(box * scale)[2:].astype(int)))
    pixels, level = _small(image), float(ground @ LUMA)
    grey = pixels @ LUMA
    if level < MIDDLE:  # it is bright only if a bright ground was asked for, and then it stays
        grey = np.where(distance(pixels) > tolerance, (grey - level) * 255 / (255 - level), 0)
        level = 0.0
    garment = Image.fromarray(np.rint(np.clip(grey, 0, 255)).astype(np.uint8))
    width, height = (max(1, round(edge * SIDE / max(image.size))) for edge in image.size)  # ImageOps.pad allows 0
    canvas = Image.new("L", (SIDE, SIDE), round(level))
    canvas.paste(garment.resize((width, height), Image.Resampling.LANCZOS), ((SIDE - width) // 2, (SIDE - height) // 2))
    return canvas
