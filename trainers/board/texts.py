"""What TensorBoard's Text tab says of a run, in Markdown: the model and its recipe at the start, the result at the end.

Must not import TensorFlow.
"""

from __future__ import annotations

import math
from typing import Any, Mapping

import numpy as np

from fmnist_zoo import card, metrics, results
from fmnist_zoo.spec import CLASS_NAMES
from trainers.config import RunConfig, decisive_differences, resolve
from trainers.engine.epoch import NonFiniteError

CHANCE = math.log(len(CLASS_NAMES))  # the loss of equal probabilities, in nats


def model(config: RunConfig, replay: str) -> str:
    """The model's card, the recipe of this run, and the command that trains it again."""
    return f"```\n{card.card(config.spec, config.recipe, published=published(config))}\n```\n{_command(replay)}"


def published(config: RunConfig) -> bool:
    """Whether the published scores of its model are of this recipe."""
    return set(decisive_differences(resolve(config.spec), config)) <= {"seed", "threads"}


def worse_than_chance(final: Mapping[str, Any]) -> str:
    """What is wrong with a run whose loss is above that of equal probabilities; else empty. Also of a row."""
    part = "validation" if final.get("val_loss") is not None else "training"
    loss = final["val_loss" if part == "validation" else "train_loss"]
    return "" if loss <= CHANCE else f"worse than chance: {part} loss {loss:.4g}, and that of guessing is {CHANCE:.4f}"


def result(config: RunConfig, found: dict[str, Any], logits: np.ndarray, labels: np.ndarray, replay: str) -> str:
    """The result of a run that ended.

    Args:
        found: the content of its `result.json`.
        logits: (n, 10) of the validation images, by the selected weights; `labels` (n,) theirs; n may be 0.
    """
    final = found["final"]
    problem = worse_than_chance(final)
    head = ("dropout off", "loss", "accuracy")
    rows = [head, *((part, f"{final[f'{prefix}_loss']:.4f}", f"{final[f'{prefix}_accuracy']:.4f}")
                    for part, prefix in (("training", "train"), ("validation", "val"), ("ranking", "ranking"))
                    if f"{prefix}_loss" in final)]
    kept = found["weights"] if "val_loss" in final else "last"  # without validation the best are the last
    early = " (stopped early)" if found["stopped_early"] else ""
    lines = [f"## {config.spec.name}: {f'failed, {problem}' if problem else 'finished'}", "",
             f"{kept} weights, of epoch {final['epoch']} of {found['epochs']}{early}; "
             f"{found['seconds']:.0f} s of training", "",
             card.markdown_table(rows, numeric=head[1:])]
    if len(labels):
        lines += ["", "The worst classes, on the validation images:", "",
                  _worst_classes(metrics.confusion_matrix(logits, labels))]
    score = results.scores().get(config.spec.name) if published(config) else None
    if score:
        lines += ["", f"Published with this recipe, of the test images, seeds: {score.seeds}. Accuracy "
                  f"{score.accuracy:.4f}, NLL {score.nll:.4f}."]
    return "\n".join(lines) + "\n" + _command(replay)


def failure(config: RunConfig, error: Exception, replay: str) -> str:
    kind = "" if isinstance(error, NonFiniteError) else f"{type(error).__name__}: "
    return f"## {config.spec.name}: failed\n\n{kind}{error}\n{_command(replay)}"


def _command(replay: str) -> str:
    """Empty for a run that a command cannot train again."""
    return f"\ntrain this run again\n\n```\n{replay}\n```\n" if replay else ""


def _worst_classes(matrix: np.ndarray, count: int = 3) -> str:
    """The classes of the fewest right images, each with the class that it is taken for most often."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows = [("class", "right", "most often taken for")]
    for label in np.argsort(np.diag(shares), kind="stable")[:count]:
        others = np.where(np.arange(len(matrix)) == label, -1, shares[label])
        rows.append((CLASS_NAMES[label], f"{shares[label, label]:.3f}",
                     f"{CLASS_NAMES[others.argmax()]} {others.max():.3f}"))
    return card.markdown_table(rows, numeric=["right"])
