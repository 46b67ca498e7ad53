"""Evaluates trained models on the test images: `python -m trainers.evaluate --run=tb_logs/4D_drop03/first`.

The only file that opens the 10,000 test images. Training, sweeps and the choice of an epoch never see them; what is
published is measured here, once.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any, Sequence

from absl import flags

from trainers import cli as command

if TYPE_CHECKING:
    import numpy as np

    from trainers.running.trained import Trained

USAGE = """
Evaluates finished runs, or the zoo's trained models, on the test images that no training sees.

    python -m trainers.evaluate --model=4D_drop03
    python -m trainers.evaluate --run=tb_logs/4D_drop03/first --projector
    python -m trainers.evaluate --model=4L --model=4D_drop03

Writes evaluation.json, pictures and events for TensorBoard, for a run into its folder. With two or more, a table and
McNemar's paired test between them.
"""
GROUPS = {"What is evaluated": ("run", "model"), "On what": ("data", "data_dir"),
          "What is written": ("logdir", "projector", "json")}
SPLIT = "test"


def define_flags() -> flags.FlagValues:
    """The command's flags, on a `FlagValues` of its own."""
    values = flags.FlagValues()
    flags.DEFINE_multi_string("run", [], "the folder of a finished run; may be given again, for another one",
                              flag_values=values)
    flags.DEFINE_multi_string("model", [], "a model of the zoo, with the weights that come with it; may be given again",
                              flag_values=values)
    flags.DEFINE_enum("data", "fashion_mnist", ("fashion_mnist", "mini"), "for --model: mini: the 500 test images of "
                      "the package's, to try things out; a run is evaluated on its own data", flag_values=values)
    flags.DEFINE_string("data_dir", None, "a folder with the four IDX files; default: where a run had them",
                        flag_values=values)
    flags.DEFINE_string("logdir", "tb_logs", "the log folder: --model writes to <logdir>/<model>/shipped",
                        flag_values=values)
    flags.DEFINE_boolean("projector", False, "show the last hidden layer's features of 2,000 validation images in "
                         "TensorBoard's projector", flag_values=values)
    flags.DEFINE_boolean("json", False, "print JSON instead of text", flag_values=values)
    return values


def measure(trained: Trained, data_dir: str | None = None) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Measures a trained model on the test images of the data that it belongs to, each image once; writes nothing.

    Returns:
        The report (see `evaluation.measure`), logits (n, 10) float32 and labels (n,) uint8.

    Raises:
        TrainedError: if the data are not those that it was trained on, or are split otherwise.
        DataError: if there are none.
    """
    import time

    from fmnist_zoo import prediction
    from fmnist_zoo.data import load_data
    from trainers.publishing import evaluation
    from trainers.running import provenance, trained as trained_models

    trained = trained_models.calibrated(trained, data_dir)  # refuses other data before the test images are opened
    found = load_data((SPLIT,), **trained_models.settings(trained, data_dir))
    trained_models.check(trained, found)
    images, labels = found[SPLIT]
    logits = prediction.outputs_of(trained.model, prediction.as_pixels(images))
    return {
        "title": trained.title, "model": trained.spec.name, "seed": trained.seed,
        "weights_sha256": trained.weights_sha256, "data": {"name": found.name, "sha256": found.sha256},
        **evaluation.measure(logits, labels, trained.temperature or 1.0),
        "environment": provenance.record(), "date": time.strftime("%Y-%m-%d"),
    }, logits, labels


def evaluate(trained: Trained, *, logdir: str | os.PathLike[str] = "tb_logs", data_dir: str | None = None,
             projector: bool = False) -> tuple[dict[str, Any], np.ndarray]:
    """Measures a trained model on the test images, and writes what was found.

    Args:
        trained: from `trainers.running.trained`.
        logdir: where shipped models write, to `<model>/shipped`; a run writes to its own folder. Both to `evaluation/`.
        data_dir: where the data are; default: where the run had them.
        projector: write what TensorBoard's projector shows, too.

    Returns:
        The report (the content of `evaluation.json`), and which images were right, (images,) bool.

    Raises:
        TrainedError, DataError: as `measure`; also if there are no validation images for the projector.
        LockedError: if another process trains or evaluates there.
    """
    from fmnist_zoo import models, prediction
    from trainers.board import projector as projectors
    from trainers.publishing import evaluation
    from trainers.running import folder as folders, trained as trained_models

    shown = trained_models.validation(trained, data_dir)["validation"] if projector else None
    if shown and not len(shown.labels):
        raise trained_models.TrainedError(f"{trained.title} has no validation images for --projector to show; drop it")
    folder = folders.RunFolder(trained.folder or pathlib.Path(
        os.path.expanduser(logdir), trained.spec.name, folders.SHIPPED[not trained.data]))
    folder.path.mkdir(parents=True, exist_ok=True)
    with folders.locked(folder.path, "at work"):
        report, logits, labels = measure(trained, data_dir)
        evaluation.write(folder.evaluation, report, logits, labels, trained.step)
        if shown:
            shown = projectors.points(shown)
            pixels = prediction.as_pixels(shown.images)
            features = prediction.outputs_of(models.feature_model(trained.model), pixels)
            predicted = prediction.outputs_of(trained.model, pixels).argmax(axis=1)
            projectors.write(folder.evaluation, features, shown, predicted)
    return report, logits.argmax(axis=1) == labels


def once(trained: Trained, data_dir: str | None = None) -> dict[str, Any]:
    """The report of a run: the one that stands in its folder, if it is of these weights and data; else a new one."""
    from trainers.publishing import evaluation
    from trainers.running.folder import RunFolder

    standing = evaluation.read(RunFolder(trained.folder or "").evaluation, weights_sha256=trained.weights_sha256,
                               data_sha256=trained.data["sha256"])
    return standing or evaluate(trained, data_dir=data_dir)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return command.main("evaluate", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: flags.FlagValues) -> int:
    if not all(values.run) or not all(values.model) or not values.run and not values.model:
        raise command.UsageError("what is evaluated? --run=FOLDER, or --model=NAME for the zoo's trained weights")
    if values.data == "mini" and (values.run or values.data_dir):
        raise command.UsageError("--data=mini comes with the package and is for --model; drop "
                                 f"{'--run' if values.run else '--data_dir'}")
    from trainers.running import trained

    runs = list(dict.fromkeys(map(os.path.normpath, values.run)))
    records = {path: trained.spec_and_data(run=path)[1] for path in runs}  # refused before TensorFlow starts
    for name in values.model:
        records[name] = trained.spec_and_data(model=name)[1]
        if values.data == "mini":
            records[name] = {**records[name], "sha256": "mini"}
    if len({data["sha256"] for data in records.values()}) > 1:
        raise command.UsageError("trained on different data, these have no images to be compared on: " + ", ".join(
            f"{title} on {data['name']} {data['sha256'][:12]}" for title, data in records.items()))
    from trainers.publishing import evaluation

    subjects = [*map(trained.from_run, runs),
                *(trained.from_zoo(name, data=values.data) for name in dict.fromkeys(values.model))]
    outcomes = [evaluate(subject, logdir=values.logdir, data_dir=values.data_dir, projector=values.projector)
                for subject in subjects]
    reports, hits = [report for report, _ in outcomes], [right for _, right in outcomes]
    if values.json:
        import json

        print(json.dumps(reports[0] if len(reports) == 1 else reports, indent=2))
    elif len(reports) == 1:
        print(evaluation.text(reports[0]))
    else:
        print(evaluation.comparison(reports, hits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
