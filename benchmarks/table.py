"""The README's table of speed, from the last full run: `python -m benchmarks.table`.

`python -m benchmarks.epoch --json=benchmarks/results.json` writes the file (CONTRIBUTING.md has the whole line); nobody
types numbers.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
from typing import Any, Sequence

from benchmarks import command
from benchmarks.peers import FAMILIES
from fmnist_zoo.errors import ZooError
from trainers import cli

RESULTS = command.ROOT / "benchmarks" / "results.json"
TITLES = {"tape": "`tape`", "fit": "`Model.fit`", "torch": "PyTorch", "jax": "JAX"}
PACKAGES = {"tensorflow": "TensorFlow", "keras": "Keras", "torch": "PyTorch", "jax": "JAX", "sklearn": "scikit-learn",
            "numpy": "NumPy"}


class TableError(ZooError, ValueError):
    """A file without a run of `benchmarks.epoch`."""


def read(path: pathlib.Path) -> str:
    """The table of a file that `benchmarks.epoch --json` wrote; `TableError` if it is missing or something else."""
    advice = f"make it with: python -m benchmarks.epoch --json={path}"
    try:
        return table(json.loads(path.read_text()))
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}; {advice}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise TableError(f"{path}: not a file of benchmarks.epoch ({error!r}); {advice}") from error


def table(content: dict[str, Any]) -> str:
    """The Markdown of a run: a row a model and batch size, a column an engine, and where the numbers come from."""
    summaries = content["summaries"]
    used = {column for summary in summaries for column in _peers(summary)}
    columns = [column for column in TITLES if column in used]
    rows = [["model", "batch", *(TITLES[column] for column in columns), "limit"],
            ["---", "---:"] + ["---:"] * (len(columns) + 1), *(_row(summary, columns) for summary in summaries)]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    versions = {name: version for loaded in content["versions"].values() if isinstance(loaded, dict)
                for name, version in loaded.items()}
    named = ", ".join(f"{title} {versions[name]}" for name, title in PACKAGES.items() if name in versions)
    own = next(iter(summaries[0]["peers"]))
    best = sorted({member for summary in summaries for member in summary["best"].values()})
    note = f" The best of PyTorch's ways: {', '.join(best)}." if best else ""
    return (f"{lines}\n\nSeconds an epoch of {summaries[0]['images']} images, medians of {content['rounds']} "
            f"interleaved rounds. In brackets: how many times as long as `{own}` in the same round; in the column "
            f"limit, the share of it that `{own}` reaches. Both are medians over rounds, and may differ from the "
            f"quotient of two cells.{note} {content['machine']['cpu']}, {content['machine']['cores']} cores; {named}; "
            f"commit {content['commit'][:12]}{content['commit'][40:]}.")


def _peers(summary: dict[str, Any]) -> dict[str, str]:
    """Column to peer: a family's fastest member, and every other peer under its own name."""
    members = {member for family in FAMILIES.values() for member in family}
    return {**{peer: peer for peer in summary["peers"] if peer not in members}, **summary["best"]}


def _row(summary: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """A model and batch size: seconds, and in brackets how many times those of the first peer."""
    first = next(iter(summary["peers"]))
    cells = [summary["model"] + ("" if summary["agree"] else " (losses differ)"), str(summary["batch"])]
    for column in columns:
        peer = _peers(summary).get(column)
        if peer is None:
            cells.append("-")
            continue
        ratios = summary["ratios"].get(f"{peer}/{first}")
        ratio = f" ({_digits(statistics.median(ratios))}x)" if ratios else ""
        cells.append(f"{_digits(summary['peers'][peer]['seconds'])} s{ratio}")
    limit = summary.get("limit")
    share = f"{_digits(limit['seconds'])} s ({statistics.median(limit['shares'][first]):.0%})" if limit else "-"
    return [*cells, share]


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else f"{value:.5f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.table", __doc__)
    parser.add_argument("path", nargs="?", type=pathlib.Path, default=RESULTS, help="a file of `epoch --json`")
    path = parser.parse_args(arguments).path
    return cli.run("table", lambda: _main(path))


def _main(path: pathlib.Path) -> int:
    print(read(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
