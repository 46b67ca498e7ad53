"""What the leader needs of a pool of workers, on this machine or on a cluster.

A pool takes jobs (plain data) and returns their outcomes. No job is lost: if its worker dies, its outcome is `DIED`,
and the leader decides whether to submit it again.
"""

from __future__ import annotations

from typing import Any, Protocol

from fmnist_zoo.errors import ZooError

DIED = "DIED"
Outcome = dict[str, Any]


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
        """Waits at most `timeout` seconds for the end of a job; returns (name, outcome) of all that ended.

        The outcome of a job whose worker died has the status `DIED`, and `begun`: False if that worker never took a
        job.

        Raises:
            TrialError: as `trial.run`.
            PoolError: if there will be no workers.
        """

    def close(self) -> None:
        """Ends the workers on this machine."""
