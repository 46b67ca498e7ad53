"""Runs side by side: the settings that differ, what came of them, and their curves. NumPy is imported for the plot."""

from __future__ import annotations

import os
import pathlib
import statistics
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

from fmnist_zoo import card
from fmnist_zoo.errors import UsageError
from fmnist_zoo.files import Record, atomic_write
from trainers.config import SETTINGS, ConfigError, RunConfig, decisive_differences, flat, read_run
from trainers.metrics_table import Row
from trainers.running import listing, plotting, provenance
from trainers.running.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_accuracy")
RESULTS = ("status", "epochs", "best_epoch", *SCORES, "seconds", "images_per_second")
PANELS = (("train_loss", "val_loss", "loss (nats)"), ("train_accuracy", "val_accuracy", "accuracy"))


class Compared(NamedTuple):
    """A run: what a listing says of it, its record and config, the rows of its `metrics.csv`."""

    label: str
    line: listing.Line
    record: Record
    config: RunConfig
    rows: list[Row]


def read(words: Sequence[str], logdir: str) -> list[Compared]:
    """The runs that a user names: folders, with or without the log folder before them, or trials of a sweep.

    Raises:
        ConfigError: if there is no run of that name, or a file of it is damaged.
        UsageError: for fewer than two runs.
    """
    paths = list(dict.fromkeys(_find(word, logdir) for word in words))
    if len(paths) < 2:
        raise UsageError("--compare takes the folders of two runs or more, such as --compare 4L/first 4D_drop03/first; "
                         f"received {', '.join(words) or 'none'}")
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [Compared(os.path.relpath(path, common), listing.run(path, os.path.basename(os.path.dirname(path))),
                     *read_run(path), RunFolder(path).rows()) for path in paths]


def _find(word: str, logdir: str) -> str:
    """The folder of the run that a word names; of a trial's executions the first."""
    for path in (word, os.path.join(logdir, word)):
        path = os.path.dirname(path) if os.path.basename(path) == "config.json" else path
        for folder in (path, os.path.join(path, "0")):
            if os.path.isfile(os.path.join(folder, "config.json")):
                return os.path.normpath(folder)
        if os.path.isfile(os.path.join(path, "sweep.json")):
            raise ConfigError(f"{word}: is a sweep; name a trial of it, such as {os.path.join(word, '0000')}")
    raise ConfigError(f"{word}: no run in this folder, nor below {logdir}; `python -m trainers.runs` lists the runs")


def settings(runs: Sequence[Compared]) -> dict[str, list[str]]:
    """The settings that decide numbers and differ, and what differs in data, versions and machine, as text."""
    differing = {name for one in runs[1:] for name in decisive_differences(runs[0].config, one.config)}
    values = [flat(one.config) for one in runs]
    environments = [provenance.environments(one.record)[-1] for one in runs]
    origins = [{"sha256": one.record["data"]["sha256"][:12], "split_sha256": one.record["data"]["split_sha256"][:12],
                **provenance.numerics(environment), "commit": environment["commit"][:12]}
               for one, environment in zip(runs, environments)]
    found = {name: [origin[name] for origin in origins] for name in origins[0]}
    return {"model": [one.line.model for one in runs],
            **{name: [known.kind.write(one[name]) for one in values]
               for name, known in SETTINGS.items() if name in differing},
            **{name: [str(one.get(name, "")) for one in values] for name in sorted(differing.difference(SETTINGS))},
            **{name: cells for name, cells in found.items() if len(set(cells)) > 1}}


def results(one: Compared) -> dict[str, Any]:
    """What came of a run, by the names of `RESULTS`; scores are of the selected weights, None if unknown."""
    epoch = one.line.best_epoch
    row = one.rows[int(epoch) - 1] if epoch and epoch <= len(one.rows) else {}
    speeds = [row["images_per_second"] for row in one.rows if row["images_per_second"] is not None]
    more = {"train_loss": row.get("train_loss"), "train_accuracy": row.get("train_accuracy"),
            "images_per_second": statistics.median(speeds) if speeds else None}
    return {name: more[name] if name in more else getattr(one.line, name) for name in RESULTS}


def text(runs: Sequence[Compared]) -> str:
    """A table with a column for each run."""
    measured = [results(one) for one in runs]
    rows = [("", *(one.label for one in runs)), *((name, *cells) for name, cells in settings(runs).items()),
            ("",) * (len(runs) + 1),
            *((name.replace("_", " "), *(_cell(name, one[name]) for one in measured)) for name in RESULTS)]
    same = len({(*map(one.record["data"].get, ("sha256", "split_sha256")), one.config.ranking) for one in runs}) == 1
    note = "\n\nThese runs were not validated on the same images: their validation scores do not compare."
    return card.aligned(rows, numeric=()) + ("" if same else note)


def _cell(name: str, value: Any) -> str:
    if name in SCORES:
        return listing.score(value)
    return "-" if value is None else f"{value:.0f}" if isinstance(value, float) else str(value)


def to_dicts(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """For JSON and CSV: for each run its folder, the settings that differ, and its results."""
    differing = settings(runs)
    return [{"folder": one.line.folder, **{name: cells[index] for name, cells in differing.items()}, **results(one)}
            for index, one in enumerate(runs)]


def picture(runs: Sequence[Compared], path: str) -> pathlib.Path:
    """Where `plot` can write, of `--plot=path`.

    Raises:
        UsageError: if the name does not end with .png, its folder does not exist, or no run has an epoch.
    """
    target = pathlib.Path(path)
    if target.suffix.lower() != ".png":
        raise UsageError(f"--plot={path} must end with .png")
    if not target.parent.is_dir():
        raise UsageError(f"--plot={path}: there is no folder {target.parent}")
    if not any(one.rows for one in runs):
        raise UsageError("--plot: none of these runs has finished an epoch")
    return target


def plot(runs: Sequence[Compared], path: pathlib.Path) -> None:
    """Writes the curves over epochs as a PNG file: validation solid, training without dropout dashed.

    Raises:
        OSError, PlotError: if it cannot be written, or drawn.
    """
    with plotting.own_settings(), atomic_write(path) as file:
        _curves(runs).savefig(file, format="png", dpi=88)


def _curves(runs: Sequence[Compared]) -> Figure:
    """The figure of `plot`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axis, (*names, label) in zip(figure.subplots(1, 2), PANELS):
        for index, one in enumerate(runs):
            for name, style in zip(names, ("--", "-")):
                heights = [float("nan") if row.get(name) is None else row[name] for row in one.rows]
                axis.plot([row["epoch"] for row in one.rows], heights, style, color=f"C{index % 10}", linewidth=1.4,
                          marker="." if len(heights) == 1 else "", label=one.label if style == "-" else None)
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    for words in axis.legend(title="solid: validation\ndashed: training, dropout off", fontsize=8,
                             title_fontsize=8).get_texts():
        words.set_parse_math(False)
    return figure
