"""Plots of runs and sweeps as PNG files, by matplotlib without a screen. Arrays in, files out."""

from __future__ import annotations

import pathlib
from typing import Any, Sequence

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the backend is chosen before)

History = list[dict[str, Any]]
PANELS = (("train_loss_eval", "validation_loss", "loss (nats)"),
          ("train_accuracy_eval", "validation_accuracy", "accuracy"))


def column(histories: Sequence[History], name: str) -> np.ndarray:
    """(seeds, epochs) of a column; a name with `+` is a sum of columns."""
    return np.array([[sum(row[part] for part in name.split("+")) for row in history] for history in histories])


def _band(axis: Any, steps: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """The mean over seeds, and between the smallest and the largest a band."""
    axis.plot(steps, values.mean(axis=0), linewidth=1.4, **style)
    if len(values) > 1:
        axis.fill_between(steps, values.min(axis=0), values.max(axis=0), alpha=0.2, color=style["color"], linewidth=0)


def curves(path: pathlib.Path, runs: dict[str, Sequence[History]], *, objective: bool = False) -> None:
    """Train (dropout off, dashed) and validation (solid) of each model; x axis in updates, and in epochs above.

    Args:
        runs: model to its histories, one a seed, all of the same length.
        objective: a third panel with the objectives.
    """
    panels = [*PANELS]
    if objective:
        panels.append(("train_loss_eval+validation_penalty", "validation_loss+validation_penalty", "objective"))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.2 * len(panels), 4), layout="constrained")
    for axis, (train, validation, label) in zip(axes, panels):
        for index, (model, histories) in enumerate(runs.items()):
            steps = column(histories, "step")[0]
            _band(axis, steps, column(histories, train), color=f"C{index}", linestyle="--")
            _band(axis, steps, column(histories, validation), color=f"C{index}", label=model)
        an_epoch = steps[0]
        epochs = axis.secondary_xaxis("top", functions=(lambda x, n=an_epoch: x / n, lambda x, n=an_epoch: x * n))
        epochs.set_xlabel("epochs")
        axis.set_xlabel("updates")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    if objective:
        axes[-1].set_yscale("log")
    else:
        _limit(axes[0], runs)
    axes[0].legend(title="solid: validation\ndashed: train, dropout off", fontsize=8, title_fontsize=8)
    _save(figure, path)


def _limit(axis: Any, runs: dict[str, Sequence[History]]) -> None:
    """Keeps the first epochs' fall from flattening the rest."""
    late = [column(histories, name)[:, len(histories[0]) // 10:].max() for histories in runs.values()
            for name in ("train_loss_eval", "validation_loss")]
    axis.set_ylim(0, 1.1 * max(late))


def rounded(path: pathlib.Path, runs: dict[str, History]) -> None:
    """Rounded against argmax accuracy over a run, within the bounds that any prediction keeps."""
    figure, (over_time, plane) = pyplot.subplots(1, 2, figsize=(10.4, 4), layout="constrained")
    for index, (model, history) in enumerate(runs.items()):
        steps = [row["step"] for row in history]
        top = np.array([row["validation_accuracy"] for row in history])
        by_rounding = np.array([row["validation_rounded_accuracy"] for row in history])
        over_time.plot(steps, top, color=f"C{index}", label=f"{model}: argmax")
        over_time.plot(steps, by_rounding, color=f"C{index}", linestyle="--", label=f"{model}: rounded")
        plane.plot(top, by_rounding, marker=".", markersize=3, linewidth=0.7, color=f"C{index}", label=model)
    ends = np.array([0.0, 1.0])
    plane.fill_between(ends, 0.8 + ends / 10, 0.9 + ends / 10, color="0.9", label="possible")
    plane.set(xlabel="argmax accuracy", ylabel="rounded accuracy", xlim=(0, 1), ylim=(0.8, 1))
    over_time.set(xlabel="updates", ylabel="validation accuracy", xscale="log")
    for axis in (over_time, plane):
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    _save(figure, path)


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
    figure, axes = pyplot.subplots(1, count, figsize=(max(5, 3.4 * count), 3.6), layout="constrained", sharey=True,
                                   squeeze=False)
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
    _save(figure, path)


def _heat(path: pathlib.Path, rows: Sequence[dict[str, Any]], names: dict[str, Sequence[Any]], objective: str) -> None:
    (across, columns), (down, lines) = names.items()
    table = np.full((len(lines), len(columns)), np.nan)
    for row in rows:
        table[list(lines).index(row[down]), list(columns).index(row[across])] = row["objective"]
    figure, axis = pyplot.subplots(figsize=(1.6 + 1.1 * len(columns), 1.4 + 0.6 * len(lines)), layout="constrained")
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
    _save(figure, path)


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _save(figure: Any, path: pathlib.Path) -> None:
    figure.savefig(path, dpi=88)
    pyplot.close(figure)
