"""What the part `fuzz` tries: files, records and words, and how each is judged."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any, Callable, Iterator, NoReturn, Sequence

from fmnist_zoo.errors import ZooError


def refused(call: Callable[[], Any]) -> tuple[Any, str]:
    """What a call returns, and "", or None and the message with which it is refused; anything else is raised."""
    try:
        return call(), ""
    except ZooError as error:
        return None, str(error) or wrong("a refusal that says nothing")


def wrong(what: str) -> NoReturn:
    raise AssertionError(what)


@contextlib.contextmanager
def output() -> Iterator[Sequence[io.TextIOWrapper]]:
    """Takes standard output and error."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", newline="") for _ in range(2)]
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = before


def command(main: Callable[[list[str]], int], arguments: list[str], *, failures: bool = False) -> str | None:
    """What a command prints if it takes its arguments; None if it refuses them in one line, else an error.

    Args:
        failures: whether exit code 1 with any output is right, too.
    """
    with output() as streams:
        code = main(arguments)
        for stream in streams:
            stream.flush()
    said, error = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    if code == 0 or code == 1 and failures:
        return str(said)
    if code not in (1, 2) or len(error.splitlines()) != 1:
        wrong(f"exit code {code}, {error!r:.300}")
    return None
