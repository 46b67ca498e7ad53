"""How near this process' first two cores are to each other: an epoch takes up to twice as long on cores that are far.

Cores of one chiplet share a cache. A host may move the virtual cores of a machine to two chiplets for 10 to 60 seconds;
on a processor with two chiplets the kernel does it with two threads. Products and memory keep their speed, so a round
trip between the cores is measured: one of them sets a byte, the other one sets it back. Python's share of it is the
same on all cores. Other programs on the cores interrupt some groups of turns; the fastest group counts.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Any, Sequence

GROUPS, TURNS = 40, 250  # three milliseconds
FAR = 1.5  # times the smallest round trip
NEAR_CORES, FAR_CORES, CHANGED = "near", "far", "changed"  # kinds of runs


def round_trip() -> float:
    """Nanoseconds; 0 on one core, and where a process cannot choose its core."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return 0.0
    with mmap.mmap(-1, 1) as byte:  # shared with the child
        os.sched_setaffinity(0, cores[:1])
        child = os.fork()
        if not child:
            os.sched_setaffinity(0, cores[1:2])
            for _ in range(GROUPS * TURNS):
                while not byte[0]:
                    pass
                byte[0] = 0
            os._exit(0)
        took = [_group(byte) for _ in range(GROUPS)]
        os.waitpid(child, 0)
    os.sched_setaffinity(0, cores)
    return min(took) / TURNS


def _group(byte: mmap.mmap) -> int:
    began = time.perf_counter_ns()
    for _ in range(TURNS):
        byte[0] = 1
        while byte[0]:
            pass
    return time.perf_counter_ns() - began


def name_kinds(runs: Sequence[dict[str, Any]]) -> None:
    """Says of each run in `cores` whether they were near, far, or changed, from `round_trip_ns` before and after it."""
    nearest = min(ns for run in runs for ns in run["round_trip_ns"])
    for run in runs:
        far = {ns > FAR * nearest for ns in run["round_trip_ns"]}
        run["cores"] = CHANGED if len(far) > 1 else FAR_CORES if True in far else NEAR_CORES
