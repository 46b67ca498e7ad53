"""Figures of speed from the answers of `benchmarks.epoch`'s workers, for a terminal and as the README's table.

    python -m benchmarks.epoch --models softmax 2L --peers tape fit fit_epoch torch jax --json=benchmarks/results.json
    python -m benchmarks.table         # prints that file's table; nobody types numbers
"""

from __future__ import annotations

import collections
import json
import math
import pathlib
import statistics
import sys
import textwrap
from typing import Any, Sequence

from benchmarks import command
from benchmarks.cores import CHANGED
from fmnist_zoo import card
from fmnist_zoo.errors import ZooError

RESULTS = command.ROOT / "benchmarks" / "results.json"
TITLES = {"tape": "`tape`", "scratch": "`scratch`", "fit": "`Model.fit`", "fit_epoch": "`fit`, an epoch a call",
          "torch": "PyTorch", "jax": "JAX"}
PACKAGES = {"tensorflow": "TensorFlow", "keras": "Keras", "torch": "PyTorch", "jax": "JAX", "numpy": "NumPy"}
# Shuffle orders and dropout masks differ between peers. An epoch of mini has so few updates that chance alone makes
# 12 % (4D_drop03) or 25 % (4L, batch 256): only a gross error shows there, such as dropout left out.
LOSS_TOLERANCE = {"fashion_mnist": 0.03, "mini": 0.3}


class TableError(ZooError, ValueError):
    """A file without a run of `benchmarks.epoch`."""


def summaries(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures of each model and batch size, in the order in which they were run."""
    peers = list(dict.fromkeys(run["peer"] for run in runs))
    places = dict.fromkeys((run["model"], run["batch"]) for run in runs)
    return [summarize([run for run in runs if (run["model"], run["batch"]) == place], peers) for place in places]


def summarize(runs: list[dict[str, Any]], peers: Sequence[str]) -> dict[str, Any]:
    """Figures of one model and batch size, from the answers of all `peers` in all rounds, as far as `_alike` has them.

    Ratios are against the first peer, in the order of rounds.
    """
    used, kind = _alike(runs, peers)
    rows = {}
    for peer in peers:
        mine = [run for run in used if run["peer"] == peer]
        seconds = [second for run in mine for second in run["epoch_seconds"]]
        low, median, high = statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else seconds * 3
        rows[peer] = {"seconds": median, "quartiles": [low, high], "runs": len(mine),
                      "memory_mb": max(run["memory_mb"] for run in mine),
                      **{name: statistics.fmean(run[name] for run in mine) for name in ("first_epoch_seconds", "loss")}}
    ratios = {f"{peer}/{peers[0]}": _ratios(used, peer, peers[0]) for peer in peers[1:]}
    losses = [row["loss"] for row in rows.values()]
    spread = max(losses) / min(losses) - 1 if all(map(math.isfinite, losses)) else math.inf
    tolerance = LOSS_TOLERANCE[runs[0]["data"]]
    return {**{name: runs[0][name] for name in ("model", "batch", "data", "images")}, "peers": rows, "ratios": ratios,
            "cores": kind, "used": len(used), "runs": len(runs), "loss_spread": spread, "loss_tolerance": tolerance,
            "agree": spread <= tolerance}


def _alike(runs: list[dict[str, Any]], peers: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """The runs of the kind of `benchmarks.cores` that most have, and that kind; all runs, and "", if that leaves less
    than two rounds in which a peer can be compared with the first."""
    least = min(2, len({run["round"] for run in runs}))
    for kind, _ in collections.Counter(run["cores"] for run in runs).most_common():
        used = [run for run in runs if run["cores"] == kind]
        if kind != CHANGED and all(len(_ratios(used, peer, peers[0])) >= least for peer in peers):
            return used, kind
    return runs, ""


def _ratios(runs: list[dict[str, Any]], peer: str, first: str) -> list[float]:
    """Of the median epochs of two peers, in each round in which both ran."""
    medians = {(run["round"], run["peer"]): statistics.median(run["epoch_seconds"]) for run in runs}
    return [seconds / medians[turn, first] for (turn, one), seconds in sorted(medians.items())
            if one == peer and (turn, first) in medians]


def describe(summary: dict[str, Any]) -> str:
    """A summary as text for a terminal: a line a peer."""
    first = next(iter(summary["peers"]))
    head = ("", "s an epoch", "quartiles", f"times {first}", "first epoch", "peak MB", "loss")
    rows = [head]
    for peer, row in summary["peers"].items():
        low, high = row["quartiles"]
        ratios = summary["ratios"].get(f"{peer}/{first}")
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
        rows.append((peer, f"{row['seconds']:.3f}", f"{low:.3f} to {high:.3f}", ratio,
                     f"{row['first_epoch_seconds']:.1f}", f"{row['memory_mb']:.0f}", f"{row['loss']:.4f}"))
    lines = [f"{summary['model']}, batch {summary['batch']}, {summary['images']} images",
             textwrap.indent(card.aligned(rows, numeric=(head[1], *head[4:])), "  ")]
    lines.append(f"  cores {summary['cores']} in {summary['used']} of {summary['runs']} runs, which count"
                 if summary["cores"] else "  cores near and far: too few runs of one kind, all count")
    spread = f"{summary['loss_spread']:.1%} apart, {summary['loss_tolerance']:.0%} allowed"
    if not summary["agree"]:
        lines.append(f"  *** MISMATCH: training losses are {spread}: the peers do other work, compare no times ***")
    elif summary["ratios"]:
        lines.append(f"  the peers reach the same training loss: {spread}")
    return "\n".join(lines)


def read(path: pathlib.Path) -> str:
    """The table of a file that `benchmarks.epoch --json` wrote; `TableError` if it is missing or something else."""
    try:
        return table(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise TableError(f"{path}: not a file of benchmarks.epoch ({error!r}); make it with: python -m "
                         f"benchmarks.epoch --json={path}") from error


def table(content: dict[str, Any]) -> str:
    """The Markdown of a run: a row a model and batch size, a column an engine, and where the numbers come from."""
    found = summaries(content["runs"])
    columns = [peer for peer in TITLES if any(peer in summary["peers"] for summary in found)]
    head = ["model", "batch", *(TITLES[column] for column in columns), "runs"]
    lines = card.markdown_table([head, *(_row(summary, columns) for summary in found)], numeric=head[1:])
    versions = {name: version for loaded in content["versions"].values() if isinstance(loaded, dict)
                for name, version in loaded.items()}
    named = ", ".join(f"{title} {versions[name]}" for name, title in PACKAGES.items() if name in versions)
    own = next(iter(found[0]["peers"]))
    return (f"{lines}\n\nSeconds an epoch of {found[0]['images']} images, medians of {content['rounds']} "
            f"interleaved rounds, of those runs that had both cores near each other where these are enough to compare. "
            f"In brackets: how many times as long as `{own}` in the same round, a median over rounds, which may differ "
            f"from the quotient of two cells. {content['machine']['cpu']}, "
            f"{content['machine']['cores']} cores; {named}; commit {content['commit'][:12]}{content['commit'][40:]}.")


def _row(summary: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """A model and batch size: seconds, and in brackets how many times those of the first peer."""
    first = next(iter(summary["peers"]))
    cells = [summary["model"] + ("" if summary["agree"] else " (losses differ)"), str(summary["batch"])]
    for column in columns:
        ratios = summary["ratios"].get(f"{column}/{first}")
        ratio = f" ({_digits(statistics.median(ratios))}x)" if ratios else ""
        found = summary["peers"].get(column)
        cells.append(f"{_digits(found['seconds'])} s{ratio}" if found else "-")
    return [*cells, f"{summary['used']} {summary['cores'] or 'near and far'}"]


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else f"{value:.5f}"


def main(arguments: Sequence[str] | None = None) -> int:
    from trainers import cli

    parser = command.make_parser("benchmarks.table", __doc__)
    parser.add_argument("path", nargs="?", type=pathlib.Path, default=RESULTS, help="a file of `epoch --json`")
    path = parser.parse_args(arguments).path

    def show() -> int:
        print(read(path))
        return 0

    return cli.run("table", show)


if __name__ == "__main__":
    sys.exit(main())
