"""Where trials run: in one child process, or in workers of dask.distributed on this machine or on a cluster.

A pool takes jobs (plain data) and returns their outcomes. No job is lost: if its worker dies, its outcome is `DIED`,
and the leader decides whether to submit it again. Workers are replaced after some trials, because TensorFlow never
frees a part of each model.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
import urllib.parse
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, resource_tracker
from typing import Any, Iterator

from fmnist_zoo.errors import ZooError
from trainers.config import ConfigError
from trainers.tuning import trial

TRIALS_A_WORKER = 25  # XLA keeps each program that it compiled: about 10 MB a trial
FAILED_STARTS = 3
DIED = "DIED"
GONE = "the scheduler is gone; start it, then the same command continues"
Outcome = dict[str, Any]


class PoolError(ZooError, RuntimeError):
    """No workers can be started or reached, or all of them are gone."""


class ChildPool:
    """One child process of the standard library, for runs with so many `threads`."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._jobs: dict[str, concurrent.futures.Future] = {}
        self._failed_starts = 0
        self._start()

    def _start(self) -> None:
        """Starts the child and its imports, which take seconds, before the first job."""
        self._executor = concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_child,
            max_tasks_per_child=TRIALS_A_WORKER)
        with _no_ctrl_c_for_children():
            self._warming = self._executor.submit(trial.warm, self._threads)

    @property
    def slots(self) -> int:
        """How many jobs can run at once now."""
        return 1

    def submit(self, name: str, job: dict[str, Any]) -> None:
        with _no_ctrl_c_for_children():
            try:
                self._jobs[name] = self._executor.submit(trial.run, job)
            except BrokenProcessPool:  # the child died while it had no job
                self._restart()
                self._jobs[name] = self._executor.submit(trial.run, job)

    def _restart(self) -> bool:
        """Starts a new child after one died; returns whether that one had been ready for a job."""
        ready = self._warming.done() and not self._warming.exception()
        self._failed_starts = 0 if ready else self._failed_starts + 1
        if self._failed_starts >= FAILED_STARTS:
            raise PoolError("the worker process ends before it takes a trial; its output above says why. The worker "
                            "imports a script that calls sweep(), so the call belongs under "
                            "if __name__ == '__main__':")
        self._start()
        return ready

    def wait(self, timeout: float) -> list[tuple[str, Outcome]]:
        """Waits at most `timeout` seconds; returns (name, outcome) of the jobs that ended, and raises a job's error."""
        done = concurrent.futures.wait(self._jobs.values(), timeout).done
        outcomes = []
        for name, future in list(self._jobs.items()):
            if future not in done:
                continue
            del self._jobs[name]
            try:
                outcomes.append((name, future.result()))
            except BrokenProcessPool:
                outcomes.append((name, {"status": DIED, "begun": self._restart()}))
        return outcomes

    def close(self) -> None:
        if self._jobs or not self._warming.done():  # the child is in a trial or in its imports, and would finish them
            for process in list((self._executor._processes or {}).values()):
                process.kill()
        self._executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _no_ctrl_c_for_children() -> Iterator[None]:
    """Processes and threads that start within the block ignore Ctrl-C: they inherit the blocked signal."""
    resource_tracker.ensure_running()  # its start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_child() -> None:
    """Ends the child when its parent dies."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        connection.wait([parent.sentinel])  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class DaskPool:
    """Workers of dask.distributed: `workers` of them on this machine, or those of the scheduler at `address`.

    Workers on this machine listen on loopback only, and accept only connections with a certificate that is made for
    this one sweep.

    Raises:
        ConfigError: if dask.distributed is not installed.
        PoolError: if no worker can be reached, or a worker has another version of fmnist_zoo.
    """

    def __init__(self, threads: int, *, workers: int = 0, address: str = ""):
        try:
            import dask
            import distributed
        except ImportError as error:
            raise ConfigError(f"more than one worker needs dask.distributed: pip install 'fmnist_zoo[distributed]' "
                              f"({error})") from None
        for logger in ("distributed", "distributed.client"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        self._distributed = distributed
        self._cluster: Any = None
        self._futures: dict[Any, str] = {}
        try:
            if address:
                self._client = distributed.Client(address, timeout=5)
            else:
                quiet = {"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.http.routes": [],
                         "distributed.worker.http.routes": []}
                with dask.config.set(quiet), _no_ctrl_c_for_children():
                    self._cluster = distributed.LocalCluster(
                        n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
                        worker_dashboard_address=None, security=distributed.Security.temporary(), memory_limit=0,
                        silence_logs=logging.CRITICAL)
                self._client = distributed.Client(self._cluster)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise PoolError(f"no workers: {error or type(error).__name__}"
                            + (f"; is a scheduler running at {address}?" if address else "")) from error
        self._check_workers()
        self._warm(threads)

    def _check_workers(self) -> None:
        import fmnist_zoo

        try:
            self._client.wait_for_workers(1, timeout=60)
            found = self._client.run(trial.host)
        except Exception as error:  # workers without fmnist_zoo fail in many ways
            raise PoolError(f"the workers cannot run trials: {type(error).__name__}: {error}; each needs this version "
                            "of fmnist_zoo installed") from error
        for worker, answer in found.items():
            if answer["version"] != fmnist_zoo.__version__:
                raise PoolError(f"the worker at {worker} has fmnist_zoo {answer['version']}, this process has "
                                f"{fmnist_zoo.__version__}; install the same version everywhere")
        names = {worker: str(known["name"]) for worker, known in self._workers().items()}
        hosts: dict[str, list[str]] = {}
        for worker, answer in found.items():
            hosts.setdefault(answer["host"], []).append(names.get(worker, worker))
        self.shares = {name: (index, len(there)) for there in hosts.values()
                       for index, name in enumerate(sorted(there))}

    @property
    def slots(self) -> int:
        return len(self._workers())

    def _workers(self) -> dict[str, Any]:
        """The scheduler's information about its workers, by address."""
        try:
            return dict(self._client.scheduler_info(n_workers=-1)["workers"])
        except (LookupError, OSError, RuntimeError):
            raise PoolError(GONE) from None

    def _warm(self, threads: int) -> None:
        """Starts the workers' imports, which take seconds, before the first job."""
        self._warming = [self._client.submit(_warm_worker, threads, self.shares, workers=[worker], pure=False)
                         for worker in self._workers()]

    def submit(self, name: str, job: dict[str, Any]) -> None:
        future = self._client.submit(_on_worker, job, self.shares, key=f"{name}-{time.time_ns()}", pure=False)
        self._futures[future] = name

    def wait(self, timeout: float) -> list[tuple[str, Outcome]]:
        """As `ChildPool.wait`."""
        if self._client.status not in ("running", "connecting"):
            raise PoolError(GONE)
        try:
            self._distributed.wait(list(self._futures), timeout, return_when="FIRST_COMPLETED")
        except (TimeoutError, self._distributed.TimeoutError):
            pass
        except concurrent.futures.CancelledError:
            raise PoolError(GONE) from None
        outcomes = []
        for future, name in list(self._futures.items()):
            if not future.done():
                continue
            del self._futures[future]
            try:
                outcome = future.result()
            except (self._distributed.KilledWorker, concurrent.futures.CancelledError):
                outcome = {"status": DIED, "begun": True}
            outcomes.append((name, outcome))
            if outcome.get("trials", 0) >= TRIALS_A_WORKER:
                self._renew(outcome["worker"])
        return outcomes

    def _renew(self, worker: str) -> None:
        try:
            self._client.restart_workers([worker], timeout=60)
        except (ValueError, TimeoutError, OSError):
            pass  # a worker without a nanny cannot be restarted, and keeps its memory

    def close(self) -> None:
        for part in (self._client, self._cluster):
            if part is not None:
                with contextlib.suppress(TimeoutError):  # workers in their imports do not answer, but end when we end
                    part.close(timeout=5)


def _on_worker(job: dict[str, Any], shares: dict[str, tuple[int, int]]) -> Outcome:
    from distributed import get_worker

    return {**trial.run(job, shares.get(str(get_worker().name))), "worker": get_worker().address}


def _warm_worker(threads: int, shares: dict[str, tuple[int, int]]) -> None:
    from distributed import get_worker

    trial.warm(threads, shares.get(str(get_worker().name)))


def make(workers: int, scheduler: str, threads: int) -> ChildPool | DaskPool:
    """The workers of the scheduler at an address if there is one, else `workers` processes on this machine.

    Args:
        threads: the setting of the runs that they will train.
    """
    if scheduler:
        return DaskPool(threads, address=scheduler)
    return ChildPool(threads) if workers == 1 else DaskPool(threads, workers=workers)


def security_warning(scheduler: str) -> str:
    """What to warn of if anyone in the network may send code to the scheduler at this address; else ""."""
    address = urllib.parse.urlsplit(scheduler if "://" in scheduler else f"tcp://{scheduler}")  # tcp is dask's default
    if not scheduler or address.scheme in ("tls", "wss") or address.hostname in ("localhost", "127.0.0.1", "::1"):
        return ""
    return (f"the connection to {scheduler} is neither encrypted nor authenticated: anyone who can reach the scheduler "
            "can run any code on its workers and here, with your permissions. Use tls://, or a loopback address behind "
            "an SSH tunnel")
