"""What is measured of a trained model on images that it never saw, and what is written of it.

Logits and labels in; JSON, text, pictures and TensorBoard events out. Which images they are is the caller's business:
nothing here opens data.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any, Sequence

import numpy as np

from fmnist_zoo import card, metrics, prediction, statistics
from fmnist_zoo.files import atomic_write, write_json
from fmnist_zoo.spec import CLASS_NAMES
from trainers.board import events as summaries, pictures

FILE = "evaluation.json"


def measure(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, Any]:
    """All figures, as JSON takes them; `*_calibrated` are of logits / temperature. NLL in nats, ECE over 15 bins."""
    matrix, share = metrics.confusion_matrix(logits, labels), metrics.accuracy(logits, labels)
    columns = {name: values.tolist() for name, values in metrics.by_class(matrix).items()}
    calibrated = logits / temperature
    return {
        "images": len(labels), "accuracy": share, "accuracy_95": metrics.accuracy_interval(share, len(labels)),
        "top_2_accuracy": metrics.top_k_accuracy(logits, labels, 2),
        "rounded_accuracy": metrics.rounded_accuracy(logits, labels)["value"],
        "nll": metrics.mean_cross_entropy(logits, labels), "ece": metrics.expected_calibration_error(logits, labels),
        "temperature": temperature, "nll_calibrated": metrics.mean_cross_entropy(calibrated, labels),
        "ece_calibrated": metrics.expected_calibration_error(calibrated, labels),
        "classes": {name: {column: values[index] for column, values in columns.items()}
                    for index, name in enumerate(CLASS_NAMES)},
        "confusion": matrix.tolist(),
        "reliability": {name: values.tolist() for name, values in metrics.reliability(logits, labels).items()},
    }


def write(folder: pathlib.Path, report: dict[str, Any], logits: np.ndarray, labels: np.ndarray, step: int) -> None:
    """Writes `evaluation.json`, pictures and TensorBoard's events into `folder`; what stood there goes before."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    matrix = np.array(report["confusion"])
    found = {name: np.array(values) for name, values in report["reliability"].items()}
    writer = summaries.EventWriter(folder)
    for name, image in (("confusion", pictures.confusion(matrix)), ("reliability", pictures.reliability(found))):
        png = pictures.png(image)
        with atomic_write(folder / f"{name}.png") as file:
            file.write(png)
        writer.image(name, png, image.size, step, description=f"{report['images']} images")
    writer.scalars({"loss": report["nll"], "loss_calibrated": report["nll_calibrated"], **{
        name: report[name] for name in ("accuracy", "top_2_accuracy", "rounded_accuracy", "ece", "ece_calibrated")}},
        step)
    probabilities = prediction.from_logits(logits, report["temperature"]).probabilities
    for label, name in enumerate(CLASS_NAMES):
        writer.pr_curve(f"pr_curve/{name}", labels == label, probabilities[:, label], step)
    writer.close()
    write_json(folder / FILE, report)


def read(folder: pathlib.Path, *, weights_sha256: str, data_sha256: str) -> dict[str, Any] | None:
    """An evaluation that was written there; None if it is of other weights or data, or not whole."""
    try:
        report = json.loads((folder / FILE).read_text())
        matrix = np.array(report["confusion"])
        same = report["weights_sha256"] == weights_sha256 and report["data"]["sha256"] == data_sha256
        whole = matrix.sum() == report["images"] and report["accuracy"] == np.trace(matrix) / report["images"]
        return report if same and whole and isinstance(report["nll"] + report["ece"], float) else None
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def text(report: dict[str, Any]) -> str:
    """One evaluation in full."""
    low, high = report["accuracy_95"]
    classes = [("class", "precision", "recall", "F1", "images"), *(
        (name, *(f"{row[column]:.4f}" for column in ("precision", "recall", "f1")), str(row["support"]))
        for name, row in report["classes"].items())]
    confusion = [("true \\ predicted", *(name.split("/")[0] for name in CLASS_NAMES)), *(
        (name, *map(str, row)) for name, row in zip(CLASS_NAMES, report["confusion"]))]
    return "\n".join([
        f"{report['title']}: {report['model']}, seed {report['seed']}",
        f"  images            {report['images']} of {report['data']['name']} that no training sees, each once",
        f"  accuracy          {report['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f})",
        f"  top-2 accuracy    {report['top_2_accuracy']:.4f}",
        f"  rounded accuracy  {report['rounded_accuracy']:.4f}",
        f"  NLL               {report['nll']:.4f}, calibrated {report['nll_calibrated']:.4f} "
        f"(temperature {report['temperature']:.3f})",
        f"  ECE               {report['ece']:.4f}, calibrated {report['ece_calibrated']:.4f}",
        "", card.aligned(classes, numeric=classes[0][1:]),
        "", card.aligned(confusion, numeric=confusion[0][1:]),
    ])


def comparison(reports: Sequence[dict[str, Any]], hits: Sequence[np.ndarray]) -> str:
    """Several evaluations on the same images: a table, and McNemar's test of each pair.

    Args:
        hits: for each report, (images,) bool: which images it got right.
    """
    head = ("evaluated", "model", "accuracy", "95 %", "NLL", "calibrated", "ECE", "top-2")
    rows = [(one["title"], one["model"], f"{one['accuracy']:.4f}", "{:.4f}-{:.4f}".format(*one["accuracy_95"]),
             f"{one['nll']:.4f}", f"{one['nll_calibrated']:.4f}", f"{one['ece']:.4f}", f"{one['top_2_accuracy']:.4f}")
            for one in reports]
    pairs = [("right alone", "", "right alone", "", "p")]
    for first in range(len(reports)):
        for second in range(first + 1, len(reports)):
            alone, other, p = statistics.mcnemar(hits[first], hits[second])
            pairs.append((reports[first]["title"], str(alone), reports[second]["title"], str(other), f"{p:.3g}"))
    return "\n".join([card.aligned([head, *rows], numeric=head[2:]), "",
                      "McNemar's paired test, exact: images that one got right and the other wrong",
                      card.aligned(pairs, numeric=("p",))])
