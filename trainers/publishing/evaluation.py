"""Evaluations: the report of a trained model on the test images, with pictures and events; written, read and printed.

TensorFlow and TensorBoard are imported within functions, so that commands can refuse wrong flags at once.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from typing import Any, Mapping, Sequence

import numpy as np

from fmnist_zoo import backend, card
from fmnist_zoo.files import atomic_write, local_path, make_folder, write_json
from fmnist_zoo.spec import CLASS_NAMES
from trainers.metrics_table import FULL_BATCH
from trainers.publishing.measurement import DataSets, Ensemble, Measured, mcnemar
from trainers.running import seeds
from trainers.running.folder import ENSEMBLES, EVALUATION, SHIPPED, RunFolder, locked, read_evaluation
from trainers.running.trained import Trained


def evaluate(trained: Trained, *, logdir: str | os.PathLike[str] = "tb_logs", data_dir: str | None = None
             ) -> dict[str, Any]:
    """Measures a trained model on the test images and writes the report; returns it.

    Args:
        logdir: shipped models write to `<logdir>/<model>/shipped/test`; a run writes to its own `test`.
        data_dir: where the data are; default: where the run had them.

    Raises:
        TrainedError, DataError: as `Measured.report`.
        LockedError: if another process trains or evaluates in this folder.
    """
    return write(Measured(trained, DataSets(data_dir)), logdir=logdir)


def write(measured: Measured, *, logdir: str | os.PathLike[str] = "tb_logs") -> dict[str, Any]:
    """As `evaluate`, of what may have predicted already, and of ensembles."""
    backend.need_tensorflow()
    folder = folder_of(measured, logdir)
    make_folder(folder.parent)
    with locked(folder.parent, "at work"):
        _write(folder, measured)
    return measured.report


def folder_of(measured: Measured, logdir: str | os.PathLike[str]) -> pathlib.Path:
    """The folder of a report. A shipped model has one for the published data, and one for others."""
    subject, log_folder = measured.subject, pathlib.Path(local_path(logdir, "logdir"))
    if isinstance(measured, Ensemble):
        return log_folder / ENSEMBLES / measured.report["name"] / "test"
    shipped, shipped_mini = SHIPPED
    name = shipped_mini if subject.data_settings.get("data") == "mini" else shipped
    return RunFolder(subject.folder or log_folder / subject.spec.folder / name).evaluation


def _write(folder: pathlib.Path, measured: Measured) -> None:
    """Replaces `folder` with `evaluation.json`, pictures and events; `loss` and `accuracy` are dots on the run's
    charts."""
    from trainers.board import events, pictures

    report, (probabilities, labels), epoch = measured.report, measured.tested, measured.epoch
    if folder.exists():
        shutil.rmtree(folder)
    make_folder(folder)
    reliability = {name: np.array(values) for name, values in report["reliability"].items()}
    images = {"confusion": pictures.confusion(np.array(report["confusion"])),
              "reliability": pictures.reliability(reliability)}
    scalars = {"loss": report["nll"], "accuracy": report["accuracy"]}
    with contextlib.closing(events.EventWriter(folder)) as writer:
        for name, image in images.items():
            png = writer.image(f"pictures/{name}", image, epoch, description=f"{report['images']} images")
            with atomic_write(folder / f"{name}.png") as file:
                file.write(png)
        writer.scalars(scalars, epoch)
        for label, name in enumerate(CLASS_NAMES):
            writer.pr_curve(f"pr_curve/{name}", labels == label, probabilities[:, label], epoch)
        writer.sync()
    write_json(folder / EVALUATION, report)


def once(measured: Measured, *, logdir: str | os.PathLike[str] = "tb_logs") -> dict[str, Any]:
    """The report in a run's folder if it is of these weights and data; otherwise that of a new evaluation."""
    subject = measured.subject
    if subject.folder:
        known = read_evaluation(RunFolder(subject.folder).evaluation, weights_sha256=subject.weights_sha256,
                                data_sha256=subject.data["sha256"])
        if known:
            return known
    return write(measured, logdir=logdir)


def text(report: dict[str, Any]) -> str:
    low, high = report["accuracy_95"]
    title = report["title"] if report["title"] == report["model"] else f"{report['title']}: {report['model']}"
    classes = [("class", "precision", "recall", "F1", "images")]
    for name, row in report["classes"].items():
        shares = (f"{row[column]:.4f}" for column in ("precision", "recall", "f1"))
        classes.append((name, *shares, str(row["support"])))
    confusion = [("true \\ predicted", *(name.split("/")[0] for name in CLASS_NAMES))]
    for name, counts in zip(CLASS_NAMES, report["confusion"]):
        confusion.append((name, *map(str, counts)))
    return "\n".join([
        f"{title}, seed {report['seed']}",
        f"  test images       {report['images']} ({report['data']['name']})",
        f"  accuracy          {report['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f})",
        f"  top-2 accuracy    {report['top_2_accuracy']:.4f}",
        *([f"  rounded accuracy  {report['rounded_accuracy']:.4f} (the report's tf.round; 0.9 untrained)"]
          if report["model"].startswith(FULL_BATCH) else []),
        f"  NLL               {report['nll']:.4f}, calibrated {report['nll_calibrated']:.4f} "
        f"(temperature {report['temperature']:.3f})",
        f"  ECE               {report['ece']:.4f}, calibrated {report['ece_calibrated']:.4f}",
        "", card.aligned(classes, numeric=classes[0][1:]),
        "", card.aligned(confusion, numeric=confusion[0][1:]),
    ])


def comparison(found: Sequence[Measured], pairs: Sequence[tuple[Measured, Measured]]) -> str:
    """A table of models that were measured on the same images, and McNemar's test of pairs of them."""
    table = [("evaluated", "model", "accuracy", "95 %", "NLL", "calibrated", "ECE", "top-2")]
    for report in (one.report for one in found):
        low, high = report["accuracy_95"]
        table.append((report["title"], report["model"], f"{report['accuracy']:.4f}", f"{low:.4f}-{high:.4f}",
                      f"{report['nll']:.4f}", f"{report['nll_calibrated']:.4f}", f"{report['ece']:.4f}",
                      f"{report['top_2_accuracy']:.4f}"))
    tests = [("one", "right alone", "the other", "right alone", "p")]
    for first, second in pairs:
        test = mcnemar(first, second)
        tests.append((first.report["title"], str(test["alone"]), test["against"], str(test["other"]),
                      f"{test['p']:.3g}"))
    return "\n".join([card.aligned(table, numeric=table[0][2:]), "",
                      "McNemar's paired test, exact: images that one got right and the other wrong",
                      card.aligned(tests, numeric=("right alone", "p"))])


def differences(models: Mapping[str, seeds.BySeed]) -> list[seeds.Difference]:
    """Between each two of several models, whose reports are given by seed."""
    return seeds.differences(models, ("accuracy", "nll"))


def over_seeds(models: Mapping[str, seeds.BySeed]) -> str:
    """A table of several models, whose reports are given by seed, and their differences, paired by seed."""
    table: list[Sequence[str]] = [("evaluated", "seeds", "accuracy", "NLL", "calibrated", "ECE", "top-2")]
    for title, reports in models.items():
        table.append((title, str(len(reports)), *(
            seeds.mean_and_deviation([report[name] for report in reports.values()])
            for name in ("accuracy", "nll", "nll_calibrated", "ece", "top_2_accuracy"))))
    parts = [card.aligned(table, numeric=table[0][1:])]
    if len(models) > 1:
        parts.append(seeds.text(differences(models)))
    return "\n\n".join(parts)
