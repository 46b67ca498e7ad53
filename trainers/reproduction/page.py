"""The page: the assignment report's numbers beside ours, as `report.md` and as one HTML file with its pictures inside.

Sections are functions from runs to Markdown, in the order of the page; `write` puts them together.
"""

from __future__ import annotations

import html
import pathlib
import re
from typing import Any, Sequence

import numpy as np

from fmnist_zoo import card, get_recipe, get_spec, metrics, models
from fmnist_zoo.data import load_data
from fmnist_zoo.files import atomic_write
from fmnist_zoo.statistics import paired
from trainers.config import RunConfig, read_record
from trainers.reproduction import figures
from trainers.reproduction.experiments import Experiment, History, Printed, Runs
from trainers.reproduction.mistakes import MISTAKES
from trainers.running import provenance, seeds, webpage
from trainers.running.folder import RunFolder

TITLE = "The assignment report, reproduced"
COLUMNS = ("loss", "val_loss", "accuracy", "val_accuracy")
OBJECTIVES = ("objective", "val_objective", "accuracy", "val_accuracy")
ROUNDED = ("network_softmax", "network_A", "softmax", "2L")  # examples for the question about tf.round
PART_B_ACCURACIES = (0.8999, 0.9049, 0.9071, 0.8911, 0.9034)


def write(out: pathlib.Path, chosen: Sequence[Experiment], configs: Sequence[RunConfig],
          folders: Sequence[RunFolder]) -> pathlib.Path:
    """Writes plots, `report.md` and `index.html` into `out`; returns the path of `index.html`.

    `configs` and `folders` are all finished runs that the experiments need, in the same order.
    """
    runs: dict[str, list[History]] = {}  # by the experiments' own engines
    runs_by_fit: dict[str, list[History]] = {}
    for config, folder in zip(configs, folders):
        engine_runs = runs_by_fit if config.trainer == "fit" else runs
        engine_runs.setdefault(config.spec.name, []).append(folder.rows())
    sections = [introduction(configs, folders), *(experiment_section(out, one, runs) for one in chosen)]
    if runs_by_fit:
        sections.append(fit_section(runs, runs_by_fit))
    if any(one.part == "part_b" for one in chosen):
        sections.append(part_b_section())
    sections += [rounding_section(out, runs, untrained(configs[0])), mistakes_section(runs)]
    text = "\n".join(sections)
    with atomic_write(out / "report.md", "w") as file:
        file.write(text)
    with atomic_write(out / "index.html", "w") as file:
        file.write(to_html(text, out))
    return out / "index.html"


def introduction(configs: Sequence[RunConfig], folders: Sequence[RunFolder]) -> str:
    """Which report this is, which runs the page shows, and how to read its numbers."""
    records = [read_record(folder.path) for folder in folders]
    environments = [one for record in records for one in provenance.environments(record)]
    seconds = sum((folder.read_result() or {})["seconds"] for folder in folders)
    data = records[0]["data"]
    quick = any(config.recipe.epochs != get_recipe(config.spec.name).epochs for config in configs)
    return "\n".join([
        f"# {TITLE}", "",
        'The source is "Deep Learning Assignment 1", a student\'s anonymous report for a deep-learning course, written '
        "with TensorFlow 2.1. Its Part A builds fully-connected networks for Fashion-MNIST from raw TensorFlow "
        'operations, its Part B with Keras. On this page "the report" is that document, and "ours" are these runs:',
        "",
        f"{len(configs)} runs, seeds {_distinct(config.seed for config in configs)}; {seconds / 60:.0f} minutes of "
        f"training on {_distinct(one['cpu'] for one in environments)}, "
        f"{_distinct(one['cores'] for one in environments)} cores. Data: {data['name']}, {data['fit']} images to fit, "
        f"{data['validation']} to validate, SHA-256 {data['sha256'][:16]}. "
        f"TensorFlow {_distinct(one['versions']['tensorflow'] for one in environments)}, "
        f"Keras {_distinct(one['versions']['keras'] for one in environments)}. "
        f"Runs of commit {_distinct(_short(one.get('commit', 'unknown')) for one in environments)}, "
        f"page of commit {_short(provenance.commit())}."
        + (" **A quick run: its numbers mean nothing.**" if quick else ""), "",
        "Ours are figures of the last epoch, as the report's are: mean and standard deviation over seeds. Losses are "
        'the cross entropy alone unless a row says "objective". Train losses in the tables are taken with dropout on, '
        "as the report's are; the curves show them with dropout off.", ""])


def _distinct(values: Any) -> str:
    return ", ".join(map(str, dict.fromkeys(values)))


def _short(commit: str) -> str:
    """The first 12 of a commit's 40 digits; `-dirty` stays."""
    return commit[:12] + commit[40:]


def experiment_section(out: pathlib.Path, experiment: Experiment, runs: Runs) -> str:
    """One experiment: its curves, the report's numbers beside ours, and its claims."""
    picture = f"{experiment.name}.png"
    shown = {model: runs[model] for model in experiment.models}
    figures.curves(out / picture, shown, objective=experiment.group == "penalties")
    parts = [f"## {experiment.title}", f"![{experiment.title}]({picture})", numbers_table(experiment, runs)]
    parts += [experiment.note] if experiment.note else []
    parts += [claims_table(experiment, runs)] if experiment.claims else []
    return "\n\n".join(parts) + "\n"


def numbers_table(experiment: Experiment, runs: Runs) -> str:
    """The report's numbers beside ours; a model without a printed number has a row too."""
    named = {printed.model for printed in experiment.printed}
    unnamed = [Printed(model) for model in experiment.models if model not in named]
    rows = [["model", "epoch"]]
    for column in COLUMNS:
        rows[0] += [f"report: {column.replace('_', ' ')}", "ours"]
    for printed in [*experiment.printed, *unnamed]:
        histories = runs[printed.model]
        epochs = len(histories[0])
        epoch = min(printed.epoch or epochs, epochs)  # a quick run is shorter
        row = [printed.model + (" (objective)" if printed.objective else ""), str(epoch)]
        theirs = (printed.loss, printed.val_loss, printed.accuracy, printed.val_accuracy)
        for number, column in zip(theirs, OBJECTIVES if printed.objective else COLUMNS):
            row += ["" if number is None else f"{number:g}",
                    seeds.mean_and_deviation(figures.values(histories, column)[:, epoch - 1].tolist())]
        rows.append(row)
    return card.markdown_table(rows)


def claims_table(experiment: Experiment, runs: Runs) -> str:
    rows = [["the report's claim", "difference over seeds", "p (paired t)", "our reading"]]
    for claim in experiment.claims:
        better, worse = (figures.values(runs[model], claim.column)[:, -1] for model in (claim.better, claim.worse))
        found = paired(better, worse)
        error = "" if found.error is None else f" ± {found.error:.4f}"
        rows.append([claim.text, f"{found.difference:+.4f}{error} {claim.column.replace('_', ' ')}, last epoch",
                     "" if found.p is None else f"{found.p:.2g}",
                     found.verdict(lower_is_better=claim.column.endswith("loss"))])
    return card.markdown_table(rows)


def fit_section(runs: Runs, runs_by_fit: Runs) -> str:
    """The models that `Model.fit` trained too, by both engines."""
    columns = ("loss", "val_loss", "val_accuracy")
    rows = [["model", "engine", *(column.replace("_", " ") for column in columns)]]
    for model in runs_by_fit:
        for engine, histories in (("tape", runs[model]), ("fit", runs_by_fit[model])):
            rows.append([model, engine, *(f"{figures.values(histories, column)[:, -1].mean():.5f}"
                                          for column in columns)])
    return f"## The same through Model.fit\n\n{card.markdown_table(rows)}\n"


def part_b_section() -> str:
    """Why Part B's numbers are no target. Counts the printed accuracies that no share of 6,000 images rounds to."""
    shares = {round(hits / 6000, 4) for hits in range(6001)}
    impossible = sum(accuracy not in shares for accuracy in PART_B_ACCURACIES)
    return ("## Part B's numbers\n\n"
            "They very likely come from another data set: the report names none in Part B. Of its five validation "
            f"accuracies, {impossible} cannot be a share of 6,000 validation images, rounded to four digits. And plain "
            "networks on Fashion-MNIST end near a validation loss of 0.3 to 0.5 at this batch size, not at 0.58 to "
            "0.74. So the tables print them beside ours, but they are no target.\n")


def untrained(config: RunConfig) -> dict[str, float]:
    """`metrics.rounded_accuracy` of the untrained softmax network on the validation images."""
    split = load_data(("validation",), data=config.data, data_dir=config.data_dir or None)["validation"]
    model = models.build(get_spec("network_softmax"), 0)
    logits = model(split.images.astype(np.float32) / np.float32(255)).numpy()
    return metrics.rounded_accuracy(logits, split.labels)


def rounding_section(out: pathlib.Path, runs: Runs, start: dict[str, float]) -> str:
    """The answer to the author's question why tf.round gives so high an accuracy; `start` is of `untrained`."""
    examples = {model: runs[model][0] for model in ROUNDED if model in runs}
    if not examples:  # a page of dropout alone
        examples = {model: histories[0] for model, histories in runs.items()}
    figures.rounded(out / "rounded.png", dict(list(examples.items())[:3]))
    return "\n".join([
        "## The question about tf.round", "",
        "The author asks why the accuracy computed with `tf.round` came out high when it should have dropped. The "
        "reason is that it compares entries, not images: nine of an image's ten one-hot entries are zeros, and a "
        "rounded prediction has at most one entry that is not zero. Let c be the share of images whose top probability "
        "is over one half and right, w the share where it is over one half and wrong, and u the share where it is not "
        "over one half. Then", "",
        "    rounded accuracy = 1 - (u + 2 w) / 10 = 0.9 + (c - w) / 10", "",
        f"so a network that is never sure scores 0.9. Our untrained network scores {start['value']:.5f} on the "
        f"validation images (c = {start['right']:.4f}, w = {start['wrong']:.4f}, u = {start['unsure']:.4f}); the "
        "report's 0.89999 on 10,000 images is exactly one confident miss more than confident hits. The range is 0.8 to "
        "1, and 0.8 + a / 10 <= rounded <= 0.9 + a / 10 for an argmax accuracy a. Rounded accuracy is not monotone in "
        'a, so "the overall accuracy trend shall remain same" is false in general. Examples from these runs:', "",
        *(f"- {model}: {opposite_moves(history)}" for model, history in examples.items()), "",
        "![rounded against argmax accuracy](rounded.png)", ""])


def opposite_moves(history: History) -> str:
    """The epoch of a run in which rounded and argmax accuracy move apart the most, one up and the other down."""
    top = np.array([row["val_accuracy"] for row in history])
    by_rounding = np.array([row["val_rounded_accuracy"] for row in history])
    up, down = np.diff(by_rounding), -np.diff(top)
    apart = np.maximum(np.minimum(up, down), np.minimum(-up, -down))
    at = int(np.argmax(apart))
    if apart[at] <= 0:
        return "in this run they never moved in opposite directions."
    return (f"from epoch {at + 1} to {at + 2} the argmax accuracy went from {top[at]:.4f} to {top[at + 1]:.4f} while "
            f"the rounded one went from {by_rounding[at]:.5f} to {by_rounding[at + 1]:.5f}.")


def mistakes_section(runs: Runs) -> str:
    rows = [["", "in the report", "evidence", "what we do"],
            *([str(number), mistake.text, mistake.shown(runs), mistake.remedy]
              for number, mistake in enumerate(MISTAKES, start=1))]
    return f"## What the report got wrong\n\n{card.markdown_table(rows)}\n"


def to_html(text: str, folder: pathlib.Path) -> str:
    """One self-contained HTML file from the page's Markdown; its pictures are read from `folder`."""
    import markdown

    def embed(match: re.Match[str]) -> str:
        return f'src="{webpage.source((folder / html.unescape(match.group(1))).read_bytes())}"'

    body = re.sub(r'src="([^":]+\.png)"', embed, markdown.markdown(text, extensions=["tables"]))
    return webpage.document(TITLE, body)
