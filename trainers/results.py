"""Recomputes the zoo's scores: `python -m trainers.results`, or checks rows by training them again: `--check`.

The protocol: each model as its recipe in the registry says, five seeds, fit and validation images from the 60,000, the
epoch chosen as the recipe says (lowest validation loss, or the last), and the test images opened once a row. The column
`seconds` says how long the rows take; after an interruption, the same command continues.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any, Iterator, Sequence

from fmnist_zoo import card, catalog, results
from fmnist_zoo.errors import UsageError
from trainers import cli
from trainers.config import RunConfig, names_in
from trainers.engine import compile_cache
from trainers.publishing import scores
from trainers.publishing.measurement import DataSets, Measured
from trainers.running import batch, trained
from trainers.running.folder import RunFolder

USAGE = """
Trains every model of the zoo with five seeds, evaluates each once on the test images, and writes a row for each. A
table of your own has models of yours, or changed ones, and no scores of the test images unless you say --test.

    python -m trainers.results
    python -m trainers.results --models=softmax,4D* --dry_run
    python -m trainers.results --models=4N_512 --ensemble
    python -m trainers.results --models=4L,4D_drop03 --out=mine.csv
    python -m trainers.results --check --models=softmax --seeds=1
"""
GROUPS = {"Which rows": ("models", "seeds", "ensemble", "check", "dry_run"), "On what": ("data", "data_dir"),
          "Where it goes": ("logdir", "out", "test", "ship")}


def define_flags() -> cli.Flags:
    values = cli.Flags()
    values.text("models", "names or patterns such as 4D*, separated by commas", "*")
    values.seed_list("seeds", "how many, from 0 on, or a list such as 0,3,7 (`3,` is seed 3 alone)", range(5))
    values.switch("ensemble", "also a row of each model's seeds together")
    values.switch("check", "train the rows again in a temporary folder and compare them with those in --out; writes "
                  "nothing")
    values.switch("dry_run", "print the runs and train nothing")
    values.choice("data", ("fashion_mnist", "mini"), "mini: 2,000 images in the package; needs --out", "fashion_mnist")
    values.path("data_dir", "a folder with the four IDX files")
    values.path("logdir", "the log folder; runs that it already holds are used", "tb_logs")
    values.path("out", "a table of your own; default: the package's results.csv")
    values.switch("test", "with --out: open the test images, once a row; without it, the row has no scores of them")
    values.switch("ship", "also write the package's trained weights: those of the first seed")
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main("results", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: cli.Flags) -> int:
    os.environ[compile_cache.VARIABLE] = "0"  # the seconds of a row include those of compiling
    out = values.out or str(results.PATH)
    publishes = values.ship or os.path.abspath(out) == str(results.PATH)
    if values.data == "mini" and publishes:
        raise UsageError("--data=mini is to try things out: name another table with --out=FILE, without --ship")
    data_dir = values.data_dir
    seeds = values.seeds
    runs = scores.plan(names_in(values.models), seeds, data=values.data, data_dir=data_dir)
    if not runs:
        raise UsageError("no rows: --models and --seeds name none")
    others = [run.spec.name for run in runs if run.spec.name not in catalog.NAMES]
    if others and publishes:
        raise UsageError(f"the package's scores and weights are of its own models, and {others[0]} is none of them: "
                         "name another table with --out=FILE, without --ship")
    blind = ", ".join(dict.fromkeys(run.spec.name for run in runs if not run.recipe.validation_size))
    if blind:
        raise UsageError(f"a row has a validation accuracy, and the recipe of {blind} holds out no images "
                         "(validation_size=0)")
    if values.ensemble and not (publishes or values.test):
        raise UsageError("an ensemble is measured on the test images: add --test")
    if values.ensemble and (values.check or len(seeds) < 2):
        raise UsageError("--check trains single networks; drop --ensemble" if values.check else
                         "an ensemble has two members or more: name more --seeds")
    if values.dry_run:
        for run in runs:
            print(f"{run.spec.name}, seed {run.seed}: {card.counted(run.recipe.epochs, 'epoch')}, batch size "
                  f"{run.recipe.batch_size}")
        print(card.counted(len(runs), "run"))
        return 0
    published, parent = results.read(out), os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(parent):
        raise UsageError(f"--out={out}: {parent}: no such folder")
    with cli.StopSignal() as stop:
        if values.check:
            return _check(runs, published, data_dir, stop)
        finished = batch.finish(runs, values.logdir, stop)
        measured = _write(finished, values, out, publishes or values.test)
        if len(measured) < len(runs):
            raise cli.Interrupted(stop.number, "interrupted; the same command continues")
    print(f"written: {out}")
    if values.ship:
        from trainers.publishing import shipping

        print(shipping.ship([one for one in measured if one.subject.seed == seeds[0]]))
    return 0


def _write(finished: Iterator[RunFolder], values: cli.Flags, out: str, test: bool) -> list[Measured]:
    """Writes a row for each finished run, and with --ensemble one of each model's seeds together."""
    data_sets, measured, together = DataSets(values.data_dir), [], len(values.seeds)
    for folder in finished:
        measured.append(Measured(trained.from_run(folder.path), data_sets))
        rows = [scores.row(measured[-1], test=test)]
        if values.ensemble and not len(measured) % together:
            rows.append(scores.ensemble_row(measured[-together:], values.logdir))
        scores.add(rows, out)
    return measured


def _check(runs: Sequence[RunConfig], published: list[dict[str, Any]], data_dir: str | None,
           stop: cli.StopSignal) -> int:
    known = {(one["model"], one["seed"]): one for one in published}
    absent = [f"{run.spec.name}, seed {run.seed}" for run in runs if (run.spec.name, str(run.seed)) not in known]
    if absent:
        raise UsageError(f"no published row to check: {'; '.join(absent)}")
    verdicts = []
    with tempfile.TemporaryDirectory() as logdir:
        for folder in batch.finish(runs, logdir, stop):
            one = Measured(trained.from_run(folder.path), DataSets(data_dir))
            row = known[one.subject.spec.name, str(one.subject.seed)]
            again = scores.row(one, test=row["test_accuracy"] is not None)
            reproduced, lines = scores.compare(row, again, published)
            print(lines, flush=True)
            verdicts.append(reproduced)
    if len(verdicts) < len(runs):
        raise cli.Interrupted(stop.number, "interrupted")
    return 0 if all(verdicts) else cli.FAILURE


if __name__ == "__main__":
    sys.exit(main())
