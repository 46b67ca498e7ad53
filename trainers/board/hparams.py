"""The HParams tab of TensorBoard: the columns of the whole project, and the two records of each run."""

from __future__ import annotations

import io
import pathlib
import time
import zlib
from typing import Any, Iterable, Mapping, Sequence

import numpy as np
from google.protobuf.message import DecodeError, Message
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from fmnist_zoo import arguments
from fmnist_zoo.card import printable
from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write, exclusive, make_folder
from fmnist_zoo.settings import Number, Whole
from trainers.board.events import tensor_summary
from trainers.config import SETTINGS, RunConfig, flat, read_run
from trainers.metrics_table import HPARAMS

# `dropout` is the mean rate, and an axis. `dropout.schedule` has the rates of all layers, where these differ, as text.
# The rates of the first layers have columns of their own, in which a sweep of single layers is told apart.
DROPOUT_COLUMNS = 4
_SAME, _BY_LAYER = "one rate", "by layer"
_OF_LAYERS = tuple(f"dropout.{layer}" for layer in range(1, DROPOUT_COLUMNS + 1))
_KINDS = {name: known.kind for name, known in SETTINGS.items() if known.column}
_TYPES = {
    "sweep": str,
    "model": str,
    **{name: float if isinstance(kind, (Number, Whole)) or name == "dropout" else str for name, kind in _KINDS.items()},
    "dropout.schedule": str,
    **dict.fromkeys(_OF_LAYERS, float),
}
Values = dict[str, float | str]  # a number or a string for each column

SHOWN = 5  # columns that TensorBoard shows at first: those that "differ", in alphabetical order
LONGEST = 16  # characters of a text: in parallel coordinates a longer one runs across the next axis
_NAMES = {"dropout": "dropout (mean)"}  # shown, where it is not the column's own
_NO_SWEEP = "none"
_APART = ("sweep", "data")  # shown before others where they differ: results of unlike rows do not compare
_FIRST = ("model", "dropout", "dropout.schedule", "l2", "learning_rate", "seed", "batch_size", "hidden")
FILE = "events.out.tfevents.0.hparams"


def hyperparameters(config: RunConfig, batch_size: int | None = None, sweep: Mapping[str, Any] | None = None) -> Values:
    """A run's values, one for each declared column, and for each argument of a model of the user's.

    Args:
        batch_size: the images of an update, where the recipe says "full"; None leaves the column out there.
        sweep: of a trial: the `name` of its sweep, the `model` that all trials start from, and `by_layer`: whether
            the rates of single layers are searched, so that no list holds all schedules.
    """
    settings, sweep = flat(config), sweep or {}
    cells = {name: settings[name] if _TYPES[name] is float else kind.write(settings[name])
             for name, kind in _KINDS.items()}
    rates = config.spec.dropout or (0.0,)
    of_layers = [*rates, *[0.0] * DROPOUT_COLUMNS]
    cells |= {
        "sweep": sweep.get("name", _NO_SWEEP), "model": sweep.get("model", config.spec.name),
        "hidden": "-".join(map(str, config.spec.hidden)) or "none", "dropout": float(np.mean(rates)),
        "dropout.schedule": _BY_LAYER if sweep.get("by_layer") else
        _KINDS["dropout"].write(rates) if len(set(rates)) > 1 else _SAME,
        "batch_size": batch_size or config.recipe.batch_size,
        **dict(zip(_OF_LAYERS, of_layers)),
    }
    given = {arguments.label(name): str(value).lower() if isinstance(value, bool) else value
             for name, value in config.spec.arguments}
    cells = {name: value for name, value in cells.items() if isinstance(value, str) == (_TYPES[name] is str)} | given
    return {name: _short(value) if isinstance(value, str) else value for name, value in cells.items()}


def _short(text: str) -> str:
    """Of a longer text its two ends, which tell names apart."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}…{text[1 - half:]}"


def declare(logdir: pathlib.Path, runs: Iterable[Values], *, first: Sequence[str] = ()) -> None:
    """Writes the declaration of columns and metrics to the root of the log folder, and a copy into each sweep's folder.

    It is the same for runs and sweeps, because TensorBoard uses the first that it finds. A column has all values that
    runs in the log folder have: TensorBoard filters by them, and shows the columns that differ.

    Args:
        runs: values of runs that will be there soon.
        first: columns to show before others if they differ: what a sweep searches.
    """
    make_folder(logdir)
    with exclusive(logdir):  # runs that start at the same time would take each other's values out again
        known = _read(logdir / FILE) or _recorded(logdir)
        sweeps = [path.parent for path in logdir.glob("sweeps/*/sweep.json")]
        known["sweep"].update(_short(sweep.name) for sweep in sweeps)
        for values in runs:
            for name, value in values.items():
                known.setdefault(name, set()).add(value)
        content = _declaration(known, first, objective=bool(sweeps))
        for folder in (logdir, *sweeps):
            path = folder / FILE
            if not path.exists() or path.read_bytes() != content:
                with atomic_write(path) as file:
                    file.write(content)


def _declaration(known: dict[str, set[float | str]], first: Sequence[str], *, objective: bool) -> bytes:
    """`objective`: whether there are sweeps. Parallel coordinates draw no row that lacks a metric which is shown."""
    order = dict.fromkeys((*_APART, *first, *known))
    known = {name: known[name] for name in order if name in known}
    by_layer = _BY_LAYER in known.get("dropout.schedule", ())  # else the column of the mean says it all
    differing = [name for name, values in known.items() if len(values) > 1 and (by_layer or name not in _OF_LAYERS)]
    others = [name for name in _FIRST if name not in differing and name != "dropout.schedule"]
    shown = [*differing, *others][:SHOWN]
    return _content(api_pb2.Experiment(
        hparam_infos=[_info(name, values, name in shown) for name, values in known.items()],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=text)
                      for tag, text in HPARAMS if objective or text != "objective"]))


def _info(name: str, values: set[float | str], differs: bool) -> api_pb2.HParamInfo:
    texts = [value for value in values if isinstance(value, str)]
    if _TYPES.get(name, str if texts else float) is str:
        info = api_pb2.HParamInfo(name=name, type=api_pb2.DATA_TYPE_STRING, differs=differs)
        info.domain_discrete.extend(sorted(texts))
        return info
    interval = api_pb2.Interval(min_value=min(values), max_value=max(values)) if values else None
    return api_pb2.HParamInfo(name=name, display_name=_NAMES.get(name, ""), type=api_pb2.DATA_TYPE_FLOAT64,
                              differs=differs, domain_interval=interval)


def _content(experiment: api_pb2.Experiment) -> bytes:
    buffer = io.BytesIO()
    for event in (event_pb2.Event(file_version="brain.Event:2"),
                  event_pb2.Event(summary=_hparams(metadata.EXPERIMENT_TAG, experiment=experiment))):
        RecordWriter(buffer).write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()


def _read(path: pathlib.Path) -> dict[str, set[float | str]]:
    """The columns of a declaration, in its order, with the values (of numbers the least and the largest) of each.

    Empty if there is none, it is damaged, or it lacks one of these columns.
    """
    try:
        content = path.read_bytes()
        second = 16 + int.from_bytes(content[:8], "little")  # a record: length 8 bytes, CRC 4, payload, CRC 4
        event = event_pb2.Event.FromString(content[second + 12:-4])
        experiment = metadata.parse_experiment_plugin_data(event.summary.value[0].metadata.plugin_data.content)
    except (OSError, IndexError, DecodeError, ValueError):
        return {}
    known: dict[str, set[float | str]] = {}
    for info in experiment.hparam_infos:
        interval = info.domain_interval
        numbers = {interval.min_value, interval.max_value} if info.HasField("domain_interval") else set()
        known[info.name] = {*info.domain_discrete, *numbers}
    return known if set(known) >= set(_TYPES) else {}


def _recorded(logdir: pathlib.Path) -> dict[str, set[float | str]]:
    """The columns, with the values of the runs in the log folder by their records; sweeps aside."""
    known: dict[str, set[float | str]] = {name: set() for name in (*_FIRST, *_TYPES)}
    for path in (*logdir.glob("*/*/config.json"), *logdir.glob("*/*/*/config.json")):  # the latter of several seeds
        try:
            values = hyperparameters(read_run(path)[1])
        except ZooError:  # a damaged record, or a model of a module that is not imported
            continue
        for name, value in values.items():
            known.setdefault(name, set()).add(value)
    return known


def session_start(run: pathlib.Path, config: RunConfig, batch_size: int, sweep: Mapping[str, Any] | None = None
                  ) -> summary_pb2.Summary:
    """The HParams record at the start of the run in a folder.

    TensorBoard shows 15 characters of a group's name. The executions of a trial are one group, `#0003`, and so are
    several seeds in a folder. A sweep, which is a column, is in the name by characters that have no width. All trials
    of a sweep bear the name of its base: what they change has columns of its own.

    Args:
        sweep: of a trial, as of `hyperparameters`; None for a run.
    """
    place = run if run.parent.name == config.spec.folder else run.parent
    group = printable(f"{place.name} {place.parent.name}")
    if sweep:  # its name may be used again
        group = f"#{place.name}" + _invisible(f"{sweep['name']} {sweep['started']}")
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time(), group_name=group)
    for name, value in hyperparameters(config, batch_size, sweep).items():
        setattr(info.hparams[name], "string_value" if isinstance(value, str) else "number_value", value)
    return _hparams(metadata.SESSION_START_INFO_TAG, session_start_info=info)


def _invisible(text: str) -> str:
    """32 characters without width, which differ for texts that do."""
    return f"{zlib.crc32(text.encode(errors='surrogateescape')):032b}".translate({48: "\u200b", 49: "\u200c"})


def session_end(*, success: bool) -> summary_pb2.Summary:
    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    return _hparams(metadata.SESSION_END_INFO_TAG, session_end_info=info)


def _hparams(tag: str, **content: Message) -> summary_pb2.Summary:
    """A record for the HParams tab."""
    described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    return tensor_summary(tag, described, metadata.NULL_TENSOR)
