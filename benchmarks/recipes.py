"""What each setting of a recipe is worth: alone (the table in docs/recipes.md), or as a part of a good recipe.

    python -m benchmarks.recipes                    # each added to 4L: 3 seeds, about half an hour on two cores
    python -m benchmarks.recipes --table=left_out   # each left out of a good recipe, or added: about an hour and a half
    python -m benchmarks.recipes --settings=ema=0.999 --settings=shift=1,flip=true

Each line is the same recipe with one change, measured on the validation images: the test images are not opened.
Differences are paired by seed. Runs that the log folder holds are used, so an interrupted table continues. With
`--rows=benchmarks/recipes.csv` the figures of each run are kept in that file, too, and a run that it holds is not
trained again: a table may come from several machines.
"""

from __future__ import annotations

import argparse
import csv
import os
import pathlib
import statistics
import sys
from typing import Any, NamedTuple, Sequence

from benchmarks import command
from fmnist_zoo import settings
from fmnist_zoo.files import atomic_write, exclusive
from trainers import cli
from trainers.config import SETTINGS, ConfigError, RunConfig, resolve
from trainers.engine.processor import machine
from trainers.running import provenance
from trainers.running.folder import RunFolder

ROWS_FILE, SEEDS = pathlib.Path(__file__).with_name("recipes.csv"), (1, 2, 3)
BEGIN, END = "<!-- recipes: python -m benchmarks.recipes --table={} -->", "<!-- /recipes: {} -->"
FIGURES = ("nll", "accuracy", "epoch", "seconds")  # the numbers of a row
HEAD = ("change", "validation NLL", "difference", "p", "validation accuracy", "difference", "p", "best epoch",
        "s an epoch")


class Key(NamedTuple):
    """What a run is, as text that a file can hold."""

    model: str
    data: str
    settings: str
    seed: int


class Table(NamedTuple):
    """A recipe, and the changes to it that are compared; each is settings, such as `shift=1,flip=true`."""

    model: str
    base: str
    changes: tuple[str, ...]
    data: str = "fashion_mnist"

    def keys(self, seeds: Sequence[int]) -> dict[str, list[Key]]:
        """The runs of the recipe, whose name is "", and of each change, which replaces what the recipe says."""
        return {text: [Key(self.model, self.data, self._merged(text), seed) for seed in seeds]
                for text in ("", *self.changes)}

    def _merged(self, text: str) -> str:
        merged = {name: value for name, _, value in (part.partition("=") for part in f"{self.base},{text}".split(",")
                                                     if part)}
        return ",".join(f"{name}={value}" for name, value in merged.items())


TABLES = {
    "alone": Table("4L", "", (
        "schedule=cosine", "schedule=one_cycle", "schedule=cosine,warmup=0.05", "label_smoothing=0.1", "ema=0.999",
        "clip_norm=1", "optimizer=adamw", "shift=1", "flip=true", "erase=8", "mixup=0.2", "teacher=4D_drop03",
        "dropout=0.3", "activation=gelu", "normalization=batch",
        "schedule=cosine,ema=0.999,label_smoothing=0.1,dropout=0.3,flip=true")),
    "left_out": Table("4L", (
        "hidden=256_256_256,activation=gelu,normalization=batch,dropout=0.1,epochs=20,optimizer=adamw,"
        "learning_rate=0.004,weight_decay=0.05,schedule=cosine,warmup=0.05,label_smoothing=0.05,mixup=0.2,"
        "weights=last"), (
        "schedule=constant,warmup=0", "warmup=0", "learning_rate=0.001", "hidden=128_128_128", "hidden=512_512_512",
        "hidden=256_256", "hidden=256_256_256_256", "activation=relu", "normalization=none", "normalization=layer",
        "dropout=0", "dropout=0.25", "weight_decay=0",
        "label_smoothing=0", "mixup=0", "mixup=0.5", "shift=1", "flip=true", "erase=6", "ema=0.999", "epochs=10",
        "epochs=40")),
}


def parse(text: str) -> dict[str, Any]:
    """`ema=0.999,flip=true` as settings; `ConfigError` or `SpecError` for names and values that no run has."""
    found = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in SETTINGS:
            raise ConfigError(f"a run has no setting {name!r}, received {text!r}")
        found[name] = settings.parse(name, SETTINGS[name].kind, value)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.recipes", __doc__)
    parser.add_argument("--table", choices=tuple(TABLES), default="alone", help="which recipe and which changes")
    parser.add_argument("--model", help="another than the table's")
    parser.add_argument("--seeds", type=command.list_of(command.count), default=list(SEEDS))
    parser.add_argument("--settings", action="append", help="one change instead of the table's, such as ema=0.999")
    parser.add_argument("--epochs", type=command.count)
    parser.add_argument("--data", choices=command.DATA, default="fashion_mnist")
    parser.add_argument("--logdir", default="tb_logs/recipes")
    parser.add_argument("--rows", type=pathlib.Path, help="a CSV file with the figures of each run, which grows")
    parser.add_argument("--page", type=pathlib.Path, help="the page whose table is replaced, such as docs/recipes.md")
    options = parser.parse_args(arguments)
    return cli.run("recipes", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    from trainers.running import batch

    plan = TABLES[options.table]._replace(data=options.data)
    plan = plan._replace(model=options.model or plan.model, changes=tuple(options.settings or plan.changes),
                         base=f"{plan.base},epochs={options.epochs}" if options.epochs else plan.base)
    keys, rows, commit = plan.keys(options.seeds), read(options.rows), provenance.commit()
    runs = {key: _config(key) for seed in zip(*keys.values()) for key in seed if key not in rows}
    with cli.StopSignal() as stop:
        for key, folder in zip(runs, batch.finish(list(runs.values()), os.path.expanduser(options.logdir), stop)):
            rows[key] = _measure(folder)
            _add(options.rows, key, rows[key], commit)
        if stop():
            print("interrupted; the same command continues")
            return 128 + stop.number
    return _show(options, table({text: [rows[key] for key in keys[text]] for text in keys}))


def _show(options: argparse.Namespace, text: str) -> int:
    """Prints the table, and puts it into the page."""
    print(text)
    if options.page:
        command.replace_between(options.page, BEGIN.format(options.table), END.format(options.table), text)
    return 0


def _config(key: Key) -> RunConfig:
    return resolve(key.model, **{"data": key.data, "histogram_every": 0, "seed": key.seed, **parse(key.settings)})


def _measure(folder: RunFolder) -> dict[str, Any]:
    """Of a finished run: the validation figures of the weights that count, and the median time of an epoch."""
    final = (folder.read_result() or {})["final"]
    return {"nll": final["val_loss"], "accuracy": final["val_accuracy"], "epoch": final["epoch"],
            "seconds": statistics.median(row["seconds"] for row in folder.rows())}


def read(path: pathlib.Path | None) -> dict[Key, dict[str, Any]]:
    """The figures of the runs that a file holds; none without a file."""
    if path is None or not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {Key(row["model"], row["data"], row["settings"], int(row["seed"])):
                {name: float(row[name]) for name in FIGURES} for row in csv.DictReader(file)}


def _add(path: pathlib.Path | None, key: Key, figures: dict[str, Any], commit: str) -> None:
    """Adds a run's figures to the file, with the processor and the commit; other processes may do so too.

    The commit is that of the start: the file itself may be a part of what it says.
    """
    if path is None:
        return
    columns = (*Key._fields, *FIGURES, "processor", "commit")
    with exclusive(path.absolute().parent):
        before = path.read_text(encoding="utf-8") if path.exists() else ",".join(columns) + "\n"
        with atomic_write(path, "w") as file:
            file.write(before)
            values = (*key, *(figures[name] for name in FIGURES), machine()["cpu"], commit)
            csv.writer(file, lineterminator="\n").writerow(values)


def table(by_change: dict[str, list[dict[str, float]]]) -> str:
    """The table as Markdown. The first change is what all others are compared with."""
    base, *others = by_change
    rows = [HEAD, ("---", *["---:"] * (len(HEAD) - 1)), _row("as it is", by_change[base], None)]
    rows += [_row(f"`{text}`", by_change[text], by_change[base]) for text in others]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(name: str, runs: list[dict[str, float]], base: list[dict[str, float]] | None) -> tuple[str, ...]:
    cells = []
    for figure in ("nll", "accuracy"):
        cells.append(f"{statistics.mean(run[figure] for run in runs):.4f}")
        cells += _difference(runs, base, figure) if base else ["", ""]
    epoch = statistics.mean(run["epoch"] for run in runs)
    return (name, *cells, f"{epoch:.0f}", f"{statistics.median(run['seconds'] for run in runs):.2f}")


def _difference(runs: list[dict[str, float]], base: list[dict[str, float]], figure: str) -> list[str]:
    """The mean difference, and the p of a paired t-test over seeds."""
    import numpy as np

    from fmnist_zoo.statistics import compare

    ours, theirs = (np.array([run[figure] for run in one]) for one in (runs, base))
    found = compare(ours, theirs, lower_is_better=figure == "nll")
    return [f"{found.difference:+.4f}", "" if found.p is None else f"{found.p:.2g}"]


if __name__ == "__main__":
    sys.exit(main())
