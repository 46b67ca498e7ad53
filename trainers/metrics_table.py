"""The metrics of a run: one table of their names in `metrics.csv`, in TensorBoard and in its HParams tab.

Keras' names: those of the epoch's updates are bare (`loss`), those of the validation images begin with `val_`. `loss`
never includes the penalty; `objective` does. Must not import TensorFlow.

One chart, one question; the same tag in two rows lies on one chart:

    loss, accuracy     dropout off: a fixed sample of the training images, validation, and after `evaluate` test
    selected/          of the weights that would count if the run ended here, in the epochs that change them
    while_training/    the running means of the epoch's updates, dropout on
    objective/         what is minimised, and the penalty in it
    optimizer/         learning rate, norms, the number of updates
    speed/             of the training part of the epoch
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

FULL_BATCH = "network_"  # begins the names of models of 500 epochs; `tf.round` accuracy is of their part of the report
TRAIN, RUN = "train", ""  # the rows of a run in TensorBoard: `<run>/train`, and `<run>` itself, which is validation


class Metric(NamedTuple):
    """One number that a run measures.

    Attributes:
        column: its name in `metrics.csv` and in `Run.history`.
        tag: its chart in TensorBoard; empty: it has none.
        row: TRAIN or RUN.
        title: its column in the HParams tab, short, for the axes of parallel coordinates; empty: it has none.
    """

    column: str
    tag: str = ""
    row: str = RUN
    title: str = ""


METRICS = (
    Metric("epoch"),
    Metric("step", "optimizer/updates", TRAIN),
    Metric("seconds", "speed/seconds", TRAIN),
    Metric("images_per_second", "speed/images_per_second", TRAIN),
    Metric("learning_rate", "optimizer/learning_rate", TRAIN),
    Metric("loss", "while_training/loss", TRAIN),
    Metric("penalty", "objective/penalty", TRAIN),
    Metric("objective", "objective/total", TRAIN),
    Metric("accuracy", "while_training/accuracy", TRAIN),
    Metric("train_loss", "loss", TRAIN),
    Metric("train_accuracy", "accuracy", TRAIN),
    Metric("val_loss", "loss", RUN, "last val. loss"),
    Metric("val_accuracy", "accuracy", RUN, "last val. accuracy"),
    Metric("val_rounded_accuracy", "accuracy/rounded"),
    Metric("val_penalty", "objective/penalty"),
    Metric("gradient_norm", "optimizer/gradient_norm", TRAIN),
    Metric("weight_norm", "optimizer/weight_norm", TRAIN),
    Metric("val_objective", "objective/total"),
)
SELECTED = (  # the HParams tab shows five columns at first; `metrics.csv` has neither `ranking` nor `total_seconds`
    Metric("ranking", "selected/objective", RUN, "objective"),  # by which a sweep ranks
    Metric("val_loss", "selected/val_loss", RUN, "validation loss"),
    Metric("val_accuracy", "selected/val_accuracy", RUN, "validation accuracy"),
    Metric("train_loss", "selected/train_loss", RUN, "train loss"),
    Metric("epoch", "selected/epoch", RUN, "epoch kept"),
    Metric("total_seconds", "speed/total_seconds", RUN, "seconds"),
)
Row = dict[str, Any]  # of `metrics.csv`: a number for each column, None for a cell that is empty
COLUMNS = tuple(metric.column for metric in METRICS)
HPARAMS = tuple((metric.tag, metric.title) for metric in (*SELECTED, *METRICS) if metric.title)


def scalars(values: dict[str, Any], row: str, metrics: Sequence[Metric] = METRICS) -> dict[str, float]:
    """The charts' values, by tag, in one row of TensorBoard, from a row of `metrics.csv`; without what is None."""
    return {metric.tag: values[metric.column] for metric in metrics
            if metric.tag and metric.row == row and values.get(metric.column) is not None}
