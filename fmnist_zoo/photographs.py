"""From images to what a model takes: arrays as they are, photographs by Fashion-MNIST's own pipeline. No TensorFlow.

What a file is, its first bytes say, not its name. Files are not trusted: anything wrong with one becomes a
`PhotographError`, and no memory is allocated on the word of a header.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
import warnings
from typing import IO, Any, Iterator, Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fmnist_zoo import idx
from fmnist_zoo.errors import ZooError
from fmnist_zoo.idx import ROWS_A_BLOCK, DataError
from fmnist_zoo.spec import PIXELS

SIDE = 28
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # Pillow's other decoders never see a file
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".npy", ".idx", ".idx.gz", "idx3-ubyte", "idx3-ubyte.gz")
INVERT = ("auto", "yes", "no")
WORKING_SIDE = 1024  # photographs are reduced to it first, which bounds the cost of large ones
JUDGED_SIDE = 128  # ground and garment are separated at this size: averaging removes most of the noise
MIDDLE = 128  # a ground of this grey or more is bright
TOLERANCE = 0.05 * 255 * 3**0.5  # as in the paper: 5 % of the largest distance between two colours
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
        if os.path.isdir(word):
            yield from _below(word)
        else:
            yield word, ""


def _below(folder: str) -> Iterator[tuple[str, str]]:
    broken: list[OSError] = []
    files = []
    for where, folders, names in os.walk(folder, onerror=broken.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [os.path.join(where, name) for name in names
                  if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    yield from ((str(error.filename), f"cannot be read: {error.strerror}") for error in broken)
    yield from ((name, "") for name in sorted(files))
    if not files and not broken:
        yield folder, f"holds no file that ends with one of {' '.join(SUFFIXES)}"


def blocks(path: str | os.PathLike[str], invert: str = "auto") -> Iterator[np.ndarray]:
    """The images of a file, a bright garment on black: (n, 28, 28) uint8, at most `ROWS_A_BLOCK` at a time.

    Args:
        path: PNG, JPEG, WebP, BMP or GIF (its first frame), one image of any size; IDX, plain or `.gz`, of 28x28 bytes;
            npy of shape (28, 28), (n, 28, 28) or (n, 784), uint8 or floats in [0, 1], which are rounded to 8 bits.
        invert: "yes" or "no": whether intensities are negated. "auto": photographs with a bright ground are negated;
            IDX and npy are not, since they are taken to be in Fashion-MNIST's own form.

    Raises:
        PhotographError: if the file is none of these, damaged or without images. This may show after some blocks.
    """
    path = os.fspath(path)
    images = 0
    try:
        for block in _read(path, invert):
            images += len(block)
            yield block
    except PredictionError as error:
        raise PhotographError(str(error)) from error
    except DataError as error:
        raise PhotographError(str(error).removeprefix(f"{pathlib.Path(path)}: ")) from error
    except MemoryError as error:
        raise PhotographError("needs more memory than there is") from error
    except OSError as error:
        raise PhotographError(f"cannot be read: {error.strerror or error}") from error
    except Exception as error:  # decoders raise anything for damaged files
        raise PhotographError(f"damaged: {' '.join(f'{type(error).__name__} {error}'.split())}") from error
    if not images:
        raise PhotographError("holds no image: its shape begins with 0")


def _read(path: str, invert: str) -> Iterator[np.ndarray]:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise PhotographError("is a folder; name the files in it")
    if not stat.S_ISREG(mode):  # opening a pipe would wait for a writer
        raise PhotographError("is no regular file; copy it to one")
    with open(path, "rb") as file:
        start = file.read(len(_NPY))
    if not start:
        raise PhotographError("is empty: 0 bytes")
    if start.startswith(_GZIP) and not path.endswith(".gz"):
        raise PhotographError("is compressed by gzip; let its name end with .gz if it is IDX, or unpack it")
    if start.startswith((_NPY, _GZIP, *_IDX)):
        for block in _npy(path) if start == _NPY else idx.blocks(path, row=(SIDE, SIDE)):
            yield 255 - block if invert == "yes" else block
    else:
        picture = photograph(path, invert)
        if picture.min() == picture.max():
            raise PhotographError("the picture holds nothing: no part of it differs from its ground, the colour of its "
                                  "corners")
        yield picture[None]


def _npy(path: str) -> Iterator[np.ndarray]:
    try:
        with warnings.catch_warnings(action="ignore"):  # about old headers that can be read
            array: np.ndarray = np.lib.format.open_memmap(path, mode="r")  # refuses objects, and sizes beyond the file
    except ValueError as error:
        raise PhotographError(f"no npy file of numbers, or cut short: {error}") from error
    if array.shape == (SIDE, SIDE):
        array = array[None]
    _checked(array)
    for start in range(0, len(array), ROWS_A_BLOCK):
        block = np.asarray(array[start:start + ROWS_A_BLOCK])
        if block.dtype != np.uint8:
            block = np.rint(as_pixels(block) * 255).astype(np.uint8)
        yield block.reshape(-1, SIDE, SIDE)


def photograph(file: str | IO[bytes], invert: str = "auto") -> np.ndarray:
    """One picture as a model wants it: (28, 28) uint8, a bright garment on black.

    The pipeline is Fashion-MNIST's (Xiao, Rasul, Vollgraf 2017, section 2): edges of the colour of the corners are
    trimmed, the longest edge becomes 28, the shorter one is extended to centre the garment, intensities are negated,
    the result is 8-bit grey. Two steps differ. The paper skips rows and columns and then sharpens; a Lanczos resize
    makes both unnecessary. The paper's photographs have an even white ground; here, a ground of another shade, with
    noise or a shadow, becomes the black that it is in the set. A picture of 28x28 is at most negated.

    Args:
        file: a path or an open file, of one of `FORMATS`. EXIF's orientation is honoured. Transparent parts become
            ground: of the colour of the opaque corners, else black or white, whichever contrasts with the garment.
        invert: as for `blocks`; "auto" negates if the ground, the median of the corners, is bright.

    Raises:
        PhotographError: if the file has none of `FORMATS` or too many pixels. Pillow's errors if it is damaged.
    """
    image = _decoded(file)
    ground = _ground(_small(image), invert)
    image = Image.alpha_composite(Image.new("RGBA", image.size, (*ground.tolist(), 255)), image).convert("RGB")
    negate = invert == "yes" or invert == "auto" and float(_grey(ground)) >= MIDDLE
    if image.size != (SIDE, SIDE):
        return _fitted(image, ground, negate)
    return np.asarray(ImageOps.invert(image.convert("L")) if negate else image.convert("L"))


def _decoded(file: str | IO[bytes]) -> Image.Image:
    """The picture as RGBA, upright, no edge above `WORKING_SIDE`."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about oddities of files that can be read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                return _reduced(image)
    except UnidentifiedImageError as error:
        raise PhotographError("none of PNG, JPEG, WebP, BMP, GIF, npy and IDX, or damaged at its start") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PhotographError(f"more than {Image.MAX_IMAGE_PIXELS} pixels; reduce it") from error


def _reduced(image: Image.Image) -> Image.Image:
    image.draft(None, (WORKING_SIDE, WORKING_SIDE))  # decodes a large JPEG at a fraction of its size
    image.load()
    with contextlib.suppress(Exception):  # damaged EXIF; if only rewriting it fails, the picture is turned by then
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # a PNG of 16-bit greys, which Pillow would clip instead of scaling
        deep, transparent = np.asarray(image), image.info.get("transparency")
        image = Image.fromarray((deep >> 8).astype(np.uint8))
        if transparent is not None:
            image.putalpha(Image.fromarray(np.where(deep == transparent, 0, 255).astype(np.uint8)))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((WORKING_SIDE, WORKING_SIDE))
    return image.convert("RGBA")


def _small(image: Image.Image) -> np.ndarray:
    """A copy with no edge above `JUDGED_SIDE`, (height, width, channels) uint8."""
    image = image.copy()
    image.thumbnail((JUDGED_SIDE, JUDGED_SIDE))
    return np.asarray(image)


def _ground(pixels: np.ndarray, invert: str) -> np.ndarray:
    """The colour behind the garment, (3,) uint8, of RGBA pixels (height, width, 4) uint8."""
    corners = _corners(pixels)
    opaque = corners[:, 3] >= MIDDLE
    if 2 * opaque.sum() >= len(corners):
        return np.median(corners[opaque, :3], axis=0).astype(np.uint8)
    garment = pixels[pixels[..., 3] >= MIDDLE, :3]
    white = invert == "yes" or invert == "auto" and _grey(garment).sum() < MIDDLE * len(garment)
    return np.full(3, 255 if white else 0, np.uint8)


def _corners(pixels: np.ndarray) -> np.ndarray:
    """The pixels in the four corners, squares of a twentieth of the shorter edge: (n, channels)."""
    edge = max(1, min(pixels.shape[:2]) // 20)
    ends = slice(edge), slice(-edge, None)
    return np.concatenate([pixels[rows, columns].reshape(-1, pixels.shape[2]) for rows in ends for columns in ends])


def _fitted(image: Image.Image, ground: np.ndarray, negate: bool) -> np.ndarray:
    """The garment of an RGB picture: trimmed, its longer edge resized to 28, centred in (28, 28) uint8 of grey."""
    noise = 4 * float(np.median(_distance(_corners(_small(image)), ground)))
    tolerance = min(max(TOLERANCE, noise), 3 * TOLERANCE)  # limited, so that a patterned ground does not hide a garment
    for _ in range(2):  # roughly in the whole picture, then precisely in what is left
        image = image.crop(_box(_distance(_small(image), ground) > tolerance, image.size))
    seen = _small(image)
    grey, level = _grey(seen), float(_grey(ground))
    if negate:
        grey, level = 255 - grey, 255 - level
    if level < MIDDLE:  # it is bright only if a bright ground was asked for, and then it stays
        grey = np.where(_distance(seen, ground) > tolerance, (grey - level) * 255 / (255 - level), 0)
        level = 0.0
    garment = Image.fromarray(np.rint(np.clip(grey, 0, 255)).astype(np.uint8))
    width, height = (max(1, round(edge * SIDE / max(image.size))) for edge in image.size)  # ImageOps.pad allows 0
    garment = garment.resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("L", (SIDE, SIDE), round(level))
    canvas.paste(garment, ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.asarray(canvas)


def _box(garment: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where to crop (left, top, right, bottom) a picture of `size`; `garment` is True where its small copy shows it."""
    height, width = garment.shape
    left, top, right, bottom = Image.fromarray(garment).getbbox() or (0, 0, width, height)
    return (left * size[0] // width, top * size[1] // height, -(-right * size[0] // width),
            -(-bottom * size[1] // height))


def _distance(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Euclidean distance of RGB pixels (..., 3) from a colour (3,)."""
    return np.linalg.norm(pixels.astype(np.float32) - colour, axis=-1)


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Luma of RGB pixels (..., 3) by ITU-R BT.601, as in Pillow's mode `L`."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
