"""Runs the report from first to last: `python -m trainers.report`.

One seed takes about half an hour on two cores. Runs that stand in the log folder with the same config are used again,
and an interrupted report goes on where it was; then `report/report.md` and `report/index.html` are written.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any, Sequence

from absl import flags

from trainers import cli as command, config as configs
from trainers.config import RunConfig
from trainers.reproduction import experiments
from trainers.running import many as queue

USAGE = """
Runs what the report ran, and writes its numbers beside ours, with plots and tests, as report.md and index.html.

    python -m trainers.report
    python -m trainers.report --only=dropout --seeds=3
    python -m trainers.report --data=mini --quick --out=/tmp/report
"""
GROUPS = {"What is run": ("only", "seeds", "quick", "data", "data_dir"), "Where it goes": ("logdir", "out")}
QUICK_EPOCHS = {"part_a": 20, "part_b": 2}
COMPARED_BY_FIT = "2L"  # the model of Part B that Model.fit trains too


def define_flags() -> flags.FlagValues:
    """The command's flags, on a `FlagValues` of its own."""
    values = flags.FlagValues()
    words = (word for one in experiments.EXPERIMENTS for word in (one.part, one.group, one.name))
    names = ", ".join(dict.fromkeys(words))
    flags.DEFINE_string("only", "", f"some of: {names}; commas between them", flag_values=values)
    flags.DEFINE_integer("seeds", 1, "runs of each model, with seeds 0, 1, ...; 2 or more make its claims testable",
                         lower_bound=1, upper_bound=100, flag_values=values)
    flags.DEFINE_boolean("quick", False, "a few epochs each, to see it work", flag_values=values)
    flags.DEFINE_enum("data", "fashion_mnist", ("fashion_mnist", "mini"), "mini: 2,000 images of the package's",
                      flag_values=values)
    flags.DEFINE_string("data_dir", None, "a folder with the four IDX files", flag_values=values)
    flags.DEFINE_string("logdir", "tb_logs", "the log folder, for TensorBoard too", flag_values=values)
    flags.DEFINE_string("out", "report", "the folder of the page", flag_values=values)
    return values


def plan(chosen: Sequence[experiments.Experiment], *, seeds: int, quick: bool = False,
         **settings: Any) -> list[RunConfig]:
    """All runs that `chosen` needs, each once, in order."""
    found: dict[str, RunConfig] = {}
    wanted = [(model, one.trainer, one.part) for one in chosen for model in one.models]
    if any(COMPARED_BY_FIT in one.models for one in chosen):
        wanted.append((COMPARED_BY_FIT, "fit", "part_b"))
    for model, trainer, part in wanted:
        for seed in range(seeds):
            epochs = QUICK_EPOCHS[part] if quick else None
            config = configs.resolve(model, trainer=trainer, seed=seed, epochs=epochs, **settings)
            found[json.dumps(config.to_dict())] = config
    return list(found.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return command.main("report", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: flags.FlagValues) -> int:
    try:
        chosen = experiments.chosen(values.only)
    except KeyError as error:
        raise command.UsageError(f"--only={values.only}: there is no experiment {error}; see --help for their names") \
            from None
    runs = plan(chosen, seeds=values.seeds, quick=values.quick, data=values.data, data_dir=values.data_dir)
    out = pathlib.Path(values.out).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise command.UsageError(f"--out={out}: cannot be made: {error.strerror}") from None
    with command.StopSignal() as stop:
        done = list(queue.finish(runs, os.path.expanduser(values.logdir), stop))
    if len(done) < len(runs):
        print("interrupted; the same command goes on where it was")
        return 128 + stop.number
    from trainers.reproduction import page

    print(f"written: {page.write(out, chosen, runs, done)} and {out / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
