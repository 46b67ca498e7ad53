"""`trainers.evaluate`: what it measures, writes and refuses, on the 500 test images of the mini set."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fmnist_zoo import data, metrics, prediction, statistics
from fmnist_zoo.files import read_json
from fmnist_zoo.spec import CLASS_NAMES
from fmnist_zoo.version import __version__
from tests import helpers
from trainers import evaluate as command, train as train_command
from trainers.evaluate import evaluate
from trainers.running import trained
from trainers.running.folder import locked, read_evaluation
from trainers.train import train

pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def run(tmp_path_factory, without_xla):
    """A finished run, never evaluated."""
    return train("2L", hidden=(32,), data="mini", epochs=8, batch_size=64, histogram_every=0,
                 logdir=tmp_path_factory.mktemp("logs")).folder


@pytest.fixture
def folder(run, tmp_path):
    """A copy of that run, to be changed."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory):
    """A copy of that run which was evaluated: its folder, the report, which images were right."""
    folder = shutil.copytree(run, tmp_path_factory.mktemp("evaluated") / "run")
    return folder, evaluate(trained.from_run(folder))


def mini(split):
    return data.load_data((split,), data="mini")[split]


def test_figures_are_those_of_the_saved_model(evaluated):
    """Against Keras' own reading of `model.keras`, on images loaded here."""
    import keras

    folder, report = evaluated
    images, labels = mini("test")
    model = keras.saving.load_model(folder / "model.keras")
    logits = model.predict(images / np.float32(255), verbose=0)
    assert report["images"] == 500 and np.sum(report["confusion"]) == 500
    assert report["accuracy"] == metrics.accuracy(logits, labels) > 0.6
    # Keras predicts in batches of another size, whose products are summed in another order: some 1e-6 relative.
    assert report["nll"] == pytest.approx(metrics.mean_cross_entropy(logits, labels), rel=1e-5)
    assert report["ece"] == pytest.approx(metrics.expected_calibration_error(logits, labels), abs=1e-5)
    low, high = report["accuracy_95"]
    assert low < report["accuracy"] < high and report["accuracy"] < report["top_2_accuracy"] < 1
    validation = mini("validation")
    temperature = metrics.fit_temperature(
        prediction.outputs_of(model, validation.images / np.float32(255)), validation.labels)
    assert report["temperature"] == pytest.approx(temperature, rel=1e-4)
    assert report["nll_calibrated"] == pytest.approx(metrics.mean_cross_entropy(logits / temperature, labels), rel=1e-4)


def test_report_pictures_and_events_are_written(evaluated):
    folder, report = evaluated
    assert read_json(folder / "test" / "evaluation.json") == {
        **json.loads(json.dumps(report)), "version": __version__}
    for name in ("confusion", "reliability"):
        with Image.open(folder / "test" / f"{name}.png") as image:
            assert image.width > 300
    step = json.loads((folder / "result.json").read_text())["final"]["epoch"]  # on the run's own charts
    scalars = helpers.scalars(folder / "test")
    assert scalars["accuracy"] == {step: pytest.approx(report["accuracy"])}  # events hold float32
    assert scalars["loss"] == {step: pytest.approx(report["nll"])}
    found = helpers.summaries(folder / "test")
    assert {"pictures/confusion", "pictures/reliability"} <= set(found)
    curves = [tag for tag in found if found[tag][0][1].metadata.plugin_data.plugin_name == "pr_curves"]
    assert curves == [f"pr_curve/{name}/pr_curves" for name in CLASS_NAMES]


def test_precision_recall_curve_is_right(evaluated):
    from tensorboard.util import tensor_util

    (_, value), = helpers.summaries(evaluated[0] / "test")["pr_curve/Bag/pr_curves"]
    table = tensor_util.make_ndarray(value.tensor)
    positives, false_positives, true_negatives, false_negatives, precision, recall = table
    assert positives[0] == 50 and false_positives[0] == 450 and true_negatives[0] == false_negatives[0] == 0
    assert precision[0] == pytest.approx(0.1) and recall[0] == 1 and recall[-1] <= recall[100]


def test_second_evaluation_replaces_the_first_and_longer_training_removes_it(evaluated, tmp_path):
    folder = shutil.copytree(evaluated[0], tmp_path / "run")
    evaluate(trained.from_run(folder))
    assert len(helpers.scalars(folder / "test")["accuracy"]) == 1  # fails on a step that was written twice
    assert len(list((folder / "test").iterdir())) == 4
    assert train_command.main([f"--resume={folder}", "--epochs=9"]) == 0
    assert not (folder / "test").exists()


def test_evaluation_of_other_weights_or_data_or_a_damaged_one_is_not_read(evaluated, tmp_path):
    folder, report = evaluated
    known = dict(weights_sha256=report["weights_sha256"], data_sha256=report["data"]["sha256"])
    assert read_evaluation(folder / "test", **known)["accuracy"] == report["accuracy"]
    for name in known:
        assert read_evaluation(folder / "test", **{**known, name: "x"}) is None
    text = (folder / "test" / "evaluation.json").read_text()
    (tmp_path / "evaluation.json").write_text(text.replace('"images": 500', '"images": 900'))
    assert read_evaluation(tmp_path, **known) is None


def test_command_prints_everything_by_class_and_expands_a_tilde(folder, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert command.main(["--run=~/run"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"accuracy +0\.\d{4} \(95 %: 0\.\d{4} to 0\.\d{4}\)", printed)
    assert all(printed.count(f"\n{name} ") == 2 for name in CLASS_NAMES)  # by class, and in the confusion matrix
    assert printed.endswith(f"\n\nwritten: {folder}/test, with pictures\n")


def test_ensemble_is_a_row_beside_its_members(folder, tmp_path, capsys):
    """Of a run of `tape` and one of `scratch`, whose arrays have other names."""
    scratch = train("network_softmax", trainer="scratch", data="mini", epochs=3, histogram_every=0, logdir=tmp_path)
    paths = [folder, scratch.folder]
    arguments = [f"--run={path}" for path in paths]
    assert command.main([*arguments, "--ensemble", f"--logdir={tmp_path}", "--json"]) == 0
    first, other, ensemble = json.loads(capsys.readouterr().out)
    place, = (tmp_path / "ensembles").iterdir()
    assert read_json(place / "test" / "evaluation.json") == {**ensemble, "version": __version__}
    assert re.fullmatch(r"2L,hidden=32\+network_softmax-[0-9a-f]{8}", place.name) and place.name == ensemble["name"]
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
    assert helpers.scalars(place / "test")["accuracy"]
    assert command.main([*reversed(arguments), "--ensemble", f"--logdir={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert list((tmp_path / "ensembles").iterdir()) == [place]  # in any order, the same members are the same ensemble
    assert printed.count("ensemble of 2") == 2 and "McNemar" in printed
    assert printed.count(str(best["title"])) == 4  # a row, the pairs, and its folder


def test_mcnemar():
    first, second = np.array([1, 1, 1, 0, 1, 1, 1, 0], bool), np.array([0, 0, 0, 1, 0, 0, 1, 0], bool)
    assert statistics.mcnemar(first, second) == (5, 1, pytest.approx(2 * (1 + 6) / 2**6))  # six fair coins
    assert statistics.mcnemar(first, first) == (0, 0, 1.0)


def refused(capsys, *arguments):
    return helpers.refused(capsys, command.main, *arguments)


@pytest.mark.parametrize("file, change, says", [
    ("config.json", lambda record: record["data"].update(sha256="0" * 64), "was trained on other data than those in"),
    ("config.json", lambda record: record["config"]["spec"].update(hidden=[16], name="2L,hidden=16"), "2L,hidden=16"),
    ("result.json", lambda result: result.update(weights_sha256="0" * 64), "weights that the run ended with"),
    ("result.json", None, "python -m trainers.train --resume="),
    ("weights", None, "is gone; train the run"),
])
def test_run_that_is_not_whole_is_refused(folder, capsys, file, change, says):
    if change:
        helpers.change(folder / file, change)
    elif file == "weights":
        shutil.rmtree(folder / file)
    else:
        (folder / file).unlink()
    assert says in refused(capsys, f"--run={folder}") and not (folder / "test").exists()


def test_runs_on_other_images_are_refused_before_anything_is_written(folder, tmp_path, capsys):
    other = train("softmax", data="mini", epochs=1, validation_size=0.2, histogram_every=0, logdir=tmp_path / "logs")
    runs = [f"--run={folder}", f"--run={other.folder}"]
    assert "no member was trained on" in refused(capsys, *runs, "--ensemble", f"--logdir={tmp_path / 'logs'}")
    helpers.change(folder / "config.json", lambda record: record["data"].update(sha256="0" * 64))
    line = refused(capsys, *runs)
    assert "different data" in line and "000000000000" in line
    assert not (folder / "test").exists() and not (tmp_path / "logs" / "ensembles").exists()


def test_folder_in_use_by_another_process_is_refused(folder, capsys):
    with locked(folder, "at work"):
        assert "is at work in this folder; wait for it to end" in refused(capsys, f"--run={folder}")


@pytest.mark.parametrize("arguments, message", [
    ([], "what is evaluated? --run=FOLDER"),
    (["--run=nowhere"], "nowhere: no such folder"),
    (["--run=tests"], "tests: no run in this folder; a run is named by its folder, such as"),
    (["--model=4L", "--model=4D_drop3"], "did you mean 4D_drop03"),
    (["--model=softmax", "--data=mini", "--data_dir=x"], "drop --data_dir"),
    (["--run=x", "--data=mini"], "drop --run"),
    (["--model=2L", "--model=2L", "--ensemble"], "has two members or more, received 2L"),
])
def test_wrong_flags_are_refused(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_shipped_models_are_evaluated_on_the_mini_set(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = ["--model=softmax", "--model=2L", "--data=mini", "--logdir=~"]
    assert command.main([*arguments, "--ensemble"]) == 0
    printed = capsys.readouterr().out
    made, = (tmp_path / "ensembles").iterdir()
    assert "McNemar" in printed and printed.endswith("".join(
        f"written: {folder}/test, with pictures\n" for folder in (
            tmp_path / "softmax" / "shipped-mini", tmp_path / "2L" / "shipped-mini", made)))
    ensemble = json.loads((made / "test" / "evaluation.json").read_text())
    assert ensemble["temperature"] == 1.0  # they saw all training images of the set
    place = tmp_path / "2L" / "shipped-mini" / "test"
    assert json.loads((place / "evaluation.json").read_text())["accuracy"] > 0.8
    assert helpers.scalars(place)["accuracy"]


def test_run_without_validation_images_has_temperature_1(tmp_path, capsys):
    run = train("softmax", data="mini", validation_size=0, epochs=1, logdir=tmp_path, histogram_every=0)
    assert command.main([f"--run={run.folder}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["temperature"] == 1.0


def test_what_cannot_be_read_or_written_is_refused_before_a_model_is_loaded(folder, monkeypatch, capsys):
    monkeypatch.setattr(trained, "from_run", lambda path: pytest.fail("loaded"))
    monkeypatch.setattr(trained, "from_zoo", lambda name, data: pytest.fail("loaded"))
    assert "--data_dir=/nonexistent: no such folder" in refused(capsys, f"--run={folder}", "--data_dir=/nonexistent")
    read_only = {str(folder), str(folder.parent)}
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) not in read_only)
    assert f"{folder}: cannot be written; an evaluation goes into" in refused(capsys, f"--run={folder}")
    line = refused(capsys, "--model=4L", "--data=mini", f"--logdir={folder.parent / 'new' / 'logs'}")
    assert line == f"evaluate: {folder.parent}: cannot be written; choose another --logdir"
