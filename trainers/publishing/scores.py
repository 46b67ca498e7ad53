"""The rows of `results.csv`: the runs behind them, a finished run's row, and whether a row was reproduced."""

from __future__ import annotations

import os
import pathlib
import statistics
from typing import Any, Sequence

from fmnist_zoo import files, metrics, registry, results, weights
from trainers.config import RunConfig, read_record, resolve
from trainers.publishing import evaluation, measurement
from trainers.publishing.measurement import Measured
from trainers.running import provenance, trained
from trainers.running.folder import RunFolder

COMPARED = ("epochs", "chosen_epoch", "val_accuracy", "test_accuracy", "test_nll", "test_ece", "data_sha256")
MEASURED = ("val_accuracy", "test_accuracy", "test_nll", "test_ece")


def plan(patterns: Sequence[str], seeds: Sequence[int], **settings: Any) -> list[RunConfig]:
    """The runs behind the rows, model by model, seed by seed; `SpecError` for a pattern that matches no model."""
    matches = {name for pattern in patterns
               for name in registry.list_models(pattern) or [registry.get_spec(pattern).name]}  # or raises
    registered = [name for name in registry.list_models() if name in matches]
    return [resolve(name, seed=seed, **settings)
            for name in (*registered, *sorted(matches.difference(registered))) for seed in seeds]


def row(measured: Measured, *, test: bool = True) -> dict[str, Any]:
    """The row of a finished run's model. The test images are opened unless its folder holds an evaluation of it.

    Without `test` they stay closed, and the row has no scores of them.

    Raises:
        TableError: if its `metrics.csv` is damaged, or is not that of its result.
    """
    subject = measured.subject
    assert subject.folder, "a shipped model is no run"
    folder = RunFolder(subject.folder)
    folder.rows()
    report = evaluation.once(measured) if test else {}
    record, result = read_record(folder.path), folder.read_result() or {}
    return {
        **_names(subject), "seed": str(subject.seed), "epochs": result["epochs"],
        "chosen_epoch": result["final"]["epoch"], "val_accuracy": result["final"].get("val_accuracy"),
        **_scores(report), "seconds": result["seconds"], "weights_sha256": result["weights_sha256"],
        "images_per_second": record["data"]["fit"] * result["epochs"] / result["seconds"],
        "data_sha256": record["data"]["sha256"], **origin(record),
    }


def ensemble_row(members: Sequence[Measured], logdir: str | os.PathLike[str]) -> dict[str, Any]:
    """The row of one model's runs with several seeds, as an ensemble; raises as `Ensemble`."""
    together = measurement.Ensemble(members)
    folders = [one.subject.folder for one in members if one.subject.folder]
    report = evaluation.write(together, logdir=logdir)
    val_labels = together.split("validation").labels
    origins = [origin(read_record(folder)) for folder in folders]
    return {
        **_names(members[0].subject), "seed": " ".join(str(one.subject.seed) for one in members),
        "epochs": None, "chosen_epoch": None,
        "val_accuracy": metrics.accuracy(together.logits("validation"), val_labels),
        **_scores(report), "seconds": None, "images_per_second": None, "data_sha256": report["data"]["sha256"],
        "weights_sha256": "",
        **{name: " and ".join(dict.fromkeys(one[name] for one in origins)) for name in origins[0]},
    }


def _names(subject: trained.Trained) -> dict[str, str]:
    recipe = subject.recipe
    return {"model": subject.spec.name, "teacher": recipe.teacher, "initial_weights": recipe.initial_weights}


def _scores(report: dict[str, Any]) -> dict[str, float | None]:
    return {"test_accuracy": report.get("accuracy"), "test_nll": report.get("nll"), "test_ece": report.get("ece")}


def origin(record: dict[str, Any]) -> dict[str, str]:
    """The columns `processor`, `versions`, `commit`, `engine`; several are joined by "then" if the run was resumed."""
    found = [{"processor": one["cpu"], "commit": one["commit"], "engine": one["engine"],
              "versions": " ".join(f"{name}={version}" for name, version in one["versions"].items())}
             for one in provenance.environments(record)]
    return {name: " then ".join(dict.fromkeys(one[name] for one in found)) for name in found[0]}


def add(new: Sequence[dict[str, Any]], path: str | os.PathLike[str] = results.PATH) -> None:
    """Puts rows into the table at `path`, in place of those of the same kind, model and seed, in the catalog's order.

    Rows that other processes write at the same time are kept, and so are those of unknown models, at the end. The
    seconds of starts and teachers are those of the rows of the networks that come with the package.
    """
    order, shipped = {name: place for place, name in enumerate(registry.list_models())}, weights.manifest()
    with files.exclusive(pathlib.Path(path).absolute().parent):
        rows = {results.key(one): one for one in (*results.read(path), *new)}

        def seconds(name: str) -> float | None:
            return rows.get((name, str(shipped[name]["seed"]), False), {}).get("seconds") if name in shipped else None

        for one in rows.values():
            one |= {"start_seconds": seconds(one["initial_weights"]), "teacher_seconds": seconds(one["teacher"])}
        places = sorted(rows, key=lambda key: (order.get(key[0], len(order)), key[0], " " in key[1], key[2],
                                               [int(seed) for seed in key[1].split()]))
        results.write([rows[key] for key in places], path)


def compare(published: dict[str, Any], again: dict[str, Any], rows: Sequence[dict[str, Any]]) -> tuple[bool, str]:
    """Whether a row was reproduced, and the lines that say so.

    Other versions, processors and thread counts change the last digits of sums, and training amplifies that. A value
    that differs must be as close as the values of two seeds would be in 99 of 100 cases: t * s * sqrt(2), with s the
    standard deviation of the model's other seeds in `rows`. With fewer than two of these, the limit is 0.01.
    """
    from scipy import stats

    differing = [name for name in COMPARED if published[name] != again[name]]
    title = f"{published['model']}, seed {published['seed']}"
    if not differing:
        return True, f"{title}: the same to the last digit"
    lines = [f"{title}: not the same to the last digit"]
    reproduced = not {"data_sha256", "epochs"} & set(differing)
    others = [one for one in rows if one["model"] == published["model"] and one["seed"] != published["seed"]
              and results.is_single(one)]
    for name in differing:
        verdict = ""
        if name in MEASURED:
            allowed = 0.0
            if len(others) > 1:
                deviation = statistics.stdev(one[name] for one in others)
                allowed = float(stats.t.ppf(0.995, len(others) - 1)) * deviation * 2**0.5
            allowed = allowed or 0.01
            within = abs(published[name] - again[name]) <= allowed
            reproduced = reproduced and within
            verdict = f"  ({'within' if within else 'beyond'} {allowed:.2g})"
        lines.append(f"  {name:<20} published {published[name]}, now {again[name]}{verdict}")
    for name in ("versions", "processor", "engine"):
        if published[name] != again[name]:
            lines.append(f"  {name:<20} published {published[name] or 'unknown'}, now {again[name]}")
    return reproduced, "\n".join(lines)
