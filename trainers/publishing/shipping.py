"""The weights that come with the package: finished runs become files and entries of a manifest."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import time
from typing import Any, Sequence

from fmnist_zoo import models, prediction, weights
from fmnist_zoo.files import exclusive, make_folder, publish, write_json
from trainers.config import read_record
from trainers.publishing import evaluation, scores
from trainers.running import trained
from trainers.running.folder import RunFolder
from trainers.running.trained import Trained

MOST_CHANGED = 2  # validation images that may get another class from float16 weights than from float32 ones


def ship(folders: Sequence[RunFolder], data_dir: str | None = None) -> str:
    """Writes the weights of finished runs and the manifest; returns lines that say what was written.

    Weights are stored as float16 if at most `MOST_CHANGED` validation images get another class from them, else, or
    without validation images, as float32. The test images are opened once, to measure the weights that were chosen.
    """
    make_folder(weights.FOLDER)
    lines = [_ship(folder, data_dir) for folder in folders]
    total = sum(entry["bytes"] for entry in weights.manifest().values())
    return "\n".join([*lines, f"{len(weights.manifest())} models, {total / 1e6:.1f} MB, in {weights.FOLDER}"])


def _ship(folder: RunFolder, data_dir: str | None) -> str:
    """Writes one run's weights and its entry of the manifest."""
    subject = trained.calibrated(trained.from_run(folder.path), data_dir)
    images = trained.load_data(subject, "validation", data_dir)["validation"].images
    path = weights.FOLDER / f"{subject.spec.folder}.safetensors"
    with tempfile.TemporaryDirectory(dir=weights.FOLDER) as beside:
        written = pathlib.Path(beside, path.name)
        dtype = "float16"
        stored, digest = _store(subject, written, dtype)
        if not len(images) or _changed_classes(subject, stored, images) > MOST_CHANGED:
            dtype = "float32"
            stored, digest = _store(subject, written, dtype)
        report = evaluation.measure(stored, data_dir)[0]
        entry = _entry(subject, folder, report, file=path.name, sha256=digest, dtype=dtype,
                       bytes=written.stat().st_size)
        with exclusive(weights.FOLDER):  # other processes may ship other models at the same time
            entries = weights.manifest()
            entries[subject.spec.name] = entry
            publish(written, path)
            write_json(weights.FOLDER / "manifest.json", {"models": entries})
    return f"{path.name}: {dtype}, {entry['bytes']} bytes, test accuracy {report['accuracy']:.4f}"


def _store(subject: Trained, path: pathlib.Path, dtype: str) -> tuple[Trained, str]:
    """Writes a model's weights in `dtype`; returns the model with the weights read back, and the file's SHA-256."""
    digest = weights.write(path, subject.spec, subject.model.get_weights(), dtype=dtype)
    return dataclasses.replace(subject, model=models.build_model(subject.spec, weights=path)), digest


def _changed_classes(first: Trained, second: Trained, images: Any) -> int:
    """How many of the images get another class from `second` than from `first`."""
    pixels = prediction.as_pixels(images)
    classes = [prediction.outputs_of(one.model, pixels).argmax(axis=1) for one in (first, second)]
    return int((classes[0] != classes[1]).sum())


def _entry(subject: Trained, folder: RunFolder, report: dict[str, Any], **file: Any) -> dict[str, Any]:
    """A model's entry of the manifest; `file` describes its file."""
    final = (folder.read_result() or {})["final"]
    measured = ("accuracy", "nll", "ece", "nll_calibrated", "ece_calibrated")
    return {
        **file, "seed": subject.seed, "epoch": final["epoch"], "step": subject.step,
        "spec": subject.spec.to_dict(), "recipe": dataclasses.asdict(subject.recipe),
        "temperature": subject.temperature,
        "data": {name: subject.data[name] for name in ("name", "sha256", "split_sha256")},
        "scores": {"val_accuracy": final.get("val_accuracy"),
                   **{f"test_{name}": report[name] for name in measured}},
        "date": time.strftime("%Y-%m-%d"), "commit": scores.origin(read_record(folder.path))["commit"],
    }
