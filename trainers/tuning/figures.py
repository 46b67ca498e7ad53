"""The plot of a sweep as a PNG file."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from trainers.tuning.space import Value
from trainers.tuning.study import Study


def draw(study: Study) -> None:
    """Plots the objective of the completed trials into `objective.png`.

    Two hyper-parameters with listed values make a heat map; otherwise each hyper-parameter has a panel.
    """
    if len(study.space.names) == 2 and all(one.kind == "choice" and len(one.values) > 1
                                           for one in study.space.parameters):
        figure = _heat_map(study)
    else:
        figure = _panels(study)
    figure.savefig(study.path / "objective.png", dpi=88)


def _panels(study: Study) -> Figure:
    parameters, ranked = study.space.parameters, study.ranked
    scores = [trial.score for trial in ranked]
    figure = Figure(figsize=(max(5, 3.4 * len(parameters)), 3.6), layout="constrained")
    axes = figure.subplots(1, len(parameters), sharey=True, squeeze=False)[0]
    for axis, parameter in zip(axes, parameters):
        x = [trial.values[parameter.name] for trial in ranked]
        if parameter.kind == "choice":
            x = [parameter.values.index(value) for value in x]
            axis.set_xticks(range(len(parameter.values)), map(_label, parameter.values),
                            rotation=45 if len(parameter.values) > 5 else 0)
        elif parameter.kind == "log":
            axis.set_xscale("log")
        axis.plot(x, scores, "o", markersize=4, alpha=0.7)
        axis.set_xlabel(parameter.name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(study.manifest["objective"])
    return figure


def _heat_map(study: Study) -> Figure:
    across, down = study.space.parameters
    lower_is_better = study.objective.lower_is_better
    table = np.full((len(down.values), len(across.values)), np.nan)
    for trial in study.ranked:
        line, column = down.values.index(trial.values[down.name]), across.values.index(trial.values[across.name])
        table[line, column] = trial.score
    figure = Figure(figsize=(1.6 + 1.1 * len(across.values), 1.4 + 0.6 * len(down.values)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(table, cmap="viridis_r" if lower_is_better else "viridis", aspect="auto")
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (line, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            bright = (value < middle) == lower_is_better  # good values are yellow in both color maps
            axis.text(column, line, f"{value:.4f}", ha="center", va="center", fontsize=9,
                      color="black" if bright else "white")
    axis.set_xticks(range(len(across.values)), map(_label, across.values))
    axis.set_yticks(range(len(down.values)), map(_label, down.values))
    axis.set(xlabel=across.name, ylabel=down.name)
    figure.colorbar(image, label=study.manifest["objective"])
    return figure


def _label(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
