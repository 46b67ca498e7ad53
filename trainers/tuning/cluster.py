"""The workers of a dask.distributed cluster, which see the log folder under the same path as the leader.

Dask pickles its messages, so anyone who reaches a scheduler can run code on its workers and in its clients. So a
connection needs TLS, except to this machine. Workers may come and go. dask is imported when a scheduler is used.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import math
import os
import queue
import time
import urllib.parse
import uuid
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

import fmnist_zoo
from trainers.config import ConfigError
from trainers.tuning import execution
from trainers.tuning.execution import DIED, Job, PoolError

KEYWORDS = {"tls_ca": "tls_ca_file", "tls_cert": "tls_client_cert", "tls_key": "tls_client_key"}  # of dask's Security
ANSWER = 30.0  # seconds for an answer of the scheduler
FETCH = 5.0  # seconds to fetch an outcome; after that it is fetched again later
FIRST_WORKER = 60.0  # seconds until the first worker must have joined
COUNT = 1.0  # seconds between two counts of the workers


class Scheduler(NamedTuple):
    """Address of a scheduler, and paths of this client's certificates; "" is what dask's configuration says.

    `trusted` is what the person says of the network: nobody else reaches the scheduler.
    """

    address: str
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    trusted: bool = False

    @property
    def _parts(self) -> urllib.parse.SplitResult:
        return urllib.parse.urlsplit(self.address if "://" in self.address else f"tcp://{self.address}")  # as dask does

    @property
    def encrypted(self) -> bool:
        return self._parts.scheme in ("tls", "wss")

    @property
    def _on_this_machine(self) -> bool:
        host = self._parts.hostname or ""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host).is_loopback
        return host == "localhost"

    def security(self) -> Any:
        """The `Security` of dask; None for a connection that is not encrypted. Connects to nothing.

        Raises:
            ConfigError: if dask.distributed is not installed, the address is none or is not protected, or certificates
                are missing, cannot be read, or are not needed.
        """
        try:
            import distributed
        except ImportError as error:
            raise ConfigError("--scheduler needs dask.distributed: pip install 'fmnist_zoo[distributed]' "
                              f"({error})") from None
        try:
            distributed.comm.get_address_host_port(self.address)
        except ValueError:
            raise ConfigError("--scheduler is an address with a port, such as tls://host:8786; received "
                              f"{self.address!r}") from None
        paths = {name: getattr(self, name) for name in KEYWORDS if getattr(self, name)}
        if not self.encrypted:
            if paths:
                raise ConfigError(f"--{next(iter(paths))} is for --scheduler=tls://..., received {self.address}")
            if not (self._on_this_machine or self.trusted):
                raise ConfigError(f"--scheduler={self.address} is neither encrypted nor authenticated: anyone who "
                                  "reaches it can run code on its workers and here, as you. Use tls://, a loopback "
                                  "address behind an SSH tunnel, or --trust_network if nobody else reaches it")
            return None
        security = distributed.Security(require_encryption=True, **{
            KEYWORDS[name]: os.path.abspath(os.path.expanduser(path)) for name, path in paths.items()})
        for name, keyword in KEYWORDS.items():
            path = getattr(security, keyword)
            if not path and name != "tls_key":  # the key may be in the file of the certificate
                raise ConfigError(f"{self.address} needs certificates, and --{name} is missing: give --tls_ca, "
                                  "--tls_cert and --tls_key, or set distributed.comm.tls in dask's configuration")
            if path and "\n" not in path and not os.access(path, os.R_OK):
                raise ConfigError(f"--{name}, or distributed.comm.tls in dask's configuration: {path} is no file that "
                                  "can be read")
        try:
            security.get_connection_args("client")
        except (OSError, ValueError) as error:
            raise ConfigError(f"--tls_ca, --tls_cert, --tls_key: not certificates in PEM format, or the key is of "
                              f"another certificate: {error}") from None
        return security


class ClusterPool:
    """The workers of a scheduler.

    Raises:
        ConfigError: as `Scheduler.security`.
        PoolError: if the scheduler does not answer.
    """

    def __init__(self, scheduler: Scheduler):
        security = scheduler.security()
        import distributed

        for logger in ("distributed", "distributed.client"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        try:
            self._client = distributed.Client(scheduler.address, timeout=5, security=security, set_as_default=False)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            text = " ".join(str(error or type(error).__name__).split())
            raise PoolError(f"no workers: {text}; is a scheduler running at {scheduler.address}?") from error
        self._address = scheduler.address
        self._lost = (distributed.KilledWorker, CancelledError)
        self._jobs: dict[Any, str] = {}  # names, by their futures
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._workers: set[str] = set()  # their addresses
        self._count_due, self._first_due = 0.0, time.monotonic() + FIRST_WORKER

    @property
    def slots(self) -> int:
        """As of `Pool`; workers are counted once a second, and new ones checked."""
        self._check_connection()
        if time.monotonic() >= self._count_due:
            self._count()
            self._count_due = time.monotonic() + COUNT
        if not self._workers and time.monotonic() >= self._first_due:
            raise PoolError(f"no worker has joined the scheduler within {FIRST_WORKER:.0f} s: start some with "
                            f"`dask worker {self._address}`, then the same command continues")
        return len(self._workers)

    def _count(self) -> None:
        try:
            workers = set(self._client.nthreads(callback_timeout=ANSWER))
            new = self._client.run(execution.version, workers=list(workers - self._workers), on_error="return",
                                   callback_timeout=ANSWER)
        except Exception as error:  # a connection that is lost has many
            raise self._gone() from error
        for worker, version in new.items():
            if isinstance(version, OSError):  # it is gone again
                workers.discard(worker)
            elif isinstance(version, Exception):  # without fmnist_zoo, workers fail in many ways
                raise PoolError(f"the worker at {worker} cannot run trials: {type(version).__name__}: {version}; it "
                                "needs this version of fmnist_zoo installed")
            elif version != fmnist_zoo.__version__:
                raise PoolError(f"the worker at {worker} has fmnist_zoo {version}, this process has "
                                f"{fmnist_zoo.__version__}; install the same version everywhere")
        self._workers = workers
        self._first_due = math.inf if workers else self._first_due

    def _gone(self) -> PoolError:
        return PoolError(f"the scheduler at {self._address} is gone; start it, then the same command continues")

    def _check_connection(self) -> None:
        if self._client.status not in ("running", "connecting"):
            raise self._gone()

    def submit(self, name: str, job: Job) -> None:
        """As `Pool.submit`. Dask keeps statistics by the first word of a key for ever: it is the same for all."""
        future = self._client.submit(execution.run, job, key=f"trial-{uuid.uuid4().hex}", pure=False)
        self._jobs[future] = name
        future.add_done_callback(self._ended.put)

    def wait(self, timeout: float) -> list[tuple[str, dict[str, Any]]]:
        """As `Pool.wait`, one at a time."""
        try:
            future = self._ended.get(timeout=timeout)
        except queue.Empty:
            self._check_connection()
            return []
        try:
            outcome = future.result(timeout=FETCH)
        except TimeoutError:  # it was lost with its worker, and is computed again
            future.add_done_callback(self._ended.put)
            return []
        except self._lost:
            self._check_connection()
            outcome = {"status": DIED, "reason": "killed, or out of memory"}
        return [(self._jobs.pop(future), outcome)]

    def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            self._client.close(timeout=5)
