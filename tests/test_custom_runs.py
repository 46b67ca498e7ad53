"""Runs of models that a function of the user's builds: training, resuming, evaluating, exporting, sweeping them."""

import csv
import hashlib
import json
import pathlib
import shutil
import sys

import numpy as np
import pytest

from fmnist_zoo import custom, models, registry
from tests import custom_zoo, helpers, sweeps
from tests.test_custom import MODULE
from trainers import evaluate, export, predict, results, sweep, train
from trainers.config import resolve
from trainers.publishing.formats import FORMATS
from trainers.running import provenance, trained

pytestmark = pytest.mark.usefixtures("without_xla")
QUICK = dict(data="mini", epochs=2, batch_size=500, histogram_every=0)
NEEDS = ": its model my_cnn is built by zoo_of_runs.cnn; name its module: --zoo_module=zoo_of_runs"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the module `zoo_of_runs`, and a finished run of its model `my_cnn` in `tb_logs/my_cnn/first`."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "zoo_of_runs.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(registry, "_MODELS", dict(registry._MODELS))
        assert train.main(["--zoo_module=zoo_of_runs", "--model=my_cnn", "--run_name=first", "--data=mini",
                           "--batch_size=100", "--learning_rate=0.01", "--histogram_every=1"]) == 0
        forget()
    return folder


def forget():
    sys.modules.pop("zoo_of_runs", None)
    for name in set(custom._BUILDERS) - {"conv_strided", "conv_teacher"}:
        del custom._BUILDERS[name]


@pytest.fixture(autouse=True)
def _in_the_workplace(workplace, monkeypatch):
    """A test begins in the folder, without the module."""
    monkeypatch.chdir(workplace)
    yield
    forget()


@pytest.mark.parametrize("function, trainer", [
    (custom_zoo.cnn, "tape"), pytest.param(custom_zoo.Subclassed, "fit", marks=pytest.mark.long), *(
        pytest.param(function, "tape", marks=pytest.mark.long)
        for function in (custom_zoo.normalized, custom_zoo.undeclared, custom_zoo.Subclassed))])
def test_run_learns_and_its_folder_gives_the_model_back(function, trainer, tmp_path):
    spec = registry.spec_of(function)
    run = train.train(spec, trainer=trainer, logdir=tmp_path, **QUICK)
    assert run.history[1]["loss"] < run.history[0]["loss"]
    found = trained.from_run(run.folder)
    assert all(map(np.array_equal, found.model.get_weights(), run.model.get_weights()))
    assert run.result["final"]["val_loss"] == min(row["val_loss"] for row in run.history)


def test_record_names_the_module_and_its_source(workplace):
    record = json.loads(pathlib.Path("tb_logs/my_cnn/first/config.json").read_text())
    sha256 = hashlib.sha256(MODULE.encode()).hexdigest()
    assert record["environment"]["modules"] == record["starts"][0]["environment"]["modules"] == {"zoo_of_runs": sha256}
    assert record["config"]["spec"]["build"] == "zoo_of_runs:cnn"
    assert f"zoo_of_runs {sha256[:12]}" in provenance.describe(record["environment"])
    assert not provenance.record(resolve("4L"))["modules"]


@pytest.mark.parametrize("main, flags", [
    (train.main, ["--resume=tb_logs/my_cnn/first"]), (train.main, ["--config=tb_logs/my_cnn/first"]),
    (predict.main, ["a.png", "--run=tb_logs/my_cnn/first"])])
def test_run_without_its_module_is_refused_in_one_line(main, flags, capsys):
    assert main(flags) == 2
    captured = capsys.readouterr()
    assert NEEDS in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_function_of_another_module_of_that_name_is_refused(capsys):
    registry.register("my_cnn", build=custom_zoo.cnn)
    assert train.main(["--resume=tb_logs/my_cnn/first"]) == 2
    assert "built by zoo_of_runs.cnn, and the my_cnn of this process by tests.custom_zoo.cnn" in capsys.readouterr().err


def test_events_show_filters_and_the_graph(workplace):
    found = helpers.summaries("tb_logs/my_cnn/first")
    _, picture = found["pictures/first_layer"][0]
    width, height = (int(text) for text in picture.tensor.string_val[:2])
    assert (width, height) == (4 * 48, 48)  # four filters of 5x5 in frames, each pixel drawn 8 by 8
    assert {"weights/sequential/conv2d/kernel", "gradients/sequential/dense/bias"} <= set(found)
    assert any(event.graph_def for event in helpers.events("tb_logs/my_cnn/first"))


def test_evaluate(capsys):
    assert evaluate.main(["--zoo_module=zoo_of_runs", "--run=tb_logs/my_cnn/first"]) == 0
    assert "accuracy" in capsys.readouterr().out
    report = json.loads(pathlib.Path("tb_logs/my_cnn/first/test/evaluation.json").read_text())
    assert report["images"] == 500 and report["accuracy"] > 0.6


@pytest.mark.parametrize("format", ["saved_model", "tflite"])
def test_export_is_checked_on_images_and_says_their_shape(format, tmp_path, capsys):
    out = str(tmp_path / f"cnn{FORMATS[format].suffix}")
    assert export.main(["--run=tb_logs/my_cnn/first", f"--format={format}", "--zoo_module=zoo_of_runs",
                        f"--out={out}"]) == 0
    _, shape, example = capsys.readouterr().out.splitlines()
    assert shape == "it takes (batch, 28, 28, 1) float32 in [0, 1]"
    values = {"pixels": np.zeros((1, 28, 28, 1), np.float32)}
    exec(example.removeprefix("to run it: "), values)
    assert np.asarray(values["logits"]).shape == (1, 10)


@pytest.mark.long
def test_subclassed_model_is_exported_but_not_to_keras(tmp_path):
    run = train.train(registry.spec_of(custom_zoo.Subclassed), logdir=tmp_path, **{**QUICK, "epochs": 1})
    subject = trained.from_run(run.folder)
    assert export.export(subject, "onnx", tmp_path / "a.onnx").input == (28, 28, 1)
    with pytest.raises(export.ExportError, match="Could not locate class 'Subclassed'"):
        export.export(subject, "keras", tmp_path / "a.keras")


@pytest.mark.long
def test_model_that_keras_cannot_save_keeps_its_weights(tmp_path, capsys):
    run = train.train(registry.spec_of(custom_zoo.Indescribable), logdir=tmp_path, verbose=True,
                      **{**QUICK, "epochs": 1})
    assert "model.keras is not written, because Keras cannot save this model (NotImplementedError: " \
        in capsys.readouterr().out
    assert not (run.folder / "model.keras").exists()
    assert all(map(np.array_equal, trained.from_run(run.folder).model.get_weights(), run.model.get_weights()))


@pytest.mark.long
def test_changed_source_is_noted_on_resume(workplace, tmp_path, capsys, monkeypatch):
    shutil.copytree(workplace / "tb_logs", tmp_path / "tb_logs")
    (tmp_path / "zoo_of_runs.py").write_text(MODULE + "# another line")
    monkeypatch.chdir(tmp_path)
    assert train.main(["--zoo_module=zoo_of_runs", "--resume=tb_logs/my_cnn/first", "--epochs=3"]) == 0
    out = capsys.readouterr().out
    assert "the source of zoo_of_runs has changed since this run's last start" in out
    assert "tb_logs/my_cnn/first --epochs=6 --zoo_module=zoo_of_runs\n" in out
    called = out.rpartition("use it        fmnist_zoo.")[2]
    assert eval(called, {"build_model": models.build_model}).count_params() > 1000
    assert len(json.loads(pathlib.Path("tb_logs/my_cnn/first/config.json").read_text())["starts"]) == 2


def test_checkpoint_of_other_layers_is_refused(workplace, tmp_path, capsys, monkeypatch):
    shutil.copytree(workplace / "tb_logs", tmp_path / "tb_logs")
    (tmp_path / "zoo_of_runs.py").write_text(MODULE.replace("Conv2D(4", "Conv2D(6"))
    monkeypatch.chdir(tmp_path)
    assert train.main(["--zoo_module=zoo_of_runs", "--resume=tb_logs/my_cnn/first", "--epochs=3"]) == 2
    assert "other arrays than the model of the run's config.json" in capsys.readouterr().err
    assert evaluate.main(["--run=tb_logs/my_cnn/first"]) == 2
    assert "does not hold the arrays of my_cnn" in capsys.readouterr().err
    shutil.rmtree("tb_logs/my_cnn/first/weights")
    assert evaluate.main(["--run=tb_logs/my_cnn/first"]) == 2
    assert "--config=tb_logs/my_cnn/first/config.json --zoo_module=zoo_of_runs\n" in capsys.readouterr().err


def test_the_engine_from_equations_is_refused(capsys):
    assert train.main(["--zoo_module=zoo_of_runs", "--model=my_cnn", "--trainer=scratch"]) == 2
    assert "my_cnn is built by zoo_of_runs.cnn: use --trainer=tape or fit" in capsys.readouterr().err


@pytest.mark.long
def test_scores_of_a_users_model_go_to_a_table_of_their_own(tmp_path, capsys):
    flags = ["--zoo_module=zoo_of_runs", "--models=my_cnn", "--seeds=1"]
    assert results.main([*flags, "--dry_run"]) == 2
    assert "my_cnn is none of them: name another table with --out=FILE" in capsys.readouterr().err
    assert results.main([*flags, "--data=mini", f"--out={tmp_path / 'mine.csv'}", f"--logdir={tmp_path}"]) == 0
    with open(tmp_path / "mine.csv", encoding="utf-8") as file:
        assert [(row["model"], row["seed"], row["epochs"]) for row in csv.DictReader(file)] == [("my_cnn", "0", "2")]


class Forgetful(sweeps.Inline):
    """A pool that begins each job as a new worker does, without the module."""

    def run(self, job):
        forget()
        registry._MODELS.pop("my_cnn", None)
        return super().run(job)


@pytest.mark.long
def test_sweep_of_the_recipe(workplace, tmp_path, capsys, monkeypatch):
    sweeps.replace_pool(monkeypatch, Forgetful())
    flags = ["--model=my_cnn", "--tuner=grid", "--space=learning_rate=0.001,0.003", "--epochs=1", "--data=mini",
             f"--logdir={tmp_path}", "--name=own"]
    assert sweep.main(["--zoo_module=zoo_of_runs", *flags]) == 0
    folder = tmp_path / "sweeps" / "own"
    assert [row["status"] for row in sweeps.rows_of(folder)] == ["COMPLETED", "COMPLETED"]
    forget()
    registry._MODELS.pop("my_cnn")
    assert sweep.main([f"--show={folder}"]) == 0
    assert f"--from_sweep={folder} --zoo_module=zoo_of_runs\n" in capsys.readouterr().out
    assert train.main([f"--from_sweep={folder}"]) == 2
    assert f"{folder}{NEEDS}" in capsys.readouterr().err
    assert train.main([f"--from_sweep={folder}", "--zoo_module=zoo_of_runs", f"--logdir={tmp_path}"]) == 0


def test_worker_with_another_source_trains_nothing(tmp_path, capsys, monkeypatch):
    class Changing(Forgetful):
        def run(self, job):
            return super().run(job._replace(modules=dict.fromkeys(job.modules, "0" * 64)))

    sweeps.replace_pool(monkeypatch, Changing())
    assert sweep.main(["--zoo_module=zoo_of_runs", "--model=my_cnn", "--tuner=grid", "--space=learning_rate=0.1",
                       "--data=mini", f"--logdir={tmp_path}"]) == 1
    assert "the source of zoo_of_runs on" in capsys.readouterr().err


def test_default_space_is_of_the_recipe():
    registry.load_zoo_module("zoo_of_runs")
    plan = sweep.Plan("my_cnn", None, tuner="random", max_trials=None, objective="val_loss", executions=1)
    assert plan.space.names == ("learning_rate", "weight_decay")


def picky(units=8):
    import keras

    if units == 4:
        raise ValueError("four are too few")
    return keras.Sequential([keras.Input((784,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(10)])


@pytest.mark.long
def test_trial_whose_function_cannot_build_fails_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    registry.register("picky", build=picky)
    sweeps.replace_pool(monkeypatch, sweeps.Inline())
    table = sweep.sweep("picky", {"units": [4, 8]}, tuner="grid", data="mini", epochs=1, batch_size=500,
                        logdir=tmp_path)
    assert {row["units"]: row["status"] for row in table} == {4: "FAILED", 8: "COMPLETED"}
    assert "four are too few" in table[-1]["reason"]
