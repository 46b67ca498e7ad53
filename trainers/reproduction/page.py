"""Puts the report's page together from finished runs: the order of its sections, and the files it leaves."""

from __future__ import annotations

import pathlib
from typing import Any, Sequence

import numpy as np

from fmnist_zoo import get_spec, metrics, models
from fmnist_zoo.data import load_data
from fmnist_zoo.files import atomic_write
from trainers.config import RunConfig, read_record
from trainers.reproduction import document, figures
from trainers.reproduction.document import Histories
from trainers.reproduction.experiments import Experiment
from trainers.running import provenance
from trainers.running.folder import RunFolder

TITLE = "The report, reproduced"


def write(out: pathlib.Path, chosen: Sequence[Experiment], runs: Sequence[RunConfig],
          done: Sequence[RunFolder]) -> pathlib.Path:
    """Writes plots, `report.md` and `index.html` into `out`; returns the path of the page."""
    histories: dict[tuple[str, str], list[Any]] = {}
    for config, folder in zip(runs, done):
        histories.setdefault((config.spec.name, config.trainer), []).append(folder.rows())
    text = "\n".join([_head(runs, done), *(_section(out, one, histories) for one in chosen), _by_fit(histories),
                      document.part_b() if any(one.part == "part_b" for one in chosen) else "",
                      document.question(out, histories, untrained(runs[0])), document.wrong(histories)])
    with atomic_write(out / "report.md", "w") as file:
        file.write(text)
    with atomic_write(out / "index.html", "w") as file:
        file.write(document.to_html(text, out, TITLE))
    return out / "index.html"


def untrained(config: RunConfig) -> dict[str, float]:
    """Rounded accuracy of the untrained softmax network on the validation images, with its parts."""
    split = load_data(("validation",), data=config.data, data_dir=config.data_dir or None)["validation"]
    model = models.build(get_spec("network_softmax"), 0)
    logits = model(split.images.astype(np.float32) / np.float32(255)).numpy()
    return metrics.rounded_accuracy(logits, split.labels)


def _head(runs: Sequence[RunConfig], done: Sequence[RunFolder]) -> str:
    record = read_record(done[0].path)
    seconds = sum((folder.read_result() or {})["seconds"] for folder in done)
    seeds = sorted({config.seed for config in runs})
    data, versions = record["data"], record["environment"]["versions"]
    quick = "" if record["config"]["recipe"]["epochs"] in (30, 500) else " **A quick run: its numbers mean nothing.**"
    return "\n".join([
        f"# {TITLE}", "",
        f"{len(runs)} runs, seeds {', '.join(map(str, seeds))}; {seconds / 60:.0f} minutes of training on "
        f"{record['environment']['cpu']}, {record['environment']['cores']} cores. Data: {data['name']}, {data['fit']} "
        f"images to fit, {data['validation']} to validate, SHA-256 {data['sha256'][:16]}. TensorFlow "
        f"{versions['tensorflow']}, Keras {versions['keras']}, code {provenance.commit()[:12]}.{quick}", "",
        "'Ours' is the last epoch's figure, as the report's is; mean and standard deviation over seeds. Losses are the "
        "cross entropy alone unless a row says 'objective'. Train losses beside the report's are those with dropout "
        "on; the curves have it off.", ""])


def _section(out: pathlib.Path, experiment: Experiment, histories: Histories) -> str:
    picture = f"{experiment.name}.png"
    runs = {model: histories[model, experiment.trainer] for model in experiment.models}
    figures.curves(out / picture, runs, objective=experiment.group == "penalties")
    return "\n".join([f"## {experiment.title}", "", f"![{experiment.title}]({picture})", "",
                      document.beside(experiment, histories), "", experiment.note, "",
                      document.reading(experiment, histories), ""])


def _by_fit(histories: Histories) -> str:
    """The one model that `Model.fit` trained too."""
    both = sorted({model for model, trainer in histories if trainer == "fit"})
    rows = []
    for model in both:
        for trainer in ("tape", "fit"):
            last = [history[-1] for history in histories[model, trainer]]
            rows.append([model, trainer, *(f"{np.mean([row[name] for row in last]):.5f}"
                                           for name in ("train_loss", "validation_loss", "validation_accuracy"))])
    if not rows:
        return ""
    head = ["model", "engine", "train loss", "validation loss", "validation accuracy"]
    return f"## The same through Model.fit\n\n{document.table(head, rows)}\n"
