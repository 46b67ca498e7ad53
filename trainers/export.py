"""Writes a trained model for other programs to run: `python -m trainers.export --model=4D_drop03 --format=onnx`.

What was written is run in its own runtime before it gets its name: a file that is there gives what Keras gives.
TensorFlow is imported only once everything that can be refused without it has been.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Sequence

from absl import flags

from fmnist_zoo import files
from trainers import cli as command
from trainers.publishing import formats
from trainers.publishing.formats import ExportError
from trainers.running import trained
from trainers.running.trained import Trained

if TYPE_CHECKING:
    import numpy as np

USAGE = """
Writes a trained model in a format that other programs run, and checks it there against Keras.

    python -m trainers.export --model=4D_drop03 --format=onnx
    python -m trainers.export --run=tb_logs/4D_drop03/<run> --format=tflite --out=garments.tflite

It takes (batch, 784) float32 in [0, 1], any batch, and gives (batch, 10) float32 logits; neither softmax nor
temperature is in it.
"""
GROUPS = {
    "What is written": ("model", "run"),
    "How and where": ("format", "out", "overwrite"),
}
TOLERANCE = 1e-5  # between two probabilities; float32 sums in another order make 1e-6
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the file, or the folder of a SavedModel.
        size: in bytes.
        images: how many it was checked on.
        difference: the largest between its probabilities and Keras'.
        runtime: what ran it, with its version.
        seconds: to write and check it.
        example: a line of Python that runs it on `pixels`.
    """

    path: pathlib.Path
    size: int
    images: int
    difference: float
    runtime: str
    seconds: float
    example: str


def define_flags() -> flags.FlagValues:
    """The command's flags, on a `FlagValues` of its own."""
    values = flags.FlagValues()

    def text(name: str, help: str) -> None:
        flags.DEFINE_string(name, None, help, flag_values=values)

    text("model", "a name from `python -m fmnist_zoo`: the weights that come with the package")
    text("run", "a finished run's folder, such as tb_logs/4D_drop03/<run>: its weights that count")
    flags.DEFINE_enum("format", None, list(formats.FORMATS), "saved_model: a folder, for TensorFlow; tflite: for "
                      "phones and boards; onnx: for ONNX Runtime; keras: for Keras", flag_values=values)
    text("out", "the file, or the folder of a SavedModel; default: the model's name in the working folder")
    flags.DEFINE_boolean("overwrite", False, "replace an --out that exists: a file, or a SavedModel",
                         flag_values=values)
    return values


def export(model: str | Trained, format: str, out: str | os.PathLike[str] | None = None, *,
           overwrite: bool = False) -> Export:
    """Writes a trained model in a format, whole and checked, or not at all.

    Args:
        model: the name of a model that comes trained, or one of `trainers.running.trained`, such as `from_run(folder)`.
        format: "saved_model", "tflite", "onnx" or "keras".
        out: where to; by default the model's name in the working folder. Its folder must exist.
        overwrite: replace a file, or a SavedModel, that is there.

    Returns:
        An `Export`. What it names takes (batch, 784) float32 in [0, 1], any batch, and gives (batch, 10) float32
        logits: on the 2,000 training images of the mini set the same classes as Keras', and probabilities within 1e-5.

    Raises:
        ValueError: for a format, model or `out` that cannot be (`UsageError`, `SpecError`, `WeightsError`).
        ExportError: if it cannot be written, or gives other numbers than Keras; nothing is left then.
    """
    name = (trained.spec_and_data(model=model)[0] if isinstance(model, str) else model.spec).name
    path = destination(name, format, out, overwrite)
    from fmnist_zoo import data, prediction

    source = trained.from_zoo(name) if isinstance(model, str) else model
    started, chosen = time.perf_counter(), formats.find(format)
    images = data.load_data(("fit",), data="mini", validation_size=0)["fit"].images
    try:
        # The estimate counts what lies beside the result while it is made, and a graph.
        files.require_space(path.parent, 3 * 4 * source.spec.parameters + (1 << 20))
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as work:
            written = pathlib.Path(work, f"model{chosen.suffix}")
            difference = _write(chosen, source, written, path, prediction.as_pixels(images))
            size = _sync(written)
            destination(name, format, out, overwrite)  # once more: it may have come into being meanwhile
            _publish(written, path)
    except OSError as error:
        message = " ".join((error.strerror or str(error)).split())
        raise ExportError(f"{path}: cannot be written: {message}; nothing was left there; make room or make its "
                          "folder writable, or name another --out") from error
    return Export(path, size, len(images), difference, formats.version(chosen.runtime),
                  time.perf_counter() - started, chosen.example.format(path=str(path)))


def destination(model: str, format: str, out: str | os.PathLike[str] | None, overwrite: bool) -> pathlib.Path:
    """Where a model of that name goes in a format.

    Raises:
        UsageError: if it cannot go there, or the format is not to be had.
    """
    chosen = formats.find(format)
    path = pathlib.Path(os.path.expanduser(out or f"{model}{chosen.suffix}"))
    if chosen.suffix.startswith(".") and path.suffix != chosen.suffix:
        raise command.UsageError(f"--out={path}: the name of a file of this format ends with {chosen.suffix}")
    if not path.parent.is_dir():
        raise command.UsageError(f"--out={path}: there is no folder {path.parent}; make it first")
    if format in ("saved_model", "tflite") and {"[", "\\"} & set(str(path)):
        raise command.UsageError(f"--out={path}: TensorFlow reads [ and \\ in a path as a pattern, and finds nothing "
                                 "there; name another")
    if not os.path.lexists(path):
        return path
    if not overwrite:
        raise command.UsageError(f"{path} exists already: name another with --out, or replace it with --overwrite")
    if chosen.suffix.startswith("."):
        if not path.is_file():
            raise command.UsageError(f"--out={path} is no file, and --overwrite replaces files alone; name another")
    elif foreign := formats.no_saved_model(path):
        raise command.UsageError(f"--out={path}: --overwrite replaces nothing but a SavedModel of this zoo, and "
                                 f"{foreign}; name another")
    return path


def _write(chosen: formats.Format, source: Trained, written: pathlib.Path, path: pathlib.Path,
           pixels: np.ndarray) -> float:
    """Writes and checks; returns the largest difference of two probabilities."""
    from fmnist_zoo import backend, prediction

    problem: Exception | None = None
    others, difference = 0, 0.0
    with backend.without_noise(formats.NOISE), formats.full_precision():
        wanted = prediction.outputs_of(source.model, pixels)  # first: Keras makes no ONNX of a model never called
        try:
            chosen.write(source.model, written)
            others, difference = formats.compare(chosen.load(written), pixels, wanted)
        except Exception as error:  # converters and runtimes raise anything; what they logged as errors is told too
            problem = error
    if isinstance(problem, OSError):
        raise problem
    if problem:
        message = " ".join(str(problem).split())[:300]
        for number in _NO_ROOM:  # TensorFlow's own errors are no OSErrors
            if os.strerror(number) in str(problem):
                raise OSError(number, os.strerror(number)) from problem
        raise ExportError(f"{path}: not written: {type(problem).__name__}: {message}; "
                          "another --format may do") from problem
    if others or not difference <= TOLERANCE:  # NaN fails every comparison
        raise ExportError(
            f"{path}: not written: {formats.version(chosen.runtime)} gives other numbers than Keras: {others} of "
            f"{len(pixels)} images get another class, probabilities differ by up to {difference:.1e} (allowed "
            f"{TOLERANCE:.0e}); another --format, or another version of it, may do")
    return difference


def _sync(written: pathlib.Path) -> int:
    """Has the disk take every file, and folder, of what was written; returns its size in bytes."""
    size = 0
    for entry in (written, *written.rglob("*")):
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            size += 0 if entry.is_dir() else os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    return size


def _publish(written: pathlib.Path, path: pathlib.Path) -> None:
    """Gives what was written its name. A full folder cannot be renamed over: the old one steps aside, and comes back
    if the new one cannot take its place."""
    aside = written.with_name("replaced")
    if path.is_dir():
        os.rename(path, aside)
    try:
        files.publish(written, path)
    except OSError:
        if aside.exists() and not path.exists():
            os.rename(aside, path)
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return command.main("export", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: flags.FlagValues) -> int:
    if not values.format:
        raise command.UsageError(f"which format? --format={'|'.join(formats.FORMATS)}")
    if values.run and values.model:
        raise command.UsageError("--run and --model both say what is written; drop one")
    if not (values.run or values.model):
        raise command.UsageError("which model? --model=NAME (`python -m fmnist_zoo` lists them), or --run=FOLDER")
    run, model = values.run or "", values.model or ""
    destination(trained.spec_and_data(run=run, model=model)[0].name, values.format, values.out, values.overwrite)
    result = export(trained.load(run=run, model=model), values.format, values.out, overwrite=values.overwrite)
    print(f"{result.path}: {result.size / 1e6:.2f} MB, probabilities within {result.difference:.1e} of Keras' on "
          f"{result.images:,} images, {result.runtime}, {result.seconds:.1f} s")
    print(f"to run it: {result.example}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
