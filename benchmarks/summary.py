"""From the runs of `benchmarks.epoch` to figures: medians, ratios within rounds, what counts, shares of the limit."""

from __future__ import annotations

import math
import statistics
from typing import Any, Sequence

from benchmarks import limit as limits
from benchmarks.peers import FAMILIES
from fmnist_zoo import get_spec

# Shuffle orders and dropout masks differ between peers. Epochs of mini have so few updates that chance
# alone makes 12 % (4D_drop03) or 25 % (4L, batch 256): there only a gross error shows, such as dropout left out.
LOSS_TOLERANCE = {"fashion_mnist": 0.03, "mini": 0.3}


def summarize(runs: list[dict[str, Any]], peers: Sequence[str], limited: Sequence[dict[str, Any]] = (),
              notes: Sequence[str] = ()) -> dict[str, Any]:
    """Figures of one model and batch size.

    Args:
        runs: of all `peers` and rounds.
        peers: ratios are against the first of them, and in the order of rounds.
        limited: the answers of `benchmarks.limit`, with their `round`; none: no limit is told.
        notes: who was left out, and why.
    """
    rows, medians = {}, {}
    for peer in peers:
        mine = [run for run in runs if run["peer"] == peer]
        seconds = [second for run in mine for second in run["epoch_seconds"]]
        low, median, high = statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else seconds * 3
        means = {name: statistics.fmean(run[name] for run in mine)
                 for name in ("first_epoch_seconds", "import_seconds", "loss")}
        rows[peer] = {"seconds": median, "quartiles": [low, high],
                      "images_per_second": mine[0]["images"] / median, **means}
        medians[peer] = [statistics.median(run["epoch_seconds"]) for run in mine]
    ratios = {f"{peer}/{peers[0]}": [own / first for own, first in zip(medians[peer], medians[peers[0]])]
              for peer in peers[1:]}
    losses = [row["loss"] for row in rows.values()]
    spread = max(losses) / min(losses) - 1 if all(map(math.isfinite, losses)) else math.inf
    tolerance = LOSS_TOLERANCE[runs[0]["data"]]
    summary = {**{name: runs[0][name] for name in ("model", "batch", "data", "images")}, "peers": rows,
               "ratios": ratios, "best": best(rows), "loss_spread": spread, "loss_tolerance": tolerance,
               "agree": spread <= tolerance, "notes": list(notes)}
    if limited:
        summary["limit"] = limit(summary, medians, limited)
    return summary


def best(rows: dict[str, Any]) -> dict[str, str]:
    """Of each family of peers that was measured, the one with the lowest median: the one that counts."""
    found = {}
    for family, members in FAMILIES.items():
        there = [peer for peer in members if peer in rows]
        if there:
            found[family] = min(there, key=lambda peer: rows[peer]["seconds"])
    return found


def limit(summary: dict[str, Any], medians: dict[str, list[float]],
          limited: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Seconds an epoch of products and bytes, and the share of them in each peer's epoch, a value a round."""
    spec, images = get_spec(summary["model"]), summary["images"]
    batch = images if summary["batch"] == "full" else min(summary["batch"], images)
    steps = {library: [answer["step_seconds"] for answer in limited if answer["library"] == library]
             for library in dict.fromkeys(answer["library"] for answer in limited)}
    library = min(steps, key=lambda name: statistics.median(steps[name]))  # most often the fastest
    bandwidths = [answer["bandwidth"] for answer in limited if "bandwidth" in answer]
    products = [min(seconds) * images / batch for seconds in zip(*steps.values())]  # of each round
    moved = limits.adam_bytes(spec) * -(-images // batch)
    bounds = [product + moved / bandwidth for product, bandwidth in zip(products, bandwidths)]
    product, bandwidth = statistics.median(products), statistics.median(bandwidths)
    return {"seconds": statistics.median(bounds), "products_seconds": product, "library": library,
            "flops_per_second": limits.flops(spec, batch) * images / batch / product,
            "libraries": {name: statistics.median(seconds) * images / batch for name, seconds in steps.items()},
            "bytes_seconds": moved / bandwidth, "bandwidth": bandwidth, "working_set": limits.working_set(spec),
            "cache": max(answer.get("cache", 0) for answer in limited),
            "shares": {peer: [bound / own for bound, own in zip(bounds, found)] for peer, found in medians.items()}}


def describe(summary: dict[str, Any]) -> str:
    """A summary as a person reads it."""
    lines = [f"{summary['model']}, batch {summary['batch']}, {summary['images']} images"]
    width = max(8, *map(len, summary["peers"]))
    for peer, row in summary["peers"].items():
        low, high = row["quartiles"]
        lines.append(f"  {peer:<{width}} {row['seconds']:.3f} s an epoch (quartiles {low:.3f} to {high:.3f}), "
                     f"{row['images_per_second']:.0f} images/s; first epoch {row['first_epoch_seconds']:.1f} s, "
                     f"import {row['import_seconds']:.1f} s; loss {row['loss']:.4f}")
    for name, ratios in summary["ratios"].items():
        lines.append(f"  {name} {statistics.median(ratios):.2f} (median of rounds; {min(ratios):.2f} to "
                     f"{max(ratios):.2f}, rounds: {len(ratios)})")
    lines += [f"  best of {family}: {peer}; this one counts" for family, peer in summary["best"].items()]
    lines += _describe_limit(summary["limit"]) if "limit" in summary else []
    lines += [f"  {note}" for note in summary["notes"]]
    found = f"{summary['loss_spread']:.1%} apart, {summary['loss_tolerance']:.0%} allowed"
    if not summary["agree"]:
        lines.append(f"  *** MISMATCH: training losses are {found}: not the same work, times compare nothing ***")
    elif summary["ratios"]:
        lines.append(f"  the peers reach the same training loss: {found}")
    return "\n".join(lines)


def _describe_limit(found: dict[str, Any]) -> list[str]:
    others = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in found["libraries"].items()
                       if name != found["library"])
    size, cache = found["working_set"], found["cache"]
    where = f"{'within' if size <= cache else 'beyond'} the cache of {cache / 1e6:.1f} MB" if cache else "cache unknown"
    shares = ", ".join(f"{peer} {statistics.median(shares):.0%}" for peer, shares in found["shares"].items())
    return [f"  limit {found['seconds']:.3f} s an epoch: {found['products_seconds']:.3f} s of matrix products "
            f"({found['library']}, {found['flops_per_second'] / 1e9:.0f} GFLOP/s{'; ' * bool(others)}{others}) and "
            f"{found['bytes_seconds']:.3f} s of Adam's bytes ({found['bandwidth'] / 1e9:.0f} GB/s on the "
            f"{size / 1e6:.1f} MB that it works on, {where})", f"  share of the limit: {shares}"]
