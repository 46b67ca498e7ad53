"""What a run needs of the process that it shares with its caller, who gets it back as it was.

The order in which TensorFlow sums a matrix product depends on its number of threads within an operation, and the last
digits of a run depend on the order. So the number is a setting of a run, two by default: a run then has the same
numbers on any number of cores. TensorFlow takes it once, when it starts. Importing this module must not import it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Iterator

from fmnist_zoo import backend, custom
from trainers.config import THREADS_VARIABLE
from trainers.engine import compile_cache
from trainers.engine.processor import cores

_one_run = threading.RLock()  # a callback of a run may train another


@contextlib.contextmanager
def borrowed() -> Iterator[None]:
    """Within the block TensorFlow's operations are deterministic, its functions graphs, and Keras' defaults float32.

    All that is of the whole process, and what the caller has chosen is back afterwards. A run of another thread waits
    until the block ends.

    Raises:
        BackendError: in a process that was forked from one in which TensorFlow ran, and within scopes of TensorFlow's.
    """
    backend.refuse_fork()
    refuse_scopes()
    from fmnist_zoo.backend import tf

    with _one_run, custom.in_float32(), determinism(True):
        eager = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(False)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(eager)


@contextlib.contextmanager
def determinism(on: bool) -> Iterator[None]:
    """Within the block TensorFlow's operations have to be deterministic, or need not be."""
    from tensorflow.python.framework import config  # the public module has no way back

    switches = {True: config.enable_op_determinism, False: config.disable_op_determinism}
    before = config.is_op_determinism_enabled()
    switches[on]()
    try:
        yield
    finally:
        switches[before]()


def refuse_scopes() -> None:
    """`BackendError` within a scope of the caller's in which a model cannot be built and trained. Imports nothing."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return
    from tensorflow.python import pywrap_tfe  # there is no public way to ask for a tape

    scopes = {"a tf.function or the scope of a tf.Graph": not tensorflow.executing_eagerly(),
              "the scope of a tf.distribute.Strategy": tensorflow.distribute.has_strategy(),
              "a tf.GradientTape": not pywrap_tfe.TFE_Py_TapeSetIsEmpty()}
    for scope, within in scopes.items():
        if within:
            raise backend.BackendError(f"training was called within {scope}; call it outside: a run has its own")


def start_tensorflow(threads: int) -> int:
    """Imports TensorFlow, and starts it with so many threads within an operation, unless it runs already.

    It then keeps its compiled programs: see `compile_cache`. Returns the number of threads that it has.
    """
    backend.need_tensorflow()
    with compile_cache.enabled(threads):
        with backend.without_noise(), backend.quick_imports():
            import tensorflow

            with contextlib.suppress(RuntimeError):  # it runs
                tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        from fmnist_zoo.backend import tf  # noqa: F401  (which starts it, and XLA reads its flags)

    return threads_in_use()


def threads_in_use() -> int:
    """Threads within an operation: as set in TensorFlow, else as the environment says, else one for each core."""
    tensorflow = sys.modules.get("tensorflow")
    number = tensorflow.config.threading.get_intra_op_parallelism_threads() if tensorflow else 0
    return number or threads_asked(THREADS_VARIABLE)


def threads_asked(variable: str) -> int:
    """Threads that an environment variable asks TensorFlow for; without a number, or with 0, one for each core."""
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() and int(text) else cores()


def threads_of_children(threads: int) -> contextlib.AbstractContextManager[None]:
    """A process that starts within the block uses so many threads, whatever it imports first; nothing changes here."""
    return backend.environment(THREADS_VARIABLE, str(threads))
