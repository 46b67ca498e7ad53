"""Makes the zoo's scores anew: `python -m trainers.results`, or one row of them: `--check`.

The protocol: each model as its recipe in the registry says, five seeds, fit and validation images from the 60,000, the
epoch chosen as the recipe says (by validation loss, or the last), and the test images opened once a row. All of it
takes about two hours on two cores; what was interrupted goes on where it was.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from typing import Any, Sequence

from absl import flags

from fmnist_zoo import registry, results
from fmnist_zoo.spec import SpecError
from trainers import cli as command, config as configs
from trainers.config import RunConfig, read_record
from trainers.running import estimate, many as queue
from trainers.running.folder import RunFolder

USAGE = """
Trains every model of the zoo with five seeds, evaluates each once on the test images, and writes a row for each.

    python -m trainers.results
    python -m trainers.results --models=softmax,4D* --dry_run
    python -m trainers.results --check --models=softmax --seeds=0
"""
GROUPS = {"Which rows": ("models", "seeds", "check", "dry_run"), "On what": ("data", "data_dir"),
          "Where it goes": ("logdir", "out", "ship")}
COMPARED = ("epochs", "chosen_epoch", "validation_accuracy", "test_accuracy", "test_nll", "test_ece", "data_sha256")
MEASURED = ("validation_accuracy", "test_accuracy", "test_nll", "test_ece")


def define_flags() -> flags.FlagValues:
    """The command's flags, on a `FlagValues` of its own."""
    values = flags.FlagValues()
    flags.DEFINE_list("models", ["*"], "names or patterns such as 4D*, commas between them", flag_values=values)
    flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "seeds, commas between them", flag_values=values)
    flags.DEFINE_boolean("check", False, "train the rows anew, in a folder that is removed, and compare with those "
                         "in --out; writes nothing", flag_values=values)
    flags.DEFINE_boolean("dry_run", False, "print the runs and about how long they take", flag_values=values)
    flags.DEFINE_enum("data", "fashion_mnist", ("fashion_mnist", "mini"), "mini: 2,000 images of the package's; needs "
                      "--out", flag_values=values)
    flags.DEFINE_string("data_dir", None, "a folder with the four IDX files", flag_values=values)
    flags.DEFINE_string("logdir", "tb_logs", "the log folder; runs that stand there are used", flag_values=values)
    flags.DEFINE_string("out", None, "the table; default: the package's results.csv", flag_values=values)
    flags.DEFINE_boolean("ship", False, "write the package's trained weights anew, too: those of the first seed",
                         flag_values=values)
    return values


def plan(patterns: Sequence[str], seeds: Sequence[int], **settings: Any) -> list[RunConfig]:
    """The runs behind the rows, in the table's order: model by model, seed by seed; `SpecError` for no model."""
    for pattern in patterns:
        if not registry.list_models(pattern):
            registry.get_spec(pattern)  # says which names are near
    names = [name for name in registry.list_models() if any(name in registry.list_models(one) for one in patterns)]
    return [configs.resolve(name, seed=seed, **settings) for name in names for seed in seeds]


def row(folder: RunFolder, data_dir: str | None = None) -> dict[str, Any]:
    """A finished run as a row. The test images are opened, unless this run's weights were evaluated before."""
    from trainers import evaluate
    from trainers.running import trained

    subject = trained.from_run(folder.path)
    report = evaluate.once(subject, data_dir)
    record, result = read_record(folder.path), folder.read_result() or {}
    environment, images = record["environment"], record["data"]["fit"]
    return {
        "model": subject.spec.name, "seed": subject.seed, "epochs": result["epochs"],
        "chosen_epoch": result["final"]["epoch"], "validation_accuracy": result["final"]["validation_accuracy"],
        "test_accuracy": report["accuracy"], "test_nll": report["nll"], "test_ece": report["ece"],
        "seconds": result["seconds"], "images_per_second": images * result["epochs"] / result["seconds"],
        "data_sha256": record["data"]["sha256"], "commit": environment["commit"],
        "versions": " ".join(f"{name}={version}" for name, version in environment["versions"].items()),
    }


def merged(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`old` rows with `new` ones in their places, in the catalog's order; rows of models that are gone stay last."""
    found = {(one["model"], one["seed"]): one for one in (*old, *new)}
    order = {name: place for place, name in enumerate(registry.list_models())}
    return sorted(found.values(), key=lambda one: (order.get(one["model"], len(order)), one["model"], one["seed"]))


def compare(published: dict[str, Any], again: dict[str, Any], rows: Sequence[dict[str, Any]]) -> tuple[bool, str]:
    """Whether a row was reproduced, and what to say of it.

    Versions, processors and thread counts change sums in their last digits, and training amplifies that: what is not
    the same is held to the interval that a new seed would fall into in 99 of 100 cases: t * s * sqrt(2), with s the
    standard deviation of the model's other seeds in `rows`, of which there must be two; else to 0.01.
    """
    from scipy import stats

    differing = [name for name in COMPARED if published[name] != again[name]]
    title = f"{published['model']}, seed {published['seed']}"
    if not differing:
        return True, f"{title}: the same to the last digit"
    lines = [f"{title}: not the same to the last digit"]
    good = not {"data_sha256", "epochs"} & set(differing)
    for name in differing:
        said = ""
        if name in MEASURED:
            values = [one[name] for one in rows
                      if one["model"] == published["model"] and one["seed"] != published["seed"]]
            spread = float(stats.t.ppf(0.995, len(values) - 1)) * statistics.stdev(values) if len(values) > 1 else 0.0
            allowed = 2**0.5 * spread or 0.01
            near = abs(published[name] - again[name]) <= allowed
            good, said = good and near, f"  ({'within' if near else 'beyond'} {allowed:.2g})"
        lines.append(f"  {name:<20} published {published[name]}, now {again[name]}{said}")
    if published["versions"] != again["versions"]:
        lines.append(f"  versions             published {published['versions']}, now {again['versions']}")
    return good, "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return command.main("results", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: flags.FlagValues) -> int:
    try:
        seeds = list(dict.fromkeys(int(seed) for seed in values.seeds))
    except ValueError:
        raise command.UsageError(f"--seeds takes whole numbers, received {','.join(values.seeds)}") from None
    if values.data == "mini" and (values.out is None or values.ship):
        raise command.UsageError("--data=mini is to try things out: name another table with --out=FILE, without --ship")
    out = os.path.expanduser(values.out or str(results.PATH))
    runs = plan(values.models, seeds, data=values.data, data_dir=values.data_dir)
    if not runs:
        raise SpecError("no rows: --models and --seeds name none")
    if values.dry_run:
        for run in runs:
            print(f"{run.spec.name}, seed {run.seed}: {run.recipe.epochs} epochs, batch size {run.recipe.batch_size}")
        print(f"{len(runs)} runs, about {estimate.clock(sum(map(estimate.seconds, runs)))}")
        return 0
    old, parent = results.read(out), os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(parent):
        raise command.UsageError(f"--out={out}: {parent}: no such folder")
    with command.StopSignal() as stop:
        if values.check:
            return _check(runs, old, stop)
        folders = []
        for folder in queue.finish(runs, os.path.expanduser(values.logdir), stop):
            folders.append(folder)
            results.write(merged(results.read(out), [row(folder, values.data_dir)]), out)  # others may write to it too
        if len(folders) < len(runs):
            print("interrupted; the same command goes on where it was")
            return 128 + stop.number
    print(f"written: {out}")
    if values.ship:
        from trainers.publishing import shipping

        print(shipping.ship([folder for folder, run in zip(folders, runs) if run.seed == seeds[0]], values.data_dir))
    return 0


def _check(runs: Sequence[RunConfig], published: list[dict[str, Any]], stop: command.StopSignal) -> int:
    known = {(one["model"], one["seed"]): one for one in published}
    absent = [f"{run.spec.name}, seed {run.seed}" for run in runs if (run.spec.name, run.seed) not in known]
    if absent:
        raise command.UsageError(f"no published row to check: {'; '.join(absent)}")
    everything_good, done = True, 0
    with tempfile.TemporaryDirectory() as logdir:
        for folder in queue.finish(runs, logdir, stop):
            again = row(folder, runs[done].data_dir or None)
            good, said = compare(known[again["model"], again["seed"]], again, published)
            print(said, flush=True)
            everything_good, done = everything_good and good, done + 1
    if done < len(runs):
        print("interrupted")
        return 128 + stop.number
    return 0 if everything_good else command.FAILURE


if __name__ == "__main__":
    sys.exit(main())
