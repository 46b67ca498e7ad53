"""Pictures of a network as PNG bytes: first-layer weights, confusion matrix, worst images. NumPy and Pillow alone."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fmnist_zoo.spec import CLASS_NAMES

_BLUE, _RED, _WHITE = np.array([33, 102, 172]), np.array([178, 24, 43]), np.array([255, 255, 255])
_GREY = 255  # the palette's last
_FONT_SIZE = 13


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)  # hardly larger, in a third of the time
    return buffer.getvalue()


def first_layer(kernel: np.ndarray, *, most: int = 100, scale: int = 2) -> Image.Image:
    """The weights of the first units as 28x28 tiles: blue is negative, red positive, white zero; one scale for all.

    Args:
        kernel: (784, units) float.
    """
    tiles = kernel[:, :most].T.reshape(-1, 28, 28)
    strength = np.clip(tiles / max(float(np.abs(tiles).max()), 1e-12), -1, 1)
    columns = min(10, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * 29, columns * 29), _GREY, np.uint8)
    for index, tile in enumerate(np.rint(127 * (strength + 1)).astype(np.uint8)):
        top, left = 29 * (index // columns), 29 * (index % columns)
        sheet[top:top + 28, left:left + 28] = tile
    image = Image.fromarray(sheet)
    image.putpalette(_palette())  # a byte a pixel: a quarter of the event that colours would make
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _palette() -> bytes:
    """255 colours from blue over white to red, then grey."""
    strength = np.linspace(-1, 1, 255)[:, None]
    colours = np.where(strength < 0, _WHITE + (_WHITE - _BLUE) * strength, _WHITE - (_WHITE - _RED) * strength)
    return np.vstack([colours, [[128, 128, 128]]]).astype(np.uint8).tobytes()


def confusion(matrix: np.ndarray) -> Image.Image:
    """A confusion matrix (10, 10) of counts; a row a true class, a column a predicted one; shade: share of the row."""
    cell, left, top = 46, 110, 96
    image = Image.new("RGB", (left + 10 * cell + 10, top + 10 * cell + 10), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_SIZE)
    draw.text((8, 8), "row: true class", "black", font)
    draw.text((8, 26), "column: predicted", "black", font)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for row, name in enumerate(CLASS_NAMES):
        draw.text((left - 8, top + (row + 0.5) * cell), name, "black", font, anchor="rm")
        label = Image.new("L", (90, 18), 0)
        ImageDraw.Draw(label).text((0, 2), name, 255, font)
        turned = label.rotate(90, expand=True)
        image.paste("black", (left + row * cell + 14, top - 94), turned)
        for column in range(10):
            corner = (left + column * cell, top + row * cell)
            good = _BLUE if row == column else _RED
            shade = _WHITE + (good - _WHITE) * float(np.sqrt(shares[row, column]))
            draw.rectangle((*corner, corner[0] + cell - 2, corner[1] + cell - 2), tuple(int(v) for v in shade))
            ink = "white" if shares[row, column] > 0.35 else "black"
            middle = (corner[0] + cell / 2 - 1, corner[1] + cell / 2)
            draw.text(middle, str(matrix[row, column]), ink, font, anchor="mm")
    return image


def reliability(found: dict[str, np.ndarray]) -> Image.Image:
    """A reliability diagram: accuracy against confidence, bin by bin, and below it how many images fell into each.

    Args:
        found: as `fmnist_zoo.metrics.reliability` returns it.
    """
    side, left, top, below = 360, 60, 40, 90
    image = Image.new("RGB", (left + side + 30, top + side + below + 60), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_SIZE)
    bins, most, floor = len(found["count"]), max(int(found["count"].max()), 1), top + side
    for index, (count, confidence, accuracy) in enumerate(zip(*(found[name] for name in
                                                                ("count", "confidence", "accuracy")))):
        begin, end = (left + round(side * edge / bins) for edge in (index, index + 1))
        if count:
            draw.rectangle((begin + 1, floor - round(side * accuracy), end - 1, floor), tuple(_BLUE))
            gap = sorted(floor - round(side * value) for value in (accuracy, confidence))
            draw.rectangle((begin + 1, gap[0], end - 1, gap[1]), outline=tuple(_RED))
        base = floor + below + 10
        draw.rectangle((begin + 1, base - round(below * 0.85 * count / most), end - 1, base), "gray")
    draw.rectangle((left, top, left + side, floor), outline="black")
    draw.line((left, floor, left + side, top), "gray")
    for tenth in range(0, 11, 2):
        place = round(side * tenth / 10)
        draw.text((left - 6, floor - place), f"{tenth / 10:.1f}", "black", font, anchor="rm")
        draw.text((left + place, floor + below + 14), f"{tenth / 10:.1f}", "black", font, anchor="mt")
    draw.text((left, 8), "blue: accuracy; red frame: its gap to the confidence", "black", font)
    draw.text((left + 6, floor + 6), f"images a bin, at most {most}", "black", font)
    draw.text((left + side / 2, floor + below + 34), "confidence (top probability)", "black", font, anchor="mt")
    return image


def sprite(images: np.ndarray) -> Image.Image:
    """Images (n, 784) uint8 side by side on a square sheet, as TensorBoard's projector takes them."""
    columns = int(np.ceil(np.sqrt(len(images))))
    sheet = np.zeros((columns * columns, 28, 28), np.uint8)
    sheet[:len(images)] = images.reshape(-1, 28, 28)
    return Image.fromarray(sheet.reshape(columns, columns, 28, 28).swapaxes(1, 2).reshape(columns * 28, columns * 28))


def worst(images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, losses: np.ndarray, *,
          columns: int = 6) -> Image.Image:
    """Images (n, 784) uint8, each with its true class, the predicted one and its loss in nats."""
    width, height = 130, 28 * 4 + 54
    rows = max(1, -(-len(images) // columns))
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    for index, pixels in enumerate(images):
        left, top = width * (index % columns), height * (index // columns)
        tile = Image.fromarray(pixels.reshape(28, 28)).resize((112, 112), Image.Resampling.NEAREST)
        sheet.paste(tile, (left + 9, top + 6))
        draw.text((left + 9, top + 119), CLASS_NAMES[labels[index]], "black", font)
        colour = "darkgreen" if labels[index] == predicted[index] else "firebrick"
        draw.text((left + 9, top + 134), f"{CLASS_NAMES[predicted[index]]} {losses[index]:.1f}", colour, font)
    return sheet
