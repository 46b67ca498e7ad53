"""Runs that were not trained: folders with all small files of a run, for tests of what reads them."""

import math

import numpy as np

from fmnist_zoo.files import write_json
from fmnist_zoo.tensors import digest_of
from trainers.config import resolve
from trainers.running.checkpoint import Checkpoint, identity
from trainers.running.folder import RunFolder

DATA = {"name": "mini", "sha256": "d" * 64, "split_sha256": "e" * 64, "fit": 1800, "validation": 200}
ENVIRONMENT = {"cpu": "a processor", "cores": 2, "threads": {"intra_op": 2, "inter_op": 2},
               "versions": {"tensorflow": "2.21.0"}, "commit": "c" * 40, "engine": "e" * 64, "instructions": [],
               "switches": {}, "modules": {}}


def make(logdir, name, *, losses=(0.5, 0.3, 0.4), model="4L", started=1.7e9, finished=True, epochs=None, data=DATA,
         environment=ENVIRONMENT, **settings):
    """A run's folder as a run leaves it, but that its weights are two numbers; not trained."""
    config = resolve(model, data="mini", epochs=epochs or len(losses), **settings)
    folder = RunFolder(logdir / config.spec.folder / name)
    folder.checkpoint.parent.mkdir(parents=True)
    write_json(folder.config, {"config": config.get_config(), "data": data, "started": started,
                               "environment": environment,
                               "starts": [{"epoch": 0, "time": started, "environment": environment}]})
    for epoch, loss in enumerate(losses, start=1):
        folder.table.append({"epoch": epoch, "step": 8 * epoch, "seconds": 1.5, "images_per_second": 1200.0,
                             "train_loss": loss / 2, "train_accuracy": 0.9, "val_loss": loss,
                             "val_accuracy": 1 - loss})
    best = int(np.argmin(losses)) + 1 if losses else 0
    weights = {"kernel": np.full(2, best, np.float32)}
    Checkpoint(len(losses), best, min(losses, default=math.inf), 1.5 * len(losses),
               identity=identity(config, data["sha256"], data["split_sha256"]),
               metrics_sha256=folder.table.sha256(len(losses)), best=weights).save(folder.checkpoint)
    if finished:
        folder.weights.mkdir()
        for path in (folder.weight_file("best"), folder.model, folder.path / "events.out.tfevents.1.curves"):
            path.write_bytes(b"content")
        write_json(folder.result, {
            "epochs": len(losses), "stopped_early": len(losses) < config.recipe.epochs, "weights": "best",
            "final": {"epoch": best, "train_loss": 0.1, "val_loss": losses[best - 1],
                      "val_accuracy": 1 - losses[best - 1]},
            "seconds": 1.5 * len(losses), "weights_sha256": digest_of(weights),
            "metrics_sha256": folder.table.sha256(len(losses))})
    return folder


def evaluate(folder, **changes):
    """Writes the evaluation of a finished run."""
    folder.evaluation.mkdir()
    write_json(folder.evaluation / "evaluation.json", {
        "weights_sha256": folder.read_result()["weights_sha256"], "data": {"sha256": DATA["sha256"]}, "images": 500,
        "confusion": [[400, 0], [100, 0]], "accuracy": 0.8, "nll": 0.5, "ece": 0.1, **changes})
