"""Workers: processes of this machine, or those of a cluster. No job is lost: one whose worker died ends as `DIED`.

A worker of this machine is a child of the leader, which alone can reach it, through a pipe.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import connection, resource_tracker
from typing import Any, Iterator, Protocol

from fmnist_zoo import backend
from fmnist_zoo.settings import Whole
from fmnist_zoo.spec import ModelSpec
from trainers.config import ConfigError
from trainers.engine import process, processor
from trainers.tuning import execution
from trainers.tuning.cluster import ClusterPool, Scheduler
from trainers.tuning.execution import DIED, Job, PoolError

A_CORE = 2  # workers at most: more would only wait for each other
MOST = 8  # workers unless more are asked for: each takes a gigabyte of memory
GROWTH_MB = 500  # TensorFlow and XLA never free the program of an architecture; a worker that grew so far is replaced
STARTS = 3  # that may be killed one after another before a worker is ready
READY = "READY"


class Pool(Protocol):
    """Workers that run one job each at a time."""

    @property
    def slots(self) -> int:
        """How many jobs can run at once now; `PoolError` if there will be no workers."""

    def submit(self, name: str, job: Job) -> None:
        """Gives a job to a free worker."""

    def wait(self, timeout: float) -> list[tuple[str, dict[str, Any]]]:
        """Waits at most `timeout` seconds for a job to end; returns names and outcomes of those that ended.

        Outcomes are those of `execution.run`. If its worker died, a job that it had begun ends as `DIED`, with a
        `reason`.

        Raises:
            TrialError: as `execution.run`.
            PoolError: if there will be no workers.
        """

    def close(self) -> None:
        """Ends the workers of this machine, whatever they do."""


def check(workers: int | None, scheduler: Scheduler | None, spec: ModelSpec) -> None:
    """`ConfigError` for workers that cannot be, on this machine or a cluster, or cannot build the model.

    Connects to nothing.
    """
    if scheduler and workers:
        raise ConfigError("--scheduler brings its own workers: drop --workers")
    if scheduler:
        scheduler.security()
    if workers is not None:
        most = A_CORE * processor.cores()
        Whole(low=1).check("workers", workers)
        if workers > most:
            raise ConfigError(f"--workers is at most {most} on this machine, {A_CORE} a core; received {workers}")
    if spec.build and spec.builder.in_main and (scheduler or not _script()):
        raise ConfigError(f"{spec.name} is built by a function that workers cannot import; move it into a module, and "
                          "name that with --zoo_module (in Python: import it)")


def usual(jobs: int) -> int:
    """How many workers train so many jobs soonest, as far as was measured: one for each core, up to `MOST`."""
    return max(1, min(processor.cores(), jobs, MOST))


def make(workers: int, scheduler: Scheduler | None, threads: int) -> Pool:
    """Workers for runs with so many `threads`: those of the scheduler, else so many processes of this machine.

    Raises:
        ConfigError: as `Scheduler.security`.
        PoolError: if the scheduler does not answer.
    """
    return ClusterPool(scheduler) if scheduler else LocalPool(threads, workers)


class LocalPool:
    """`count` processes for runs with so many `threads`, each with its share of the cores.

    A worker that stays on its own cores trains a quarter faster than one that is moved between cores.
    """

    def __init__(self, threads: int, count: int = 1) -> None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._workers = [_Worker(threads, cores[index % len(cores)::count] if cores else []) for index in range(count)]
        self.slots = count

    def submit(self, name: str, job: Job) -> None:
        free = [worker for worker in self._workers if not worker.job]
        min(free, key=lambda worker: not worker.ready).submit(name, job)

    def wait(self, timeout: float) -> list[tuple[str, dict[str, Any]]]:
        """As `Pool.wait`."""
        workers = {worker.connection: worker for worker in self._workers}
        heard = [workers[one].listen() for one in connection.wait(list(workers), timeout)]  # type: ignore[index]
        return [ended for ended in heard if ended]

    def close(self) -> None:
        for worker in self._workers:
            worker.end()


class _Worker:
    """A child process, or the one that has replaced it.

    Attributes:
        job: name and content of the job that it runs; None if it is free.
        ready: whether it has finished its imports, which take seconds and begin at once.
        connection: the leader's end of the pipe.
    """

    def __init__(self, threads: int, cores: list[int]):
        self._threads, self._cores = threads, cores
        self.job: tuple[str, Job] | None = None
        self._killed_starts = 0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.ready, self._first_mb = False, 0.0  # memory after its first job
        self.connection, there = context.Pipe()
        self._process = context.Process(target=_work, args=(there, self._threads))
        with _as_child(self._cores), process.threads_of_children(self._threads):
            self._process.start()
        there.close()

    def submit(self, name: str, job: Job) -> None:
        self.job = name, job
        with contextlib.suppress(BrokenPipeError):  # it is dead, which `listen` finds
            self.connection.send(job)

    def listen(self) -> tuple[str, dict[str, Any]] | None:
        """Takes what the process says, or its death: name and outcome of a job that has ended, or None."""
        try:
            heard = self.connection.recv()
        except (EOFError, ConnectionResetError):
            return self._died()
        if heard == READY:
            self.ready, self._killed_starts = True, 0
            return None
        if isinstance(heard, Exception):
            raise heard
        assert self.job
        (name, _), self.job = self.job, None
        self._first_mb = self._first_mb or heard["memory_mb"]
        if heard["memory_mb"] - self._first_mb > GROWTH_MB:
            self.end()
            self._start()
        return name, heard

    def _died(self) -> tuple[str, dict[str, Any]] | None:
        """Replaces the process. A job that it had not begun is given to the new one."""
        self._process.join(timeout=10)
        self.end()
        code, begun = self._process.exitcode or 0, self.ready
        how = "killed by signal 9, probably out of memory" if code == -signal.SIGKILL else \
            f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if not begun:
            self._killed_starts += 1
            if code >= 0 or self._killed_starts >= STARTS:
                advice = "its output above says why" if code >= 0 else \
                    "each has TensorFlow in its memory: use fewer --workers"
                raise PoolError(f"a worker {how} before it took a trial; {advice}")
        self._start()
        if self.job and not begun:
            self.submit(*self.job)
        elif self.job:
            (name, _), self.job = self.job, None
            return name, {"status": DIED, "reason": how}
        return None

    def end(self) -> None:
        """Kills the process, unless it has ended: what it has saved is on the disk."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _script() -> str:
    """The file of the program that runs in this process; empty for standard input and notebooks."""
    path = getattr(sys.modules["__main__"], "__file__", None) or ""
    return path if os.path.exists(path) else ""


@contextlib.contextmanager
def _as_child(cores: list[int]) -> Iterator[None]:
    """Processes that start within the block run on these cores (none: on all), and inherit blocked signals.

    They ignore Ctrl-C, a terminal that closes, and what a batch system sends to all processes of a job, to let it save.
    A script that is no file, such as standard input, is not imported by them.
    """
    resource_tracker.ensure_running()  # its start would unblock the signals
    main = sys.modules["__main__"]
    path = None if _script() else getattr(main, "__file__", None)
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1})
    before = os.sched_getaffinity(0) if cores else set()
    if cores:
        os.sched_setaffinity(0, cores)
    if path:
        del main.__file__
    try:
        yield
    finally:
        if path:
            main.__file__ = path
        if cores:
            os.sched_setaffinity(0, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)


def _work(leader: connection.Connection, threads: int) -> None:
    """The life of a worker: jobs are received and outcomes sent until the leader closes the pipe."""
    _end_with_parent()
    backend.alone()
    execution.warm(threads)
    leader.send(READY)
    with contextlib.suppress(EOFError):
        while True:
            job = leader.recv()
            try:
                leader.send(execution.run(job))
            except execution.TrialError as error:
                leader.send(error)


def _end_with_parent() -> None:
    """Ends this process when its parent dies. On Linux the kernel does it: a thread may wait for Python's lock, which
    imports and compilers hold for seconds."""
    parent = multiprocessing.parent_process()
    assert parent
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent.pid:
            os._exit(1)
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
