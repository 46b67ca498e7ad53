"""The speedrun: the shortest training of a fully-connected network to a given accuracy on the test images.

    python -m benchmarks.speedrun                                  # the records
    python -m benchmarks.speedrun --check=0.90                     # train a record's five seeds, and its peers, here
    python -m benchmarks.speedrun --check=0.90 --settings=hidden=800,schedule=cosine,... --by=NAME   # a new record

The rules, and how a record is submitted, are in docs/speedrun.md. Each training is a process of its own, so each one
compiles. `tape` is our loop. Beside it are `fit`, which is Keras' `Model.fit` where it has the recipe's settings, and
`torch`, PyTorch with the same recipe, eager and by `torch.compile`, of which the faster counts.
"""

from __future__ import annotations

import argparse
import csv
import json
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any, NamedTuple, Sequence

from benchmarks import command, torch_recipe
from benchmarks.recipes import parse
from fmnist_zoo.errors import UsageError
from fmnist_zoo.files import atomic_write
from trainers.config import ConfigError, RunConfig, resolve
from trainers.engine import processor

RECORDS = pathlib.Path(__file__).with_name("speedrun.csv")
BEGIN, END = "<!-- records: python -m benchmarks.speedrun -->", "<!-- /records -->"
SEEDS = (0, 1, 2, 3, 4)
PEER_SEEDS = 3  # of these, for the times of the peers
PEERS = ("tape", "fit", "torch", "torch_compile")
OUTSIDE = ("torch", "torch_compile")


class Record(NamedTuple):
    """A row of the table: means over `SEEDS`, medians of seconds, of the peers over `PEER_SEEDS`.

    Seconds are "" for a peer that has no such recipe, or was not measured.
    """

    target: str
    model: str
    settings: str
    by: str
    date: str
    validation_accuracy: float
    test_accuracy: float
    deviation: float
    seconds: float
    fit_seconds: float | str
    torch_seconds: float | str
    processor: str
    commit: str


def read(path: pathlib.Path = RECORDS) -> dict[str, Record]:
    """The records by their target."""
    if not path.exists():
        return {}
    numbers = ("validation_accuracy", "test_accuracy", "deviation", "seconds", "fit_seconds", "torch_seconds")
    with open(path, newline="") as file:
        rows = [{name: float(text) if name in numbers and text else text for name, text in row.items()}
                for row in csv.DictReader(file)]
    return {str(row["target"]): Record(**row) for row in rows}  # type: ignore[arg-type]


def write(records: dict[str, Record], path: pathlib.Path = RECORDS) -> None:
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Record._fields)
        writer.writerows(records[target] for target in sorted(records))


def config_of(model: str, settings: str, seed: int, *, data: str, trainer: str = "tape") -> RunConfig:
    return resolve(model, **{"data": data, "histogram_every": 0, "seed": seed, "trainer": trainer, **parse(settings)})


def work(peer: str, model: str, settings: str, seed: int, data: str) -> dict[str, Any]:
    """Trains in this process; returns seconds and accuracies. The test images are opened for our own loop alone."""
    config = config_of(model, settings, seed, data=data, trainer="fit" if peer == "fit" else "tape")
    if peer == "tape":
        return _tape(config)
    from fmnist_zoo import load_data

    splits = load_data(("fit", "validation"), data=data)
    if peer == "fit":
        seconds, accuracy = _fit(config, splits["fit"], splits["validation"])
    else:
        seconds, accuracy = torch_recipe.train(
            config.spec, config.recipe, splits["fit"], splits["validation"], seed=seed,
            bfloat16=config.precision == "mixed_bfloat16", compiled=peer == "torch_compile")
    return {"seconds": seconds, "validation_accuracy": accuracy}


def _tape(config: RunConfig) -> dict[str, Any]:
    """A run in a temporary folder, evaluated once."""
    from trainers.publishing import scores
    from trainers.running import many

    with tempfile.TemporaryDirectory() as logdir:
        (folder,) = many.finish([config], logdir, lambda: False)
        row = scores.row(folder)
        return {name: row[name] for name in ("seconds", "validation_accuracy", "test_accuracy", "commit")}


def _fit(config: RunConfig, fit: Any, validation: Any) -> tuple[float, float]:
    """One call of `Model.fit` on float arrays, with Keras' own loss; nothing runs between batches or epochs."""
    command.free_threads()
    import numpy as np

    from fmnist_zoo import models
    from fmnist_zoo.backend import keras
    from trainers.engine import schedule
    from trainers.engine.fit import Table, make_optimizer

    keras.utils.set_random_seed(config.seed)
    model, recipe, batch = models.build(config.spec, config.seed), config.recipe, config.batch(len(fit.labels))
    pixels, labels = fit.images.astype("float32") / 255, keras.utils.to_categorical(fit.labels, 10)
    rates = np.concatenate([schedule.learning_rates(recipe, steps_an_epoch=-(-len(labels) // batch), epoch=epoch)
                            for epoch in range(recipe.epochs)])
    start = time.perf_counter()
    others = [one for one in model.trainable_variables if not one.path.endswith("/kernel")]
    model.compile(make_optimizer(recipe, without_decay=others, learning_rate=Table(rates)),
                  keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing))
    model.fit(pixels, labels, batch_size=batch, epochs=recipe.epochs, verbose=0)
    seconds = time.perf_counter() - start
    found = model.predict(validation.images.astype("float32") / 255, batch_size=1000, verbose=0).argmax(axis=1)
    return seconds, float((found == validation.labels).mean())


def measure(peers: Sequence[str], tries: dict[str, tuple[str, str]], seeds: Sequence[int], data: str
            ) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The answers of each peer on each try, (model, settings), a seed at a time, so that all see the same machine."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed in seeds:
        for name, (model, settings) in tries.items():
            for peer in peers:
                answer = command.ask(
                    ["benchmarks.speedrun", f"--worker={peer}", f"--model={model}", f"--settings={settings}",
                     f"--seeds={seed}", f"--data={data}"], f"{peer}, {name}, seed {seed}",
                    command.outside_python() if peer in OUTSIDE else sys.executable)
                found.setdefault((name, peer), []).append(answer)
                print(f"{name}, {peer}, seed {seed}: {answer['seconds']:.1f} s, "
                      f"validation {answer['validation_accuracy']:.4f}", file=sys.stderr, flush=True)
    return found


def peers_for(model: str, settings: str, wanted: Sequence[str], data: str) -> list[str]:
    """Those of the wanted peers that can train a recipe, with a line for each that cannot."""
    able = []
    for peer in wanted:
        try:
            config = config_of(model, settings, 0, data=data, trainer="fit" if peer == "fit" else "tape")
            if peer in OUTSIDE:
                torch_recipe.check(config.spec, config.recipe)
                if not command.outside_python().exists():
                    raise UsageError(f"needs an environment of its own, {command.OUTSIDE}: "
                                     "benchmarks/requirements.txt says how to make it")
        except (ConfigError, UsageError) as error:
            print(f"without {peer}: {error}", file=sys.stderr)
        else:
            able.append(peer)
    return able


def summarize(target: str, model: str, settings: str, by: str, answers: dict[str, list[dict[str, Any]]]) -> Record:
    """The row of what was measured."""
    def median(*peers: str) -> float | str:
        return min((statistics.median(one["seconds"] for one in answers[peer]) for peer in peers if peer in answers),
                   default="")

    ours = answers["tape"]
    tests = [one["test_accuracy"] for one in ours]
    return Record(target, model, settings, by, time.strftime("%Y-%m-%d"),
                  statistics.mean(one["validation_accuracy"] for one in ours), statistics.mean(tests),
                  statistics.stdev(tests) if len(tests) > 1 else 0.0,
                  float(median("tape")), median("fit"), median(*OUTSIDE), processor.machine()["cpu"], ours[0]["commit"])


def table(records: dict[str, Record]) -> str:
    """The records as Markdown."""
    head = ("accuracy of at least", "reached, mean of 5", "s", "`Model.fit`", "PyTorch", "network and recipe", "by",
            "date", "processor")
    rows: list[tuple[str, ...]] = [head, ("---:",) * 5 + ("---",) * 4]
    for target in sorted(records):
        one = records[target]
        seconds = (f"{value:.1f}" if value != "" else "-" for value in (one.fit_seconds, one.torch_seconds))
        rows.append((target, f"{one.test_accuracy:.4f} ± {one.deviation:.4f}", f"{one.seconds:.1f}", *seconds,
                     f"`{one.model}`, `{one.settings.replace(',', '`, `')}`", one.by, one.date, one.processor))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.speedrun", __doc__)
    parser.add_argument("--check", metavar="TARGET", help="such as 0.90: train this record's seeds here")
    parser.add_argument("--model", default="4L", help="of --settings")
    parser.add_argument("--settings", help="with --check: a recipe that is to take the record, such as hidden=800")
    parser.add_argument("--by", default="", help="who submits --settings")
    parser.add_argument("--peers", type=command.list_of(str), default=list(PEERS), help="of tape, fit, torch, "
                        "torch_compile; tape is always measured")
    parser.add_argument("--seeds", type=command.list_of(int), default=list(SEEDS))
    parser.add_argument("--data", choices=command.DATA, default="fashion_mnist")
    parser.add_argument("--records", type=pathlib.Path, default=RECORDS, help="the file of records")
    parser.add_argument("--page", type=pathlib.Path, help="the page whose table is replaced, such as docs/speedrun.md")
    parser.add_argument("--worker", choices=PEERS, help="train this here, once; prints a line of JSON")
    options = parser.parse_args(arguments)
    if options.worker:  # perhaps in the other environment, which has no absl
        print(json.dumps(work(options.worker, options.model, options.settings, options.seeds[0], options.data)))
        return 0
    from trainers import cli

    return cli.run("speedrun", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    unknown = set(options.peers) - set(PEERS)
    if unknown:
        raise UsageError(f"--peers={','.join(options.peers)}: must be some of {', '.join(PEERS)}")
    records = read(options.records)
    if options.check:
        code = _check(options, records)
    else:
        print(table(records))
        code = 0
    if options.page:
        command.replace_between(options.page, BEGIN, END, table(read(options.records)))
    return code


def _check(options: argparse.Namespace, records: dict[str, Record]) -> int:
    """Trains the record and, with --settings, its challenger; a challenger that is faster takes its place."""
    target, old = options.check, records.get(options.check)
    tries = {"record": (old.model, old.settings)} if old else {}
    if options.settings:
        tries["challenger"] = (options.model, options.settings)
    if not tries:
        raise UsageError(f"--check={target}: no such record; there are {', '.join(sorted(records)) or 'none'}; "
                         "--settings names a first one")
    newest = list(tries)[-1]
    peers = peers_for(*tries[newest], ["tape", *(one for one in options.peers if one != "tape")], options.data)
    found = {name: {"tape": answers} for (name, _), answers in
             measure(["tape"], tries, options.seeds, options.data).items()}
    if len(peers) > 1:
        for (_, peer), answers in measure(peers[1:], {newest: tries[newest]}, options.seeds[:PEER_SEEDS],
                                          options.data).items():
            found[newest][peer] = answers
    rows = {name: summarize(target, *tries[name], options.by, found[name]) for name in tries}
    print(table({name: row._replace(target=name) for name, row in rows.items()}))
    new = rows[newest]
    if new.test_accuracy < float(target):
        print(f"{newest}: the mean test accuracy {new.test_accuracy:.4f} is below {target}")
        return 1
    if newest == "challenger" and old and new.seconds >= rows["record"].seconds:
        print(f"challenger: takes {new.seconds:.1f} s, not less than the record's {rows['record'].seconds:.1f} s here")
        return 1
    if newest == "challenger":
        write({**records, target: new}, options.records)
        print(f"a new record for {target}, written to {options.records}")
    else:
        print(f"record: {target} is reached")
    return 0


if __name__ == "__main__":
    sys.exit(main())
