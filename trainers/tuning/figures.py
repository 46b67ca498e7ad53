"""The plots of a sweep: its trials, and what they have taught."""

from __future__ import annotations

import io
from typing import Any, Sequence

import numpy as np
from matplotlib.figure import Figure

from fmnist_zoo.statistics import LEVEL, holm
from trainers.tuning.lessons import Lessons
from trainers.tuning.levels import Levels, levels
from trainers.tuning.study import Study

DPI = 88
ACROSS = 4  # panels in a row
LONG = 5  # labels on an axis, from which on they are turned


def png(figure: Figure) -> bytes:
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def trials(study: Study) -> Figure:
    """The objective of each completed trial.

    Two hyper-parameters with listed values make a heat map; otherwise each hyper-parameter has a panel.
    """
    scores = np.array([trial.score for trial in study.ranked])
    found = [levels(parameter, [trial.values[parameter.name] for trial in study.ranked])
             for parameter in study.space.parameters]
    if len(found) == 2 and all(one.values is None and len(parameter.values) > 1
                               for one, parameter in zip(found, study.space.parameters)):
        across, down = found
        table = np.full((len(down.labels), len(across.labels)), np.nan)
        table[down.index[::-1], across.index[::-1]] = scores[::-1]  # of equal values the best
        figure = _sheet(table.shape)
        _heat_map(figure, figure.subplots(), table, across, down, study.manifest["objective"],
                  "viridis_r" if study.objective.lower_is_better else "viridis")
        return figure
    figure, axes = _panels(len(found))
    for axis, one, parameter in zip(axes, found, study.space.parameters):
        x: Any = one.index
        if one.values is None:
            _ticks(axis, one)
        else:
            x = [trial.values[parameter.name] for trial in study.ranked]
            axis.set_xscale("log" if one.log else "linear")
        axis.plot(x, scores, "o", markersize=4, alpha=0.7)
        axis.set_xlabel(parameter.name)
        axis.grid(alpha=0.3)
    _name_rows(axes, study.manifest["objective"])
    return figure


def importances(lessons: Lessons) -> Figure:
    """Bars of both measures of importance; those that noise explains are pale."""
    names = [effect.name for effect in lessons.effects]
    shares = [0.0] * len(names) if lessons.importances is None else [one.share for one in lessons.importances]
    chances = [1.0] * len(names) if lessons.importances is None else holm([one.p for one in lessons.importances])
    order = sorted(range(len(names)), key=lambda index: (shares[index], np.nan_to_num(lessons.effects[index].share)))
    figure = Figure(figsize=(9, 1.3 + 0.32 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axis, values, p, title in (
            (left, shares, chances, "importance (PED-ANOVA)"),
            (right, [effect.share for effect in lessons.effects], [effect.p for effect in lessons.effects],
             "share of the variance (main effect)")):
        colors = ["C0" if p[index] < LEVEL else "0.8" for index in order]
        axis.barh(range(len(names)), [np.nan_to_num(values[index]) for index in order], color=colors)
        axis.set(xlim=(0, 1), xlabel=title)
        axis.grid(alpha=0.3, axis="x")
    left.set_yticks(range(len(names)), [names[index] for index in order])
    return figure


def effects(lessons: Lessons) -> Figure:
    """A panel for each hyper-parameter: the mean of the objective at each level, with its 95 % interval."""
    figure, axes = _panels(len(lessons.effects))
    for axis, effect in zip(axes, lessons.effects):
        places = np.arange(len(effect.means))
        if effect.levels.ordered:
            axis.plot(places, effect.means, color="C0", alpha=0.4)
        for chosen, color in ((~effect.worse, "C0"), (effect.worse, "C3")):
            errors = np.nan_to_num(effect.errors[chosen])
            axis.errorbar(places[chosen], effect.means[chosen], errors, fmt="o", color=color, capsize=4)
        _ticks(axis, effect.levels)
        axis.set_xlim(-0.5, len(places) - 0.5)
        axis.set_xlabel(effect.name)
        axis.grid(alpha=0.3)
    _name_rows(axes, f"mean {lessons.objective}")
    return figure


def interactions(lessons: Lessons) -> Figure | None:
    """A heat map of the strength of all pairs, and one of the combinations of the strongest, if it is more than noise.

    Two hyper-parameters have the second alone. None if nothing is known.
    """
    known = [pair for pair in lessons.pairs if not np.isnan(pair.strength)]
    if not known:
        return None
    pair, count = known[0], len(lessons.effects)
    first, second = (lessons.effects[index].levels for index in (pair.first, pair.second))
    table = pair.table.T
    wide, high = 2.2 + 0.75 * len(first.labels), 1.6 + 0.5 * max(count if count > 2 else 0, len(second.labels))
    if count == 2:
        figure = Figure(figsize=(wide + 1, high), layout="constrained")
        right = figure.subplots()
    else:
        matrix = np.full((count, count), np.nan)
        for one in known:
            matrix[one.first, one.second] = matrix[one.second, one.first] = one.strength
        widths = (2.4 + 0.75 * count, wide)[:1 + (pair.strength > 0)]
        figure = Figure(figsize=(sum(widths), high), layout="constrained")
        left, right = [*figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0], None][:2]
        names = _named([effect.name for effect in lessons.effects])
        _heat_map(figure, left, matrix, names, names, f"interaction ({lessons.objective})", "Blues", form=".2g", low=0)
    if right:
        _heat_map(figure, right, table, first, second, "beyond both effects", "RdBu_r", form="+.2g", middle=0)
    return figure


def _named(names: Sequence[str]) -> Levels:
    return Levels("", tuple(names), np.arange(len(names)), False)


def _sheet(shape: tuple[int, ...]) -> Figure:
    return Figure(figsize=(1.6 + 1.1 * shape[1], 1.4 + 0.6 * shape[0]), layout="constrained")


def _panels(count: int) -> tuple[Figure, list[Any]]:
    """A figure with `count` panels that share the y axis."""
    columns = min(count, ACROSS)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(5, 3.4 * columns), 3.6 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def _name_rows(axes: Sequence[Any], label: str) -> None:
    for axis in axes[::ACROSS]:
        axis.set_ylabel(label)


def _ticks(axis: Any, one: Levels) -> None:
    turned = len(one.labels) > LONG or any(len(words) > 8 for words in one.labels)
    axis.set_xticks(range(len(one.labels)), [_plain(words) for words in one.labels], rotation=45 if turned else 0,
                    ha="right" if turned else "center", rotation_mode="anchor")


def _heat_map(figure: Figure, axis: Any, table: np.ndarray, across: Levels, down: Levels, label: str, colors: str, *,
              form: str = ".4f", low: float | None = None, middle: float | None = None) -> None:
    """A table of (levels down, levels across) with its numbers; NaN stays empty. `middle` is the value of white."""
    import matplotlib

    finite = table[np.isfinite(table)]
    ends = (finite.min() if low is None else low), finite.max()
    if middle is not None:
        reach = max(abs(finite - middle).max(), 1e-12)
        ends = middle - reach, middle + reach
    image = axis.imshow(table, cmap=colors, aspect="auto", vmin=ends[0], vmax=max(ends[1], ends[0] + 1e-12))
    shades = matplotlib.colormaps[colors]
    if table.size <= 400:
        for (line, column), value in np.ndenumerate(table):
            if np.isfinite(value):
                red, green, blue, _ = shades(image.norm(value))
                bright = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
                axis.text(column, line, f"{value:{form}}" if value else "0", ha="center", va="center", fontsize=9,
                          color="black" if bright else "white")
    _ticks(axis, across)
    axis.set_yticks(range(len(down.labels)), map(_plain, down.labels))
    axis.set(xlabel=across.name, ylabel=down.name)
    if finite.any():
        figure.colorbar(image, label=label)


def _plain(words: str) -> str:
    """Text that matplotlib does not take for a formula, cut at 24 letters."""
    return (words if len(words) <= 24 else f"{words[:22]} ...").replace("$", r"\$")
