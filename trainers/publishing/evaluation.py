"""Evaluations: a trained model is measured on the test images, and the report is written, read back and printed.

Only this module and `fmnist_zoo.data` name the split `test`: training, sweeps and the choice of an epoch never see its
images. TensorFlow and TensorBoard are imported within functions, so that commands can refuse wrong flags at once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import time
from typing import Any, Sequence

import numpy as np

from fmnist_zoo import card, metrics, statistics
from fmnist_zoo.files import atomic_write, write_json
from fmnist_zoo.spec import CLASS_NAMES
from trainers.running import provenance
from trainers.running.folder import SHIPPED, RunFolder, locked
from trainers.running.trained import Trained, TrainedError, calibrated, load_data

FILE = "evaluation.json"


def measure(trained: Trained, data_dir: str | None = None) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Measures a trained model on the test images of its data, each image once; writes nothing.

    Returns:
        The report (its figures are those of `figures`), logits (n, 10) float32 and labels (n,) uint8.

    Raises:
        TrainedError: if the data are not those that it was trained on, or are split differently.
        DataError: if the data cannot be found or read.
    """
    from fmnist_zoo import prediction

    trained = calibrated(trained, data_dir)  # refuses other data before the test images are opened
    found = load_data(trained, "test", data_dir)
    images, labels = found["test"]
    logits = prediction.outputs_of(trained.model, prediction.as_pixels(images))
    return {
        "title": trained.title, "model": trained.spec.name, "seed": trained.seed,
        "weights_sha256": trained.weights_sha256, "data": {"name": found.name, "sha256": found.sha256},
        **figures(logits, labels, trained.temperature or 1.0),
        "environment": provenance.record(), "date": time.strftime("%Y-%m-%d"),
    }, logits, labels


def figures(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, Any]:
    """What is measured of logits (n, 10) and labels (n,), ready for JSON: NLL in nats, ECE over 15 bins.

    Those named `*_calibrated` are of logits / temperature.
    """
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


def evaluate(trained: Trained, *, logdir: str | os.PathLike[str] = "tb_logs", data_dir: str | None = None,
             projector: bool = False) -> tuple[dict[str, Any], np.ndarray]:
    """Measures a trained model on the test images and writes the report.

    Args:
        logdir: shipped models write to `<logdir>/<model>/shipped/evaluation`; a run writes to its own `evaluation`.
        data_dir: where the data are; default: where the run had them.
        projector: write the files of TensorBoard's projector, too.

    Returns:
        The report (the content of `evaluation.json`), and which images were classified correctly, (images,) bool.

    Raises:
        TrainedError, DataError: as `measure`; also if there are no validation images for the projector.
        LockedError: if another process trains or evaluates in this folder.
    """
    shown = load_data(trained, "validation", data_dir)["validation"] if projector else None
    if shown and not len(shown.labels):
        raise TrainedError(f"{trained.title} has no validation images for --projector to show; drop it")
    folder = RunFolder(trained.folder or _shipped_folder(trained, logdir))
    folder.path.mkdir(parents=True, exist_ok=True)
    with locked(folder.path, "at work"):
        report, logits, labels = measure(trained, data_dir)
        _write(folder.evaluation, report, logits, labels, trained.step)
        if shown:
            from trainers.board.projector import write as write_projector

            write_projector(folder.evaluation, trained.model, shown)
    return report, logits.argmax(axis=1) == labels


def _shipped_folder(trained: Trained, logdir: str | os.PathLike[str]) -> pathlib.Path:
    """Where the evaluation of a shipped model goes; one on other data than the published must not replace it."""
    shipped, shipped_mini = SHIPPED
    name = shipped_mini if trained.data_settings["data"] == "mini" else shipped
    return pathlib.Path(os.path.expanduser(logdir), trained.spec.name, name)


def _write(folder: pathlib.Path, report: dict[str, Any], logits: np.ndarray, labels: np.ndarray, step: int) -> None:
    """Replaces `folder` with `evaluation.json`, pictures and TensorBoard's events."""
    from fmnist_zoo import prediction
    from trainers.board import events, pictures

    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    reliability = {name: np.array(values) for name, values in report["reliability"].items()}
    images = {"confusion": pictures.confusion(np.array(report["confusion"])),
              "reliability": pictures.reliability(reliability)}
    scalars = {"loss": report["nll"], "loss_calibrated": report["nll_calibrated"]}
    for name in ("accuracy", "top_2_accuracy", "rounded_accuracy", "ece", "ece_calibrated"):
        scalars[name] = report[name]
    probabilities = prediction.from_logits(logits, report["temperature"]).probabilities
    with contextlib.closing(events.EventWriter(folder)) as writer:
        for name, image in images.items():
            png = writer.image(name, image, step, description=f"{report['images']} images")
            with atomic_write(folder / f"{name}.png") as file:
                file.write(png)
        writer.scalars(scalars, step)
        for label, name in enumerate(CLASS_NAMES):
            writer.pr_curve(f"pr_curve/{name}", labels == label, probabilities[:, label], step)
    write_json(folder / FILE, report)


def once(trained: Trained, data_dir: str | None = None) -> dict[str, Any]:
    """The report in a run's folder if it is of these weights and data; otherwise that of a new evaluation."""
    if trained.folder:
        known = read(RunFolder(trained.folder).evaluation, weights_sha256=trained.weights_sha256,
                     data_sha256=trained.data["sha256"])
        if known:
            return known
    return evaluate(trained, data_dir=data_dir)[0]


def read(folder: pathlib.Path, *, weights_sha256: str, data_sha256: str) -> dict[str, Any] | None:
    """The report in `folder`; None if there is none, it is damaged, or it is of other weights or data."""
    try:
        report = json.loads((folder / FILE).read_text())
        matrix = np.array(report["confusion"])
        same = report["weights_sha256"] == weights_sha256 and report["data"]["sha256"] == data_sha256
        whole = matrix.sum() == report["images"] and report["accuracy"] == np.trace(matrix) / report["images"]
        return report if same and whole and isinstance(report["nll"] + report["ece"], float) else None
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def text(report: dict[str, Any]) -> str:
    low, high = report["accuracy_95"]
    classes = [("class", "precision", "recall", "F1", "images")]
    for name, row in report["classes"].items():
        shares = (f"{row[column]:.4f}" for column in ("precision", "recall", "f1"))
        classes.append((name, *shares, str(row["support"])))
    confusion = [("true \\ predicted", *(name.split("/")[0] for name in CLASS_NAMES))]
    for name, counts in zip(CLASS_NAMES, report["confusion"]):
        confusion.append((name, *map(str, counts)))
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


def comparison(reports: Sequence[dict[str, Any]], correct: Sequence[np.ndarray]) -> str:
    """A table of evaluations on the same images, and McNemar's test of each pair.

    For each report, `correct` says which images its model classified correctly, (images,) bool.
    """
    table = [("evaluated", "model", "accuracy", "95 %", "NLL", "calibrated", "ECE", "top-2")]
    for one in reports:
        low, high = one["accuracy_95"]
        table.append((one["title"], one["model"], f"{one['accuracy']:.4f}", f"{low:.4f}-{high:.4f}",
                      f"{one['nll']:.4f}", f"{one['nll_calibrated']:.4f}", f"{one['ece']:.4f}",
                      f"{one['top_2_accuracy']:.4f}"))
    pairs = [("right alone", "", "right alone", "", "p")]
    for first, second in itertools.combinations(range(len(reports)), 2):
        alone, other, p = statistics.mcnemar(correct[first], correct[second])
        pairs.append((reports[first]["title"], str(alone), reports[second]["title"], str(other), f"{p:.3g}"))
    return "\n".join([card.aligned(table, numeric=table[0][2:]), "",
                      "McNemar's paired test, exact: images that one got right and the other wrong",
                      card.aligned(pairs, numeric=("p",))])
