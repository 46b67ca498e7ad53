"""The scalars of an epoch: their tags. One chart, one question; the same tag in two rows lies on one chart.

    loss, accuracy     dropout off: a fixed sample of the training images, validation, and after `evaluate` test
    while_training/    the running means of the epoch's updates, dropout on
    objective/         what is minimised, and the penalty in it
    optimizer/         learning rate, norms, the number of updates
    speed/             of the training part of the epoch

Must not import TensorFlow.
"""

from __future__ import annotations

from typing import Any

from trainers.engine.epoch import EpochMeans

Scalars = dict[str, float]


def of_training(row: dict[str, Any], means: EpochMeans) -> Scalars:
    """For the row `train`; `row` is the epoch's row of `metrics.csv`."""
    found = {
        "loss": row["train_loss_eval"], "accuracy": row["train_accuracy_eval"],
        "while_training/loss": row["train_loss"], "while_training/accuracy": row["train_accuracy"],
        "objective/total": row["train_objective"], "objective/penalty": row["train_penalty"],
        "optimizer/learning_rate": row["learning_rate"], "optimizer/updates": row["step"],
        "speed/images_per_second": row["images_per_second"], "speed/seconds": row["seconds"],
    }
    if means.gradient_norm is not None and means.weight_norm is not None:
        found |= {"optimizer/gradient_norm": means.gradient_norm, "optimizer/weight_norm": means.weight_norm}
    return found


def of_validation(row: dict[str, Any]) -> Scalars:
    """For the row of the run itself; empty without validation images."""
    if row["validation_loss"] is None:
        return {}
    return {
        "loss": row["validation_loss"], "accuracy": row["validation_accuracy"],
        "accuracy/rounded": row["validation_rounded_accuracy"],
        "objective/total": row["validation_loss"] + row["validation_penalty"],
        "objective/penalty": row["validation_penalty"],
    }


def as_begun(row: dict[str, Any], means: EpochMeans) -> tuple[Scalars, Scalars]:
    """Of training and validation, by the tags of version 0.1, for a run that was begun with them."""
    of_epochs = ("loss", "penalty", "objective", "accuracy", "loss_eval", "accuracy_eval")
    training = {name: row[f"train_{name}"] for name in of_epochs}
    training |= {name: row[name] for name in ("epoch", "learning_rate", "images_per_second")}
    if means.gradient_norm is not None and means.weight_norm is not None:
        training |= {"norm/gradient": means.gradient_norm, "norm/weight": means.weight_norm}
    if row["validation_loss"] is None:
        return training, {}
    validation = {name: row[f"validation_{name}"] for name in ("loss", "penalty", "accuracy", "rounded_accuracy")}
    return training, {**validation, "objective": row["validation_loss"] + row["validation_penalty"]}
