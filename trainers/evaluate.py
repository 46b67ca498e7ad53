"""Evaluates trained models on the test images: `python -m trainers.evaluate --run=tb_logs/4D_drop03/first`.

TensorFlow is imported only after everything that can be refused without it.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from typing import Sequence

from fmnist_zoo.errors import UsageError
from trainers import cli
from trainers.publishing import evaluation
from trainers.publishing.evaluation import evaluate
from trainers.publishing.measurement import DataSets, Ensemble, Measured
from trainers.running import listing, trained
from trainers.running.folder import check_writable

__all__ = ["evaluate", "main"]
USAGE = """
Evaluates finished runs, or the zoo's trained models, on the test images that no training sees.

    python -m trainers.evaluate --model=4D_drop03
    python -m trainers.evaluate --run=tb_logs/4D_drop03/first
    python -m trainers.evaluate --model=4L --model=4D_drop03 --ensemble
    python -m trainers.evaluate --run=4L/seeds --run=4D_drop03/seeds

Writes evaluation.json, pictures and events for TensorBoard; for a run, into its folder. With two or more, it prints a
table and McNemar's paired test between them. A folder with several seeds is one: mean, deviation, and differences that
are paired by seed; what was evaluated before is not evaluated again. --ensemble adds a row of its own, with its own
temperature.
"""
GROUPS = {"What is evaluated": ("run", "model", "ensemble"), "On what": ("data", "data_dir"),
          "What is written": ("logdir", "json")}


def define_flags() -> cli.Flags:
    values = cli.Flags()
    values.paths("run", "a finished run, such as 4L/first; repeat it for more runs")
    values.texts("model", "a model of the zoo, with the weights that come with it; repeat it for more models")
    values.switch("ensemble", "evaluate the mean of their probabilities, too; they must have been trained on the same "
                  "images")
    values.choice("data", ("fashion_mnist", "mini"), "for --model only; mini: the 500 test images in the package, to "
                  "try things out; a run is evaluated on its own data", "fashion_mnist")
    values.path("data_dir", "a folder with the four IDX files; default: where a run had them")
    values.path("logdir", "the log folder: --model writes to <logdir>/<model>/shipped, --ensemble to "
                "<logdir>/ensembles", "tb_logs")
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
    if values.data_dir and not os.path.isdir(values.data_dir):
        raise UsageError(f"--data_dir={values.data_dir}: no such folder")
    groups = {listing.mean(lines).folder: [line.folder for line in lines]
              for lines in (listing.named(name, values.logdir) for name in values.run)}
    several = any(len(paths) > 1 for paths in groups.values()) and not values.ensemble
    runs = list(dict.fromkeys(path for paths in groups.values() for path in paths))
    models = list(dict.fromkeys(values.model))
    _check_data(runs, models, mini=values.data == "mini", ensemble=values.ensemble)
    for path in runs:
        check_writable(path, "an evaluation goes into the run's folder: make it writable")
    if models or values.ensemble:
        check_writable(values.logdir, "choose another --logdir")
    subjects = [*map(trained.from_run, runs), *(trained.from_zoo(name, data=values.data) for name in models)]
    data_sets = DataSets(values.data_dir)
    measured = [Measured(subject, data_sets) for subject in subjects]
    if several:
        found = dict(zip([*runs, *models], measured))
        by_seed = {title: {found[path].subject.seed: evaluation.once(found[path], logdir=values.logdir)
                           for path in paths}
                   for title, paths in {**groups, **{name: [name] for name in models}}.items()}
        if values.json:
            print(json.dumps({"reports": [report for of_model in by_seed.values() for report in of_model.values()],
                              "differences": [one._asdict() for one in evaluation.differences(by_seed)]}, indent=2))
        else:
            print(evaluation.over_seeds(by_seed))
        return 0
    for one in measured:
        evaluation.write(one, logdir=values.logdir)
    pairs = list(itertools.combinations(measured, 2))
    if values.ensemble:
        together = Ensemble(measured)
        evaluation.write(together, logdir=values.logdir)
        pairs.append((together, together.best))
        measured.append(together)
    reports = [one.report for one in measured]
    if values.json:
        print(json.dumps(reports[0] if len(reports) == 1 else reports, indent=2))
        return 0
    print(evaluation.text(reports[0]) if len(reports) == 1 else evaluation.comparison(measured, pairs), end="\n\n")
    print(*(f"written: {evaluation.folder_of(one, values.logdir)}, with pictures" for one in measured), sep="\n")
    return 0


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
