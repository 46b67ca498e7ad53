"""The weights that come with the package: finished runs become files and entries of a manifest."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import time
from typing import Any, Sequence

from fmnist_zoo import models, weights
from fmnist_zoo.files import exclusive, make_folder, publish, write_json
from trainers.config import read_record
from trainers.publishing import scores
from trainers.publishing.measurement import Measured
from trainers.running.folder import RunFolder

MOST_CHANGED = 2  # validation images that may get another class from float16 weights than from float32 ones


def ship(members: Sequence[Measured]) -> str:
    """Writes the weights of finished runs and the manifest; returns lines that say what was written.

    Weights are stored as float16 if at most `MOST_CHANGED` validation images get another class from them, else as
    float32. The test images are opened once, to measure the weights that were chosen.
    """
    make_folder(weights.FOLDER)
    lines = [_ship(measured) for measured in members]
    total = sum(entry["bytes"] for entry in weights.manifest().values())
    return "\n".join([*lines, f"{len(weights.manifest())} models, {total / 1e6:.1f} MB, in {weights.FOLDER}"])


def _ship(measured: Measured) -> str:
    """Writes one run's weights under a name that no earlier ones have, then the manifest, then removes the earlier.

    The file that a manifest names exists at any moment, so a model can be loaded meanwhile, or after a kill.
    """
    subject = measured.subject
    with tempfile.TemporaryDirectory(dir=weights.FOLDER) as beside:
        written = pathlib.Path(beside, "weights.safetensors")
        for dtype in ("float16", "float32"):
            stored, digest = _store(measured, written, dtype)
            if dtype == "float16" and _keeps_classes(measured, stored):
                break
        path = weights.FOLDER / f"{subject.spec.folder}-{digest[:8]}.safetensors"
        entry = _entry(measured, stored.report, file=path.name, sha256=digest, dtype=dtype,
                       bytes=written.stat().st_size)
        with exclusive(weights.FOLDER):  # other processes may ship other models at the same time
            entries = weights.manifest()
            old = entries.get(subject.spec.name, {}).get("file", path.name)
            entries[subject.spec.name] = entry
            publish(written, path)
            write_json(weights.FOLDER / "manifest.json", {"models": entries})
            if old != path.name:
                (weights.FOLDER / old).unlink(missing_ok=True)
    return f"{path.name}: {dtype}, {entry['bytes']} bytes, test accuracy {stored.report['accuracy']:.4f}"


def _store(measured: Measured, path: pathlib.Path, dtype: str) -> tuple[Measured, str]:
    """Writes a model's weights in `dtype`; returns the model with the weights read back, and the file's SHA-256."""
    subject = measured.subject
    digest = weights.write(path, subject.spec, subject.model, dtype=dtype)
    model = models.build_model(subject.spec, weights=path)
    return Measured(dataclasses.replace(subject, model=model, temperature=measured.temperature),
                    measured.data_sets), digest


def _keeps_classes(first: Measured, second: Measured) -> bool:
    """Whether at most `MOST_CHANGED` validation images get another class from `second`."""
    classes = [one.logits("validation").argmax(axis=1) for one in (first, second)]
    return int((classes[0] != classes[1]).sum()) <= MOST_CHANGED


def _entry(measured: Measured, report: dict[str, Any], **file: Any) -> dict[str, Any]:
    """A model's entry of the manifest; `file` describes its file."""
    subject = measured.subject
    assert subject.folder, "shipped weights are those of a run"
    folder = RunFolder(subject.folder)
    final = (folder.read_result() or {})["final"]
    names = ("accuracy", "nll", "ece", "nll_calibrated", "ece_calibrated")
    return {
        **file, "seed": subject.seed, "epoch": final["epoch"],
        "spec": subject.spec.get_config(), "recipe": subject.recipe.get_config(),
        "temperature": measured.temperature,
        "data": {name: subject.data[name] for name in ("name", "sha256", "split_sha256")},
        "scores": {"val_accuracy": final.get("val_accuracy"), **{f"test_{name}": report[name] for name in names}},
        "date": time.strftime("%Y-%m-%d"), "commit": scores.origin(read_record(folder.path))["commit"],
    }
