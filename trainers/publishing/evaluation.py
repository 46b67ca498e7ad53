"""Evaluations: a trained model is measured on the test images, and the report is written, read back and printed.

Only this module and `fmnist_zoo.data` name the split `test`: training, sweeps and the choice of an epoch never see its
images. TensorFlow and TensorBoard are imported within functions, so that commands can refuse wrong flags at once.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import time
from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from fmnist_zoo import backend, card, metrics, statistics, views
from fmnist_zoo.files import atomic_write, make_folder, write_json
from fmnist_zoo.spec import CLASS_NAMES
from trainers.running import provenance
from trainers.running.folder import EVALUATION, SHIPPED, RunFolder, locked, read_evaluation
from trainers.running.trained import Trained, TrainedError, calibrated, load_data, logits_of, temperature


class Row(NamedTuple):
    """One row of `comparison`: a report, and which of its images were classified correctly, (images,) bool."""

    report: dict[str, Any]
    correct: np.ndarray


def measure(trained: Trained, data_dir: str | None = None) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Measures a trained model on the test images of its data, each image once; writes nothing.

    Returns:
        The report (its figures are those of `figures`), logits (n, 10) float32 and labels (n,) uint8.

    Raises:
        TrainedError: if the data are not those that it was trained on, or are split differently.
        DataError: if the data cannot be found or read.
    """
    trained = calibrated(trained, data_dir)  # refuses other data before the test images are opened
    logits, labels, data = predict_test([trained], "", data_dir)
    return {
        "title": trained.title, "model": trained.spec.name, "seed": trained.seed,
        "weights_sha256": trained.weights_sha256, "data": data,
        **figures(logits, labels, trained.temperature or 1.0), **origin(),
    }, logits, labels


def predict_test(members: Sequence[Trained], tta: str, data_dir: str | None
                 ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """What models predict together of the test images: logits, labels, and which data these are."""
    logits, labels, found = logits_of(members, "test", tta, data_dir)
    return logits, labels, {"name": found.name, "sha256": found.sha256}


def origin() -> dict[str, Any]:
    return {"environment": provenance.record(), "date": time.strftime("%Y-%m-%d")}


def augmented(members: Sequence[Trained], plain: Row, tta: str, data_dir: str | None = None) -> Row:
    """The row beside `plain` of the same models with test-time augmentation, calibrated with it, too.

    Its report has `figures`, `tta`, `views` (their number) and `mcnemar`, of it against `plain`.
    """
    divisor = temperature(members, tta, data_dir)  # refuses other data before the test images are opened
    logits, labels, _ = predict_test(members, tta, data_dir)
    correct = logits.argmax(axis=1) == labels
    report = {"title": f"{plain.report['title']}, tta={tta}", "model": plain.report["model"], "tta": tta,
              "views": len(views.moves(tta)), **figures(logits, labels, divisor)}
    report["mcnemar"] = mcnemar(Row(report, correct), plain)
    return Row(report, correct)


def mcnemar(first: Row, second: Row) -> dict[str, Any]:
    """McNemar's test of the rows, for a report: `against`, `alone` and `other` (images that only the first, or only the
    second, got right), `p`."""
    alone, other, p = statistics.mcnemar(first.correct, second.correct)
    return {"against": second.report["title"], "alone": alone, "other": other, "p": p}


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
             projector: bool = False, tta: str = "") -> Row:
    """Measures a trained model on the test images and writes the report.

    Args:
        logdir: shipped models write to `<logdir>/<model>/shipped/evaluation`; a run writes to its own `evaluation`.
        data_dir: where the data are; default: where the run had them.
        projector: write the files of TensorBoard's projector, too.
        tta: test-time augmentation, such as "shift" (`fmnist_zoo.views`): measured beside, as `report["tta"]`.

    Returns:
        The report (the content of `evaluation.json`), and which images were classified correctly, (images,) bool.

    Raises:
        TrainedError, DataError: as `measure`; also if there are no validation images for the projector.
        LockedError: if another process trains or evaluates in this folder.
    """
    return rows(trained, logdir=logdir, data_dir=data_dir, projector=projector, tta=tta)[0]


def rows(trained: Trained, *, logdir: str | os.PathLike[str] = "tb_logs", data_dir: str | None = None,
         projector: bool = False, tta: str = "") -> list[Row]:
    """As `evaluate`; returns the plain row and, with `tta`, the augmented one."""
    backend.need_tensorflow()
    tta = views.parse(tta)
    shown = load_data(trained, "validation", data_dir)["validation"] if projector else None
    if shown and not len(shown.labels):
        raise TrainedError(f"{trained.title} has no validation images for --projector to show; drop it")
    folder = folder_of(trained, logdir)
    with held(folder.path):
        report, logits, labels = measure(trained, data_dir)
        found = [Row(report, logits.argmax(axis=1) == labels)]
        if tta:
            found.append(augmented([trained], found[0], tta, data_dir))
            report["tta"] = found[1].report
        write(folder.evaluation, report, logits, labels, trained.place)
        if shown:
            from trainers.board.projector import write as write_projector

            write_projector(folder.evaluation, trained.model, shown)
    return found


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Makes a folder for an evaluation and holds it; `LockedError` if another process does."""
    make_folder(folder)
    with locked(folder, "at work"):
        yield


def folder_of(trained: Trained, logdir: str | os.PathLike[str]) -> RunFolder:
    """In whose `evaluation` that of a model is; of a shipped model, that on other data than the published is apart."""
    shipped, shipped_mini = SHIPPED
    name = shipped_mini if trained.data_settings.get("data") == "mini" else shipped
    return RunFolder(trained.folder or pathlib.Path(os.path.expanduser(logdir), trained.spec.folder, name))


def write(folder: pathlib.Path, report: dict[str, Any], logits: np.ndarray, labels: np.ndarray, place: int) -> None:
    """Replaces `folder` with `evaluation.json`, pictures and TensorBoard's events at a `place` on its x axis.

    `loss` and `accuracy` lie on the charts of the run as a dot.
    """
    from fmnist_zoo import prediction
    from trainers.board import events, pictures

    if folder.exists():
        shutil.rmtree(folder)
    make_folder(folder)
    reliability = {name: np.array(values) for name, values in report["reliability"].items()}
    images = {"confusion": pictures.confusion(np.array(report["confusion"])),
              "reliability": pictures.reliability(reliability)}
    scalars = {"loss": report["nll"], "accuracy": report["accuracy"], "accuracy/rounded": report["rounded_accuracy"]}
    for name in ("nll_calibrated", "top_2_accuracy", "ece", "ece_calibrated"):
        scalars[f"test/{name}"] = report[name]
    for name in ("nll", "nll_calibrated", "accuracy", "ece") if "tta" in report else ():
        scalars[f"tta/{name}"] = report["tta"][name]
    probabilities = prediction.from_logits(logits, report["temperature"]).probabilities
    with contextlib.closing(events.EventWriter(folder)) as writer:
        for name, image in images.items():
            png = writer.image(f"pictures/{name}", image, place, description=f"{report['images']} images")
            with atomic_write(folder / f"{name}.png") as file:
                file.write(png)
        writer.scalars(scalars, place)
        for label, name in enumerate(CLASS_NAMES):
            writer.pr_curve(f"pr_curve/{name}", labels == label, probabilities[:, label], place)
        writer.sync()
    write_json(folder / EVALUATION, report)


def once(trained: Trained, data_dir: str | None = None, tta: str = "") -> dict[str, Any]:
    """The report in a run's folder if it is of these weights, data and `tta`; otherwise that of a new evaluation."""
    if trained.folder:
        known = read_evaluation(RunFolder(trained.folder).evaluation, weights_sha256=trained.weights_sha256,
                                data_sha256=trained.data["sha256"])
        if known and (not tta or known.get("tta", {}).get("tta") == views.parse(tta)):
            return known
    return evaluate(trained, data_dir=data_dir, tta=tta)[0]


def row(trained: Trained, report: dict[str, Any], data_dir: str | None = None) -> Row:
    """The row of a report that is known: what the model predicts says which images were classified correctly."""
    logits, labels, _ = predict_test([trained], "", data_dir)
    return Row(report, logits.argmax(axis=1) == labels)


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


def comparison(found: Sequence[Row], pairs: Sequence[tuple[int, int]]) -> str:
    """A table of evaluations on the same images, and McNemar's test of pairs of its rows."""
    table = [("evaluated", "model", "accuracy", "95 %", "NLL", "calibrated", "ECE", "top-2")]
    for one, _ in found:
        low, high = one["accuracy_95"]
        table.append((one["title"], one["model"], f"{one['accuracy']:.4f}", f"{low:.4f}-{high:.4f}",
                      f"{one['nll']:.4f}", f"{one['nll_calibrated']:.4f}", f"{one['ece']:.4f}",
                      f"{one['top_2_accuracy']:.4f}"))
    tests = [("right alone", "", "right alone", "", "p")]
    for first, second in pairs:
        test = mcnemar(found[first], found[second])
        tests.append((found[first].report["title"], str(test["alone"]), test["against"], str(test["other"]),
                      f"{test['p']:.3g}"))
    return "\n".join([card.aligned(table, numeric=table[0][2:]), "",
                      "McNemar's paired test, exact: images that one got right and the other wrong",
                      card.aligned(tests, numeric=("p",))])
