"""Imports Keras, and TensorFlow, without start-up noise: `from fmnist_zoo.backend import keras, tf`.

`keras` runs on the backend that the user chose, as Keras does: the one that it was imported with, else `KERAS_BACKEND`,
else the one in `~/.keras/keras.json`, else TensorFlow. `tf` is refused under another backend than TensorFlow, which is
then not imported. Importing this module imports neither; both are imported when one of the two names is first used.

No environment variable silences the lines about oneDNN and CUDA without changing numerics. So file descriptor 2 points
to a temporary file while Keras is imported and TensorFlow creates its context. Afterwards, lines that are known to be
noise are dropped, and all others are printed.
"""

from __future__ import annotations

import contextlib
import gc
import glob
import importlib
import json
import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Iterator

from fmnist_zoo.errors import ZooError

if TYPE_CHECKING:
    import keras  # noqa: F401
    import tensorflow as tf  # noqa: F401

_NOISE = re.compile(
    r"All log messages before absl::InitializeLog|oneDNN custom operations are on|Could not find cuda drivers"
    r"|failed call to cuInit|cpu_feature_guard|To enable the following instructions"
    r"|XLA service 0x\w+ initialized for platform Host|StreamExecutor \[[0-9]+\]: Host|Compiled cluster using XLA"
    r"|MLIR crash reproducer|Unable to register cu\w+ factory|computation_placer already registered"
    r"|TF-TRT Warning: Could not find TensorRT|Error parsing text-format tensorflow.XlaSerializedCacheEntry"
)


@contextlib.contextmanager
def without_noise(noise: re.Pattern[str] = _NOISE) -> Iterator[None]:
    """Holds back what is written to file descriptor 2, by C++ code too, until the block ends.

    Then prints the lines in which `noise` is not found, or all lines if an error leaves the block.
    """
    with contextlib.ExitStack() as stack:
        try:
            sys.stderr.flush()
            real = os.dup(2)
            stack.callback(os.close, real)
            held = stack.enter_context(tempfile.TemporaryFile())  # nothing is left on disk, however the process ends
        except (OSError, ValueError, AttributeError):  # no standard error, or no place for a temporary file
            yield
            return
        os.dup2(held.fileno(), 2)
        failed = False
        try:
            yield
        except Exception:
            failed = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if failed or not noise.search(line):
                    print(line, file=sys.stderr)


WRAPPED = ("sklearn", "matplotlib")  # Keras imports them if they are installed, which takes a third of its time
_alone = False  # whether this process is a command or a worker, and needs none of what Keras wraps


def alone() -> None:
    """Lets this process, in which nobody else's program runs, start faster: see `quick_imports`."""
    global _alone
    _alone = True


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Within the block, in a process that is `alone`, Keras takes little more than half of its time to import.

    Imports do not find packages that Keras wraps or draws with, unless they are imported already. No garbage is looked
    for within the block, and none in what it has imported, until the process ends.
    """
    if not _alone:
        yield
        return
    hidden = [name for name in WRAPPED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
        for name in hidden:
            del sys.modules[name]


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


class BackendError(ZooError, ValueError):
    """Keras' backend cannot be imported, or is not the one that is needed: says which, and how another is chosen."""


def _started() -> bool:
    """Whether TensorFlow runs, or ran in the process that this one was forked from. Imports nothing."""
    context = getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)
    return bool(context and context._context_handle)


def _without_its_threads() -> bool:
    """Whether TensorFlow has started, and none of its threads is in this process; on Linux, where they have names."""
    names = []
    for path in glob.glob("/proc/self/task/*/comm") if _started() else ():
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:  # it may have ended
            names.append(file.read())
    return bool(names) and not any(name.startswith("tf_") for name in names)


def _note_fork() -> None:
    global _forked
    _forked = _forked or _started()


# Whether TensorFlow ran in the process that this one was forked from, perhaps without this module. Its threads do not
# outlive a fork, so that its next operation would wait for them for ever.
_forked = _without_its_threads()
os.register_at_fork(after_in_child=_note_fork)


def refuse_fork() -> None:
    """`BackendError` if TensorFlow ran in the process that this one was forked from."""
    if _forked:
        raise BackendError("TensorFlow ran before this process was forked, and cannot run in it; start processes by "
                           "multiprocessing.get_context('spawn')")


def need_tensorflow() -> None:
    """`BackendError` if the user chose another backend than TensorFlow. Imports nothing."""
    if chosen() != "tensorflow":
        raise BackendError(f"trainers needs TensorFlow, and the chosen backend of Keras is {chosen()!r}; start it "
                           "again with KERAS_BACKEND=tensorflow (fmnist_zoo alone works with any)")


def chosen() -> str:
    """The name of the backend that Keras has, or will have when it is imported; found as Keras finds it."""
    if "keras" in sys.modules:
        return str(sys.modules["keras"].config.backend())
    name: Any = os.environ.get("KERAS_BACKEND")
    if not name:
        home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
        path = os.path.join(home, "keras.json")
        with contextlib.suppress(OSError, ValueError, AttributeError), open(path, encoding="utf-8") as file:
            name = json.load(file).get("backend")
    return str(name or "tensorflow")


def __getattr__(name: str) -> Any:
    """Imports Keras and, under its backend, TensorFlow, when one of them is first asked for."""
    if name not in ("keras", "tf"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "tf":
        need_tensorflow()
    backend = chosen()
    try:
        with without_noise(), quick_imports():
            globals()["keras"] = importlib.import_module("keras")
            if backend == "tensorflow":
                globals()["tf"] = importlib.import_module("tensorflow")
                globals()["tf"].zeros(())  # creates TensorFlow's context, which prints a line about the processor
    except (ImportError, ValueError) as error:
        if backend == "tensorflow":
            raise
        raise BackendError(f"Keras' backend is {backend!r}, which cannot be imported ({error}); install it, or choose "
                           "another by KERAS_BACKEND: tensorflow, jax or torch") from error
    return globals()[name]
