"""The zoo as text: the table of all models and the card of one. Standard library alone; no TensorFlow.

Scores come from `results.csv`; a model without rows in it has none.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from typing import Any, Sequence

from fmnist_zoo import custom, results, weights
from fmnist_zoo.results import Score
from fmnist_zoo.settings import settings_of
from fmnist_zoo.spec import ACTIVATION, BATCH_NORM, DENSE, DROPOUT, LAYER_NORM, Layer, ModelSpec, Recipe

ABOUT = """\
data
  Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747), Zalando SE, MIT licence: 54,000 images to train on,
  6,000 to choose the epoch, and 10,000 for the score, which are used for nothing else
intended use
  teaching, comparisons, a baseline for fully-connected networks
limits
  28x28 grey images of ten kinds of garment, bright on black. Any other object is classified as a garment, and
  photographs that differ from the shop's are recognised less well than the scores say. Shirts, pullovers, coats and
  T-shirts are confused most often. Scores are of one test set that the world has tuned on for years"""

IN_EACH_RECIPE = ("epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "validation_size",
                  "early_stopping", "weights")


def rates_text(spec: ModelSpec) -> str:
    """`0.3` if all layers have one rate, `0.3/0.2/0.1` if they differ, `-` without dropout."""
    rates = spec.dropout[:1] if len(set(spec.dropout)) == 1 else spec.dropout
    return "/".join(f"{rate:g}" for rate in rates) or "-"


def penalty_text(spec: ModelSpec) -> str:
    """`L1 0.001`, `L1 0.001 + L2 0.001`, or `-`."""
    return " + ".join(f"{kind} {rate:g}" for kind, rate in (("L1", spec.l1), ("L2", spec.l2)) if rate) or "-"


def to_dicts(models: list[tuple[ModelSpec, Recipe]]) -> list[dict[str, Any]]:
    """Everything known about models, ready for JSON; `score` and `weights` are None for a model that has none."""
    scores = {name: dataclasses.asdict(score) for name, score in results.scores().items()}
    shipped = weights.manifest()
    return [{
        **spec.get_config(), "parameters": _parameters(spec),
        "fixed_parameters": spec.fixed_parameters if _parameters(spec) is not None else None,
        "training_flops": spec.training_flops or None,
        "recipe": recipe.get_config(), "score": scores.get(spec.name), "weights": shipped.get(spec.name),
    } for spec, recipe in models]


HEAD = ("name", "layers", "dropout", "penalty", "parameters", "test accuracy", "NLL", "ECE", "seconds", "description")
BUILT = tuple(name for name in HEAD if name not in ("layers", "dropout", "penalty"))  # of what a function builds
NUMERIC = ("parameters", "test accuracy", "NLL", "ECE", "seconds")
EARLIER = "measured before version 1.0; to be measured again"  # of the scores marked with an asterisk


def _tables(models: list[ModelSpec]) -> list[list[tuple[str, ...]]]:
    """The rows of the fully-connected models, and of those that a function builds, each below their head."""
    scores = results.scores()
    found: list[list[tuple[str, ...]]] = [[HEAD], [BUILT]]
    for spec in models:
        settings = () if spec.build else ("-".join(map(str, spec.widths[1:])), rates_text(spec), penalty_text(spec))
        parameters = _parameters(spec)
        found[bool(spec.build)].append((spec.name, *settings, "-" if parameters is None else str(parameters),
                                        *_score_cells(scores.get(spec.name)), spec.description))
    return [rows for rows in found if len(rows) > 1]


def _parameters(spec: ModelSpec) -> int | None:
    """None for a model that a function builds, if it was not built: that needs TensorFlow."""
    return None if spec.build and not spec.summary else spec.parameters


def _score_cells(score: Score | None) -> tuple[str, ...]:
    if score is None:
        return ("-",) * 4
    return (_spread(score.accuracy, score.accuracy_deviation, score) + "*" * score.earlier, f"{score.nll:.3f}",
            f"{score.ece:.3f}", "-" if score.seconds is None else f"{score.seconds:.0f}")


def _spread(mean: float, deviation: float, score: Score) -> str:
    return f"{mean:.4f} ± {deviation:.4f}" if score.seeds > 1 else f"{mean:.4f}"


def _footnote(models: list[ModelSpec], mark: str) -> list[str]:
    """The meaning of the mark, below tables in which a score bears it."""
    scores = results.scores()
    return [f"{mark} {EARLIER}"] if any(scores[spec.name].earlier for spec in models if spec.name in scores) else []


def markdown(models: list[ModelSpec]) -> str:
    """The tables as Markdown, for the README."""
    tables = (markdown_table(rows, numeric=NUMERIC) for rows in _tables(models))
    return "\n\n".join([*tables, *_footnote(models, "\\*")])


def table(models: list[ModelSpec]) -> str:
    """The tables as text, one line for each model."""
    return "\n\n".join([*(aligned(rows, numeric=NUMERIC) for rows in _tables(models)), *_footnote(models, "*")])


def aligned(rows: Sequence[Sequence[str]], *, numeric: Sequence[str]) -> str:
    """A table as text; the first row is the head, and the columns whose heads are in `numeric` are right-aligned."""
    columns = []
    for column in (list(map(printable, cells)) for cells in zip(*rows)):
        width = max(map(len, column))
        adjust = str.rjust if column[0] in numeric else str.ljust
        columns.append([adjust(cell, width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns))


def markdown_table(rows: Sequence[Sequence[str]], *, numeric: Sequence[str] = ()) -> str:
    """A table as `aligned`, in Markdown; a vertical bar within a cell is escaped."""
    head, *others = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    rule = ["---:" if name in numeric else "---" for name in head]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *others))


def counted(number: int, what: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{number} {what}{'s' * (number != 1)}"


def printable(text: str) -> str:
    """Text on one line, without control characters that a terminal would obey: file names may hold both.

    In a locale without UTF-8, Python has such letters of a file name as bytes; here they are letters again.
    """
    if text.isprintable():
        return text
    text = re.sub("[\udc80-\udcff]+", lambda found: os.fsencode(found[0]).decode(errors="surrogateescape"), text)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _layers(spec: ModelSpec) -> list[str]:
    """A row for each layer that holds numbers; its words include the layers after it that hold none."""
    rows: list[tuple[Layer, list[str]]] = []
    for layer in spec.layers:
        if layer.parameters:
            rows.append((layer, []))
        rows[-1][1].append(_words(layer))
    texts = [", ".join(words) for _, words in rows]
    width = max(18, *map(len, texts))
    lines = [f"  {layer.fan_in:>4} -> {layer.units:<4} {text:<{width}} {layer.parameters:>9} parameters"
             for (layer, _), text in zip(rows, texts)]
    fixed = f" and {spec.fixed_parameters} that are not trained" if spec.fixed_parameters else ""
    return [*lines, f"  parameters {spec.parameters}{fixed}, training {spec.training_flops / 1e6:.2f} MFLOP an image, "
            f"initializer {spec.initializer}, penalty {penalty_text(spec)}"]


def _words(layer: Layer) -> str:
    activation = "ReLU" if layer.activation == "relu" else layer.activation
    return "logits" if layer.name == "logits" else {
        DENSE: activation or "linear", ACTIVATION: activation, DROPOUT: f"dropout {layer.rate:g}",
        BATCH_NORM: "batch normalization", LAYER_NORM: "layer normalization"}[layer.kind]


def _built_layers(spec: ModelSpec) -> list[str]:
    """What Keras says of a model that a function builds, or else the function's own words."""
    known, by = spec.summary, f"built by {custom.readable(spec.build)}"
    if known is None:
        return [f"  {by} when it is trained"]
    described = (inspect.getdoc(spec.builder.function) or "").splitlines()
    fixed = f" and {known.fixed} that are not trained" if known.fixed else ""
    return [*(f"  {line}".rstrip() for line in known.layers or described),
            f"  parameters {known.parameters}{fixed}, {by} for images of shape {custom.shape_text(known.input)}"]


def _recipe(recipe: Recipe) -> list[str]:
    """A line for each setting that every recipe has, and for each of the others that is on."""
    shown = {name: known.kind.write(getattr(recipe, name)) for name, known in settings_of(Recipe).items()
             if name in IN_EACH_RECIPE or getattr(recipe, name) != known.default
             or recipe.teacher and name.startswith("teacher")}
    width = max(16, *map(len, shown))
    return [f"  {name:<{width}} {value}" for name, value in shown.items()]


def card(spec: ModelSpec, recipe: Recipe, *, published: bool = True) -> str:
    """One model in full; `published`: whether this is the recipe of `--model` and of the published scores."""
    lines = [
        f"{spec.name}: {spec.description}", "", "layers", *(_built_layers(spec) if spec.build else _layers(spec)),
        "", "recipe", *_recipe(recipe),
    ]
    if not published:
        return "\n".join(lines)
    lines += ["", "train it",
              f"  python -m trainers.train --model={spec.name}{custom.flag(spec.modules)}"]
    score, shipped = results.scores().get(spec.name), weights.manifest().get(spec.name)
    if score:
        lines += [
            "", f"score on the 10,000 test images, mean ± standard deviation, seeds: {score.seeds}",
            f"  accuracy {_spread(score.accuracy, score.accuracy_deviation, score)}",
            f"  NLL      {_spread(score.nll, score.nll_deviation, score)}",
            f"  ECE      {_spread(score.ece, score.ece_deviation, score)}",
            f"  trained in {_score_cells(score)[-1]} s (median)",
            *([f"  together, as an ensemble: accuracy {score.together:.4f}"] if score.together else []),
            *([f"  trained on all 60,000 images: accuracy {score.of_all:.4f}"] if score.of_all else []),
            *([f"  {EARLIER}"] if score.earlier else []),
        ]
    if shipped:
        lines += ["", "trained weights", f"  seed {shipped['seed']}, {shipped['dtype']}, {shipped['bytes']} bytes, "
                  f"test accuracy {shipped['scores']['test_accuracy']:.4f}, sha256 {shipped['sha256'][:12]}",
                  f"  fmnist_zoo.load_model({spec.name!r})"]
    return "\n".join([*lines, *(["", ABOUT] if score or shipped else [])])
