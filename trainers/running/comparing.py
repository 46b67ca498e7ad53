"""Runs side by side: the settings that differ, what came of them, and their curves. NumPy is imported for the plot."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
from typing import Any, Sequence

from fmnist_zoo import card
from fmnist_zoo.errors import UsageError
from fmnist_zoo.files import atomic_write
from trainers.config import SETTINGS, ConfigError, RunConfig, decisive_differences, flat, read_run
from trainers.running import listing, provenance
from trainers.running.folder import RunFolder

SCORES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_accuracy")
RESULTS = ("status", "epochs", "best_epoch", *SCORES, "seconds", "images_per_second")
PANELS = (("train_loss", "val_loss", "loss (nats)"),
          ("train_accuracy", "val_accuracy", "accuracy"))
DPI = 88


@dataclasses.dataclass
class Compared:
    """A run: what a listing says of it, its record and config, the rows of its `metrics.csv`."""

    label: str
    line: listing.Line
    record: dict[str, Any]
    config: RunConfig
    rows: list[dict[str, Any]]


def read(words: Sequence[str], logdir: str) -> list[Compared]:
    """The runs that a user names: folders, with or without the log folder before them, or trials of a sweep.

    Raises:
        ConfigError: if there is no run of that name, or a file of it is damaged.
        UsageError: for fewer than two runs.
    """
    paths = list(dict.fromkeys(_find(word, logdir) for word in words))
    if len(paths) < 2 <= len(words):
        raise UsageError(f"--compare: {' and '.join(words)} are the same run, {paths[0]}; name another one")
    if len(paths) < 2:
        raise UsageError("--compare takes the folders of two runs or more, such as --compare 4L/first 4D_drop03/first")
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    found = []
    for path in paths:
        (record, config), rows = read_run(path), RunFolder(path).rows()
        line = listing.run(path, os.path.basename(os.path.dirname(path)))
        assert line is not None  # its record was just read
        found.append(Compared(os.path.relpath(path, common), line, record, config, rows))
    return found


def _find(word: str, logdir: str) -> str:
    """The folder of the run that a word names; of a trial's executions the first."""
    word = os.path.expanduser(word)
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
    found = {"model": [one.line.model for one in runs]}
    found |= {name: [known.kind.write(one[name]) for one in values]
              for name, known in SETTINGS.items() if name in differing}
    environments = [provenance.environments(one.record)[-1] for one in runs]
    origin = {name: [str(one.record["data"][name])[:12] for one in runs] for name in ("sha256", "split_sha256")}
    names = dict.fromkeys(name for one in environments for name in one["versions"])
    origin |= {name: [str(one["versions"].get(name, "unknown")) for one in environments] for name in names}
    origin |= {"cpu": [str(one["cpu"]) for one in environments],
               "commit": [str(one.get("commit", "unknown"))[:12] for one in environments]}
    return found | {name: cells for name, cells in origin.items() if len(set(cells)) > 1}


def results(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """What came of each run, by the names of `RESULTS`; scores are of the weights that count, None if unknown."""
    found = []
    for one in runs:
        epoch = one.line.best_epoch
        row = one.rows[epoch - 1] if epoch and epoch <= len(one.rows) else {}
        speeds = [row["images_per_second"] for row in one.rows if row["images_per_second"] is not None]
        more = {**{name: row.get(name) for name in ("train_loss", "train_accuracy")},
                "images_per_second": statistics.median(speeds) if speeds else None}
        found.append({name: more[name] if name in more else getattr(one.line, name) for name in RESULTS})
    return found


def text(runs: Sequence[Compared]) -> str:
    """A table with a column for each run."""
    rows = [("", *(one.label for one in runs))]
    rows += [(name, *cells) for name, cells in settings(runs).items()]
    measured = results(runs)
    rows.append(("",) * len(rows[0]))
    rows += [(name.replace("_", " "), *(_cell(name, one[name]) for one in measured)) for name in RESULTS]
    lines = [card.aligned(rows, numeric=())]
    if len({(*map(one.record["data"].get, ("sha256", "split_sha256")), one.config.ranking) for one in runs}) > 1:
        lines.append("\nThese runs were not validated on the same images: their validation scores do not compare.")
    return "\n".join(lines)


def _cell(name: str, value: Any) -> str:
    if name in SCORES:
        return listing.score(value)
    return "-" if value is None else f"{value:.0f}" if isinstance(value, float) else str(value)


def to_dicts(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """For JSON and CSV: for each run its folder, the settings that differ, and its results."""
    differing = settings(runs)
    return [{"folder": one.line.folder, **{name: cells[index] for name, cells in differing.items()}, **measured}
            for index, (one, measured) in enumerate(zip(runs, results(runs)))]


def plot(runs: Sequence[Compared], path: str | os.PathLike[str]) -> None:
    """Writes the curves over epochs as a PNG file: validation solid, training without dropout dashed.

    Raises:
        UsageError: if the name does not end with .png, its folder does not exist, or no run has an epoch.
        OSError: if it cannot be written.
    """
    if pathlib.Path(path).suffix.lower() != ".png":
        raise UsageError(f"--plot={os.fspath(path)} must end with .png")
    folder = os.path.dirname(os.path.expanduser(path))
    if folder and not os.path.isdir(folder):
        raise UsageError(f"--plot={os.fspath(path)}: there is no folder {folder}")
    if not any(one.rows for one in runs):
        raise UsageError("--plot: none of these runs has finished an epoch")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axis, (train, validation, label) in zip(figure.subplots(1, 2), PANELS):
        for index, one in enumerate(runs):
            epochs = [row["epoch"] for row in one.rows]
            for name, style in ((train, "--"), (validation, "-")):
                values = [row.get(name) for row in one.rows]
                heights = [float("nan") if value is None else value for value in values]
                axis.plot(epochs, heights, style, color=f"C{index % 10}", linewidth=1.4,
                          marker="." if len(epochs) == 1 else "", label=one.label if name == validation else None)
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    for words in axis.legend(title="solid: validation\ndashed: training, dropout off", fontsize=8,
                             title_fontsize=8).get_texts():
        words.set_parse_math(False)
    with atomic_write(os.path.expanduser(path)) as file:
        figure.savefig(file, format="png", dpi=DPI)
