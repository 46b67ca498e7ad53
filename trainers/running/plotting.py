"""Plots look alike everywhere: matplotlib draws them with its own settings, not with those of a user's matplotlibrc.

That may ask for LaTeX, which is not installed, or which takes the names of models for formulas.
"""

from __future__ import annotations

import contextlib
from typing import Iterator

from fmnist_zoo.errors import ZooError


class PlotError(ZooError, RuntimeError):
    """matplotlib cannot be imported, or cannot draw: says why."""


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Within the block, in which plots are made and saved, matplotlib has its own settings; its errors are `PlotError`.

    Do not import matplotlib before: a matplotlibrc that does not read breaks the import.
    """
    try:
        from matplotlib import style

        with style.context("default"):
            yield
    except (ZooError, OSError):
        raise
    except Exception as error:
        raise PlotError(f"matplotlib cannot draw the plots: {type(error).__name__}: {' '.join(str(error).split())}"
                        ) from error
