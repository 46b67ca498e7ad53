"""Exports: a trained model is written in a format, run in that format's own runtime, and published if it is the same.

TensorFlow is imported only after everything that can be refused without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
import tempfile
import time
from typing import Iterator

import numpy as np

from fmnist_zoo import custom, data, files, metrics
from fmnist_zoo.errors import UsageError, ZooError
from trainers.publishing import formats
from trainers.publishing.formats import Format, Runner
from trainers.running import trained
from trainers.running.trained import Trained

TOLERANCE = 1e-5  # between two probabilities; float32 sums in another order differ by 1e-6

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ExportError(ZooError, RuntimeError):
    """A model could not be written, or its runtime gave other numbers than Keras. Nothing of it is left on the disk."""


@dataclasses.dataclass(frozen=True)
class Export:
    """What was written."""

    path: pathlib.Path  # a file, or the folder of a SavedModel
    size: int  # in bytes
    images: int  # on which it was checked
    input: tuple[int, ...]  # the shape of an image, as the file takes it
    difference: float  # the largest between its probabilities and Keras'
    runtime: str  # what ran it, with its version
    seconds: float  # to write and check it
    example: str  # a line of Python that runs it on `pixels`


def export(model: str | Trained, format: str, out: str | os.PathLike[str] | None = None, *,
           overwrite: bool = False) -> Export:
    """Writes a trained model in a format, complete and checked, or not at all.

    Args:
        model: the name of a model that comes trained, or one of `trainers.running.trained`, such as `from_run(folder)`.
        format: "saved_model", "tflite", "onnx" or "keras".
        out: the file or folder to write, in a folder that exists; default: the model's name in the folder `exports`.
        overwrite: replace an existing file or SavedModel.

    Returns:
        An `Export`. The file takes (batch, 784) float32 in [0, 1], any batch, and gives (batch, 10) float32 logits: on
        the 2,000 training images of the mini set the same classes as Keras', and probabilities within 1e-5. A model
        that a function of the user's builds may take (batch, 28, 28) or (batch, 28, 28, 1); so does the file.

    Raises:
        ValueError: for a wrong format, model or `out` (`UsageError`, `SpecError`, `WeightsError`).
        ExportError: if it cannot be written, or gives other numbers than Keras; nothing is left on the disk.
    """
    spec = trained.spec_and_data(model=model)[0] if isinstance(model, str) else model.spec
    path = destination(spec.folder, format, out, overwrite)
    from fmnist_zoo import prediction

    source = trained.from_zoo(spec.name) if isinstance(model, str) else model
    started, chosen = time.perf_counter(), formats.find(format)
    images = data.load_data(("fit",), data="mini", validation_size=0)["fit"].images
    try:
        if not out:
            path.parent.mkdir(exist_ok=True)
        # An estimate: the result, temporary files that conversion leaves beside it, and a graph.
        numbers = source.spec.parameters + source.spec.fixed_parameters
        files.require_space(path.parent, 3 * 4 * numbers + (1 << 20))
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as work:
            written = pathlib.Path(work, f"model{chosen.suffix}")
            difference = _write(chosen, source, written, path, prediction.as_pixels(images))
            size = _synced_size(written)
            _publish(written, path)
    except OSError as error:
        message = " ".join((error.strerror or str(error)).split())
        raise ExportError(f"{path}: cannot be written: {message}; nothing was left there; make room or make its "
                          "folder writable, or name another --out") from error
    shape = custom.input_shape(source.model)
    return Export(path, size, len(images), shape, difference, formats.version(chosen.runtime),
                  time.perf_counter() - started, chosen.example.format(path=str(path)))


def destination(model: str, format: str, out: str | os.PathLike[str] | None, overwrite: bool) -> pathlib.Path:
    """The path of an export; `UsageError` if nothing can be written there, or the format's packages are missing."""
    chosen = formats.find(format)
    path = pathlib.Path(files.local_path(out or f"exports/{model}{chosen.suffix}", "out"))
    is_file = chosen.suffix.startswith(".")
    if is_file and path.suffix != chosen.suffix:
        raise UsageError(f"--out={path}: the name of a file of this format ends with {chosen.suffix}")
    if out and not path.parent.is_dir():
        raise UsageError(f"--out={path}: there is no folder {path.parent}; make it first")
    if format in ("saved_model", "tflite") and {"[", "\\"} & set(str(path)):
        raise UsageError(f"--out={path}: TensorFlow reads [ and \\ in a path as a pattern and does not find the file; "
                         "name another")
    if not os.path.lexists(path):
        return path
    if not overwrite:
        raise UsageError(f"{path} exists already: name another with --out, or replace it with --overwrite")
    if not (path.is_file() if is_file else formats.is_saved_model(path)):
        only = "a file" if is_file else "the folder of a SavedModel with nothing else in it"
        raise UsageError(f"--out={path}: --overwrite replaces only {only}; name another")
    return path


def _write(chosen: Format, source: Trained, written: pathlib.Path, path: pathlib.Path, pixels: np.ndarray) -> float:
    """Writes and checks a model; returns the largest difference of two probabilities. Messages name `path`."""
    from fmnist_zoo import backend, prediction

    problem: Exception | None = None
    others, difference, pixels = 0, 0.0, prediction.as_input(source.model, pixels)
    with backend.without_noise(formats.NOISE), _full_precision():
        expected = prediction.outputs_of(source.model, pixels)  # first: Keras converts no model to ONNX before a call
        try:
            chosen.write(source.model, written)
            others, difference = _compare(chosen.load(written), pixels, expected)
        except Exception as error:  # converters and runtimes raise anything; raised again below, after their log lines
            problem = error
    if isinstance(problem, OSError):
        raise problem
    if problem:
        message = " ".join(str(problem).split())[:300]
        for number in _NO_ROOM:  # TensorFlow's own errors are not OSErrors
            if os.strerror(number) in str(problem):
                raise OSError(number, os.strerror(number)) from problem
        raise ExportError(f"{path}: not written: {type(problem).__name__}: {message}; "
                          "try another --format") from problem
    if others or not difference <= TOLERANCE:  # NaN fails every comparison
        raise ExportError(
            f"{path}: not written: {formats.version(chosen.runtime)} gives other numbers than Keras: {others} of "
            f"{len(pixels)} images get another class, probabilities differ by up to {difference:.1e} (allowed "
            f"{TOLERANCE:.0e}); try another --format, or another version of the runtime")
    return difference


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Turns off TensorFlow's TensorFloat-32, whose products on a GPU are 1e-3 away from float32's."""
    from fmnist_zoo.backend import tf

    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _compare(run: Runner, pixels: np.ndarray, expected: np.ndarray) -> tuple[int, float]:
    """How many images get another class, and the largest difference of two probabilities: NaN if one is not finite.

    `ValueError` if the runner returns anything but (batch, 10) float32.
    """
    received = []
    for part in (pixels[:1], pixels[1:]):  # a model whose batch became fixed takes at most one of these
        logits = np.asarray(run(part))
        shape = (len(part), expected.shape[1])
        if logits.shape != shape or logits.dtype != np.float32:
            raise ValueError(f"a batch of {len(part)} gave {logits.dtype} of shape {logits.shape}, expected float32 of "
                             f"shape {shape}")
        received.append(logits)
    found = np.concatenate(received)
    others = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    return others, float(np.abs(metrics.softmax(found) - metrics.softmax(expected)).max())


def _synced_size(written: pathlib.Path) -> int:
    """Waits until the disk holds every file and folder that was written; returns their size in bytes."""
    entries = [written, *written.rglob("*")]
    for entry in entries:
        files.sync(entry)
    return sum(entry.stat().st_size for entry in entries if entry.is_file())


def _publish(written: pathlib.Path, path: pathlib.Path) -> None:
    """Renames `written` to `path`. A folder with content cannot be replaced by a rename: the old one is moved aside,
    and moved back if the new one cannot take its place."""
    aside = written.with_name("replaced")
    if path.is_dir():
        os.rename(path, aside)
    try:
        files.publish(written, path)
    except OSError:
        if aside.exists() and not path.exists():
            os.rename(aside, path)
        raise
