"""Whether the files of a run are whole and fit each other; nothing is changed, and no TensorFlow is imported.

A checkpoint has a digest of its arrays and one of the rows of `metrics.csv`, so a change in either is found. What
`result.json` says is compared with these rows and with the weights in the checkpoint. It holds a digest of each file of
weights, of the model and of each event file; those of version 0.2 and earlier do not. docs/reference/run_folder.md says
what is not checked.
"""

from __future__ import annotations

import math
import zipfile
from typing import Any

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import require_stored, sha256_of
from trainers.config import RunConfig, read_run
from trainers.running import provenance
from trainers.running.folder import RunFolder, ends, read_evaluation

CLOSE = 1e-5  # relative: a run that was resumed on another machine measures its last weights there once more


def problems(folder: RunFolder) -> list[str]:
    """What is damaged in a run's folder, or does not fit the rest; a line each, empty for a folder that is whole."""
    try:
        record, config = read_run(folder.config)
        rows = folder.rows()
    except (ZooError, OSError) as error:
        return [str(error)]
    found = []
    try:
        provenance.starts(record)
    except ZooError as error:
        found.append(f"{folder.config}: {error}")
    note: dict[str, Any] = {}
    weights_sha256 = None
    if folder.checkpoint.exists():
        try:
            note, weights_sha256 = _checkpoint(folder, config)
        except ZooError as error:
            found.append(str(error))
    elif not folder.result.exists():
        try:
            folder.check_no_loss(config.checkpoint_every)
        except ZooError as error:
            found.append(str(error))
    result = folder.read_result()
    if problem := folder.result_problem():
        found.append(problem)
    if result is None and folder.failure.exists() and not folder.read_failure():
        found.append(f"{folder.failure}: damaged")
    if result:
        known = weights_sha256 if note.get("epoch") == result["epochs"] else None
        found += [f"{folder.result}: {what}" for what in _result(result, rows, known)]
        found += _products(folder, record, config, result)
    return found


def result_problems(folder: RunFolder) -> list[str]:
    """Where the `result.json` of a finished run disagrees with its `metrics.csv`; `TableError` if that is damaged."""
    result = folder.read_result()
    return [folder.result_problem()] if result is None else [
        f"{folder.result}: {what}" for what in _result(result, folder.rows(), None)]


def _checkpoint(folder: RunFolder, config: RunConfig) -> tuple[dict[str, Any], str | None]:
    """Checks a checkpoint, and the files that it describes; returns its note and the digest of the weights that count.

    The digest is None where the last weights count: they have other names in a checkpoint.

    Raises:
        ZooError: for damage, or a file that was changed.
    """
    from trainers.board import events
    from trainers.running import checkpoints

    arrays, note = checkpoints.load(folder.checkpoint)
    checkpoints.check_note(folder.checkpoint, note)
    if not config.owns(note["identity"]):
        raise checkpoints.CheckpointError(f"{folder.checkpoint}: belongs to another config than the run's config.json; "
                                          "one of the two was changed")
    folder.table.check(note["epoch"], note.get("metrics_sha256"))
    if events.missing(folder.path, note["events"]):
        raise checkpoints.CheckpointError(f"{folder.path}: event files are missing, or shorter than the checkpoint "
                                          "says: TensorBoard shows gaps")
    best = {name.removeprefix("best/"): array for name, array in arrays.items() if name.startswith("best/")}
    return note, checkpoints.digest(best) if best and config.recipe.weights == "best" else None


def _result(result: dict[str, Any], rows: list[dict[str, Any]], weights_sha256: str | None) -> list[str]:
    """Where `result.json` disagrees with the rows of `metrics.csv`, or with the weights in the checkpoint."""
    found, final = [], result["final"]
    if len(rows) < result["epochs"] or not 1 <= final["epoch"] <= result["epochs"]:
        return [f"says that epoch {final['epoch']} of {result['epochs']} counts, and metrics.csv has {len(rows)} rows"]
    row = rows[final["epoch"] - 1]
    pairs = {name: (final.get(name), row[name]) for name in ("val_loss", "val_accuracy")}
    pairs["seconds"] = (result["seconds"], sum(one["seconds"] for one in rows[:result["epochs"]]))
    for name, (said, measured) in pairs.items():
        same = said == measured if None in (said, measured) else (
            isinstance(said, (int, float)) and math.isclose(said, measured, rel_tol=CLOSE))
        if not same:
            found.append(f"its {name} is {said!r}, and {measured!r} by metrics.csv")
    if weights_sha256 not in (None, result["weights_sha256"]):
        found.append("its weights_sha256 is not that of the weights in the checkpoint")
    return found


def _products(folder: RunFolder, record: dict[str, Any], config: RunConfig, result: dict[str, Any]) -> list[str]:
    """What is wrong with the weights, the model, the events and the evaluation of a run that ended."""
    known = result.get("files_sha256")
    found = _files(folder, config, known) if isinstance(known, dict) else _files_of_0_2(folder, config, result)
    path = folder.evaluation / "evaluation.json"
    if path.exists() and not read_evaluation(folder.evaluation, weights_sha256=result["weights_sha256"],
                                             data_sha256=record["data"]["sha256"]):
        found.append(f"{path}: damaged, or of other weights or data; trainers.evaluate writes it again")
    return found


def _files(folder: RunFolder, config: RunConfig, known: dict[str, str]) -> list[str]:
    """Which files that a run left are gone, or have another SHA-256 than its `result.json` says.

    Of a trial the weights and the model may be gone: a sweep keeps those of its best trials.
    """
    found = []
    for name, sha256 in known.items():
        path = folder.path / name
        try:
            if not path.is_file():
                if not (config.ranking and (path == folder.model or path.parent == folder.weights)):
                    found.append(f"{path}: is gone")
                continue
            same = sha256_of(path) == sha256
        except OSError as error:
            found.append(f"{path}: cannot be read: {error.strerror}")
            continue
        if not same:
            found.append(f"{path}: damaged or changed: its SHA-256 is not the one in result.json")
    return found


def _files_of_0_2(folder: RunFolder, config: RunConfig, result: dict[str, Any]) -> list[str]:
    """What is wrong with the model and the weights of a run of version 0.2 or earlier, which noted no digests."""
    found: list[str] = []
    damaged: str | None = None
    if folder.model.is_file():
        try:
            with zipfile.ZipFile(folder.model) as archive:
                require_stored(archive, folder.model.stat().st_size)
                damaged = archive.testzip()
        except Exception as error:  # zipfile raises anything for a damaged file
            damaged = str(error)
        if damaged:
            found.append(f"{folder.model}: damaged: {damaged}")
    expected = [folder.weights / f"{config.recipe.weights}.weights.h5", *([] if config.spec.build else [folder.model])]
    if ends(result, config) and not config.ranking:
        found += [f"{path}: is gone" for path in expected if not path.is_file()]
    return found
