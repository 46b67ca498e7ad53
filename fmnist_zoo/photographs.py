"""From files to what a model takes: photographs by Fashion-MNIST's own pipeline, arrays as they are. No TensorFlow.

A file is what its first bytes say, not what its name says, and is read with suspicion: whatever is wrong with it comes
out as a `PhotographError`, and nothing is allocated because a header claims it.
"""

from __future__ import annotations

import os
import pathlib
import stat
import warnings
from typing import IO, Iterator, Sequence

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fmnist_zoo.errors import ZooError
from fmnist_zoo.idx import DataError, open_idx
from fmnist_zoo.spec import PIXELS

SIDE = 28
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # no other decoder of Pillow's is let near a file
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".npy", ".idx", ".idx.gz", "idx3-ubyte", "idx3-ubyte.gz")
ROWS_A_BLOCK = 4096
WORKING_SIDE = 1024  # photographs are reduced to it first, so that any costs little
JUDGED_SIDE = 128  # what is ground is judged on so small a copy: averages have little noise left in them
MIDDLE = 128  # a ground from here on is bright
TOLERANCE = 0.05 * 255 * 3**0.5  # as the paper: 5 % of the largest distance between two colours
_NPY, _GZIP, _IDX = b"\x93NUMPY", b"\x1f\x8b", tuple(bytes((0, 0, kind)) for kind in (8, 9, 11, 12, 13, 14))
_TURN = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
         7: "TRANSVERSE", 8: "ROTATE_90"}  # what undoes each orientation of EXIF


class PhotographError(ZooError, ValueError):
    """A file with no images for a model in it: says why; the file's name is left to the caller."""


def found(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The files that `words` name, each with what is wrong with it already ("" if nothing is).

    A folder stands for all files below it that end with one of `SUFFIXES`, sorted; hidden ones and links to folders
    are passed over.
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


def blocks(path: str, invert: str = "auto") -> Iterator[np.ndarray]:
    """The images of a file as a model wants them, a bright garment on black: (n, 28, 28) uint8, some rows at a time.

    Args:
        path: PNG, JPEG, WebP, BMP or GIF (its first frame), one image of any size; IDX, plain or `.gz`, of 28x28 bytes;
            npy of shape (28, 28), (n, 28, 28) or (n, 784), uint8 or floats in [0, 1], which are rounded to 8 bits.
        invert: whether intensities are negated. "auto": where the ground of a photograph is bright; IDX and npy are in
            the set's own form already, and stay as they are.

    Raises:
        PhotographError: if it is no such file, damaged or without images; perhaps only after some blocks came.
    """
    images = 0
    try:
        for block in _read(path, invert):
            images += len(block)
            yield block
    except PhotographError:
        raise
    except DataError as error:
        raise PhotographError(str(error).removeprefix(f"{pathlib.Path(path)}: ")) from error
    except MemoryError as error:
        raise PhotographError("needs more memory than there is") from error
    except OSError as error:
        raise PhotographError(f"cannot be read: {error.strerror or error}") from error
    except Exception as error:  # decoders of damaged files raise anything
        raise PhotographError(f"damaged: {' '.join(f'{type(error).__name__} {error}'.split())}") from error
    if not images:
        raise PhotographError("holds no image: its shape begins with 0")


def _read(path: str, invert: str) -> Iterator[np.ndarray]:
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
        raise PhotographError("is no regular file; copy it to one")
    with open(path, "rb") as file:
        start = file.read(len(_NPY))
    if not start:
        raise PhotographError("is empty: 0 bytes")
    if start.startswith(_GZIP) and not path.endswith(".gz"):
        raise PhotographError("is compressed by gzip; let its name end with .gz if it is IDX, or unpack it")
    if start.startswith((_NPY, _GZIP, *_IDX)):
        for block in _npy(path) if start == _NPY else _idx(path):
            yield 255 - block if invert == "yes" else block
    else:
        yield photograph(path, invert)[None]


def _idx(path: str) -> Iterator[np.ndarray]:
    with open_idx(path, row=(SIDE, SIDE)) as reader:
        yield from reader.blocks()


def _npy(path: str) -> Iterator[np.ndarray]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of old headers that read all the same
            array: np.ndarray = np.lib.format.open_memmap(path, mode="r")  # takes no objects, nor more than is there
    except ValueError as error:
        raise PhotographError(f"no npy file of numbers, or cut short: {error}") from error
    received = f"received {array.dtype} of shape {array.shape}"
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise PhotographError(f"images must be uint8 (0 to 255) or floats in [0, 1], {received}")
    if array.shape == (SIDE, SIDE):
        array = array[None]
    if array.ndim not in (2, 3) or array.shape[1:] not in ((SIDE, SIDE), (PIXELS,)):
        raise PhotographError(f"images must be (28, 28), (n, 28, 28) or (n, 784), {received}")
    for start in range(0, len(array), ROWS_A_BLOCK):
        block = np.array(array[start:start + ROWS_A_BLOCK]).reshape(-1, SIDE, SIDE)
        if block.dtype != np.uint8:
            if not (0 <= block.min() and block.max() <= 1):  # NaN fails every comparison
                raise PhotographError(f"float images must be in [0, 1], {received} with values from {block.min():g} to "
                                      f"{block.max():g}: divide by 255, or save uint8")
            block = np.rint(block * block.dtype.type(255)).astype(np.uint8)
        yield block


def photograph(file: str | IO[bytes], invert: str = "auto") -> np.ndarray:
    """One picture as a model wants it: (28, 28) uint8.

    Fashion-MNIST's pipeline (Xiao, Rasul, Vollgraf 2017, section 2): edges of the colour of the corners are trimmed,
    the longest edge becomes 28, the shorter one is extended so that the garment is in the middle, intensities are
    negated, and what is left is 8-bit grey. The paper skips rows and columns and sharpens; here a resize by Lanczos
    keeps what lies between. Its photographs have a white and even ground; here one of another shade, with noise or
    a shadow on it, becomes the black that it is in the set. What is 28x28 is taken as it is but for the negation.

    Args:
        file: its path, or open; of one of `FORMATS`. EXIF's orientation is honoured. What is transparent becomes
            ground: of the colour of opaque corners, else black or white, whichever is farther from the garment.
        invert: as `blocks`; "auto" negates where the ground, the median of the corners, is bright.

    Raises:
        Whatever Pillow raises for a file that is damaged; `PhotographError` if it is none of `FORMATS` or too large.
    """
    image, turn = _decoded(file)
    ground = _ground(np.asarray(_shrunk(image, JUDGED_SIDE)), invert)
    image = Image.alpha_composite(Image.new("RGBA", image.size, (*ground.tolist(), 255)), image).convert("RGB")
    negate = invert == "yes" or invert == "auto" and float(_grey(ground)) >= MIDDLE
    if image.size == (SIDE, SIDE):
        image = ImageOps.invert(image.convert("L")) if negate else image.convert("L")
    else:
        image = _fitted(image, ground, negate)
    return np.asarray(image.transpose(Image.Transpose[turn]) if turn else image)


def _decoded(file: str | IO[bytes]) -> tuple[Image.Image, str]:
    """The picture as RGBA, no edge above `WORKING_SIDE`, and what turns it upright ("" if it is)."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of oddities that read all the same
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                return _reduced(image), _turn(image)
    except UnidentifiedImageError as error:
        raise PhotographError("none of PNG, JPEG, WebP, BMP, GIF, npy and IDX, or damaged at its start") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PhotographError(f"more than {Image.MAX_IMAGE_PIXELS} pixels; reduce it") from error


def _reduced(image: Image.Image) -> Image.Image:
    image.draft(None, (WORKING_SIDE, WORKING_SIDE))  # a large JPEG is decoded smaller
    image.load()
    if image.mode.startswith("I"):  # a PNG of 16-bit greys, which Pillow would clip rather than scale
        seen, clear = np.asarray(image), image.info.get("transparency")
        image = Image.fromarray((seen >> 8).astype(np.uint8))
        if clear is not None:
            image.putalpha(Image.fromarray(np.where(seen == clear, 0, 255).astype(np.uint8)))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((WORKING_SIDE, WORKING_SIDE))
    return image.convert("RGBA")


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    image = image.copy()  # no edge of which will be above `side`
    image.thumbnail((side, side))
    return image


def _turn(image: Image.Image) -> str:
    try:
        return _TURN.get(image.getexif().get(ExifTags.Base.Orientation, 1), "")
    except Exception:  # EXIF that does not read is as good as none
        return ""


def _ground(pixels: np.ndarray, invert: str) -> np.ndarray:
    """The colour, (3,) uint8, of what the garment lies on; `pixels` are RGBA, (height, width, 4) uint8."""
    corners = _corners(pixels)
    opaque = corners[:, 3] >= MIDDLE
    if 2 * opaque.sum() >= len(corners):
        return np.median(corners[opaque, :3], axis=0).astype(np.uint8)
    garment = pixels[pixels[..., 3] >= MIDDLE, :3]
    white = invert == "yes" or invert == "auto" and _grey(garment).sum() < MIDDLE * len(garment)
    return np.full(3, 255 if white else 0, np.uint8)


def _corners(pixels: np.ndarray) -> np.ndarray:
    """(height, width, channels) to (pixels, channels): those of the four corners, a twentieth of the shorter edge."""
    edge = max(1, min(pixels.shape[:2]) // 20)
    ends = slice(edge), slice(-edge, None)
    return np.concatenate([pixels[rows, columns].reshape(-1, pixels.shape[2]) for rows in ends for columns in ends])


def _fitted(image: Image.Image, ground: np.ndarray, negate: bool) -> Image.Image:
    """The garment of an RGB picture, trimmed, stretched to 28, in the middle of 28x28 greys."""
    noise = 4 * float(np.median(_distance(_corners(np.asarray(_shrunk(image, JUDGED_SIDE))), ground)))
    tolerance = min(max(TOLERANCE, noise), 3 * TOLERANCE)  # a ground that is a pattern must not swallow the garment
    for _ in range(2):  # roughly on the whole, then closely on what was found
        garment = _distance(np.asarray(_shrunk(image, JUDGED_SIDE)), ground) > tolerance
        image = image.crop(_box(garment, image.size))
    seen = np.asarray(_shrunk(image, JUDGED_SIDE))
    grey, level = _grey(seen), float(_grey(ground))
    if negate:
        grey, level = 255 - grey, 255 - level
    if level < MIDDLE:  # a bright ground stays if it was asked for
        grey = np.where(_distance(seen, ground) > tolerance, (grey - level) * 255 / (255 - level), 0)
        level = 0.0
    image = Image.fromarray(np.rint(np.clip(grey, 0, 255)).astype(np.uint8))
    width, height = (max(1, round(edge * SIDE / max(image.size))) for edge in image.size)
    canvas = Image.new("L", (SIDE, SIDE), round(level))
    canvas.paste(image.resize((width, height), Image.Resampling.LANCZOS), ((SIDE - width) // 2, (SIDE - height) // 2))
    return canvas


def _box(garment: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where to crop (left, top, right, bottom) a picture on whose small copy `garment` is true; all, if none is."""
    height, width = garment.shape
    left, top, right, bottom = Image.fromarray(garment).getbbox() or (0, 0, width, height)
    return (left * size[0] // width, top * size[1] // height, -(-right * size[0] // width),
            -(-bottom * size[1] // height))


def _distance(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Of RGB (..., 3) from a colour (3,), Euclidean."""
    return np.linalg.norm(pixels.astype(np.float32) - colour, axis=-1)


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Luma of ITU-R BT.601, as Pillow's `L`, of RGB (..., 3)."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
