"""Which workers run the trials of a sweep: processes of this machine, or those of a cluster."""

from __future__ import annotations

from trainers.tuning.cluster import ClusterPool
from trainers.tuning.local import LocalPool
from trainers.tuning.scheduler import Scheduler
from trainers.tuning.trial import DIED
from trainers.tuning.workers import Pool, PoolError

__all__ = ["DIED", "Pool", "PoolError", "make"]


def make(workers: int, scheduler: Scheduler | None, threads: int) -> Pool:
    """The workers of a cluster's scheduler if there is one, else `workers` processes on this machine.

    Args:
        threads: the setting of the runs that they will train.

    Raises:
        ConfigError: as `Scheduler.security`.
        PoolError: if the scheduler does not answer.
    """
    return ClusterPool(scheduler, threads) if scheduler else LocalPool(threads, workers)
