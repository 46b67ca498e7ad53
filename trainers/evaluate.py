"""Evaluates trained models on the test images: `python -m trainers.evaluate --run=tb_logs/4D_drop03/first`.

TensorFlow is imported only after everything that can be refused without it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Sequence

from absl import flags

from fmnist_zoo.errors import UsageError
from trainers import cli
from trainers.publishing.evaluation import comparison, evaluate, text
from trainers.running import trained

USAGE = """
Evaluates finished runs, or the zoo's trained models, on the test images that no training sees.

    python -m trainers.evaluate --model=4D_drop03
    python -m trainers.evaluate --run=tb_logs/4D_drop03/first --projector
    python -m trainers.evaluate --model=4L --model=4D_drop03

Writes evaluation.json, pictures and events for TensorBoard; for a run, into its folder. With two or more, it prints a
table and McNemar's paired test between them.
"""
GROUPS = {"What is evaluated": ("run", "model"), "On what": ("data", "data_dir"),
          "What is written": ("logdir", "projector", "json")}


def define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_multi_string("run", [], "the folder of a finished run; repeat it for more runs", flag_values=values)
    flags.DEFINE_multi_string("model", [], "a model of the zoo, with the weights that come with it; repeat it for more "
                              "models", flag_values=values)
    flags.DEFINE_enum("data", "fashion_mnist", ("fashion_mnist", "mini"), "for --model only; mini: the 500 test images "
                      "in the package, to try things out; a run is evaluated on its own data", flag_values=values)
    flags.DEFINE_string("data_dir", None, "a folder with the four IDX files; default: where a run had them",
                        flag_values=values)
    flags.DEFINE_string("logdir", "tb_logs", "the log folder: --model writes to <logdir>/<model>/shipped",
                        flag_values=values)
    flags.DEFINE_boolean("projector", False, "show the last hidden layer's features of 2,000 validation images in "
                         "TensorBoard's projector", flag_values=values)
    flags.DEFINE_boolean("json", False, "print JSON instead of text", flag_values=values)
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main("evaluate", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: flags.FlagValues) -> int:
    if not all(values.run) or not all(values.model) or not (values.run or values.model):
        raise UsageError("what is evaluated? --run=FOLDER, or --model=NAME for the zoo's trained weights")
    if values.data == "mini" and (values.run or values.data_dir):
        raise UsageError("--data=mini comes with the package and is for --model; drop "
                         f"{'--run' if values.run else '--data_dir'}")
    runs = list(dict.fromkeys(map(os.path.normpath, values.run)))
    models = list(dict.fromkeys(values.model))
    _check_data(runs, models, mini=values.data == "mini")
    subjects = [*map(trained.from_run, runs), *(trained.from_zoo(name, data=values.data) for name in models)]
    outcomes = [evaluate(subject, logdir=values.logdir, data_dir=values.data_dir, projector=values.projector)
                for subject in subjects]
    reports, correct = [report for report, _ in outcomes], [images for _, images in outcomes]
    if values.json:
        print(json.dumps(reports[0] if len(reports) == 1 else reports, indent=2))
    else:
        print(text(reports[0]) if len(reports) == 1 else comparison(reports, correct))
    return 0


def _check_data(runs: Sequence[str], models: Sequence[str], *, mini: bool) -> None:
    """Refuses runs and models that cannot be loaded, or were trained on different data."""
    data = {path: trained.spec_and_data(run=path)[1] for path in runs}
    for name in models:
        data[name] = trained.spec_and_data(model=name)[1]
    if len({one["sha256"] for one in data.values()}) > 1 and not mini:
        raise UsageError("trained on different data, these have no images to be compared on: " + ", ".join(
            f"{title} on {one['name']} {one['sha256'][:12]}" for title, one in data.items()))


if __name__ == "__main__":
    sys.exit(main())
