"""Recomputes the zoo's scores: `python -m trainers.results`, or checks rows by training them again: `--check`.

The protocol: each model as its recipe in the registry says, five seeds, fit and validation images from the 60,000, the
epoch chosen as the recipe says (lowest validation loss, or the last), and the test images opened once a row. Rows are
trained one after another, without the cache of compiled programs: the column `seconds` is right if the machine does
nothing else. A row that the table has from this engine (`provenance.engine`) is not trained again, so that after an
interruption the same command continues.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from typing import Any, Sequence

from fmnist_zoo import card, catalog, results
from fmnist_zoo.errors import UsageError
from trainers import cli
from trainers.config import RunConfig, names_in
from trainers.engine import compile_cache
from trainers.publishing import scores
from trainers.publishing.measurement import DataSets, Measured
from trainers.running import batch, provenance, trained

USAGE = """
Trains every model of the zoo with five seeds, evaluates each once on the test images, and writes a row for each. Rows
that the table has already, of the same code, recipe and images, are not trained again. A table of your own has models
of yours, or changed ones, and no scores of the test images unless you say --test.

    python -m trainers.results
    python -m trainers.results --models=softmax,4D* --dry_run
    python -m trainers.results --models=4N_512 --ensemble
    python -m trainers.results --models=4N_512 --all_images
    python -m trainers.results --models=4L,4D_drop03 --out=mine.csv
    python -m trainers.results --check --models=softmax --seeds=1
"""
GROUPS = {"Which rows": ("models", "seeds", "all_images", "ensemble", "check", "dry_run"),
          "On what": ("data", "data_dir"), "Where it goes": ("logdir", "out", "test", "ship")}


def define_flags() -> cli.Flags:
    values = cli.Flags()
    values.text("models", "names or patterns such as 4D*, separated by commas; all for the package's table", "")
    values.seed_list("seeds", "how many, from 0 on, or a list such as 0,3,7 (`3,` is seed 3 alone)", range(5))
    values.switch("ensemble", "also a row of each model's seeds together")
    values.switch("all_images", "train on all 60,000 images, without validation, and keep the last weights: rows of "
                  "their own")
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
    if not values.models and not publishes:
        raise UsageError("which models are to be in your table? --models=4L,4D_drop03, or --models='*' for all")
    data_dir = values.data_dir
    seeds = values.seeds
    settings = {"validation_size": 0} if values.all_images else {}
    runs = scores.plan(names_in(values.models) or ["*"], seeds, data=values.data, data_dir=data_dir, **settings)
    if not runs:
        raise UsageError("no rows: --models and --seeds name none")
    others = [run.spec.name for run in runs if run.spec.name not in catalog.NAMES]
    if others and publishes:
        raise UsageError(f"the package's scores and weights are of its own models, and {others[0]} is none of them: "
                         "name another table with --out=FILE, without --ship")
    if values.all_images and (values.ensemble or values.ship):
        raise UsageError("--ensemble and --ship are of networks that have validation images; drop --all_images")
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
        print(f"{card.counted(len(runs), 'row')} in all", flush=True)
        shipped = _fill(runs, out, values.logdir, data_dir, stop, ensemble=values.ensemble,
                        test=publishes or values.test, ship=seeds[0] if values.ship else None)
    print(f"written: {out}")
    if values.ship:
        from trainers.publishing import shipping

        print(shipping.ship(shipped))
    return 0


def _fill(runs: Sequence[RunConfig], out: str, logdir: str, data_dir: str | None, stop: cli.StopSignal, *,
          test: bool, ensemble: bool, ship: int | None) -> list[Measured]:
    """Writes the rows that the table lacks, or has from another engine or of other data.

    Args:
        test: the rows have scores of the test images.
        ensemble: also a row of all seeds of each model.
        ship: the seed whose networks are wanted, whatever rows there are; None: none.

    Returns:
        The networks of that seed.

    Raises:
        cli.Interrupted: after a signal, with the rows of all finished runs written.
    """
    from fmnist_zoo.data import load_data

    data_sets, wanted = DataSets(data_dir), []
    sha256 = load_data(**runs[0].data_settings).sha256  # all runs have the same images
    rows = {(*results.key(row), row["engine"]) for row in results.read(out)
            if row["data_sha256"] == sha256 and (row["test_accuracy"] is not None or not test)}
    for _, same in itertools.groupby(runs, key=lambda run: run.spec.name):
        of_model = list(same)
        engine = provenance.engine(of_model[0])
        together = (of_model[0].spec.name, " ".join(str(run.seed) for run in of_model), False)
        whole = ensemble and (*together, engine) not in rows
        missing = [run for run in of_model if whole or run.seed == ship or (*_key(run), engine) not in rows]
        measured = []
        for folder in batch.finish(missing, logdir, stop, current=True):
            measured.append(Measured(trained.from_run(folder.path), data_sets))
            scores.add([scores.row(measured[-1], test=test)], out)
        if len(measured) < len(missing):
            raise cli.Interrupted(stop.number, "interrupted; the same command continues")
        if whole:
            scores.add([scores.ensemble_row(measured, logdir)], out)
        wanted += [one for one in measured if one.subject.seed == ship]
    return wanted


def _key(run: RunConfig) -> tuple[str, str, bool]:
    return run.spec.name, str(run.seed), not run.recipe.validation_size


def _check(runs: Sequence[RunConfig], published: list[dict[str, Any]], data_dir: str | None,
           stop: cli.StopSignal) -> int:
    known = {results.key(one): one for one in published}
    absent = [f"{run.spec.name}, seed {run.seed}" for run in runs if _key(run) not in known]
    if absent:
        raise UsageError(f"no published row to check: {'; '.join(absent)}")
    verdicts = []
    with tempfile.TemporaryDirectory() as logdir:
        for folder in batch.finish(runs, logdir, stop):
            one = Measured(trained.from_run(folder.path), DataSets(data_dir))
            row = known[one.subject.spec.name, str(one.subject.seed), not one.subject.recipe.validation_size]
            again = scores.row(one, test=row["test_accuracy"] is not None)
            reproduced, lines = scores.compare(row, again, published)
            print(lines, flush=True)
            verdicts.append(reproduced)
    if len(verdicts) < len(runs):
        raise cli.Interrupted(stop.number, "interrupted")
    return 0 if all(verdicts) else cli.FAILURE


if __name__ == "__main__":
    sys.exit(main())
