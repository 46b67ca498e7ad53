"""The report's plots as PNG files."""

from __future__ import annotations

import pathlib
from typing import Any, Sequence

import numpy as np
from matplotlib.figure import Figure

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
    figure = Figure(figsize=(5.2 * len(panels), 4), layout="constrained")
    axes = figure.subplots(1, len(panels))
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
    figure.savefig(path, dpi=88)


def _limit(axis: Any, runs: dict[str, Sequence[History]]) -> None:
    """Keeps the first epochs' fall from flattening the rest."""
    late = [column(histories, name)[:, len(histories[0]) // 10:].max() for histories in runs.values()
            for name in ("train_loss_eval", "validation_loss")]
    axis.set_ylim(0, 1.1 * max(late))


def rounded(path: pathlib.Path, runs: dict[str, History]) -> None:
    """Rounded against argmax accuracy over a run, within the bounds that any prediction keeps."""
    figure = Figure(figsize=(10.4, 4), layout="constrained")
    over_time, plane = figure.subplots(1, 2)
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
    figure.savefig(path, dpi=88)
