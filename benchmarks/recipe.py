"""What one recipe reaches, and in what time: the table of short trainings in docs/record.md.

    python -m benchmarks.recipe                                    # the table
    python -m benchmarks.recipe --model=4L --settings=hidden=512_512,epochs=4,weights=last

Each seed trains in a process of its own that compiles everything, and is evaluated once. The seconds are those of
training, with tracing and compiling; imports, reading data, validation and logging do not count. The row of a recipe
that is trained again takes the place of the old one.
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
from typing import Any, Sequence

from benchmarks import command
from benchmarks.recipes import parse
from fmnist_zoo.files import atomic_write
from trainers import cli
from trainers.config import resolve
from trainers.engine import compile_cache, processor
from trainers.running import provenance

ROWS = pathlib.Path(__file__).with_name("recipe.csv")
COLUMNS = ("model", "settings", "seeds", "test_accuracy", "deviation", "seconds", "processor", "commit")
BEGIN, END = "<!-- recipe: python -m benchmarks.recipe -->", "<!-- /recipe -->"


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Trains in this process, in a temporary folder; returns seconds and test accuracy."""
    from trainers.publishing.evaluation import evaluate
    from trainers.running import trained
    from trainers.train import train

    with tempfile.TemporaryDirectory() as logdir:
        run = train(options.model, data=options.data, seed=options.seeds[0], histogram_every=0, logdir=logdir,
                    verbose=False, **parse(options.settings))
        assert run.result  # nothing interrupts it
        return {"seconds": run.result["seconds"], "test_accuracy": evaluate(trained.from_run(run.folder))["accuracy"]}


def read(path: pathlib.Path = ROWS) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, the shortest training first."""
    lines = ["| test accuracy | s | network and recipe | processor |", "| ---: | ---: | --- | --- |"]
    for row in sorted(rows, key=lambda row: float(row["seconds"])):
        settings = "".join(f" `{one}`" for one in row["settings"].split(",") if one)
        reached = f"{float(row['test_accuracy']):.4f} ± {float(row['deviation']):.4f}"
        lines.append(f"| {reached} | {float(row['seconds']):.1f} | `{row['model']}`{settings} | {row['processor']} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.recipe", __doc__)
    parser.add_argument("--model", help="train this model")
    parser.add_argument("--settings", default="", help="with these settings in place of its recipe's")
    parser.add_argument("--seeds", type=command.list_of(int), default=[0, 1, 2, 3, 4])
    parser.add_argument("--data", choices=command.DATA, default="fashion_mnist")
    parser.add_argument("--rows", type=command.json_path, default=ROWS, help="the CSV file that gets the row")
    parser.add_argument("--page", type=pathlib.Path, help="the page whose table is replaced, such as docs/record.md")
    parser.add_argument("--worker", action="store_true", help="train the first seed here; prints a line of JSON")
    options = parser.parse_args(arguments)
    return cli.run("recipe", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = list(read(options.rows))
    if options.model:
        resolve(options.model, data=options.data, **parse(options.settings))  # refuses wrong settings
        if options.worker:
            print(json.dumps(work(options)))
            return 0
        row = _measure(options)
        rows = [row, *(one for one in rows if (one["model"], one["settings"]) != (row["model"], row["settings"]))]
        with atomic_write(options.rows, "w") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(table(rows))
    if options.page:
        command.replace_between(options.page, BEGIN, END, table(rows))
    return 0


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """The row of a recipe: mean and standard deviation of the accuracy, median of the seconds."""
    os.environ[compile_cache.VARIABLE] = "0"  # in the workers: compiling counts
    commit, answers = provenance.commit(), []
    for seed in options.seeds:
        answers.append(command.ask(
            ["benchmarks.recipe", "--worker", f"--model={options.model}", f"--settings={options.settings}",
             f"--seeds={seed}", f"--data={options.data}"], f"seed {seed}"))
        print(f"seed {seed}: {answers[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    accuracies = [one["test_accuracy"] for one in answers]
    return {"model": options.model, "settings": options.settings, "seeds": " ".join(map(str, options.seeds)),
            "test_accuracy": statistics.mean(accuracies),
            "deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
            "seconds": statistics.median(one["seconds"] for one in answers),
            "processor": processor.machine()["cpu"], "commit": commit}


if __name__ == "__main__":
    sys.exit(main())
