"""The plot of a sweep as a PNG file."""

from __future__ import annotations

import pathlib
from typing import Any, Sequence

import numpy as np
from matplotlib.figure import Figure


def sweep(path: pathlib.Path, rows: Sequence[dict[str, Any]], names: dict[str, Sequence[Any]], objective: str, *,
          logarithmic: Sequence[str] = ()) -> None:
    """Objective over hyper-parameters: a heat map for two that were listed, else a panel for each.

    Args:
        rows: of `trials.csv`, the completed ones alone.
        names: hyper-parameter to its listed values, none for a range.
        logarithmic: those on a logarithmic axis.
    """
    if len(names) == 2 and all(len(values) > 1 for values in names.values()):
        return _heat(path, rows, names, objective)
    count = len(names)
    figure = Figure(figsize=(max(5, 3.4 * count), 3.6), layout="constrained")
    axes = figure.subplots(1, count, sharey=True, squeeze=False)
    for axis, (name, values) in zip(axes[0], names.items()):
        places = {str(value): place for place, value in enumerate(values)}
        x = [places[str(row[name])] if values else row[name] for row in rows]
        axis.plot(x, [row["objective"] for row in rows], "o", markersize=4, alpha=0.7)
        if values:
            axis.set_xticks(range(len(values)), map(_label, values), rotation=45 if len(values) > 5 else 0)
        elif name in logarithmic:
            axis.set_xscale("log")
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(objective)
    figure.savefig(path, dpi=88)


def _heat(path: pathlib.Path, rows: Sequence[dict[str, Any]], names: dict[str, Sequence[Any]], objective: str) -> None:
    (across, columns), (down, lines) = names.items()
    table = np.full((len(lines), len(columns)), np.nan)
    for row in rows:
        table[list(lines).index(row[down]), list(columns).index(row[across])] = row["objective"]
    figure = Figure(figsize=(1.6 + 1.1 * len(columns), 1.4 + 0.6 * len(lines)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(table, cmap="viridis_r" if "loss" in objective else "viridis", aspect="auto")
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (line, column_number), value in np.ndenumerate(table):
        if np.isfinite(value):
            good = (value < middle) == ("loss" in objective)
            axis.text(column_number, line, f"{value:.4f}", ha="center", va="center", color="black" if good else "white",
                      fontsize=9)
    axis.set_xticks(range(len(columns)), [_label(value) for value in columns])
    axis.set_yticks(range(len(lines)), [_label(value) for value in lines])
    axis.set(xlabel=across, ylabel=down)
    figure.colorbar(image, label=objective)
    figure.savefig(path, dpi=88)


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
