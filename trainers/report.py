"""Reproduces the assignment report: `python -m trainers.report` (`trainers.reproduction` says which report this is).

One seed takes about half an hour on two cores. Runs with the same config in the log folder are reused, and an
interrupted command continues where it stopped; then it writes `report.md` and `index.html` into `report` in the log
folder. `make report` writes the page that comes with the project.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any, Sequence

from fmnist_zoo.errors import UsageError
from trainers import cli
from trainers.config import RunConfig, resolve
from trainers.reproduction import experiments
from trainers.running import batch, plotting

USAGE = """
Runs what the assignment report ran ("Deep Learning Assignment 1", a student's anonymous report on Fashion-MNIST), and
writes its numbers beside ours, with plots and tests of its claims, as report.md and index.html.

    python -m trainers.report
    python -m trainers.report --only=dropout --seeds=3
    python -m trainers.report --data=mini --quick --out=/tmp/report
"""
GROUPS = {"What is run": ("only", "seeds", "quick", "data", "data_dir"), "Where it goes": ("logdir", "out")}
QUICK_EPOCHS = {"part_a": 20, "part_b": 2}
COMPARED_BY_FIT = "2L"  # the model of Part B that Model.fit trains too


def define_flags() -> cli.Flags:
    values = cli.Flags()
    words = (word for one in experiments.EXPERIMENTS for word in (one.part, one.group, one.name))
    names = ", ".join(dict.fromkeys(words))
    values.text("only", f"some of: {names}; separated by commas", "")
    values.seed_list("seeds", "of each model: how many, from 0 on, or a list such as 0,3,7; claims are tested from "
                     "2 on", range(1))
    values.switch("quick", "a few epochs each, to see that it works")
    values.choice("data", ("fashion_mnist", "mini"), "mini: the package's 2,000 images", "fashion_mnist")
    values.path("data_dir", "a folder with the four IDX files")
    values.path("logdir", "the log folder, for TensorBoard too", "tb_logs")
    values.path("out", "the folder that the page is written to; default: `report` in the log folder")
    return values


def plan(chosen: Sequence[experiments.Experiment], *, seeds: Sequence[int], quick: bool = False,
         **settings: Any) -> list[RunConfig]:
    """All runs that `chosen` needs, each once, in order."""
    wanted = [(model, one.trainer, one.part) for one in chosen for model in one.models]
    if any(COMPARED_BY_FIT in one.models for one in chosen):
        wanted.append((COMPARED_BY_FIT, "fit", "part_b"))
    configs: dict[RunConfig, None] = {}  # an ordered set
    for model, trainer, part in wanted:
        epochs = QUICK_EPOCHS[part] if quick else None
        for seed in seeds:
            configs[resolve(model, trainer=trainer, seed=seed, epochs=epochs, **settings)] = None
    return list(configs)


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main("report", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: cli.Flags) -> int:
    chosen = experiments.select(values.only)
    configs = plan(chosen, seeds=values.seeds, quick=values.quick, data=values.data, data_dir=values.data_dir)
    out = pathlib.Path(values.out or os.path.join(values.logdir, "report"))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out={out}: cannot be made: {error.strerror}") from None
    with cli.StopSignal() as stop:
        folders = list(batch.finish(configs, values.logdir, stop))
    if len(folders) < len(configs):
        raise cli.Interrupted(stop.number, "interrupted; the same command continues where it stopped")
    with plotting.own_settings():
        from trainers.reproduction import page

        print(f"written: {page.write(out, chosen, configs, folders)} and {out / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
