"""Workers on this machine: child processes of the standard library.

Each process has an executor of its own, because the death of one process ends all jobs of its executor.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import multiprocessing
import os
import queue
import signal
import sys
import threading
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, resource_tracker
from typing import Any, Iterator

from trainers.engine import process
from trainers.tuning import trial
from trainers.tuning.trial import DIED
from trainers.tuning.workers import AT_ONCE, Outcome, PoolError, drain

GROWTH_MB = 500  # TensorFlow and XLA never free the program of an architecture; a worker that grew so far is replaced
FAILED_STARTS = 3


class LocalPool:
    """`count` processes for runs with so many threads (`number`), each with its share of the cores."""

    def __init__(self, number: int, count: int = 1) -> None:
        self._ended: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers = [_Worker(number, (index, count), self._ended) for index in range(count)]
        self.slots = count

    def submit(self, name: str, job: dict[str, Any]) -> None:
        free = [worker for worker in self._workers if not worker.job]
        min(free, key=lambda worker: not worker.ready).submit(name, job)

    def wait(self, timeout: float) -> list[tuple[str, Outcome]]:
        """As `Pool.wait`."""
        return [worker.outcome() for worker in drain(self._ended, timeout, AT_ONCE)]

    def close(self) -> None:
        for worker in self._workers:
            worker.kill_if_busy()
        for worker in self._workers:
            worker.close()


class _Worker:
    """A child process, or the one that has replaced it.

    Attributes:
        job: name of the job that it runs; empty if it is free.
    """

    def __init__(self, number: int, share: tuple[int, int], ended: queue.SimpleQueue[_Worker]):
        self._threads, self._share, self._ended = number, share, ended
        self.job = ""
        self._failed_starts = 0
        self._start()

    def _start(self) -> None:
        """Starts the process and its imports, which take seconds, before the first job."""
        self._first_mb = 0.0  # memory after its first job
        self._executor = concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)
        # The user's script, which it imports first, may start TensorFlow.
        with _no_ctrl_c_for_children(), process.threads_of_children(self._threads):
            self._warming = self._executor.submit(trial.warm, self._threads, self._share)

    @property
    def ready(self) -> bool:
        """Whether it has finished its imports."""
        return self._warming.done() and not self._warming.exception()

    def submit(self, name: str, job: dict[str, Any]) -> None:
        with _no_ctrl_c_for_children():
            try:
                self._future = self._executor.submit(trial.run, job, self._share)
            except BrokenProcessPool:  # the process died while it had no job
                self._restart()
                self._future = self._executor.submit(trial.run, job, self._share)
        self.job = name
        self._future.add_done_callback(lambda future: self._ended.put(self))

    def outcome(self) -> tuple[str, Outcome]:
        """Name and outcome of the job that has ended; raises the job's error."""
        name, self.job = self.job, ""
        try:
            outcome = self._future.result(timeout=0)
        except BrokenProcessPool:
            reason = self._end()
            return name, {"status": DIED, "begun": self._restart(), "reason": reason}
        self._first_mb = self._first_mb or outcome["memory_mb"]
        if outcome["memory_mb"] - self._first_mb > GROWTH_MB:
            self._executor.shutdown(wait=False)
            self._start()
        return name, outcome

    def _end(self) -> str:
        """How the process has ended, in words."""
        for child in list((self._executor._processes or {}).values()):
            child.join(timeout=10)
            code = child.exitcode
            if code == -signal.SIGKILL:
                return f"killed by signal {-code}, probably out of memory"
            if code is not None:
                return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return "killed"

    def _restart(self) -> bool:
        """Starts a new process after one died; returns whether that one had been ready for a job."""
        ready = self.ready
        self._failed_starts = 0 if ready else self._failed_starts + 1
        if self._failed_starts >= FAILED_STARTS:
            raise PoolError("the worker process ends before it takes a trial; its output above says why. The worker "
                            "imports a script that calls sweep(), so the call belongs under "
                            "if __name__ == '__main__':")
        self._start()
        return ready

    def kill_if_busy(self) -> None:
        """Ends a process that is in a job or in its imports, and would finish them."""
        if self.job or not self._warming.done():
            for child in list((self._executor._processes or {}).values()):
                child.kill()

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _no_ctrl_c_for_children() -> Iterator[None]:
    """Processes and threads that start within the block inherit blocked signals: they ignore Ctrl-C, a terminal that
    closes, and what a batch system sends to all processes of a job, to let it save."""
    resource_tracker.ensure_running()  # its start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Ends this process when its parent dies. On Linux the kernel does it: a thread may wait for Python's lock, which
    imports and compilers hold for seconds."""
    parent = multiprocessing.parent_process()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent.pid:  # type: ignore[union-attr]
            os._exit(1)

    def watch() -> None:
        connection.wait([parent.sentinel])  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
