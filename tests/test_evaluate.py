"""`trainers.evaluate`: what it measures, what it writes, what it refuses. On the 500 test images of the mini set."""

import errno
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fmnist_zoo import data, metrics, prediction, statistics
from fmnist_zoo.spec import CLASS_NAMES
from fmnist_zoo.version import __version__
from tests import helpers
from trainers import evaluate, train as train_command
from trainers.publishing import evaluation
from trainers.running import trained
from trainers.running.folder import locked
from trainers.train import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs: `good`, `poor` (one epoch), `scratch`."""
    logdir = tmp_path_factory.mktemp("logs")
    settings = dict(data="mini", logdir=logdir, histogram_every=0)
    return {"good": train("2L", hidden=(32,), epochs=8, batch_size=64, **settings),
            "poor": train("softmax", epochs=1, **settings),
            "scratch": train("network_softmax", trainer="scratch", epochs=3, **settings)}


@pytest.fixture
def folder(runs, tmp_path):
    """A copy of the good run, never evaluated, to be changed."""
    return shutil.copytree(runs["good"].folder, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))


def mini(split):
    return data.load_data((split,), data="mini")[split]


def test_the_figures_are_those_of_the_saved_model(folder):
    """Against Keras' own reading of `model.keras`, on images loaded here."""
    import keras

    report, hits = evaluate.evaluate(trained.from_run(folder))
    images, labels = mini("test")
    logits = keras.saving.load_model(folder / "model.keras").predict(images / np.float32(255), verbose=0)
    assert report["images"] == 500 and np.sum(report["confusion"]) == 500
    assert report["accuracy"] == metrics.accuracy(logits, labels) == hits.mean() > 0.6
    assert report["nll"] == pytest.approx(metrics.mean_cross_entropy(logits, labels), rel=1e-5)
    assert report["ece"] == pytest.approx(metrics.expected_calibration_error(logits, labels), abs=1e-5)
    low, high = report["accuracy_95"]
    assert low < report["accuracy"] < high and report["accuracy"] < report["top_2_accuracy"] < 1
    validation = mini("validation")
    expected = metrics.fit_temperature(prediction.outputs_of(
        keras.saving.load_model(folder / "model.keras"), validation.images / np.float32(255)), validation.labels)
    assert report["temperature"] == pytest.approx(expected, rel=1e-4)
    assert report["nll_calibrated"] == pytest.approx(metrics.mean_cross_entropy(logits / expected, labels), rel=1e-4)


def test_what_is_written(folder):
    report, _ = evaluate.evaluate(trained.from_run(folder), projector=True)
    assert json.loads((folder / "evaluation" / "evaluation.json").read_text()) == {
        **json.loads(json.dumps(report)), "version": __version__}
    for name in ("confusion", "reliability"):
        with Image.open(folder / "evaluation" / f"{name}.png") as image:
            assert image.width > 300
    step = train_steps(folder)
    scalars = helpers.scalars(folder / "evaluation")
    assert scalars["accuracy"] == {step: pytest.approx(report["accuracy"])}
    assert scalars["loss"] == {step: pytest.approx(report["nll"])}
    found = helpers.summaries(folder / "evaluation")
    assert {"confusion", "reliability"} <= set(found)
    curves = [tag for tag in found if found[tag][0][1].metadata.plugin_data.plugin_name == "pr_curves"]
    assert curves == [f"pr_curve/{name}/pr_curves" for name in CLASS_NAMES]


def train_steps(folder):
    """The updates that the kept weights have seen, from the run's own files."""
    kept = json.loads((folder / "result.json").read_text())["final"]["epoch"]
    (row,) = [row for row in helpers.rows_without_times(folder) if row["epoch"] == str(kept)]
    return int(row["step"])


def test_evaluating_again_replaces(folder):
    for _ in range(2):
        evaluate.evaluate(trained.from_run(folder), projector=True)
    assert len(helpers.scalars(folder / "evaluation")["accuracy"]) == 1  # it fails on a step that was written twice
    assert len(list((folder / "evaluation").iterdir())) == 8
    evaluate.evaluate(trained.from_run(folder))
    assert len(list((folder / "evaluation").iterdir())) == 4  # nothing of the projector's is left to go stale


def test_a_precision_recall_curve_is_right(folder):
    from tensorboard.util import tensor_util

    evaluate.evaluate(trained.from_run(folder))
    (_, value), = helpers.summaries(folder / "evaluation")["pr_curve/Bag/pr_curves"]
    table = tensor_util.make_ndarray(value.tensor)
    positives, false_positives, true_negatives, false_negatives, precision, recall = table
    assert positives[0] == 50 and false_positives[0] == 450 and true_negatives[0] == false_negatives[0] == 0
    assert precision[0] == pytest.approx(0.1) and recall[0] == 1 and recall[-1] <= recall[100]


def test_the_projector(folder):
    evaluate.evaluate(trained.from_run(folder), projector=True)
    place = folder / "evaluation"
    features = np.loadtxt(place / "features.tsv", delimiter="\t")
    rows = [line.split("\t") for line in (place / "labels.tsv").read_text().splitlines()]
    images, labels = mini("validation")
    assert features.shape == (200, 32) and rows[0] == ["class", "predicted", "right"]
    assert [row[0] for row in rows[1:]] == [CLASS_NAMES[label] for label in labels]
    with Image.open(place / "sprite.png") as image:
        sheet = np.asarray(image)
    np.testing.assert_array_equal(sheet[28:56, 28:56], images[16].reshape(28, 28))  # 15 a row
    config = (place / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "features.tsv"' in config and "tensor_shape: 200" in config


def test_the_command(runs, capsys):
    assert evaluate.main([f"--run={runs['good'].folder}"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"accuracy +0\.\d{4} \(95 %: 0\.\d{4} to 0\.\d{4}\)", printed)
    assert all(printed.count(f"\n{name} ") == 2 for name in CLASS_NAMES)  # by class, and in the confusion matrix


def test_json(runs, capsys):
    assert evaluate.main([f"--run={runs['good'].folder}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 500


def test_several_runs_are_compared(runs, capsys):
    assert evaluate.main([f"--run={run.folder}" for run in runs.values()]) == 0
    printed = capsys.readouterr().out
    assert printed.count(str(runs["good"].folder)) == 3  # in the table, and in two pairs
    assert "McNemar" in printed


def test_mcnemar():
    first, second = np.array([1, 1, 1, 0, 1, 1, 1, 0], bool), np.array([0, 0, 0, 1, 0, 0, 1, 0], bool)
    assert statistics.mcnemar(first, second) == (5, 1, pytest.approx(2 * (1 + 6) / 2**6))  # six fair coins
    assert statistics.mcnemar(first, first) == (0, 0, 1.0)


def refused(capsys, *arguments):
    assert evaluate.main(list(map(str, arguments))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("evaluate: ")
    return lines[0]


def test_a_run_that_has_not_ended_is_refused(folder, capsys):
    (folder / "result.json").unlink()
    assert "has not come to its end; go on with" in refused(capsys, f"--run={folder}")


def change(folder, change_record):
    record = json.loads((folder / "config.json").read_text())
    change_record(record)
    (folder / "config.json").write_text(json.dumps(record))


@pytest.mark.parametrize("name", ["sha256", "split_sha256"])
def test_other_data_are_refused(folder, capsys, name):
    change(folder, lambda record: record["data"].update({name: "0" * 64}))
    assert "was trained on other data than those in" in (line := refused(capsys, f"--run={folder}"))
    assert f"{name} " in line and not (folder / "evaluation").exists()


def test_another_spec_is_refused(folder, capsys):
    change(folder, lambda record: record["config"]["spec"].update(hidden=[16], name="2L,hidden=16"))
    assert "belongs to another model than 2L,hidden=16" in refused(capsys, f"--run={folder}")


def test_other_weights_are_refused(folder, runs, capsys):
    shutil.copy(folder / "weights" / "last.weights.h5", folder / "weights" / "best.weights.h5")
    change(folder, lambda record: record["config"]["recipe"].update(weights="last"))
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "weights_sha256": "0" * 64}))
    assert "not the weights that the run ended with" in refused(capsys, f"--run={folder}")


@pytest.mark.parametrize("arguments, complaint", [
    ([], "what is evaluated? --run=FOLDER"),
    (["--run="], "what is evaluated?"),
    (["--run=nowhere"], "nowhere: no such folder"),
    (["--run=setup.cfg"], "no such folder"),
    (["--run=tests"], "tests: no run in this folder; a run is named by its folder, such as"),
    (["--model=4D_drop3"], "did you mean 4D_drop03"),
    (["--model=4L", "--model=4D_drop03_x"], "no model is named '4D_drop03_x'"),
    (["--model=softmax", "--data=mini", "--data_dir=x"], "drop --data_dir"),
    (["--run=x", "--data=mini"], "drop --run"),
])
def test_mistakes(capsys, arguments, complaint):
    assert complaint in refused(capsys, *arguments)


def test_shipped_models_on_the_mini_set(tmp_path, capsys):
    assert evaluate.main(["--model=softmax", "--model=2L", "--data=mini", f"--logdir={tmp_path}", "--projector"]) == 0
    assert "McNemar" in capsys.readouterr().out
    place = tmp_path / "2L" / "shipped-mini" / "evaluation"
    assert json.loads((place / "evaluation.json").read_text())["accuracy"] > 0.8
    assert (place / "sprite.png").exists() and helpers.scalars(place)["accuracy"]


def test_no_folder_is_evaluated_by_two_at_once(folder, capsys):
    with locked(folder, "at work"):
        assert "is at work in this folder; wait for it to end" in refused(capsys, f"--run={folder}")


def test_different_data_are_refused_before_anything_is_done(runs, folder, capsys):
    change(folder, lambda record: record["data"].update(sha256="0" * 64))
    line = refused(capsys, f"--run={folder}", f"--run={runs['poor'].folder}")
    assert "different data" in line and "000000000000" in line and not (folder / "evaluation").exists()


def test_a_run_without_validation_images(tmp_path, capsys):
    run = train("softmax", data="mini", validation_size=0, epochs=1, logdir=tmp_path, histogram_every=0)
    assert "no validation images for --projector" in refused(capsys, f"--run={run.folder}", "--projector")
    assert not (run.folder / "evaluation").exists()
    assert evaluate.main([f"--run={run.folder}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["temperature"] == 1.0


def test_training_on_removes_what_was_measured_before(folder):
    evaluate.evaluate(trained.from_run(folder))
    assert train_command.main([f"--resume={folder}", "--epochs=9"]) == 0
    assert not (folder / "evaluation").exists()


@pytest.mark.parametrize("change", [{"accuracy": 0.999}, {"weights_sha256": "x"}, {"data": {"sha256": "x"}},
                                    {"nll": "x"}, {"confusion": 3}, {"images": 10_000}])
def test_an_evaluation_that_is_not_this_ones_is_not_read(folder, change):
    subject = trained.from_run(folder)
    report, _ = evaluate.evaluate(subject)
    known = dict(weights_sha256=subject.weights_sha256, data_sha256=subject.data["sha256"])
    assert evaluation.read(folder / "evaluation", **known)["accuracy"] == report["accuracy"]
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps({**report, **change}))
    assert evaluation.read(folder / "evaluation", **known) is None


@pytest.mark.parametrize("change", [{"final": {}}, {"final": {"epoch": "3"}}, {"seconds": None}, {"weights_sha256": 3}])
def test_a_damaged_result_is_told(folder, capsys, change):
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, **change}))
    assert "has not come to its end" in refused(capsys, f"--run={folder}")


def test_a_record_with_no_count_of_images_is_told(folder, capsys):
    change(folder, lambda record: record["data"].update(fit="x"))
    assert "its data have 'x' fit images" in refused(capsys, f"--run={folder}")


def test_weights_that_are_gone_are_told(folder, capsys):
    shutil.rmtree(folder / "weights")
    assert "is gone; train the run anew" in refused(capsys, f"--run={folder}")


def test_a_full_disk_is_one_line(folder, monkeypatch, capsys):
    def full(*anything):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fmnist_zoo.files.publish", full)
    assert evaluate.main([f"--run={folder}"]) == 1
    message = capsys.readouterr().err
    assert message == f"evaluate: {folder}/evaluation/confusion.png: No space left on device; make room\n"


def test_help_starts_no_tensorflow(command):
    done = command("trainers.evaluate", "--help")
    assert done.returncode == 0 and "--projector" in done.stdout and not done.stderr
