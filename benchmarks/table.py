"""The README's table of speed, out of the last full run: `python -m benchmarks.table`.

`python -m benchmarks.epoch --json=benchmarks/results.json` writes it (CONTRIBUTING.md has the whole line); nobody types
numbers.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import sys
from typing import Any, Sequence

from benchmarks.command import ROOT
from benchmarks.peers import FAMILIES

RESULTS = ROOT / "benchmarks" / "results.json"
TITLES = {"tape": "`tape`", "fit": "`Model.fit`", "torch": "PyTorch", "jax": "JAX", "sklearn": "scikit-learn"}
PACKAGES = {"tensorflow": "TensorFlow", "keras": "Keras", "torch": "PyTorch", "jax": "JAX", "sklearn": "scikit-learn",
            "numpy": "NumPy"}


class TableError(ValueError):
    """A file that holds no run of `benchmarks.epoch`: says which, and how to make one."""


def load(path: pathlib.Path) -> dict[str, Any]:
    """What `--json` wrote; `TableError` if it is missing or does not read."""
    advice = f"make it with: python -m benchmarks.epoch --json={path}"
    try:
        content = json.loads(path.read_text())
        if not content["summaries"] or not {"machine", "versions", "rounds", "commit"} <= set(content):
            raise KeyError("summaries")
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}; {advice}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise TableError(f"{path}: holds no run of benchmarks.epoch; {advice}") from error
    return dict(content)


def engines(summary: dict[str, Any]) -> dict[str, str]:
    """Column to peer: of a family the one that counts, everybody else under their own name."""
    members = {member for family in FAMILIES.values() for member in family}
    return {**{peer: peer for peer in summary["peers"] if peer not in members}, **summary["best"]}


def number(value: float) -> str:
    """Three digits that mean something, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else f"{value:.5f}"


def cell(summary: dict[str, Any], peer: str | None) -> str:
    """`1.23 s (2.1x)`: seconds an epoch, and how many times those of the first peer."""
    if peer is None:
        return "-"
    first = next(iter(summary["peers"]))
    text = f"{number(summary['peers'][peer]['seconds'])} s"
    if peer == first:
        return text
    return f"{text} ({number(statistics.median(summary['ratios'][f'{peer}/{first}']))}x)"


def row(summary: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """A model and batch size."""
    found = engines(summary)
    own = next(iter(summary["peers"]))
    bound = summary.get("limit")
    limit = f"{number(bound['seconds'])} s ({statistics.median(bound['shares'][own]):.0%})" if bound else "-"
    mark = "" if summary["agree"] else " (losses differ)"
    return [f"{summary['model']}{mark}", str(summary["batch"]), *(cell(summary, found.get(name)) for name in columns),
            limit]


def table(content: dict[str, Any]) -> str:
    """The Markdown of a run: a row a model and batch size, a column an engine, and where the numbers are from."""
    summaries = content["summaries"]
    used = {name for summary in summaries for name in engines(summary)}
    columns = [name for name in TITLES if name in used] + sorted(used - set(TITLES))
    lines = [["model", "batch", *(TITLES.get(name, name) for name in columns), "limit"], ["---", "---:"]
             + ["---:"] * (len(columns) + 1), *(row(summary, columns) for summary in summaries)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    versions = {name: version for loaded in content["versions"].values() if isinstance(loaded, dict)
                for name, version in loaded.items()}
    named = ", ".join(f"{title} {versions[name]}" for name, title in PACKAGES.items() if name in versions)
    own = next(iter(summaries[0]["peers"]))
    best = sorted({member for summary in summaries for member in summary["best"].values()})
    note = f" The best of PyTorch's ways: {', '.join(best)}." if best else ""
    processor = f"{content['machine']['cpu']}, {content['machine']['cores']} cores"
    images = summaries[0]["images"]
    commit, *changed = content["commit"].split("-")
    return (f"{text}\n\nSeconds an epoch of {images} images, medians of {content['rounds']} interleaved rounds. In "
            f"brackets how many times as long as `{own}` in the same round, at the limit the share of it that `{own}` "
            f"reaches, both medians over the rounds, so that they need not be quotients of the seconds."
            f"{note} {processor}; {named}; commit {'-'.join([commit[:12], *changed])}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=pathlib.Path, default=RESULTS, help="what `epoch --json` wrote")
    path = parser.parse_args(arguments).path
    try:
        content = load(path)
        try:
            print(table(content))
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise TableError(f"{path}: holds no run of benchmarks.epoch ({error!r})") from error
    except TableError as error:
        print(f"table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
