"""The page's plots as PNG files."""

from __future__ import annotations

import pathlib
from typing import Any, Sequence

import numpy as np
from matplotlib.figure import Figure

from trainers.reproduction.experiments import History, Runs
from trainers.running import plotting

PANELS = (("train_loss", "val_loss", "loss (nats)"),
          ("train_accuracy", "val_accuracy", "accuracy"))
OBJECTIVE = ("train_loss+val_penalty", "val_objective", "objective")
DPI = 88


def values(histories: Sequence[History], column: str) -> np.ndarray:
    """(seeds, epochs) of a column of `metrics.csv`; `one+other` is the sum of two columns."""
    return np.array([[sum(row[name] for name in column.split("+")) for row in history] for history in histories])


def curves(path: pathlib.Path, runs: Runs, *, objective: bool = False) -> None:
    """Train (dropout off, dashed) and validation (solid) curves of each model over updates and, above, epochs.

    All runs have the same length. `objective` adds a third panel with the objectives.
    """
    panels = [*PANELS, OBJECTIVE] if objective else PANELS
    figure = Figure(figsize=(5.2 * len(panels), 4), layout="constrained")
    axes = figure.subplots(1, len(panels))
    for axis, (train, validation, label) in zip(axes, panels):
        named = []
        for index, (model, histories) in enumerate(runs.items()):
            updates = values(histories, "step")[0]
            look = plotting.line(index, len(updates))
            _band(axis, updates, values(histories, train), linestyle="--", **look)
            named.append((model, _band(axis, updates, values(histories, validation), **look)))
        epoch = updates[0]
        above = axis.secondary_xaxis("top", functions=(lambda x, n=epoch: x / n, lambda x, n=epoch: x * n))
        above.set_xlabel("epochs")
        axis.set(xlabel="updates", ylabel=label)
        axis.grid(alpha=0.3)
        if label == OBJECTIVE[-1]:
            axis.set_yscale("log")
        elif label == PANELS[0][-1] and not objective:
            _ignore_first_epochs(axis, runs)
        plotting.name_lines(axis, named, "solid: validation\ndashed: train, dropout off")
    figure.savefig(path, dpi=DPI)


def _band(axis: Any, updates: np.ndarray, over_seeds: np.ndarray, **style: Any) -> Any:
    """The mean over seeds as a line, which is returned, and a band from the smallest to the largest value."""
    (drawn,) = axis.plot(updates, over_seeds.mean(axis=0), **style)
    if len(over_seeds) > 1:
        axis.fill_between(updates, over_seeds.min(axis=0), over_seeds.max(axis=0), alpha=0.2, color=style["color"],
                          linewidth=0)
    return drawn


def _ignore_first_epochs(axis: Any, runs: Runs) -> None:
    """Limits the y axis to losses after the first tenth of the epochs: the steep start would flatten the rest."""
    late = [values(histories, column)[:, len(histories[0]) // 10:].max() for histories in runs.values()
            for column in PANELS[0][:2]]
    axis.set_ylim(0, 1.1 * max(late))


def rounded(path: pathlib.Path, examples: dict[str, History]) -> None:
    """Rounded against argmax accuracy during one run of each model, with the region that any prediction stays in."""
    figure = Figure(figsize=(10.4, 4), layout="constrained")
    over_time, plane = figure.subplots(1, 2)
    for index, (model, history) in enumerate(examples.items()):
        updates, top, by_rounding = (values([history], column)[0] for column in
                                     ("step", "val_accuracy", "val_rounded_accuracy"))
        color = plotting.COLORS[index]
        over_time.plot(updates, top, color=color, label=f"{model}: argmax")
        over_time.plot(updates, by_rounding, color=color, linestyle="--", label=f"{model}: rounded")
        plane.plot(top, by_rounding, marker=plotting.MARKERS[index], markersize=3, linewidth=0.7, color=color,
                   label=model)
    ends = np.array([0.0, 1.0])
    plane.fill_between(ends, 0.8 + ends / 10, 0.9 + ends / 10, color="0.9", label="possible")
    plane.set(xlabel="argmax accuracy", ylabel="rounded accuracy", xlim=(0, 1), ylim=(0.8, 1))
    over_time.set(xlabel="updates", ylabel="validation accuracy", xscale="log")
    for axis in (over_time, plane):
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=DPI)
