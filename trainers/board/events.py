"""What a run writes for TensorBoard: event files, record by record.

Records are written synchronously with TensorBoard's own record writer, so that a checkpoint can note how long each file
was: on resume they are cut back to that length, and going on opens a new file beside (a TensorBoard that is looking on
reads it next). The x axis is the step, the number of updates.
"""

from __future__ import annotations

import pathlib
import time
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams import api_pb2, metadata as hparams_metadata, plugin_data_pb2
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from fmnist_zoo.files import atomic_write
from trainers.config import RunConfig

WRITERS = ("", "train", "validation")  # folders of a run that hold events; "" is the run itself
DROPOUT_COLUMNS = 4


class EventWriter:
    """Events of one folder, in a new file; nothing is created before the first event."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._file: Any = None
        self._records: Any = None

    def _event(self, **fields: Any) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self._folder / f"events.out.tfevents.{time.time_ns()}", "xb")
            self._records = RecordWriter(self._file)
            self._event(file_version="brain.Event:2")
        self._records.write(event_pb2.Event(wall_time=time.time(), **fields).SerializeToString())

    def summary(self, summary: Any, step: int) -> None:
        self._event(summary=summary, step=step)

    def scalars(self, values: dict[str, float], step: int) -> None:
        for tag, value in values.items():
            self.summary(scalar_pb(tag, value), step)

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        self.summary(histogram_pb(tag, values), step)

    def image(self, tag: str, png: bytes, size: tuple[int, int], step: int, *, description: str) -> None:
        """One PNG; `size` is its width and height in pixels."""
        metadata = image_metadata.create_summary_metadata(display_name=None, description=description)
        strings = np.array([str(size[0]).encode(), str(size[1]).encode(), png], dtype=object)
        value = summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor_util.make_tensor_proto(strings))
        self.summary(summary_pb2.Summary(value=[value]), step)

    def pr_curve(self, tag: str, labels: np.ndarray, probabilities: np.ndarray, step: int) -> None:
        """Precision and recall of one class over all thresholds: `labels` (n,) bool, `probabilities` (n,) in [0, 1]."""
        from tensorboard.plugins.pr_curve.summary import pb

        made = pb(tag, labels, probabilities, num_thresholds=201)
        self.summary(summary_pb2.Summary.FromString(made.SerializeToString()), step)  # TensorFlow's class, then ours

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        self.summary(text_pb(tag, markdown), step)

    def graph(self, graph_def: bytes) -> None:
        self._event(graph_def=graph_def)

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def event_files(run: pathlib.Path) -> list[pathlib.Path]:
    """The event files of a run's own folders, oldest first."""
    return [path for folder in WRITERS for path in _events(run / folder)]


def _events(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def sizes(run: pathlib.Path) -> dict[str, int]:
    """Length in bytes of each event file, by its path within the run."""
    return {path.relative_to(run).as_posix(): path.stat().st_size for path in event_files(run)}


def cut_back(run: pathlib.Path, noted: dict[str, int]) -> None:
    """Undoes all events after `sizes` was noted: longer files are cut, newer ones removed."""
    for path in event_files(run):
        length = noted.get(path.relative_to(run).as_posix())
        if length is None:
            path.unlink()
        elif path.stat().st_size > length:
            with open(path, "r+b") as file:
                file.truncate(length)


def missing(run: pathlib.Path, noted: dict[str, int]) -> bool:
    """Whether event files that were noted are gone, or shorter than they were."""
    found = sizes(run)
    return any(found.get(name, -1) < length for name, length in noted.items() if "/" in name)


def opened(run: pathlib.Path) -> bool:
    """Whether the run's own events, which open with its HParams record, are there."""
    return bool(_events(run))


def remove(folder: pathlib.Path) -> None:
    """Removes a folder's own events, because what they tell has changed."""
    for path in _events(folder):
        path.unlink()


def hyperparameters(config: RunConfig, batch_size: int) -> dict[str, Any]:
    """A run's column values for the HParams tab: one for each declared column, none missing.

    In a sweep a changed model bears its base's name: what was changed is in columns of its own.
    """
    rates = config.spec.dropout or (0.0,)
    return {
        "model": config.spec.name.split(",")[0] if config.ranking else config.spec.name,
        "dropout": float(np.mean(rates)), "l1": config.spec.l1, "l2": config.spec.l2,
        "seed": config.seed, "batch_size": batch_size, "optimizer": config.recipe.optimizer,
        "learning_rate": config.recipe.learning_rate, "weight_decay": config.recipe.weight_decay,
        "hidden": "-".join(map(str, config.spec.hidden)) or "none", "epochs": config.recipe.epochs,
        "trainer": config.trainer, "precision": config.precision, "data": config.data,
        **{f"dropout.{layer + 1}": rates[layer] if layer < len(rates) else 0.0 for layer in range(DROPOUT_COLUMNS)},
    }


_HPARAMS = {
    "model": str, "dropout": float, "l1": float, "l2": float, "seed": float, "batch_size": float, "optimizer": str,
    "learning_rate": float, "weight_decay": float, "hidden": str, "epochs": float, "trainer": str, "precision": str,
    "data": str,
    **{f"dropout.{layer + 1}": float for layer in range(DROPOUT_COLUMNS)},
}
_SHOWN_FIRST = ("model", "dropout", "l1", "l2", "seed")  # TensorBoard shows five columns: those that "differ" first
_METRICS = (  # group (a folder of the run), tag, name shown: short, for the axes of parallel coordinates
    ("", "final/validation_loss", "validation loss"),
    ("", "final/validation_accuracy", "validation accuracy"),
    ("", "final/ranking_loss", "ranking loss"),
    ("", "final/ranking_accuracy", "ranking accuracy"),
    ("", "final/train_loss", "train loss"),
    ("", "final/epoch", "epoch kept"),
    ("train", "loss_eval", "last train loss"),
    ("validation", "loss", "last val. loss"),
    ("validation", "accuracy", "last val. accuracy"),
    ("train", "loss", "last train, dropout on"),
)


def declare_hparams(logdir: pathlib.Path) -> None:
    """The project's one declaration of columns, at the root of the log folder: TensorBoard takes the first it finds."""
    kinds = {str: "DATA_TYPE_STRING", float: "DATA_TYPE_FLOAT64"}
    infos = [api_pb2.HParamInfo(name=name, type=getattr(api_pb2, kinds[kind]), differs=name in _SHOWN_FIRST)
             for name, kind in _HPARAMS.items()]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(group=group, tag=tag), display_name=shown)
               for group, tag, shown in _METRICS]
    summary = _hparams(hparams_metadata.EXPERIMENT_TAG,
                       experiment=api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics))
    path = logdir / "events.out.tfevents.0.hparams"
    records = [event_pb2.Event(file_version="brain.Event:2"), event_pb2.Event(summary=summary)]
    content = b"".join(map(_record, records))
    if not path.exists() or path.read_bytes() != content:
        logdir.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(content)


def _record(event: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()


def session_start(values: dict[str, Any]) -> Any:
    """The HParams record that opens a run; `values` are numbers and strings, one for each declared column."""
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in values.items():
        field = "string_value" if isinstance(value, str) else "number_value"
        setattr(info.hparams[name], field, value)
    return _hparams(hparams_metadata.SESSION_START_INFO_TAG, session_start_info=info)


def session_end(*, success: bool) -> Any:
    """The HParams record that closes a run."""
    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    return _hparams(hparams_metadata.SESSION_END_INFO_TAG, session_end_info=info)


def _hparams(tag: str, **content: Any) -> Any:
    """A record for the HParams tab; made here because TensorBoard's own helper imports TensorFlow."""
    metadata = hparams_metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    value = summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=hparams_metadata.NULL_TENSOR)
    return summary_pb2.Summary(value=[value])
