"""Ensembles: several trained models that predict together, measured on the test images beside their members.

What an ensemble predicts is the mean of its members' probabilities (`fmnist_zoo.views.mean_over_models`), calibrated on
the validation images that they have in common.
"""

from __future__ import annotations

import collections
import hashlib
import os
import pathlib
from typing import Any, Sequence

import numpy as np

from fmnist_zoo import views
from trainers.publishing import evaluation
from trainers.publishing.evaluation import Row
from trainers.running.folder import ENSEMBLES
from trainers.running.trained import Trained, check_ensemble, temperature


def evaluate(members: Sequence[Trained], found: Sequence[Row], *, logdir: str | os.PathLike[str] = "tb_logs",
             data_dir: str | None = None, tta: str = "") -> list[Row]:
    """Measures an ensemble on the test images and writes the report to `<logdir>/ensembles/<name>/evaluation`.

    Args:
        members: trained on the same images, with the same images held out.
        found: the rows of the members' own evaluations, in their order.
        logdir, data_dir, tta: as of `evaluation.evaluate`.

    Returns:
        The ensemble's row and, with `tta`, the augmented one. The report has `members`, and `mcnemar`, against the
        member with the highest accuracy on the same test images: no choice of a member could make the test easier.

    Raises:
        TrainedError: for fewer than two members, or if their data or validation images differ.
    """
    check_ensemble({one.title: one.data for one in members})
    tta = views.parse(tta)
    best = found[best_of(found)]
    report, logits, labels = _measure(members, data_dir)
    ensemble = [Row(report, logits.argmax(axis=1) == labels)]
    report["best_member"], report["mcnemar"] = best.report["title"], evaluation.mcnemar(ensemble[0], best)
    if tta:
        ensemble.append(evaluation.augmented(members, ensemble[0], tta, data_dir))
        report["tta"] = ensemble[1].report
    folder = folder_of(report, logdir)
    with evaluation.held(folder):
        evaluation.write(folder / "evaluation", report, logits, labels, max(one.place for one in members))
    return ensemble


def folder_of(report: dict[str, Any], logdir: str | os.PathLike[str]) -> pathlib.Path:
    """In whose `evaluation` that of an ensemble is."""
    return pathlib.Path(os.path.expanduser(logdir), ENSEMBLES, report["name"])


def best_of(members: Sequence[Row]) -> int:
    """Which member has the highest accuracy; of equal ones, the lowest NLL."""
    return max(range(len(members)), key=lambda index: (members[index].report["accuracy"],
                                                       -members[index].report["nll"]))


def _measure(members: Sequence[Trained], data_dir: str | None) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """As `evaluation.measure`, of an ensemble."""
    divisor = temperature(members, "", data_dir)  # refuses other data before the test images are opened
    logits, labels, data = evaluation.predict_test(members, "", data_dir)
    name, digest = _name(members, data["sha256"])
    return {
        "title": f"ensemble of {len(members)}", "model": name, "name": name, "weights_sha256": digest, "data": data,
        "members": [{"title": one.title, "model": one.spec.name, "seed": one.seed,
                     "weights_sha256": one.weights_sha256} for one in members],
        **evaluation.figures(logits, labels, divisor), **evaluation.origin(),
    }, logits, labels


def _name(members: Sequence[Trained], data_sha256: str) -> tuple[str, str]:
    """An ensemble's name, such as `4D_drop03x2+4L-1a2b3c4d`, and the digest of its weights, in any order of members.

    The name is a folder's. It ends with a digest of weights and data, so that another ensemble does not replace this.
    """
    digest = hashlib.sha256("".join(sorted(one.weights_sha256 for one in members)).encode()).hexdigest()
    counts = sorted(collections.Counter(one.spec.name for one in members).items())
    names = "+".join(name if count == 1 else f"{name}x{count}" for name, count in counts)
    short = hashlib.sha256(f"{digest}{data_sha256}".encode()).hexdigest()[:8]
    return f"{names if len(names) <= 60 else f'{len(members)}_models'}-{short}", digest
