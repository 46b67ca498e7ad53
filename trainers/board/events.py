"""Event files for TensorBoard: writing them, and cutting them back to a checkpoint.

Records are written synchronously with TensorBoard's own record writer, so a checkpoint can note the length of each
file. A resumed run cuts the files back to those lengths and writes into a new file beside them, which a running
TensorBoard reads next. The x axis is the epoch.

A folder with events is a row in TensorBoard, and a run has two: its own folder with all that validation measures, and
`train`. What a run says of its settings (HParams, text, graph) is in a file of its own, because it may change.
"""

from __future__ import annotations

import os
import pathlib
import time
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto import event_pb2, graph_pb2, summary_pb2, tensor_pb2
from tensorboard.plugins.graph import metadata as graph_metadata
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from fmnist_zoo.files import make_folder, naming, sync
from trainers.board import pictures

FOLDERS = ("", "train")  # of a run, with events; "" is its own
CURVES = ".curves"  # ends the names of files in a run's own folder that hold what was measured


def tensor_summary(tag: str, metadata: summary_pb2.SummaryMetadata, tensor: tensor_pb2.TensorProto
                   ) -> summary_pb2.Summary:
    """A summary of one tensor. TensorBoard's helpers for pictures, graphs and HParams import TensorFlow."""
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


class EventWriter:
    """Writes events to a new file in `folder`, with `suffix` in its name; creates neither before the first event."""

    def __init__(self, folder: pathlib.Path, suffix: str = ""):
        self._folder, self._suffix = folder, suffix
        self._file: Any = None
        self._records: Any = None
        self._unsynced = False

    def _event(self, **fields: Any) -> None:
        if self._file is None:
            make_folder(self._folder)
            self._file = open(self._folder / f"events.out.tfevents.{self._number()}{self._suffix}", "xb")
            self._records = RecordWriter(self._file)
            self._event(file_version="brain.Event:2")
        self._unsynced = True
        with naming(self._file.name):
            self._records.write(event_pb2.Event(wall_time=time.time(), **fields).SerializeToString())

    def _number(self) -> int:
        """The number in a new file's name: the time in nanoseconds, and more than those of the files that are there.

        TensorBoard reads files in this order, and the clock may have been set back.
        """
        numbers = (path.name.split(".")[3] for path in _event_files(self._folder))
        return max(time.time_ns(), *(int(number) + 1 for number in numbers if number.isdecimal()), 0)

    def summary(self, summary: summary_pb2.Summary, step: int) -> None:
        self._event(summary=summary, step=step)

    def scalars(self, values: dict[str, float], step: int) -> None:
        for tag, value in values.items():
            self.summary(scalar_pb(tag, value), step)

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        self.summary(histogram_pb(tag, values), step)

    def image(self, tag: str, picture: Image.Image, step: int, *, description: str) -> bytes:
        """Writes a picture, and returns it as PNG."""
        metadata = image_metadata.create_summary_metadata(display_name=None, description=description)
        png = pictures.png(picture)
        strings = np.array([*(str(pixels).encode() for pixels in picture.size), png], dtype=object)
        self.summary(tensor_summary(tag, metadata, tensor_util.make_tensor_proto(strings)), step)
        return png

    def pr_curve(self, tag: str, labels: np.ndarray, probabilities: np.ndarray, step: int) -> None:
        """Precision and recall of one class over all thresholds: `labels` (n,) bool, `probabilities` (n,) in [0, 1]."""
        from tensorboard.plugins.pr_curve.summary import pb

        made = pb(tag, labels, probabilities, num_thresholds=201)
        # `pb` returns TensorFlow's class of the message, and the event takes TensorBoard's
        self.summary(summary_pb2.Summary.FromString(made.SerializeToString()), step)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        readable = markdown.encode(errors="surrogateescape").decode(errors="replace")  # a path in another locale
        self.summary(text_pb(tag, readable), step)

    def graph(self, graph_def: graph_pb2.GraphDef) -> None:
        """A graph of TensorFlow's operations, without those that only order others."""
        nodes = [node for node in graph_def.node if node.op != "NoOp" and node.name != "Identity"]
        del graph_def.node[:]
        graph_def.node.extend(nodes)
        self._event(graph_def=graph_def.SerializeToString())

    def keras_graph(self, model_as_json: str) -> None:
        """The conceptual graph: Keras' layers, from `model.to_json()`."""
        metadata = summary_pb2.SummaryMetadata(plugin_data={
            "plugin_name": graph_metadata.PLUGIN_NAME_KERAS_MODEL, "content": b"1"})
        tensor = tensor_util.make_tensor_proto(model_as_json.encode(), shape=())
        self.summary(tensor_summary("keras", metadata, tensor), 0)

    def flush(self) -> None:
        if self._file is not None:
            with naming(self._file.name):
                self._file.flush()

    def sync(self) -> None:
        """Waits until the disk holds all events so far: call it before `sizes` goes into a checkpoint."""
        if self._unsynced:
            self.flush()
            with naming(self._file.name):
                os.fsync(self._file.fileno())
            sync(self._folder)
            self._unsynced = False

    def close(self) -> None:
        if self._file is not None:
            with naming(self._file.name):
                self._file.close()


def sizes(run: pathlib.Path) -> dict[str, int]:
    """Length in bytes of each event file of a run, by its path within the run."""
    return {path.relative_to(run).as_posix(): path.stat().st_size
            for folder in FOLDERS for path in _event_files(run / folder)}


def cut_back(run: pathlib.Path, noted: dict[str, int]) -> bool:
    """Undoes all events after `sizes` returned `noted`: cuts longer files, removes newer ones.

    Returns whether all noted curves are there; `remove` may have removed what else was noted.
    """
    found = sizes(run)
    for name, size in found.items():
        if name not in noted:
            (run / name).unlink()
        elif size > noted[name]:
            os.truncate(run / name, noted[name])
            sync(run / name)  # else what was cut may be there again after a crash
    return all(found.get(name, -1) >= size for name, size in noted.items() if "/" in name or name.endswith(CURVES))


def opened(run: pathlib.Path) -> bool:
    """Whether the run has said what its settings are."""
    return bool(_of_settings(run))


def remove(run: pathlib.Path) -> None:
    """Removes what the run said of its settings, because it is no longer true. Its curves stay."""
    for path in _of_settings(run):
        path.unlink()


def _of_settings(run: pathlib.Path) -> list[pathlib.Path]:
    """The event files in the run's own folder that hold no curves."""
    return [path for path in _event_files(run) if not path.name.endswith(CURVES)]


def _event_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The event files directly in a folder, oldest first."""
    return sorted(folder.glob("events.out.tfevents.*"))
