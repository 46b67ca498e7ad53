"""The fixed linear layers that a model can begin with, computed from the images that it is trained on. NumPy alone.

Both take pixels in [0, 1], subtract the mean of each, and have a floor, because pixels near the border, and most
combinations of neighbouring pixels, hardly vary, so that dividing by their deviation would show noise.
"""

from __future__ import annotations

import numpy as np

from fmnist_zoo.layers import STANDARDIZED

FLOOR = 0.1  # of a pixel's deviation; the largest are 0.4, those of 94 of the 784 pixels are below the floor
RIDGE = 0.3  # added to each eigenvalue; 20 of the 784 are above it, with 79 % of the variance
EXACT = 256  # float32 holds sums of so many products of two bytes exactly, because they are below 2**24


def fit(kind: str, images: np.ndarray) -> list[np.ndarray]:
    """The kernel, (784,) for "standardized" or (784, 784) for "whitened", and the bias (784,) of a layer, float32.

    Args:
        images: (n, 784) uint8.

    "standardized" divides each pixel by its standard deviation, or by `FLOOR` if that is larger. "whitened" is ZCA
    (Krizhevsky 2009, appendix A): U diag((eigenvalue + RIDGE)**-0.5) U^T, where the columns of U are the eigenvectors
    of the covariance of the pixels. Its output looks like the image with sharp edges, and its entries are hardly
    correlated.
    """
    mean, covariance = _moments(images)
    if kind == STANDARDIZED:
        kernel = 1 / np.maximum(np.sqrt(covariance.diagonal()), FLOOR)
        bias = -mean * kernel
    else:
        eigenvalues, vectors = np.linalg.eigh(covariance)
        kernel = (vectors / np.sqrt(eigenvalues + RIDGE)) @ vectors.T
        bias = -mean @ kernel
    return [kernel.astype(np.float32), bias.astype(np.float32)]


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (784,) and covariance (784, 784) of pixels in [0, 1], float64.

    The sums are of whole numbers and exact, so that they do not depend on the processor or the number of threads.
    """
    count, pixels = images.shape
    products = np.zeros((pixels, pixels))
    for start in range(0, count, EXACT):
        part = images[start:start + EXACT].astype(np.float32)
        products += part.T @ part
    mean = images.sum(axis=0, dtype=np.int64) / count
    return mean / 255, (products / count - np.outer(mean, mean)) / 255**2
