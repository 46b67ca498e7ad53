"""TensorFlow and Keras, imported without their start-up noise.

No environment variable silences the oneDNN and CUDA lines without changing numerics, so that file descriptor 2 is held
back while they are imported and the first context is made. What was held back is looked through: known noise goes,
everything else (and everything, if the import fails) is printed. Use `from fmnist_zoo.backend import keras, tf`.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from typing import Iterator

_NOISE = re.compile(
    r"All log messages before absl::InitializeLog|oneDNN custom operations are on|Could not find cuda drivers"
    r"|failed call to cuInit|cpu_feature_guard|To enable the following instructions"
    r"|XLA service 0x\w+ initialized for platform Host|StreamExecutor \[\d+\]: Host|Compiled cluster using XLA"
    r"|MLIR crash reproducer|Unable to register cu\w+ factory|computation_placer already registered"
    r"|TF-TRT Warning: Could not find TensorRT"
)


@contextlib.contextmanager
def without_noise(noise: re.Pattern[str] = _NOISE) -> Iterator[None]:
    """Holds back what is written to file descriptor 2; at the end prints the lines that `noise` is not found in, or all
    of them if an error leaves the block."""
    try:
        sys.stderr.flush()
        real = os.dup(2)
    except (OSError, ValueError, AttributeError):  # no standard error to hold back
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            lines = held.read().decode(errors="replace").splitlines()
            for line in lines:
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
    tf.zeros(())  # the context talks when it starts

__all__ = ["keras", "tf", "without_noise"]
