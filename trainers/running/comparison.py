"""Runs side by side: the settings that differ, what came of them, and their curves. NumPy is imported for the plot."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

from fmnist_zoo import card
from fmnist_zoo.errors import UsageError
from fmnist_zoo.files import Record, atomic_write
from trainers.config import SETTINGS, RunConfig, decisive_differences, flat, read_run
from trainers.metrics_table import Row
from trainers.running import listing, plotting, provenance, seeds
from trainers.running.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_accuracy")
PAIRED = ("val_loss", "val_accuracy")
RESULTS = ("status", "epochs", "best_epoch", *SCORES, "seconds", "images_per_second")
PANELS = (("train_loss", "val_loss", "loss (nats)"), ("train_accuracy", "val_accuracy", "accuracy"))


class Compared(NamedTuple):
    """Finished runs that differ in their seed alone, or one run: of each what a listing says of it, and the rows of its
    `metrics.csv`; record and config are of the first."""

    label: str
    lines: list[listing.Line]
    rows: list[list[Row]]
    record: Record
    config: RunConfig


def read(words: Sequence[str], logdir: str) -> list[Compared]:
    """What a user names, see `listing.named`.

    Raises:
        ConfigError: if there is no run of that name, or a file of it is damaged.
        UsageError: for fewer than two.
    """
    found = {os.path.abspath(lines[0].folder): lines for lines in (listing.named(word, logdir) for word in words)}
    if len(found) < 2:
        raise UsageError("--compare takes two runs or more, or models with several seeds, such as --compare 4L/first "
                         f"4D_drop03/first; received {', '.join(words) or 'none'}")
    folders = [listing.mean(lines).folder for lines in found.values()]
    common = os.path.commonpath([os.path.dirname(os.path.abspath(folder)) for folder in folders])
    return [Compared(os.path.relpath(folder, common), lines, [RunFolder(line.folder).rows() for line in lines],
                     *read_run(lines[0].folder)) for folder, lines in zip(folders, found.values())]


def settings(runs: Sequence[Compared]) -> dict[str, list[str]]:
    """The settings that decide numbers and differ, and what differs in data, versions and machine, as text."""
    differing = {name for one in runs[1:] for name in decisive_differences(runs[0].config, one.config)}
    values = [flat(one.config) for one in runs]
    environments = [provenance.environments(one.record)[-1] for one in runs]
    origins = [{"sha256": one.record["data"]["sha256"][:12], "split_sha256": one.record["data"]["split_sha256"][:12],
                **provenance.numerics(environment), "commit": environment["commit"][:12]}
               for one, environment in zip(runs, environments)]
    found = {name: [origin[name] for origin in origins] for name in origins[0]}
    of_seed = [", ".join(str(line.seed) for line in one.lines) for one in runs]
    return {"model": [one.lines[0].model for one in runs],
            **{name: [known.kind.write(one[name]) for one in values]
               for name, known in SETTINGS.items() if name in differing - {"seed"}},
            **({"seed": of_seed} if len(set(of_seed)) > 1 or "," in of_seed[0] else {}),
            **{name: [str(one.get(name, "")) for one in values] for name in sorted(differing.difference(SETTINGS))},
            **{name: cells for name, cells in found.items() if len(set(cells)) > 1}}


def results(line: listing.Line, rows: Sequence[Row]) -> dict[str, Any]:
    """What came of a run, by the names of `RESULTS`; scores are of the selected weights, None if unknown."""
    epoch = line.best_epoch
    row = rows[int(epoch) - 1] if epoch and epoch <= len(rows) else {}
    speeds = [row["images_per_second"] for row in rows if row["images_per_second"] is not None]
    more = {"train_loss": row.get("train_loss"), "train_accuracy": row.get("train_accuracy"),
            "images_per_second": statistics.median(speeds) if speeds else None}
    return {name: more[name] if name in more else getattr(line, name) for name in RESULTS}


def text(runs: Sequence[Compared]) -> str:
    """A table with a column for each run, or for several seeds of one; then their paired differences."""
    measured = [list(map(results, one.lines, one.rows)) for one in runs]
    rows = [("", *(one.label for one in runs)), *((name, *cells) for name, cells in settings(runs).items()),
            ("",) * (len(runs) + 1),
            *((name.replace("_", " "), *(_cell(name, [one[name] for one in of_seeds]) for of_seeds in measured))
              for name in RESULTS)]
    parts = [card.aligned(rows, numeric=())]
    if not _compare(runs):
        parts.append("These runs were not validated on the same images: their validation scores do not compare.")
    elif any(len(one.lines) > 1 for one in runs):
        parts.append(seeds.text(differences(runs)))
    return "\n\n".join(parts)


def differences(runs: Sequence[Compared]) -> list[seeds.Difference]:
    """Of the validation scores of each two, paired by seed; none if they were validated on other images."""
    if not _compare(runs):
        return []
    return seeds.differences({one.label: {line.seed: dataclasses.asdict(line) for line in one.lines} for one in runs},
                             PAIRED)


def _compare(runs: Sequence[Compared]) -> bool:
    """Whether their validation scores are of the same images."""
    return len({one.lines[0].images for one in runs}) == 1


def _cell(name: str, values: Sequence[Any]) -> str:
    if name in SCORES:
        return seeds.mean_and_deviation(values)
    known = [value for value in values if value is not None]
    if not known or isinstance(known[0], str):
        return ", ".join(dict.fromkeys(known)) or "-"
    return f"{statistics.fmean(known):.0f}"


def to_dicts(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """For JSON and CSV: for each run its folder, the settings that differ, and its results."""
    differing = settings(runs)
    return [{"folder": line.folder, **{name: cells[index] for name, cells in differing.items()}, "seed": line.seed,
             **results(line, rows)}
            for index, one in enumerate(runs) for line, rows in zip(one.lines, one.rows)]


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
    if not any(rows for one in runs for rows in one.rows):
        raise UsageError("--plot: none of these runs has finished an epoch")
    return target


def plot(runs: Sequence[Compared], path: pathlib.Path) -> None:
    """Writes the curves over epochs as a PNG file: validation solid, training without dropout dashed.

    Of several seeds a line is the mean, as far as all of them were trained, and its band one deviation to both sides.

    Raises:
        OSError, PlotError: if it cannot be written, or drawn.
    """
    with plotting.own_settings(), atomic_write(path) as file:
        _curves(runs).savefig(file, format="png", dpi=88)


def _curves(runs: Sequence[Compared]) -> Figure:
    """The figure of `plot`."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 4.2), layout="constrained")
    for axis, (*names, label) in zip(figure.subplots(1, 2), PANELS):
        named = []
        for index, one in enumerate(one for one in runs if all(one.rows)):
            epochs = np.arange(1, min(map(len, one.rows)) + 1)
            look = plotting.line(index, len(epochs))
            for name, style in zip(names, ("--", "-")):
                values = np.array([[row.get(name) for row in rows] for rows in zip(*one.rows)], float)
                means = values.mean(axis=1)  # of (epochs, seeds)
                (drawn,) = axis.plot(epochs, means, linestyle=style, **look)
                if len(one.rows) > 1:
                    deviations = values.std(axis=1, ddof=1)
                    axis.fill_between(epochs, means - deviations, means + deviations, color=look["color"], alpha=0.2,
                                      linewidth=0)
            if np.isfinite(means).any():  # on validation images
                named.append((one.label, drawn))
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        plotting.name_lines(axis, named, "solid: validation\ndashed: training, dropout off")
    return figure
