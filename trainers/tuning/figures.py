"""The plot of a sweep as a PNG file."""

from __future__ import annotations

import pathlib
from typing import Any, Sequence

import numpy as np
from matplotlib.figure import Figure


def sweep(path: pathlib.Path, rows: Sequence[dict[str, Any]], names: dict[str, Sequence[Any]], objective: str, *,
          logarithmic: Sequence[str] = ()) -> None:
    """Plots the objective over the hyper-parameters: a heat map for two listed ones, else a panel for each.

    Args:
        rows: the rows of `trials.csv` whose trial is completed.
        names: hyper-parameter to its listed values; empty for a range.
        logarithmic: the hyper-parameters with a logarithmic axis.
    """
    if len(names) == 2 and all(len(values) > 1 for values in names.values()):
        figure = _heat_map(rows, names, objective)
    else:
        figure = _panels(rows, names, objective, logarithmic)
    figure.savefig(path, dpi=88)


def _panels(rows: Sequence[dict[str, Any]], names: dict[str, Sequence[Any]], objective: str,
            logarithmic: Sequence[str]) -> Figure:
    figure = Figure(figsize=(max(5, 3.4 * len(names)), 3.6), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, (name, values) in zip(axes, names.items()):
        positions = {str(value): position for position, value in enumerate(values)}
        x = [positions[str(row[name])] if values else row[name] for row in rows]
        axis.plot(x, [row["objective"] for row in rows], "o", markersize=4, alpha=0.7)
        if values:
            axis.set_xticks(range(len(values)), map(_label, values), rotation=45 if len(values) > 5 else 0)
        elif name in logarithmic:
            axis.set_xscale("log")
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(objective)
    return figure


def _heat_map(rows: Sequence[dict[str, Any]], names: dict[str, Sequence[Any]], objective: str) -> Figure:
    (across, columns), (down, lines) = names.items()
    lower_is_better = "loss" in objective
    table = np.full((len(lines), len(columns)), np.nan)
    for row in rows:
        table[lines.index(row[down]), columns.index(row[across])] = row["objective"]
    figure = Figure(figsize=(1.6 + 1.1 * len(columns), 1.4 + 0.6 * len(lines)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(table, cmap="viridis_r" if lower_is_better else "viridis", aspect="auto")
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (line, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            bright = (value < middle) == lower_is_better  # good values are yellow in both color maps
            axis.text(column, line, f"{value:.4f}", ha="center", va="center", fontsize=9,
                      color="black" if bright else "white")
    axis.set_xticks(range(len(columns)), map(_label, columns))
    axis.set_yticks(range(len(lines)), map(_label, lines))
    axis.set(xlabel=across, ylabel=down)
    figure.colorbar(image, label=objective)
    return figure


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
