"""Rows beside a model's own: test-time augmentation, and ensembles of several, by `trainers.evaluate` and `predict`."""

import contextlib
import json
import re
import shutil

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import data, metrics, prediction, statistics, weights
from fmnist_zoo.files import read_json, write_json
from fmnist_zoo.version import __version__
from tests import helpers
from trainers import evaluate as command
from trainers.config import ConfigError
from trainers.evaluate import evaluate
from trainers.publishing import shipping
from trainers.running import trained
from trainers.running.folder import RunFolder, latest_unfinished, read_evaluation
from trainers.train import train

pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, without_xla):
    """The folders of two finished runs on the same data, never evaluated."""
    logdir = tmp_path_factory.mktemp("logs")
    return [train("2L", hidden=(units,), data="mini", epochs=6, batch_size=64, histogram_every=0,
                  logdir=logdir).folder for units in (32, 16)]


def mini(split):
    return data.load_data((split,), data="mini")[split]


def test_augmentation_is_a_row_of_its_own(runs, tmp_path, capsys):
    folder = shutil.copytree(runs[0], tmp_path / "run")
    plain, correct = evaluate(trained.from_run(folder))
    assert command.main([f"--run={folder}", "--tta=flip,shift"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{folder}: ") and "\nSneaker " in printed and f"\n{folder}, tta=shift,flip " in printed
    report = read_json(folder / "evaluation" / "evaluation.json")
    assert read_evaluation(folder / "evaluation", weights_sha256=report["weights_sha256"],
                           data_sha256=report["data"]["sha256"]) == report
    found = report.pop("tta")
    assert report == {**json.loads(json.dumps(plain)), "version": __version__}  # nothing else changes
    assert (found["tta"], found["views"], found["images"]) == ("shift,flip", 18, 500)
    model = trained.from_run(folder).model
    logits, labels = {}, {}
    for split in ("validation", "test"):
        images, labels[split] = mini(split)
        logits[split] = prediction.logits_of([model], prediction.as_pixels(images), "shift,flip")
    temperature = metrics.fit_temperature(logits["validation"], labels["validation"])
    assert found["temperature"] == pytest.approx(temperature) != pytest.approx(report["temperature"])
    assert found["nll_calibrated"] == pytest.approx(
        metrics.mean_cross_entropy(logits["test"] / temperature, labels["test"]))
    right = logits["test"].argmax(axis=1) == labels["test"]
    alone, other, p = statistics.mcnemar(right, correct)
    assert found["mcnemar"] == {"against": str(folder), "alone": alone, "other": other, "p": p} and alone != other
    scalars = helpers.scalars(folder / "evaluation")
    assert list(scalars["tta/accuracy"].values()) == pytest.approx([found["accuracy"]])
    assert list(scalars["accuracy"].values()) == pytest.approx([report["accuracy"]])


def test_ensemble_is_a_row_beside_its_members(runs, tmp_path, capsys):
    paths = [shutil.copytree(path, tmp_path / name) for path, name in zip(runs, "ab")]
    arguments = [f"--run={path}" for path in paths]
    assert command.main([*arguments, "--ensemble", "--tta=flip", f"--logdir={tmp_path}", "--json"]) == 0
    first, other, ensemble = json.loads(capsys.readouterr().out)
    place, = (tmp_path / "ensembles").iterdir()
    assert read_json(place / "evaluation" / "evaluation.json") == {**ensemble, "version": __version__}
    assert re.fullmatch(r"2L,hidden=16\+2L,hidden=32-[0-9a-f]{8}", place.name) and place.name == ensemble["name"]
    assert [member["title"] for member in ensemble["members"]] == [first["title"], other["title"]]
    mean, labels = {}, {}
    for split in ("validation", "test"):
        images, labels[split] = mini(split)
        pixels = prediction.as_pixels(images)
        mean[split] = np.log(np.mean([metrics.softmax(prediction.outputs_of(trained.from_run(path).model, pixels))
                                      for path in paths], axis=0))
    temperature = metrics.fit_temperature(mean["validation"], labels["validation"])
    assert ensemble["temperature"] == pytest.approx(temperature, rel=1e-5)
    assert ensemble["accuracy"] == metrics.accuracy(mean["test"], labels["test"])
    assert ensemble["nll"] == pytest.approx(metrics.mean_cross_entropy(mean["test"], labels["test"]))
    best = max((first, other), key=lambda report: (report["accuracy"], -report["nll"]))
    assert ensemble["mcnemar"]["against"] == ensemble["best_member"] == best["title"]
    assert ensemble["tta"]["mcnemar"]["against"] == ensemble["title"] == "ensemble of 2"
    assert helpers.scalars(place / "evaluation")["accuracy"] and not latest(tmp_path)
    assert command.main([*reversed(arguments), "--ensemble", f"--logdir={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert list((tmp_path / "ensembles").iterdir()) == [place]  # in any order, the same members are the same ensemble
    assert printed.count("ensemble of 2") == 2
    assert printed.count(str(best["title"])) == 4  # a row, the pairs, and its folder


def latest(logdir):
    """What `--resume=latest` finds."""
    with contextlib.suppress(ConfigError):
        return latest_unfinished(logdir)


def test_ensemble_of_other_validation_images_is_refused(runs, tmp_path, capsys):
    other = train("2L", hidden=(4,), data="mini", epochs=1, validation_size=0.2, histogram_every=0, logdir=tmp_path)
    for paths in ([runs[0], other.folder], runs[:1]):
        assert command.main([*(f"--run={path}" for path in paths), "--ensemble", f"--logdir={tmp_path}"]) == 2
        line, = capsys.readouterr().err.splitlines()
        assert "no member was trained on" in line or "has two members or more" in line
        assert not (runs[0] / "evaluation").exists() and not (tmp_path / "ensembles").exists()


@pytest.fixture
def shipped(runs, tmp_path, monkeypatch):
    """The names of models that were shipped from two runs on the mini set."""
    for cached in (prediction._trained, prediction._temperature):
        cached.cache_clear()
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    shipping.ship([RunFolder(path) for path in runs])
    yield list(weights.manifest())
    for cached in (prediction._trained, prediction._temperature):
        cached.cache_clear()


def test_python_predicts_with_an_ensemble_and_augmentation(shipped):
    images, labels = mini("validation")
    models = [fmnist_zoo.load_model(name) for name in shipped]
    for names, tta in ((shipped, ""), (shipped, "flip"), (shipped[:1], "flip")):
        logits = prediction.logits_of(models[:len(names)], prediction.as_pixels(images), tta)
        wanted = metrics.softmax(logits / metrics.fit_temperature(logits, labels))
        found = fmnist_zoo.predict(images, names, tta=tta)
        np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-5)
        np.testing.assert_array_equal(found.labels, logits.argmax(axis=1))
    alone = fmnist_zoo.predict(images, shipped[:1]).probabilities
    np.testing.assert_array_equal(alone, fmnist_zoo.predict(images, shipped[0]).probabilities)


def test_python_refuses_an_ensemble_without_common_validation_images(shipped):
    path = weights.FOLDER / "manifest.json"
    entries = read_json(path)
    entries["models"][shipped[0]]["data"]["split_sha256"] = "0" * 64
    write_json(path, entries)
    images = mini("validation").images
    with pytest.raises(fmnist_zoo.PredictionError, match="have no such images in common: " + ", ".join(shipped)):
        fmnist_zoo.predict(images, shipped)
    for names in ([], shipped[:1] * 2):
        with pytest.raises(fmnist_zoo.PredictionError, match="must be one model or different ones, received"):
            fmnist_zoo.predict(images, names)
