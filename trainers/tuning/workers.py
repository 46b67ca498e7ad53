"""What the leader needs of a pool of workers, on this machine or on a cluster.

A pool takes jobs (plain data) and returns their outcomes. No job is lost: if its worker dies, its outcome is `DIED`,
and the leader decides whether to submit it again.
"""

from __future__ import annotations

import contextlib
import queue
import sys
from typing import Any, Protocol, TypeVar

from fmnist_zoo.errors import ZooError

AT_ONCE = 8  # outcomes that `wait` returns at most: the workers of the first ones need not wait for all the others
Outcome = dict[str, Any]
Item = TypeVar("Item")


class PoolError(ZooError, RuntimeError):
    """No workers can be started or reached, or all of them are gone."""


class Pool(Protocol):
    """Each worker runs one job at a time."""

    @property
    def slots(self) -> int:
        """How many jobs can run at once now; `PoolError` if there will be no workers."""

    def submit(self, name: str, job: dict[str, Any]) -> None:
        """Takes a job for `trial.run`. A pool may hold jobs back until `wait`, so as to send them together."""

    def wait(self, timeout: float) -> list[tuple[str, Outcome]]:
        """Waits at most `timeout` seconds for the end of a job; returns (name, outcome) of up to `AT_ONCE` that ended.

        The outcome of a job whose worker died has the status `DIED`, and `begun`: False if that worker never took a
        job; and `reason`, where it is known how it ended.

        Raises:
            TrialError: as `trial.run`.
            PoolError: if there will be no workers.
        """

    def close(self) -> None:
        """Ends the workers on this machine."""


def drain(filled: queue.SimpleQueue[Item], timeout: float, most: int = sys.maxsize) -> list[Item]:
    """Waits at most `timeout` seconds for an item; takes it and those behind it, up to `most`."""
    items: list[Item] = []
    with contextlib.suppress(queue.Empty):
        items.append(filled.get(timeout=timeout))
        while len(items) < most:
            items.append(filled.get_nowait())
    return items
