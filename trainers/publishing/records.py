"""The rows of `record.csv`: what trained networks reach with a teacher or with more work at prediction, on test images.

Kinds of rows: `student`, a network that had teachers, on single images, a row for each seed; `shifts`, a network's mean
over nine shifts of each image, a row for each seed; `ensemble`, the networks of all seeds together; `ensemble, shifts`,
both.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any, Iterator, Sequence

from fmnist_zoo import files, metrics, registry, results
from fmnist_zoo.results import RECORD_TYPES
from trainers.config import read_record
from trainers.publishing import ensembles, evaluation, scores
from trainers.running import trained

SHIFTS = "shift"  # `fmnist_zoo.views`
KINDS = STUDENT, SHIFTED, ENSEMBLE, BOTH = "student", "shifts", "ensemble", "ensemble, shifts"


def write(subjects: Sequence[trained.Trained], path: str | os.PathLike[str], data_dir: str | None = None) -> None:
    """Puts the rows of finished runs of one model, which differ in their seed, into the table at `path`.

    Nothing is evaluated whose row the table already has, or whose evaluation with shifts is in the run's folder.

    Raises:
        TrainedError, DataError: as `evaluation.evaluate`.
    """
    known = {(row["model"], row["kind"], row["seeds"]): row["weights_sha256"]
             for row in results.read(path, RECORD_TYPES)}
    model, together = subjects[0].spec.name, len(subjects) > 1
    if all(known.get((model, SHIFTED, str(one.seed))) == one.weights_sha256 for one in subjects) \
            and (not together or (model, BOTH, _seeds(subjects)) in known):
        return
    rows = list(_rows(subjects, data_dir))
    order = {name: place for place, name in enumerate(registry.list_models())}
    with files.exclusive(pathlib.Path(path).absolute().parent):
        table = {(row["model"], row["kind"], row["seeds"]): row
                 for row in (*results.read(path, RECORD_TYPES), *rows)}
        places = sorted(table, key=lambda key: (order.get(key[0], len(order)), KINDS.index(key[1]), key[2]))
        results.write([table[key] for key in places], path, RECORD_TYPES)


def _rows(subjects: Sequence[trained.Trained], data_dir: str | None) -> Iterator[dict[str, Any]]:
    folders = [one.folder for one in subjects if one.folder]
    origins = [scores.origin(read_record(folder)) for folder in folders]
    reports = [evaluation.once(one, data_dir, SHIFTS) for one in subjects]
    for subject, report, origin in zip(subjects, reports, origins):
        if subject.recipe.teacher:
            yield _row([subject], STUDENT, "", report, origin, data_dir)
        yield _row([subject], SHIFTED, SHIFTS, report["tta"], origin, data_dir)
    if len(subjects) > 1:
        plain = [evaluation.row(one, report, data_dir) for one, report in zip(subjects, reports)]
        both = ensembles.evaluate(subjects, plain, logdir=folders[0].parents[1], data_dir=data_dir, tta=SHIFTS)
        for kind, tta, one in zip((ENSEMBLE, BOTH), ("", SHIFTS), both):
            yield _row(subjects, kind, tta, one.report, origins[0], data_dir,
                       weights_sha256=both[0].report["weights_sha256"])


def _row(members: Sequence[trained.Trained], kind: str, tta: str, report: dict[str, Any], origin: dict[str, str],
         data_dir: str | None, weights_sha256: str = "") -> dict[str, Any]:
    logits, labels, data = trained.logits_of(members, "validation", tta, data_dir)
    return {
        "model": members[0].spec.name, "kind": kind, "seeds": _seeds(members),
        "val_accuracy": metrics.accuracy(logits, labels), "test_accuracy": report["accuracy"],
        "test_nll": report["nll"], "test_ece": report["ece"], "test_ece_calibrated": report["ece_calibrated"],
        "weights_sha256": weights_sha256 or members[0].weights_sha256, "data_sha256": data.sha256, **origin,
    }


def _seeds(members: Sequence[trained.Trained]) -> str:
    return " ".join(str(one.seed) for one in members)
