"""What recipes reach: each change to a recipe, compared with it, or short trainings, timed.

    python -m benchmarks.recipes                    # each setting added to 4L: 3 seeds, half an hour on two cores
    python -m benchmarks.recipes --table=left_out   # each left out of a good recipe, or added: an hour and a half
    python -m benchmarks.recipes --settings ema=0.999 shift=1,flip=true
    python -m benchmarks.recipes --table=left_out --certain --plot=docs/pictures/left_out.png
    python -m benchmarks.recipes --table=short      # prints the table of short trainings
    python -m benchmarks.recipes --table=short --model=4L --settings=hidden=512_512,epochs=4,weights=last

Comparisons are measured on the validation images: the test images are not opened. Differences are paired by seed, and p
is of a paired t-test, corrected by Holm for all tests of a table. Runs that the log folder or the file of rows holds
are not trained again, so an interrupted table continues, and a table may come from several machines.

Of a short training, each seed trains in a process of its own that compiles everything, and is evaluated once on the
test images. The seconds are those of training, with tracing and compiling; imports, reading data, validation and
logging do not count. A second column has those of the first seed once more, with the programs in the user's cache.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pathlib
import statistics
import sys
import tempfile
from typing import Any, NamedTuple, Sequence

from benchmarks import command
from fmnist_zoo import card, settings
from fmnist_zoo.backend import environment
from fmnist_zoo.files import atomic_write
from fmnist_zoo.statistics import LEVEL, holm, paired
from trainers import cli
from trainers.config import SETTINGS, ConfigError, resolve
from trainers.engine import compile_cache
from trainers.engine.processor import machine
from trainers.running import plotting, provenance
from trainers.running.folder import RunFolder

SHORT = "short"
KEY = ("model", "data", "settings", "seed")  # of a run, in a file of rows
HEAD: tuple[str, ...] = (
    "change", "validation NLL", "difference", "p (Holm)", "validation accuracy", "difference", "p (Holm)",
    "best epoch", "s an epoch")
FIGURES = {"nll": "validation NLL", "accuracy": "validation accuracy"}
Row = dict[str, Any]


class Comparison(NamedTuple):
    """A recipe, and the changes to it that are compared; each is settings, such as `shift=1,flip=true`."""

    model: str
    recipe: str
    changes: tuple[str, ...]

    def settings(self, change: str) -> str:
        """Of the changed recipe: a change replaces what the recipe says."""
        merged = dict(part.split("=", 1) for part in f"{self.recipe},{change}".split(",") if part)
        return ",".join(f"{name}={value}" for name, value in merged.items())


COMPARISONS = {
    "alone": Comparison("4L", "", (
        "schedule=cosine", "schedule=one_cycle", "schedule=cosine,warmup=0.05", "label_smoothing=0.1", "ema=0.999",
        "clip_norm=1", "optimizer=adamw", "shift=1", "flip=true", "erase=8", "mixup=0.2", "teacher=4D_drop03",
        "dropout=0.3", "activation=gelu", "normalization=batch",
        "schedule=cosine,ema=0.999,label_smoothing=0.1,dropout=0.3,flip=true")),
    "left_out": Comparison("4L", (
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
    parser.add_argument("--table", choices=(*COMPARISONS, SHORT), default="alone", help="which recipes")
    parser.add_argument("--model", help="of a short training, or another than the comparison's")
    parser.add_argument("--settings", nargs="+", help="changes instead of the comparison's, such as ema=0.999; or what "
                        "a short training has in place of its model's recipe")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 1 2 3; of short trainings 0 1 2 3 4")
    parser.add_argument("--epochs", type=command.count, help="of a comparison")
    parser.add_argument("--data", choices=command.DATA, default="fashion_mnist")
    parser.add_argument("--logdir", default="tb_logs/recipes", help="of a comparison's runs")
    parser.add_argument("--rows", type=command.file_to_write, help="the CSV file of rows; default: that of the table "
                        "beside this module")
    parser.add_argument("--page", type=pathlib.Path, help="the page whose table is replaced, such as docs/recipes.md")
    parser.add_argument("--certain", action="store_true", help="of a comparison: only the changes with a p below "
                        f"{LEVEL}")
    parser.add_argument("--plot", type=command.file_to_write, help="of a comparison: a PNG file of all its differences")
    parser.add_argument("--worker", action="store_true", help="train a short training's first seed here; prints JSON")
    options = parser.parse_args(arguments)
    options.rows = options.rows or pathlib.Path(__file__).with_name(f"{options.table}.csv")
    return cli.run("recipes", lambda: _short(options) if options.table == SHORT else _compare(options))


def _compare(options: argparse.Namespace) -> int:
    """Trains the runs of a comparison that are missing, and shows its table."""
    from trainers.running import batch

    plan = COMPARISONS[options.table]
    recipe = f"{plan.recipe},epochs={options.epochs}" if options.epochs else plan.recipe
    plan = Comparison(options.model or plan.model, recipe, tuple(options.settings or plan.changes))
    rows = {_key(row): row for row in read(options.rows)}
    seeds = options.seeds or (1, 2, 3)
    keys = {change: [(plan.model, options.data, plan.settings(change), str(seed)) for seed in seeds]
            for change in ("", *plan.changes)}
    runs = {key: resolve(key[0], **{"data": key[1], "histogram_every": 0, "seed": int(key[3]), **parse(key[2])})
            for seed in zip(*keys.values()) for key in seed if key not in rows}
    commit = provenance.commit()  # of the start: the file of rows may be a part of what it says
    with cli.StopSignal() as stop:
        for key, folder in zip(runs, batch.finish(list(runs.values()), os.path.expanduser(options.logdir), stop)):
            rows[key] = {**dict(zip(KEY, key)), **_measure(folder), "processor": machine()["cpu"], "commit": commit}
            put(options.rows, rows[key], KEY)
        if stop():
            print("interrupted; the same command continues")
            return 128 + stop.number
    by_change = {change: [rows[key] for key in keys[change]] for change in keys}
    if options.plot:
        plot(by_change, options.plot)
    certain = " --certain" if options.certain else ""
    command.show(comparison_table(by_change, certain=options.certain), options.page,
                 f"recipes: python -m benchmarks.recipes --table={options.table}{certain}")
    return 0


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEY)


def _measure(folder: RunFolder) -> Row:
    """Of a finished run: the validation figures of the weights that count, and the median time of an epoch."""
    final = (folder.read_result() or {})["final"]
    return {"nll": final["val_loss"], "accuracy": final["val_accuracy"], "epoch": final["epoch"],
            "seconds": statistics.median(row["seconds"] for row in folder.rows())}


def read(path: pathlib.Path) -> list[Row]:
    """The rows of a file, as text; none without a file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def put(path: pathlib.Path, row: Row, key: Sequence[str]) -> None:
    """Adds a row to a file, in place of one that has the same in the columns of `key`."""
    others = [one for one in read(path) if any(one[name] != str(row[name]) for name in key)]
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others, row])


def comparison_table(by_change: dict[str, list[Row]], *, certain: bool = False) -> str:
    """The table as Markdown. The first change is what all others are compared with.

    Args:
        certain: leave out the changes of which neither figure has a p below `LEVEL`.
    """
    tests = _tests(by_change)
    rows: list[Sequence[str]] = [HEAD]
    for change, runs in by_change.items():
        mine = [tests[change, figure] for figure in FIGURES if change]
        if certain and mine and all(p is None or p >= LEVEL for _, p in mine):
            continue
        cells = [f"`{change}`" if change else "as it is"]
        for figure in FIGURES:
            difference, p = tests.get((change, figure), (None, None))
            cells += [f"{statistics.mean(float(run[figure]) for run in runs):.4f}",
                      "" if difference is None else f"{statistics.mean(difference):+.4f}",
                      "" if p is None else f"{p:.2g}"]
        epoch = statistics.mean(float(run["epoch"]) for run in runs)
        rows.append((*cells, f"{epoch:.0f}", f"{statistics.median(float(run['seconds']) for run in runs):.2f}"))
    return card.markdown_table(rows, numeric=HEAD[1:])


def _tests(by_change: dict[str, list[Row]]) -> dict[tuple[str, str], tuple[list[float], float | None]]:
    """For each change and figure the differences of its seeds, and the corrected p; None for one seed."""
    (_, base), *others = by_change.items()
    pairs = {(change, figure): [[float(run[figure]) for run in one] for one in (runs, base)]
             for change, runs in others for figure in FIGURES}
    found = {key: paired(*pair) for key, pair in pairs.items()}
    corrected = iter(holm([one.p for one in found.values() if one.p is not None]))
    return {key: ([ours - theirs for ours, theirs in zip(*pairs[key])], None if one.p is None else next(corrected))
            for key, one in found.items()}


def plot(by_change: dict[str, list[Row]], path: pathlib.Path) -> None:
    """Writes the differences of all seeds as a PNG file, by accuracy: filled where the corrected p is below `LEVEL`."""
    with plotting.own_settings(), atomic_write(path) as file:
        from matplotlib.figure import Figure

        tests = _tests(by_change)
        changes = sorted(list(by_change)[1:], key=lambda change: statistics.mean(tests[change, "accuracy"][0]))
        figure = Figure(figsize=(10, 0.26 * len(changes) + 1), layout="constrained")
        for axis, (name, title) in zip(figure.subplots(1, len(FIGURES), sharey=True), reversed(FIGURES.items())):
            for height, change in enumerate(changes):
                differences, p = tests[change, name]
                certain = p is not None and p < LEVEL
                color = plotting.COLORS[1] if certain else "0.45"
                axis.plot(differences, [height] * len(differences), "o", markersize=4, color=color,
                          markerfacecolor=color if certain else "white")
                axis.plot(statistics.mean(differences), height, "|", markersize=12, color=color)
            axis.axvline(0, color="black", linewidth=0.8)
            axis.grid(alpha=0.3)
            axis.set(xlabel=f"difference in {title}", yticks=range(len(changes)), yticklabels=changes)
            axis.tick_params(labelsize=8)
        figure.savefig(file, format="png", dpi=88)


def _short(options: argparse.Namespace) -> int:
    """Trains and times what is named, and shows the table of short trainings."""
    given = ",".join(options.settings or [])
    if options.model:
        resolve(options.model, data=options.data, **parse(given))  # refuses wrong settings
        if options.worker:
            print(json.dumps(_train(options, given)))
            return 0
        put(options.rows, _time(options, given), ("model", "settings"))
    command.show(short_table(read(options.rows)), options.page, "short: python -m benchmarks.recipes --table=short")
    return 0


def _train(options: argparse.Namespace, given: str) -> dict[str, float]:
    """Trains in this process, in a temporary folder; returns seconds and test accuracy."""
    from trainers.publishing.evaluation import evaluate
    from trainers.running import trained
    from trainers.train import train

    with tempfile.TemporaryDirectory() as logdir:
        run = train(options.model, data=options.data, seed=options.seeds[0], histogram_every=0, logdir=logdir,
                    verbose=False, **parse(given))
        assert run.result  # nothing interrupts it
        return {"seconds": run.result["seconds"], "test_accuracy": evaluate(trained.from_run(run.folder))["accuracy"]}


def _time(options: argparse.Namespace, given: str) -> Row:
    """The row of a recipe: mean and standard deviation of the accuracy, median of the seconds."""
    seeds, commit = options.seeds or range(5), provenance.commit()
    with environment(compile_cache.VARIABLE, "0"):
        answers = [_ask(options, given, seed) for seed in seeds]
    _ask(options, f"{given},epochs=1", seeds[0])  # its programs are those of more epochs
    warm = _ask(options, given, seeds[0])
    accuracies = [one["test_accuracy"] for one in answers]
    return {"model": options.model, "settings": given, "seeds": " ".join(map(str, seeds)),
            "test_accuracy": statistics.mean(accuracies),
            "deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
            "seconds": statistics.median(one["seconds"] for one in answers), "cached_seconds": warm["seconds"],
            "processor": machine()["cpu"], "commit": commit}


def _ask(options: argparse.Namespace, given: str, seed: int) -> dict[str, float]:
    """What `_train` returns in a new process."""
    found: dict[str, float] = command.ask(
        ["benchmarks.recipes", "--worker", f"--table={SHORT}", f"--model={options.model}", f"--settings={given}",
         f"--seeds={seed}", f"--data={options.data}"], f"seed {seed}")
    print(f"seed {seed}: {found['seconds']:.1f} s", file=sys.stderr, flush=True)
    return found


def short_table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, the shortest training first."""
    lines = [("test accuracy", "s", "s, cached", "network and recipe", "processor")]
    for row in sorted(rows, key=lambda row: float(row["seconds"])):
        given = "".join(f" `{one}`" for one in row["settings"].split(",") if one)
        reached = f"{float(row['test_accuracy']):.4f} ± {float(row['deviation']):.4f}"
        cached = f"{float(row['cached_seconds']):.1f}" if row["cached_seconds"] else "-"
        lines.append((reached, f"{float(row['seconds']):.1f}", cached, f"`{row['model']}`{given}", row["processor"]))
    return card.markdown_table(lines, numeric=lines[0][:3])


if __name__ == "__main__":
    sys.exit(main())
