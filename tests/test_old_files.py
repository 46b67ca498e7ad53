"""Files of earlier versions open for ever: runs resume, load and are evaluated, sweeps continue, tables are read."""

import json
import shutil

import pytest

from fmnist_zoo import registry, weights
from fmnist_zoo.version import __version__
from tests import helpers, sweeps
from trainers import evaluate, sweep, train
from trainers.config import read_record
from trainers.engine import threads
from trainers.publishing import evaluation
from trainers.publishing.measurement import Measured
from trainers.running import provenance, trained
from trainers.tuning import study

FINISHED = "2L,hidden=2/finished"
pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture
def logs(tmp_path):
    """A copy of the log folder."""
    copy = shutil.copytree(helpers.OLD_FILES / "logs", tmp_path / "logs")
    used = threads.in_use()
    if used != 2:  # the files are of runs with two; this process may have been started with another number
        for path in copy.rglob("config.json"):
            helpers.change(path, lambda record: record["environment"]["threads"].update(intra_op=used))
        helpers.change(copy / "sweeps" / "grid" / "sweep.json", lambda manifest: manifest["base"].update(threads=used))
    return copy


@pytest.mark.long
@pytest.mark.parametrize("name, done", [
    ("2L,hidden=2,dropout=0.1,l2=0.0001/interrupted", 3), ("2L,hidden=2,dropout=0.1/fit", 2),
    ("network_A,hidden=2/scratch", 4)])
def test_interrupted_run_resumes_to_the_same_end_as_an_uninterrupted_one(logs, tmp_path, name, done, capsys):
    folder = logs / name
    before = (folder / "metrics.csv").read_text().splitlines()
    assert train.main([f"--resume={folder}"]) == 0
    assert f"resumed     after epoch {done}" in capsys.readouterr().out
    assert (folder / "metrics.csv").read_text().splitlines()[:done + 1] == before[:done + 1]
    assert train.main([f"--config={folder / 'config.json'}", f"--logdir={tmp_path}", "--run_name=whole"]) == 0
    resumed, whole = (helpers.rows_without_times(path) for path in (folder, tmp_path / folder.parent.name / "whole"))
    assert [row["epoch"] for row in resumed] == ["1", "2", "3", "4", "5", "6"]
    for one, other in zip(resumed, whole, strict=True):
        for column, cell in one.items():
            # The first epochs come from the processor that made the fixture; others sum in another order, and training
            # amplifies that. A run that lost its optimizer state or its place differs by more than 1e-2.
            assert float(cell) == pytest.approx(float(other[column]), rel=1e-3, abs=2e-2 if "accuracy" in column else 0)
    final = json.loads((folder / "result.json").read_text())["final"]
    assert trained.from_run(folder).step == final["epoch"] * int(resumed[0]["step"])
    updates = [int(row["step"]) for row in resumed]  # the x axis that it was begun on; each epoch once
    for name in ("train", "validation"):
        assert list(helpers.scalars(folder / name)["loss"]) == updates
    assert list(helpers.scalars(folder)["final/epoch"]) == updates[-1:]
    record = read_record(folder)
    assert "axis" not in record
    assert [start["epoch"] for start in record["starts"]] == [0, done] and record["version"] == __version__
    assert record["environment"]["commit"] == "883289da4a7ed37a00d45dba02915a0e8425bb01"
    assert [one["commit"] for one in provenance.environments(record)] == [
        record["environment"]["commit"], provenance.commit()]


def test_finished_run_loads_is_evaluated_and_trains_longer(logs, capsys):
    folder = logs / FINISHED
    model = trained.from_run(folder)
    stored = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    assert model.weights_sha256 == stored["weights_sha256"] and evaluation.once(Measured(model)) == stored
    report = evaluate.evaluate(model)
    assert report["nll"] == pytest.approx(stored["nll"], rel=1e-4)
    assert report["accuracy"] == pytest.approx(stored["accuracy"], abs=0.004)  # 2 of 500 images
    assert train.main([f"--resume={folder}"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert train.main([f"--resume={folder}", "--epochs=5"]) == 0
    assert len(helpers.rows_without_times(folder)) == 5
    assert json.loads((folder / "result.json").read_text())["epochs"] == 5


@pytest.mark.long
def test_sweep_is_shown_and_continues_to_its_end(logs, inline_pool, capsys):
    path = logs / "sweeps" / "grid"
    manifest = json.loads((path / "sweep.json").read_text())
    assert sweep.main([f"--show={path}"]) == 0
    assert "2 trials ended, 1 unfinished" in capsys.readouterr().out
    old = sweeps.without_times(sweeps.rows_of(path))
    space = "hidden=1; l2=0,1e-4; dropout=0,0.2"
    assert sweep.main(["--model=2L", "--tuner=grid", f"--space={space}", "--optimizer=sgd", "--batch_size=2",
                       "--epochs=6", "--name=grid", "--data=mini", "--histogram_every=0", f"--logdir={logs}"]) == 0
    assert inline_pool.ran == ["0002/0", "0003/0"]
    new = sweeps.without_times(sweeps.rows_of(path))
    assert new[:2] == old and [row["status"] for row in new] == ["COMPLETED"] * 4
    assert not list(path.glob("0002/0/checkpoints/.latest.npz.*"))
    assert json.loads((path / "sweep.json").read_text()) == manifest
    assert study.retrain_config(path).spec.hidden == (1,)


def test_shipped_weights_and_their_manifest_are_read(monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", helpers.OLD_FILES / "trained")
    name = "2L,hidden=2"
    spec = registry.get_spec(name)
    kernel = weights.read_shipped(spec)[0]
    assert kernel.shape == (784, 2) and weights.entry(name)["seed"] == 8
