"""Workers of a dask.distributed cluster that share the log folder with the leader.

A thread counts the workers, so that no job asks the scheduler for them. Jobs are sent, and outcomes fetched, many at a
time; no call waits without a limit. Workers may come and go.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import logging
import queue
import threading
import time
import uuid
from concurrent.futures import CancelledError
from typing import Any

import fmnist_zoo
from trainers.tuning import trial
from trainers.tuning.scheduler import Scheduler
from trainers.tuning.trial import DIED
from trainers.tuning.workers import AT_ONCE, Outcome, PoolError, drain

ANSWER = 30.0  # seconds for an answer about workers, in the thread that counts them
FETCH = 5.0  # seconds to fetch outcomes; after that they are fetched again later
FIRST_WORKER = 60.0  # seconds until the first worker must have joined
GONE = "the scheduler is gone; start it, then the same command continues"


class ClusterPool:
    """The workers of a scheduler, for runs with so many `threads`.

    Raises:
        ConfigError: as `Scheduler.security`.
        PoolError: if the scheduler does not answer.
    """

    def __init__(self, scheduler: Scheduler, threads: int):
        security = scheduler.security()
        import distributed

        for logger in ("distributed", "distributed.client"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        try:
            self._client = distributed.Client(scheduler.address, timeout=5, security=security, set_as_default=False)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            text = " ".join(str(error or type(error).__name__).split())
            raise PoolError(f"no workers: {text}; is a scheduler running at {scheduler.address}?") from error
        self._killed = (distributed.KilledWorker, CancelledError)
        self._threads, self._address = threads, scheduler.address
        self._handed: list[tuple[str, dict[str, Any]]] = []
        self._names: dict[Any, str] = {}  # of the jobs, by their futures
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._keys = (f"trial-{number}-{uuid.uuid4().hex}" for number in itertools.count())
        self._fetched: collections.deque[tuple[str, Outcome]] = collections.deque()
        self._hosts: dict[str, str] = {}  # of the workers, by their addresses
        self._shares: dict[str, tuple[int, int]] = {}
        self._warming: list[Any] = []
        self._error: PoolError | None = None
        self._closing = threading.Event()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        """Counts the workers once a second, until the pool is closed or cannot work."""
        began, seen = time.monotonic(), False
        while not self._closing.is_set():
            try:
                self._count()
            except PoolError as error:
                self._error = error
            except Exception:  # a connection that is lost has many errors
                self._error = PoolError(GONE)
            seen = seen or bool(self._hosts)
            if not seen and time.monotonic() - began > FIRST_WORKER:
                self._error = PoolError(f"no worker has joined the scheduler within {FIRST_WORKER:.0f} s: start some "
                                        f"with `dask worker {self._address}`, then the same command continues")
            if self._error:
                return
            self._closing.wait(1.0)

    def _count(self) -> None:
        """Notes which workers there are; the new ones are checked, get their share of the cores, and import TensorFlow.

        Raises:
            PoolError: if a worker cannot run trials.
        """
        now = set(self._client.nthreads(callback_timeout=ANSWER))
        new = [worker for worker in now if worker not in self._hosts]
        hosts = {worker: host for worker, host in self._hosts.items() if worker in now}
        if new:
            found = self._client.run(trial.host, workers=new, on_error="return", callback_timeout=ANSWER)
            hosts.update({worker: _check(worker, answer) for worker, answer in found.items()
                          if not isinstance(answer, OSError)})  # it is gone again
        if hosts != self._hosts:
            self._share_cores(hosts)
            self._warming += [self._client.submit(trial.warm, self._threads, workers=[worker], pure=False)
                              for worker in hosts if worker in new]
            self._hosts = hosts

    def _share_cores(self, hosts: dict[str, str]) -> None:
        """Divides the cores of each host between its workers, which change over to their new shares at once."""
        together: dict[str, list[str]] = {}
        for worker in sorted(hosts):
            together.setdefault(hosts[worker], []).append(worker)
        shares = {worker: (index, len(there)) for there in together.values() for index, worker in enumerate(there)}
        changed = {worker: share for worker, share in shares.items() if self._shares.get(worker) != share}
        self._shares = shares
        if changed:
            self._client.run(_take_share, changed, workers=list(changed), on_error="ignore", callback_timeout=ANSWER)

    @property
    def slots(self) -> int:
        if self._error:
            raise self._error
        self._check_connection()
        return len(self._hosts)

    def _check_connection(self) -> None:
        if self._client.status not in ("running", "connecting"):
            raise PoolError(GONE)

    def submit(self, name: str, job: dict[str, Any]) -> None:
        self._handed.append((name, job))

    def _hand_out(self) -> None:
        """Sends the jobs that were submitted since the last time.

        Dask keeps statistics by the first word of a key for ever, so it is the same for all jobs.
        """
        if not self._handed:
            return
        names, jobs = zip(*self._handed)
        self._handed = []
        keys = list(itertools.islice(self._keys, len(jobs)))
        for name, future in zip(names, self._client.map(trial.run, jobs, key=keys, pure=False)):
            self._names[future] = name
            future.add_done_callback(self._ended.put)

    def wait(self, timeout: float) -> list[tuple[str, Outcome]]:
        """As `Pool.wait`."""
        self._hand_out()
        self._check_connection()
        if not self._fetched:
            self._fetch(timeout)
        return [self._fetched.popleft() for _ in range(min(AT_ONCE, len(self._fetched)))]

    def _fetch(self, timeout: float) -> None:
        """Waits at most `timeout` seconds for the end of a job, and fetches the outcomes of all that ended.

        A thread of its own for this would be slower: it would wait for the leader to leave Python's lock.
        """
        finished = {}
        for future in drain(self._ended, timeout):
            if future.status == "finished":
                finished[self._names[future]] = future
                continue
            try:
                future.result(timeout=FETCH)
            except self._killed:
                self._check_connection()
                self._fetched.append((self._names.pop(future), {"status": DIED, "begun": True}))
        for name, outcome in self._gather(finished).items():
            if outcome is None:  # it was lost with its worker, and is computed again, or could not be fetched in time
                finished[name].add_done_callback(self._ended.put)
            else:
                self._fetched.append((self._names.pop(finished[name]), outcome))

    def _gather(self, finished: dict[str, Any]) -> dict[str, Outcome | None]:
        if not finished:
            return {}
        gather = functools.partial(self._client.gather, errors="skip", asynchronous=True)
        try:
            return dict(self._client.sync(gather, finished, callback_timeout=FETCH))
        except TimeoutError:
            return dict.fromkeys(finished)

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(TimeoutError):
            self._client.close(timeout=5)


def _check(worker: str, answer: Any) -> str:
    """The host of a worker that answered; `PoolError` if it cannot run trials."""
    if isinstance(answer, Exception):  # without fmnist_zoo, workers fail in many ways
        raise PoolError(f"the worker at {worker} cannot run trials: {type(answer).__name__}: {answer}; it needs this "
                        "version of fmnist_zoo installed")
    if answer["version"] != fmnist_zoo.__version__:
        raise PoolError(f"the worker at {worker} has fmnist_zoo {answer['version']}, this process has "
                        f"{fmnist_zoo.__version__}; install the same version everywhere")
    return str(answer["host"])


def _take_share(shares: dict[str, tuple[int, int]], dask_worker: Any = None) -> None:
    trial.take_share(*shares[dask_worker.address])
