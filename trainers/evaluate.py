"""Evaluates trained models on the test images: `python -m trainers.evaluate --run=tb_logs/4D_drop03/first`.

TensorFlow is imported only after everything that can be refused without it.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from typing import Sequence

from fmnist_zoo import views
from fmnist_zoo.errors import UsageError
from trainers import cli
from trainers.publishing import ensembles, evaluation
from trainers.publishing.evaluation import Row, evaluate
from trainers.running import trained
from trainers.running.folder import check_writable

__all__ = ["evaluate", "main"]
USAGE = """
Evaluates finished runs, or the zoo's trained models, on the test images that no training sees.

    python -m trainers.evaluate --model=4D_drop03
    python -m trainers.evaluate --run=tb_logs/4D_drop03/first --projector
    python -m trainers.evaluate --model=4L --model=4D_drop03 --ensemble
    python -m trainers.evaluate --run=tb_logs/4D_drop03/first --tta=shift

Writes evaluation.json, pictures and events for TensorBoard; for a run, into its folder. With two or more, it prints a
table and McNemar's paired test between them. --tta and --ensemble add rows of their own, with their own temperature.
"""
GROUPS = {"What is evaluated": ("run", "model", "ensemble", "tta"), "On what": ("data", "data_dir"),
          "What is written": ("logdir", "projector", "json")}


def define_flags() -> cli.Flags:
    values = cli.Flags()
    values.texts("run", "the folder of a finished run; repeat it for more runs")
    values.texts("model", "a model of the zoo, with the weights that come with it; repeat it for more models")
    values.switch("ensemble", "evaluate the mean of their probabilities, too; they must have been trained on the same "
                  "images")
    values.text("tta", views.HELP, "")
    values.choice("data", ("fashion_mnist", "mini"), "for --model only; mini: the 500 test images in the package, to "
                  "try things out; a run is evaluated on its own data", "fashion_mnist")
    values.text("data_dir", "a folder with the four IDX files; default: where a run had them")
    values.text("logdir", "the log folder: --model writes to <logdir>/<model>/shipped, --ensemble to "
                "<logdir>/ensembles", "tb_logs")
    values.switch("projector", "show the last hidden layer's features of 2,000 validation images in TensorBoard's "
                  "projector")
    values.switch("json", "print JSON instead of text")
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main("evaluate", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: cli.Flags) -> int:
    if not all(values.run) or not all(values.model) or not (values.run or values.model):
        raise UsageError("what is evaluated? --run=FOLDER, or --model=NAME for the zoo's trained weights")
    if values.data == "mini" and (values.run or values.data_dir):
        raise UsageError("--data=mini comes with the package and is for --model; drop "
                         f"{'--run' if values.run else '--data_dir'}")
    if values.data_dir and not os.path.isdir(os.path.expanduser(values.data_dir)):
        raise UsageError(f"--data_dir={values.data_dir}: no such folder")
    runs = list(dict.fromkeys(map(os.path.normpath, values.run)))
    models = list(dict.fromkeys(values.model))
    tta, mini = views.parse(values.tta), values.data == "mini"
    _check_data(runs, models, mini=mini, ensemble=values.ensemble)
    for path in runs:
        check_writable(path, "an evaluation goes into the run's folder: make it writable")
    if models or values.ensemble:
        check_writable(values.logdir, "choose another --logdir")
    subjects = [*map(trained.from_run, runs), *(trained.from_zoo(name, data=values.data) for name in models)]
    options = {"logdir": values.logdir, "data_dir": values.data_dir, "tta": tta}
    groups = [evaluation.rows(subject, projector=values.projector, **options) for subject in subjects]
    written = [evaluation.folder_of(subject, values.logdir).evaluation for subject in subjects]
    if values.ensemble:
        groups.append(ensembles.evaluate(subjects, [group[0] for group in groups], **options))
        written.append(ensembles.folder_of(groups[-1][0].report, values.logdir) / "evaluation")
    plain = [group[0].report for group in groups]
    if values.json:
        print(json.dumps(plain[0] if len(plain) == 1 else plain, indent=2))
    elif len(groups) == 1:
        print(evaluation.text(plain[0]) + (f"\n\n{evaluation.comparison(groups[0], [(1, 0)])}" if tta else ""))
    else:
        print(evaluation.comparison([row for group in groups for row in group],
                                    _pairs([group[0] for group in groups], len(subjects), 1 + bool(tta))))
    if not values.json:
        print("", *(f"written: {folder}, with pictures" for folder in written), sep="\n")
    return 0


def _pairs(plain: Sequence[Row], subjects: int, each: int) -> list[tuple[int, int]]:
    """Which rows are tested against each other; each evaluation has `each` rows, the plain one first.

    The models between themselves, an ensemble against its best member, and what is augmented against what is not.
    """
    pairs = list(itertools.combinations(range(subjects), 2))
    if len(plain) > subjects:
        pairs.append((subjects, ensembles.best_of(plain[:subjects])))
    tests = [(first * each, second * each) for first, second in pairs]
    return tests + [(index * each + 1, index * each) for index in range(len(plain)) if each > 1]


def _check_data(runs: Sequence[str], models: Sequence[str], *, mini: bool, ensemble: bool) -> None:
    """Refuses runs and models that cannot be loaded, or were trained on different data."""
    data = {path: trained.spec_and_data(run=path)[1] for path in runs}
    for name in models:
        data[name] = trained.spec_and_data(model=name)[1]
    if len({one["sha256"] for one in data.values()}) > 1 and not mini:
        raise UsageError("trained on different data, these have no images to be compared on: " + ", ".join(
            f"{title} on {one['name']} {one['sha256'][:12]}" for title, one in data.items()))
    if ensemble:
        trained.check_ensemble(data)


if __name__ == "__main__":
    sys.exit(main())
