"""The HParams tab of TensorBoard: the columns of the whole project, and the two records of each run."""

from __future__ import annotations

import io
import pathlib
import time
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from fmnist_zoo.files import atomic_write
from fmnist_zoo.settings import Number, Whole
from trainers.config import SETTINGS, RunConfig, flat

DROPOUT_COLUMNS = 4  # `dropout` is the mean rate; the rates of the first layers have columns of their own
_KINDS = {name: known.kind for name, known in SETTINGS.items() if known.column}
_TYPES = {
    "model": str,
    **{name: float if isinstance(kind, (Number, Whole)) or name == "dropout" else str for name, kind in _KINDS.items()},
    **{f"dropout.{layer}": float for layer in range(1, DROPOUT_COLUMNS + 1)},
}


def hyperparameters(config: RunConfig, batch_size: int) -> dict[str, Any]:
    """A run's values for the HParams tab, one for each declared column; `batch_size` is a number for "full", too.

    In a sweep, a changed model has the name of its base, because the changes have columns of their own.
    """
    settings = flat(config)
    cells = {name: settings[name] if _TYPES[name] is float else kind.write(settings[name])
             for name, kind in _KINDS.items()}
    rates = config.spec.dropout or (0.0,)
    by_layer = [*rates, *[0.0] * DROPOUT_COLUMNS][:DROPOUT_COLUMNS]
    return {
        **cells,
        "model": config.spec.name.split(",")[0] if config.ranking else config.spec.name,
        "hidden": "-".join(map(str, config.spec.hidden)) or "none", "dropout": float(np.mean(rates)),
        "batch_size": batch_size,
        **{f"dropout.{layer}": rate for layer, rate in enumerate(by_layer, start=1)},
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


def declare(logdir: pathlib.Path) -> None:
    """Writes the project's declaration of columns to the root of the log folder.

    There is one for all runs and sweeps, because TensorBoard uses the first that it finds.
    """
    kinds = {str: "DATA_TYPE_STRING", float: "DATA_TYPE_FLOAT64"}
    infos = [api_pb2.HParamInfo(name=name, type=getattr(api_pb2, kinds[kind]), differs=name in _SHOWN_FIRST)
             for name, kind in _TYPES.items()]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(group=group, tag=tag), display_name=shown)
               for group, tag, shown in _METRICS]
    summary = _hparams(metadata.EXPERIMENT_TAG,
                       experiment=api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics))
    path = logdir / "events.out.tfevents.0.hparams"
    buffer = io.BytesIO()
    for event in (event_pb2.Event(file_version="brain.Event:2"), event_pb2.Event(summary=summary)):
        RecordWriter(buffer).write(event.SerializeToString(deterministic=True))
    content = buffer.getvalue()
    if not path.exists() or path.read_bytes() != content:
        logdir.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(content)


def session_start(values: dict[str, Any]) -> Any:
    """The HParams record at the start of a run; `values` has a number or a string for each declared column."""
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in values.items():
        field = "string_value" if isinstance(value, str) else "number_value"
        setattr(info.hparams[name], field, value)
    return _hparams(metadata.SESSION_START_INFO_TAG, session_start_info=info)


def session_end(*, success: bool) -> Any:
    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    return _hparams(metadata.SESSION_END_INFO_TAG, session_end_info=info)


def _hparams(tag: str, **content: Any) -> Any:
    """A record for the HParams tab. TensorBoard has a helper for it, but that one imports TensorFlow."""
    described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    value = summary_pb2.Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)
    return summary_pb2.Summary(value=[value])
