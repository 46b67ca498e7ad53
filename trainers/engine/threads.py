"""How many threads TensorFlow uses within one operation.

The order in which TensorFlow sums a matrix product depends on this number, and the last digits of a run depend on the
order. So the number belongs to a run's settings. TensorFlow reads it once, when its context is created; this module
must not import TensorFlow, because that is the moment after which the number is hard to change.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Iterator

from trainers import THREADS_VARIABLE
from trainers.config import ConfigError
from trainers.engine.processor import cores


def use(threads: int) -> None:
    """Makes TensorFlow use `threads` threads within an operation.

    Raises:
        ConfigError: if TensorFlow already runs with another number in this process.
    """
    if "tensorflow" not in sys.modules:
        os.environ[THREADS_VARIABLE] = str(threads)
        return
    found = in_use()
    if found == threads:
        return
    import tensorflow

    try:
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:  # the context exists
        raise ConfigError(
            f"the run asks for {threads} threads within an operation, and TensorFlow already runs with {found} in this "
            "process, which gives other numbers; start a new process, or import trainers before TensorFlow and before "
            f"loading a model of fmnist_zoo, or ask for threads={found}") from None


def inherited(threads: int) -> contextlib.AbstractContextManager[None]:
    """A process that starts within the block uses so many threads, whatever it imports first; nothing changes here."""
    return environment(THREADS_VARIABLE, str(threads))


@contextlib.contextmanager
def environment(variable: str, value: str) -> Iterator[None]:
    """Within the block an environment variable has a value; afterwards it is as it was."""
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def in_use() -> int:
    """Threads within an operation: as set in TensorFlow, else as the environment says, else one for each core."""
    tensorflow = sys.modules.get("tensorflow")
    number = tensorflow.config.threading.get_intra_op_parallelism_threads() if tensorflow else 0
    return number or asked(THREADS_VARIABLE)


def asked(variable: str) -> int:
    """Threads that an environment variable asks TensorFlow for; without a number, or with 0, one for each core."""
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() and int(text) else cores()
