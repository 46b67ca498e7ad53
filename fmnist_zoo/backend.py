"""Imports TensorFlow and Keras without their start-up noise: `from fmnist_zoo.backend import keras, tf`.

No environment variable silences the lines about oneDNN and CUDA without changing numerics. So file descriptor 2 points
to a temporary file while both are imported and TensorFlow creates its context. Afterwards, lines that are known to be
noise are dropped, and all others are printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from typing import Iterator

_NOISE = re.compile(
    r"All log messages before absl::InitializeLog|oneDNN custom operations are on|Could not find cuda drivers"
    r"|failed call to cuInit|cpu_feature_guard|To enable the following instructions"
    r"|XLA service 0x\w+ initialized for platform Host|StreamExecutor \[[0-9]+\]: Host|Compiled cluster using XLA"
    r"|MLIR crash reproducer|Unable to register cu\w+ factory|computation_placer already registered"
    r"|TF-TRT Warning: Could not find TensorRT"
)
# Waits for a line on its standard input. If there is none because the process at the other end died, copies what was
# held back, which is open for reading as its standard output, to standard error: without noise, because workers are
# killed while they import.
_WATCH = 'read line || grep -vE -e "$0" <&1 >&2'


@contextlib.contextmanager
def without_noise(noise: re.Pattern[str] = _NOISE) -> Iterator[None]:
    """Holds back what is written to file descriptor 2, by C++ code too, until the block ends.

    Then prints the lines in which `noise` is not found, or all lines if an error leaves the block. If the process dies
    within the block (C++ calls `abort()`, say), a process that waits beside it prints them.
    """
    with contextlib.ExitStack() as stack:
        try:
            sys.stderr.flush()
            real = os.dup(2)
            stack.callback(os.close, real)
            handle, name = tempfile.mkstemp()
            held = stack.enter_context(open(handle, "wb"))
            reader = stack.enter_context(open(name, "rb"))
            os.unlink(name)  # nothing is left on disk, however the process ends
        except (OSError, ValueError, AttributeError):  # no standard error, or no place for a temporary file
            yield
            return
        with contextlib.suppress(OSError):  # no shell
            watcher = subprocess.Popen(["sh", "-c", _WATCH, _NOISE.pattern], stdin=subprocess.PIPE, stdout=reader,
                                       start_new_session=True)  # Ctrl-C is for the process that is watched
            stack.callback(watcher.communicate, b"\n")
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            for line in reader.read().decode(errors="replace").splitlines():
                if failed or not noise.search(line):
                    print(line, file=sys.stderr)


if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"

with without_noise():
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise ImportError(f"fmnist_zoo needs Keras on TensorFlow, and Keras was imported with the backend "
                          f"{keras.backend.backend()!r}; set KERAS_BACKEND=tensorflow before importing it")
    tf.zeros(())  # creates TensorFlow's context, which prints a line about the processor
