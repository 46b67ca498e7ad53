"""The zoo as text: the table of all models and the card of one. Standard library alone; no TensorFlow."""

from __future__ import annotations

import dataclasses
from typing import Any, Sequence

from fmnist_zoo.spec import ModelSpec, Recipe


def rates_text(spec: ModelSpec) -> str:
    """`0.3` where all layers share a rate, `0.3/0.2/0.1` for a schedule, `-` where nothing is dropped."""
    rates = spec.dropout[:1] if len(set(spec.dropout)) == 1 else spec.dropout
    return "/".join(f"{rate:g}" for rate in rates) or "-"


def penalty_text(spec: ModelSpec) -> str:
    """`L1 0.001`, `L1 0.001 + L2 0.001`, or `-`."""
    return " + ".join(f"{kind} {rate:g}" for kind, rate in (("L1", spec.l1), ("L2", spec.l2)) if rate) or "-"


def layers_text(spec: ModelSpec) -> str:
    return "-".join(map(str, spec.widths[1:]))


def facts(spec: ModelSpec, recipe: Recipe) -> dict[str, Any]:
    """Everything known of a model, as JSON takes it."""
    return {
        **spec.to_dict(), "parameters": spec.parameters, "training_flops": spec.training_flops,
        "recipe": dataclasses.asdict(recipe),
    }


HEAD = ("name", "layers", "dropout", "penalty", "parameters", "MFLOP/image", "description")


def _row(spec: ModelSpec) -> tuple[str, ...]:
    return (spec.name, layers_text(spec), rates_text(spec), penalty_text(spec), str(spec.parameters),
            f"{spec.training_flops / 1e6:.2f}", spec.description)


def markdown(models: list[ModelSpec]) -> str:
    """The table as Markdown, for the README."""
    lines = [HEAD, tuple("---:" if head in ("parameters", "MFLOP/image") else "---" for head in HEAD)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *map(_row, models)])


def table(models: list[ModelSpec]) -> str:
    """One line a model."""
    return aligned([HEAD, *map(_row, models)], numeric=("parameters", "MFLOP/image"))


def aligned(rows: Sequence[tuple[str, ...]], *, numeric: Sequence[str]) -> str:
    """A table as text; the first row is the head, and the columns named `numeric` stand to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    right = [head in numeric for head in rows[0]]
    return "\n".join("  ".join(cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right
                               in zip(row, widths, right)).rstrip() for row in rows)


def card(spec: ModelSpec, recipe: Recipe) -> str:
    """One model in full: layers with their parameters, recipe, and the command that trains it."""
    lines = [f"{spec.name}: {spec.description}", "", "layers"]
    for index, (fan_in, fan_out) in enumerate(zip(spec.widths, spec.widths[1:])):
        last = index == len(spec.hidden)
        dropped = f", dropout {spec.dropout[index]:g}" if spec.dropout and not last else ""
        lines.append(f"  {fan_in:>4} -> {fan_out:<4} {'logits' if last else 'ReLU' + dropped:<18} "
                     f"{(fan_in + 1) * fan_out:>9} parameters")
    lines += [
        f"  parameters {spec.parameters}, training {spec.training_flops / 1e6:.2f} MFLOP an image, "
        f"initializer {spec.initializer}, penalty {penalty_text(spec)}",
        "", "recipe",
        *(f"  {field:<16} {value}" for field, value in dataclasses.asdict(recipe).items()),
        "", "train it", f"  python -m trainers.train --model={spec.name}",
    ]
    return "\n".join(lines)
