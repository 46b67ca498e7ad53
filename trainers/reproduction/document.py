"""The report's page: Markdown from runs, and one HTML file from the Markdown with its pictures inside."""

from __future__ import annotations

import base64
import html
import pathlib
import re
from typing import Any, Mapping, Sequence

import numpy as np

from fmnist_zoo.statistics import compare
from trainers.reproduction import figures, mistakes
from trainers.reproduction.experiments import Claim, Experiment, Printed

History = list[dict[str, Any]]
Histories = Mapping[tuple[str, str], Sequence[History]]  # (model, trainer) to one history a seed
NUMBERS = ("train loss", "validation loss", "train accuracy", "validation accuracy")
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0;font-size:14px}
td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left}
th{background:#f4f4f4}
img{max-width:100%}code{background:#f4f4f4;padding:0 .2em}"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar within a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _ours(printed: Printed, histories: Sequence[History]) -> list[np.ndarray]:
    """Our four numbers at the printed epoch, (seeds,) each; the last epoch if the run was shorter."""
    rows = [history[min(printed.epoch, len(history)) - 1] for history in histories]
    penalty = "validation_penalty" if printed.objective else None
    return [
        np.array([row["train_objective" if printed.objective else "train_loss"] for row in rows]),
        np.array([row["validation_loss"] + (row[penalty] if penalty else 0.0) for row in rows]),
        np.array([row["train_accuracy"] for row in rows]), np.array([row["validation_accuracy"] for row in rows])]


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.4f}" + (f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else "")


def beside(experiment: Experiment, runs: Histories) -> str:
    """The report's numbers beside ours; models that the report gave no number get a row too."""
    named = {printed.model for printed in experiment.printed}
    rows = []
    for printed in [*experiment.printed, *(Printed(model, 10**9) for model in experiment.models if model not in named)]:
        histories = runs[printed.model, experiment.trainer]
        theirs = (printed.train_loss, printed.validation_loss, printed.train_accuracy, printed.validation_accuracy)
        ours = _ours(printed, histories)
        shown = [printed.model + (" (objective)" if printed.objective else ""),
                 str(min(printed.epoch, len(histories[0])))]
        for their, our in zip(theirs, ours):
            shown += ["" if their is None else f"{their:g}", _spread(our)]
        rows.append(shown)
    head = ["model", "epoch", *(cell for name in NUMBERS for cell in (f"report: {name}", "ours"))]
    return table(head, rows)


def reading(experiment: Experiment, runs: Histories) -> str:
    """The claims of one experiment, each with its test."""
    rows = [_claim(claim, experiment.trainer, runs) for claim in experiment.claims]
    return table(["the report's claim", "difference over seeds", "p (paired t)", "our reading"], rows) if rows else ""


def _claim(claim: Claim, trainer: str, runs: Histories) -> list[str]:
    values = [np.array([history[-1][claim.column] for history in runs[model, trainer]])
              for model in (claim.better, claim.worse)]
    found = compare(*values, lower_is_better=claim.column.endswith("loss"))
    error = "" if found.error is None else f" ± {found.error:.4f}"
    return [claim.text, f"{found.difference:+.4f}{error} {claim.column.replace('_', ' ')}, last epoch",
            "" if found.p is None else f"{found.p:.2g}", found.verdict]


def opposite_moves(history: History) -> str:
    """The largest case in a run where rounded accuracy rises while argmax accuracy falls, or the other way round."""
    top = np.array([row["validation_accuracy"] for row in history])
    by_rounding = np.array([row["validation_rounded_accuracy"] for row in history])
    moves = np.minimum(np.diff(by_rounding), -np.diff(top))
    other = np.minimum(-np.diff(by_rounding), np.diff(top))
    at = int(np.argmax(np.maximum(moves, other)))
    if max(moves[at], other[at]) <= 0:
        return "In this run the two never moved apart."
    return (f"From epoch {at + 1} to {at + 2} the argmax accuracy went from {top[at]:.4f} to {top[at + 1]:.4f} while "
            f"the rounded one went from {by_rounding[at]:.5f} to {by_rounding[at + 1]:.5f}.")


def question(folder: pathlib.Path, runs: Histories, untrained: dict[str, float]) -> str:
    """The answer to what the author asks: why tf.round gives so high an accuracy."""
    histories = {model: found[0] for (model, trainer), found in runs.items()
                 if model in ("network_softmax", "network_A", "2L", "softmax")}
    histories = histories or {model: found[0] for (model, trainer), found in runs.items()}  # a page of dropout alone
    figures.rounded(folder / "rounded.png", dict(list(histories.items())[:3]))
    moves = [f"- {model}: {opposite_moves(history)}" for model, history in histories.items()]
    return "\n".join([
        "## The question about tf.round", "",
        "The author asks why the accuracy computed with `tf.round` came out high when it should have dropped. Because "
        "it compares entries, not images: nine of an image's ten one-hot entries are zeros, and a rounded prediction "
        "has at most one entry that is not. With c, w and u the shares of images whose top probability is over one "
        "half and right, over one half and wrong, or not over one half,", "",
        "    rounded accuracy = 1 - (u + 2 w) / 10 = 0.9 + (c - w) / 10", "",
        f"so that a network that says nothing scores 0.9. Our untrained network scores {untrained['value']:.5f} on "
        f"the validation images (c = {untrained['right']:.4f}, w = {untrained['wrong']:.4f}, "
        f"u = {untrained['unsure']:.4f}); the report's 0.89999 on 10,000 images is exactly one sure miss more than "
        "sure hits. The range is 0.8 to 1, and 0.8 + a / 10 <= rounded <= 0.9 + a / 10 for an argmax accuracy a. It is "
        "not monotone in a, so 'the overall trend remains the same' is false in general; from these runs:", "",
        *moves, "",
        "![rounded against argmax accuracy](rounded.png)", ""])


def wrong(runs: Histories) -> str:
    """What the report got wrong, with what shows it, computed now."""
    plain = {model: histories for (model, _), histories in runs.items()}
    rows = [[str(number), what, shown(plain) if shown else "", better]
            for number, (what, better, shown) in enumerate(mistakes.ROWS, start=1)]
    return "## What the report got wrong\n\n" + table(["", "in the report", "shown", "what we do"], rows) + "\n"


PART_B = """## Part B's numbers

They very likely come from another data set: the report names none in Part B. Of its five validation accuracies,
{impossible} are the rounded share of no count of hits on a validation split of 6,000 images; and plain networks on
Fashion-MNIST end near a validation loss of 0.3 to 0.5 at this batch size, not at 0.58 to 0.74. So its numbers stand
beside ours as "report, data set not named", and are no target.
"""


def part_b() -> str:
    """The evidence, counted: which of the printed accuracies no count of 6,000 images rounds to."""
    printed = (0.8999, 0.9049, 0.9071, 0.8911, 0.9034)
    impossible = sum(not any(round(count / 6000, 4) == value for count in range(6001)) for value in printed)
    return PART_B.format(impossible=impossible)


def to_html(markdown_text: str, folder: pathlib.Path, title: str) -> str:
    """One self-contained page: the pictures named in the Markdown lie in `folder` and go into it as data."""
    import markdown

    body = markdown.markdown(markdown_text, extensions=["tables"])

    def embed(match: re.Match[str]) -> str:
        data = base64.b64encode((folder / html.unescape(match.group(1))).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    body = re.sub(r'src="([^":]+\.png)"', embed, body)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n")
