"""The weights that come with the package: from finished runs to files and a manifest."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import time
from typing import Any, Sequence

from fmnist_zoo import models, weights
from fmnist_zoo.files import publish, write_json
from trainers import evaluate
from trainers.config import read_record
from trainers.running import trained
from trainers.running.folder import RunFolder

MOVED = 0.0002  # half the size on disk must cost less test accuracy than this


def ship(folders: Sequence[RunFolder], data_dir: str | None = None) -> str:
    """Writes the weights of finished runs, float16 where that does not matter, and a manifest; says what."""
    entries = weights.manifest()
    weights.FOLDER.mkdir(exist_ok=True)
    lines = []
    for folder in folders:
        subject = trained.calibrated(trained.from_run(folder.path), data_dir)
        exact = evaluate.once(subject, data_dir)
        path = weights.FOLDER / f"{subject.spec.name}.safetensors"
        with tempfile.TemporaryDirectory(dir=weights.FOLDER) as beside:
            tried = pathlib.Path(beside, path.name)
            for dtype in ("float16", "float32"):
                digest = weights.write(tried, subject.spec, subject.model.get_weights(), dtype=dtype)
                stored = dataclasses.replace(subject, model=models.build_model(subject.spec, weights=tried))
                scores = evaluate.measure(stored, data_dir)[0]
                if round(abs(scores["accuracy"] - exact["accuracy"]), 9) < MOVED:
                    break
            entries[subject.spec.name] = _entry(subject, folder, scores, file=path.name, sha256=digest, dtype=dtype,
                                                bytes=tried.stat().st_size)
            publish(tried, path)
            write_json(weights.FOLDER / "manifest.json", {"models": entries})
        lines.append(f"{path.name}: {dtype}, {path.stat().st_size} bytes, test accuracy {scores['accuracy']:.4f} "
                     f"({scores['accuracy'] - exact['accuracy']:+.4f})")
    total = sum(entry["bytes"] for entry in entries.values())
    return "\n".join([*lines, f"{len(entries)} models, {total / 1e6:.1f} MB, in {weights.FOLDER}"])


def _entry(subject: trained.Trained, folder: RunFolder, scores: dict[str, Any], **file: Any) -> dict[str, Any]:
    result = folder.read_result() or {}
    return {
        **file, "seed": subject.seed, "epoch": result["final"]["epoch"], "step": subject.step,
        "spec": subject.spec.to_dict(), "recipe": dataclasses.asdict(subject.recipe),
        "temperature": subject.temperature,
        "data": {name: subject.data[name] for name in ("name", "sha256", "split_sha256")},
        "scores": {"validation_accuracy": result["final"]["validation_accuracy"],
                   **{f"test_{name}": scores[name] for name in ("accuracy", "nll", "ece", "nll_calibrated",
                                                                "ece_calibrated")}},
        "date": time.strftime("%Y-%m-%d"), "commit": read_record(folder.path)["environment"]["commit"],
    }
