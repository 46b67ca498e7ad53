"""From the answers of `benchmarks.epoch`'s workers to figures: medians, ratios within rounds, shares of the limit."""

from __future__ import annotations

import math
import statistics
import textwrap
from typing import Any, Sequence

from benchmarks.limit import BYTES_A_PARAMETER
from benchmarks.peers import FAMILIES
from fmnist_zoo import card, get_spec

# Shuffle orders and dropout masks differ between peers. An epoch of mini has so few updates that chance alone makes
# 12 % (4D_drop03) or 25 % (4L, batch 256): only a gross error shows there, such as dropout left out.
LOSS_TOLERANCE = {"fashion_mnist": 0.03, "mini": 0.3}


def summarize(runs: list[dict[str, Any]], peers: Sequence[str], limits: Sequence[dict[str, Any]] = ()
              ) -> dict[str, Any]:
    """Figures of one model and batch size, from the answers of all `peers` and of `benchmarks.limit` in all rounds.

    Ratios are against the first peer, in the order of rounds.
    """
    rows, medians = {}, {}
    for peer in peers:
        mine = [run for run in runs if run["peer"] == peer]
        seconds = [second for run in mine for second in run["epoch_seconds"]]
        low, median, high = statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else seconds * 3
        rows[peer] = {"seconds": median, "quartiles": [low, high], "memory_mb": max(run["memory_mb"] for run in mine),
                      **{name: statistics.fmean(run[name] for run in mine) for name in ("first_epoch_seconds", "loss")}}
        medians[peer] = [statistics.median(run["epoch_seconds"]) for run in mine]
    ratios = {f"{peer}/{peers[0]}": [own / first for own, first in zip(medians[peer], medians[peers[0]])]
              for peer in peers[1:]}
    losses = [row["loss"] for row in rows.values()]
    spread = max(losses) / min(losses) - 1 if all(map(math.isfinite, losses)) else math.inf
    tolerance = LOSS_TOLERANCE[runs[0]["data"]]
    summary = {**{name: runs[0][name] for name in ("model", "batch", "data", "images")}, "peers": rows,
               "ratios": ratios, "best": _best(rows), "loss_spread": spread, "loss_tolerance": tolerance,
               "agree": spread <= tolerance}
    if limits:
        summary["limit"] = _limit(summary, medians, limits)
    return summary


def _best(rows: dict[str, Any]) -> dict[str, str]:
    """The fastest member of each family that was measured."""
    best = {}
    for family, members in FAMILIES.items():
        measured = [peer for peer in members if peer in rows]
        if measured:
            best[family] = min(measured, key=lambda peer: rows[peer]["seconds"])
    return best


def _limit(summary: dict[str, Any], medians: dict[str, list[float]],
           limits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Seconds of an epoch's products and bytes, and each peer's share of them: one a round, by its fastest library."""
    spec, images = get_spec(summary["model"]), summary["images"]
    batch = images if summary["batch"] == "full" else min(summary["batch"], images)
    steps: dict[str, list[float]] = {}
    for answer in limits:
        steps.setdefault(answer["library"], []).append(answer["step_seconds"])
    bandwidths = [answer["bandwidth"] for answer in limits if "bandwidth" in answer]
    products = [min(seconds) * images / batch for seconds in zip(*steps.values())]
    moved = BYTES_A_PARAMETER * spec.parameters * math.ceil(images / batch)
    bounds = [product + moved / bandwidth for product, bandwidth in zip(products, bandwidths)]
    product, bandwidth = statistics.median(products), statistics.median(bandwidths)
    return {"seconds": statistics.median(bounds), "products_seconds": product,
            "library": min(steps, key=lambda library: statistics.median(steps[library])),
            "flops_per_second": spec.training_flops * images / product,
            "libraries": {name: statistics.median(seconds) * images / batch for name, seconds in steps.items()},
            "bytes_seconds": moved / bandwidth, "bandwidth": bandwidth,
            "shares": {peer: [bound / own for bound, own in zip(bounds, found)] for peer, found in medians.items()}}


def describe(summary: dict[str, Any]) -> str:
    """A summary as text for a terminal: a line a peer."""
    first = next(iter(summary["peers"]))
    head = ("", "s an epoch", "quartiles", f"times {first}", "of limit", "first epoch", "peak MB", "loss")
    rows = [head]
    for peer, row in summary["peers"].items():
        low, high = row["quartiles"]
        ratios = summary["ratios"].get(f"{peer}/{first}")
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
        share = f"{statistics.median(summary['limit']['shares'][peer]):.0%}" if "limit" in summary else ""
        mark = "*" if peer in summary["best"].values() else ""
        rows.append((peer + mark, f"{row['seconds']:.3f}", f"{low:.3f} to {high:.3f}", ratio, share,
                     f"{row['first_epoch_seconds']:.1f}", f"{row['memory_mb']:.0f}", f"{row['loss']:.4f}"))
    lines = [f"{summary['model']}, batch {summary['batch']}, {summary['images']} images",
             textwrap.indent(card.aligned(rows, numeric=(head[1], *head[4:])), "  ")]
    if summary["best"]:
        lines.append(f"  * the fastest way of {', '.join(summary['best'])}, which counts")
    if "limit" in summary:
        limit = summary["limit"]
        libraries = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in limit["libraries"].items())
        lines.append(f"  limit {limit['seconds']:.3f} s an epoch: {limit['products_seconds']:.3f} s of matrix products "
                     f"({limit['flops_per_second'] / 1e9:.0f} GFLOP/s; {libraries}) and {limit['bytes_seconds']:.3f} s "
                     f"of Adam's bytes ({limit['bandwidth'] / 1e9:.0f} GB/s)")
    spread = f"{summary['loss_spread']:.1%} apart, {summary['loss_tolerance']:.0%} allowed"
    if not summary["agree"]:
        lines.append(f"  *** MISMATCH: training losses are {spread}: the peers do other work, compare no times ***")
    elif summary["ratios"]:
        lines.append(f"  the peers reach the same training loss: {spread}")
    return "\n".join(lines)
