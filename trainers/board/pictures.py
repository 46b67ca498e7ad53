"""Pictures of a network: first-layer weights, confusion matrix, reliability, images. Needs only NumPy and Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fmnist_zoo.spec import CLASS_NAMES

_BLUE, _RED, _WHITE = np.array([33, 102, 172]), np.array([178, 24, 43]), np.array([255, 255, 255])
_GREY = 255  # the palette's last
_FONT, _MIDDLE, _LARGE = (ImageFont.load_default(pixels) for pixels in (13, 18, 22))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)  # a third of the default's time for a slightly larger file
    return buffer.getvalue()


def of_pixels(kernel: np.ndarray) -> bool:
    """Whether these are weights of pixels: (784, units), or a convolution's filters (height, width, 1, filters)."""
    return kernel.ndim == 2 and len(kernel) == 784 or kernel.ndim == 4 and kernel.shape[2] == 1


def first_layer(kernel: np.ndarray) -> Image.Image:
    """The weights of the first 100 units or filters (see `of_pixels`) as tiles, in blue below zero and red above it.

    All tiles have one scale, on which the largest absolute weight has the full colour. Filters are drawn larger.
    """
    if kernel.ndim == 2:
        kernel = kernel.reshape(28, 28, 1, -1)
    tiles = kernel[:, :, 0, :100].transpose(2, 0, 1)
    strength = np.clip(tiles / max(float(np.abs(tiles).max()), 1e-12), -1, 1)
    colours = np.rint(127 * (strength + 1)).astype(np.uint8)
    framed = np.pad(colours, ((0, 0), (0, 1), (0, 1)), constant_values=_GREY)
    columns = min(10, len(tiles))
    image = Image.fromarray(_sheet(framed, columns, empty=_GREY))
    image.putpalette(_palette())  # one byte a pixel: the event is a quarter as large as in RGB
    factor = max(2, 40 // max(tiles.shape[1:]))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _palette() -> bytes:
    """255 colours from blue over white to red, then grey."""
    strength = np.linspace(-1, 1, 255)[:, None]
    colours = np.where(strength < 0, _WHITE + (_WHITE - _BLUE) * strength, _WHITE - (_WHITE - _RED) * strength)
    return np.vstack([colours, [[128, 128, 128]]]).astype(np.uint8).tobytes()


def _sheet(tiles: np.ndarray, columns: int, *, empty: int) -> np.ndarray:
    """Tiles (n, height, width) uint8 side by side, row by row; places without a tile have the value `empty`."""
    count, height, width = tiles.shape
    rows = -(-count // columns)
    sheet = np.full((rows * columns, height, width), empty, np.uint8)
    sheet[:count] = tiles
    return sheet.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def confusion(matrix: np.ndarray) -> Image.Image:
    """A confusion matrix (10, 10) of counts: a row for each true class, a column for each predicted one.

    A cell's shade is its share of the row. TensorBoard halves the picture on a card, where it must still be readable.
    """
    cell, left, top = 48, 128, 128
    image = Image.new("RGB", (left + 10 * cell + 4, top + 10 * cell + 4), "white")
    draw = ImageDraw.Draw(image)
    for line, text in enumerate(("rows: true", "columns:", "predicted")):
        draw.text((8, 8 + 22 * line), text, "black", _MIDDLE)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for row, name in enumerate(CLASS_NAMES):
        draw.text((left - 6, top + (row + 0.5) * cell), name, "black", _LARGE, anchor="rm")
        label = Image.new("L", (top - 8, cell), 0)
        ImageDraw.Draw(label).text((0, cell / 2), name, 255, _LARGE, anchor="lm")
        image.paste("black", (left + row * cell, 2), label.rotate(90, expand=True))
        for column in range(10):
            x, y = left + column * cell, top + row * cell
            colour = _BLUE if row == column else _RED
            shade = _WHITE + (colour - _WHITE) * float(np.sqrt(shares[row, column]))
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), tuple(int(part) for part in shade))
            ink = "white" if shares[row, column] > 0.35 else "black"
            font = _LARGE if matrix[row, column] < 1000 else _MIDDLE
            draw.text((x + cell / 2 - 1, y + cell / 2), str(matrix[row, column]), ink, font, anchor="mm")
    return image


def reliability(found: dict[str, np.ndarray]) -> Image.Image:
    """Accuracy against confidence in each bin of `metrics.reliability`, and below it the number of its images."""
    side, left, top, below = 360, 60, 40, 90
    floor, base = top + side, top + side + below + 10
    image = Image.new("RGB", (left + side + 30, floor + below + 60), "white")
    draw = ImageDraw.Draw(image)
    bins, most = len(found["count"]), max(int(found["count"].max()), 1)
    for index in range(bins):
        count, confidence, accuracy = (found[name][index] for name in ("count", "confidence", "accuracy"))
        begin, end = left + round(side * index / bins) + 1, left + round(side * (index + 1) / bins) - 1
        if count:
            draw.rectangle((begin, floor - round(side * accuracy), end, floor), tuple(_BLUE))
            higher, lower = sorted(floor - round(side * value) for value in (accuracy, confidence))
            draw.rectangle((begin, higher, end, lower), outline=tuple(_RED))
        draw.rectangle((begin, base - round(below * 0.85 * count / most), end, base), "gray")
    draw.rectangle((left, top, left + side, floor), outline="black")
    draw.line((left, floor, left + side, top), "gray")
    for tenth in range(0, 11, 2):
        place = round(side * tenth / 10)
        draw.text((left - 6, floor - place), f"{tenth / 10:.1f}", "black", _FONT, anchor="rm")
        draw.text((left + place, base + 4), f"{tenth / 10:.1f}", "black", _FONT, anchor="mt")
    draw.text((left, 8), "blue: accuracy; red frame: its gap to the confidence", "black", _FONT)
    draw.text((left + 6, floor + 6), f"images a bin, at most {most}", "black", _FONT)
    draw.text((left + side / 2, base + 24), "confidence (top probability)", "black", _FONT, anchor="mt")
    return image


def sheet(images: np.ndarray, columns: int) -> Image.Image:
    """Images (n, 784) uint8 side by side, row by row, four times as large, with a grey frame."""
    framed = np.pad(images.reshape(-1, 28, 28), ((0, 0), (0, 1), (0, 1)), constant_values=_GREY)
    picture = Image.fromarray(_sheet(framed, columns, empty=_GREY))
    return picture.resize((picture.width * 4, picture.height * 4), Image.Resampling.NEAREST)


def worst(images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, losses: np.ndarray) -> Image.Image:
    """Images (n, 784) uint8, each with its true class, the predicted class and its loss in nats."""
    columns, width, height = 6, 130, 28 * 4 + 54
    rows = max(1, -(-len(images) // columns))
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, pixels in enumerate(images):
        left, top = width * (index % columns) + 9, height * (index // columns)
        tile = Image.fromarray(pixels.reshape(28, 28)).resize((112, 112), Image.Resampling.NEAREST)
        sheet.paste(tile, (left, top + 6))
        draw.text((left, top + 119), CLASS_NAMES[labels[index]], "black", _FONT)
        colour = "darkgreen" if labels[index] == predicted[index] else "firebrick"
        draw.text((left, top + 134), f"{CLASS_NAMES[predicted[index]]} {losses[index]:.1f}", colour, _FONT)
    return sheet
