"""Where a dask scheduler is, and the certificates for a connection to it. Imports nothing heavy."""

from __future__ import annotations

import os
import urllib.parse
from typing import Any, NamedTuple

from trainers.config import ConfigError

KEYWORDS = {"tls_ca": "tls_ca_file", "tls_cert": "tls_client_cert", "tls_key": "tls_client_key"}  # of dask's Security


class Scheduler(NamedTuple):
    """Address of a scheduler, and paths of this client's certificates; "" is what dask's configuration says."""

    address: str
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""

    @property
    def _parts(self) -> urllib.parse.SplitResult:
        return urllib.parse.urlsplit(self.address if "://" in self.address else f"tcp://{self.address}")  # as dask does

    @property
    def encrypted(self) -> bool:
        return self._parts.scheme in ("tls", "wss")

    @property
    def warning(self) -> str:
        """What to warn of if anyone in the network may send code to the scheduler; else ""."""
        if self.encrypted or self._parts.hostname in ("localhost", "127.0.0.1", "::1"):
            return ""
        return (f"the connection to {self.address} is neither encrypted nor authenticated: anyone who can reach the "
                "scheduler can run any code on its workers and here, with your permissions. Use tls://, or a loopback "
                "address behind an SSH tunnel")

    def security(self) -> Any:
        """The `Security` of dask; None for a connection that is not encrypted. Connects to nothing.

        Raises:
            ConfigError: if dask.distributed is not installed, the address is none, or certificates are missing, cannot
                be read, or are not needed.
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
