"""Plots look alike everywhere: matplotlib draws them with its own settings, not with those of a user's matplotlibrc.

That may ask for LaTeX, which is not installed, or which takes the names of models for formulas. Curves have
colours that the colour-blind tell apart, and their names at their ends.
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Sequence

from fmnist_zoo.errors import ZooError

# M. Okabe and K. Ito, "Color Universal Design" (2008), without yellow, which is too bright for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "os^Dv*X"
NAMED = 8  # curves of a panel that have their names at their ends, if these are short
LONGEST = 28  # letters


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


def line(index: int, points: int) -> dict[str, Any]:
    """How the curve of a number looks, of so many points: a colour, and a few markers for prints in black and white."""
    return {"color": COLORS[index % len(COLORS)], "linewidth": 1.4, "markersize": 4,
            "marker": MARKERS[(index + index // len(COLORS)) % len(MARKERS)],
            "markevery": (min(index % 3, points - 1), max(1, points // 6))}


def name_lines(axis: Any, named: Sequence[tuple[str, Any]], meaning: str) -> None:
    """Writes the name of each line beside its end; where they do not fit, a legend below all panels has them.

    Call it last: a change of the axis' limits moves the ends.

    Args:
        named: (name, line) in any order.
        meaning: what the line styles mean, for a box in the panel.
    """
    axis.legend([], title=meaning, title_fontsize=8)
    if len(named) > NAMED or any(len(name) > LONGEST for name, _ in named):
        if not axis.figure.legends:
            key = axis.figure.legend(*zip(*((one, name) for name, one in named)), fontsize=8, ncols=3,
                                     loc="outside lower center")
            for words in key.get_texts():
                words.set_parse_math(False)
        return
    axis.set(xlim=axis.get_xlim(), ylim=axis.get_ylim())  # the limits are settled when they are asked for
    ends = [axis.transAxes.inverted().transform(axis.transData.transform(one.get_xydata()[-1])) for _, one in named]
    lowest = -1.0
    for index in sorted(range(len(named)), key=lambda index: ends[index][1]):
        (name, one), (right, height) = named[index], ends[index]
        lowest = max(height, lowest + 0.055)
        axis.plot((right, 1.02), (height, lowest), color=one.get_color(), linewidth=0.6, clip_on=False,
                  transform=axis.transAxes, scalex=False, scaley=False)
        axis.text(1.03, lowest, name, transform=axis.transAxes, fontsize=8, va="center", color=one.get_color(),
                  parse_math=False)
