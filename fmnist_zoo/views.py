"""Test-time augmentation and ensembles: the views of an image, and the means of predictions over views and models.

NumPy is imported within functions, so that a command can refuse a wrong `--tta` without it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Iterator, Sequence

from fmnist_zoo.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

SIDE = 28
SHIFTS = {"shift": 1, "shift2": 2}  # pixels in each direction
FLIP = "flip"
HELP = ("test-time augmentation, the mean of log-probabilities over the views of an image: shift (9: by one pixel in "
        "both directions), shift2 (25: by up to two), flip (2: left-right), or a shift and flip joined by a comma")


def parse(text: str) -> str:
    """`text` as `shift`, `shift2`, `flip`, `shift,flip` or `shift2,flip`; empty for none. `UsageError` for others."""
    words = text.split(",") if isinstance(text, str) and text else []
    allowed = set(words) <= {*SHIFTS, FLIP} and len(set(words)) == len(words) and not set(SHIFTS) <= set(words)
    if not allowed or not isinstance(text, str):
        raise UsageError(f"tta must be shift, shift2 or flip, or a shift and flip joined by a comma; received {text!r}")
    return ",".join(sorted(words, key=lambda word: word == FLIP))


def moves(tta: str) -> list[tuple[int, int, bool]]:
    """The views of `tta`: pixels down, pixels to the right, whether flipped left-right first. The plain one is among
    them."""
    words = parse(tta).split(",")
    reach = max((SHIFTS[word] for word in words if word in SHIFTS), default=0)
    steps = range(-reach, reach + 1)
    return list(itertools.product(steps, steps, (False, True) if FLIP in words else (False,)))


def moved(pixels: np.ndarray, down: int, right: int, flipped: bool) -> np.ndarray:
    """Images (n, 784) flipped left-right and moved by whole pixels; what comes in from outside is 0, the ground."""
    import numpy as np

    images = pixels.reshape(-1, SIDE, SIDE)
    images = images[:, :, ::-1] if flipped else images
    result = np.zeros_like(images)
    rows, columns = (slice(max(step, 0), SIDE + min(step, 0)) for step in (down, right))
    from_rows, from_columns = (slice(max(-step, 0), SIDE + min(-step, 0)) for step in (down, right))
    result[:, rows, columns] = images[:, from_rows, from_columns]
    return result.reshape(pixels.shape)


def mean_over_views(logits: Iterator[np.ndarray]) -> np.ndarray:
    """Log-probabilities (n, 10) float64: the mean of those of each view's logits, normalized.

    A temperature divides the mean as it would divide the logits of each view: softmax ignores what normalizes them.
    """
    from fmnist_zoo import metrics

    total, count = metrics.log_softmax(next(logits)), 1
    for one in logits:
        total, count = total + metrics.log_softmax(one), count + 1
    return metrics.log_softmax(total / count)


def mean_over_models(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Log-probabilities (n, 10) float64 of an ensemble: the logarithm of the mean of its members' probabilities.

    Deep ensembles are mixtures of equal weights (Lakshminarayanan, Pritzel and Blundell 2017, section 2.4). Their
    members are not calibrated: their mean is (Rahaman and Thiery 2021 fit temperatures after averaging).
    """
    import numpy as np

    from fmnist_zoo import metrics

    return np.logaddexp.reduce([metrics.log_softmax(one) for one in logits], axis=0) - np.log(len(logits))
