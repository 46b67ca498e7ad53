"""A run on the mini set from start to end: its results, its files, its replay."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.plugins.graph import keras_util
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

import fmnist_zoo
from fmnist_zoo import metrics
from fmnist_zoo.backend import tf
from tests import helpers, runs
from tests.conftest import computes_bfloat16
from trainers.engine import processor
from trainers.running.folder import RunFolder
from trainers.running.run import RunError
from trainers.running.table import COLUMNS
from trainers.running.trained import TrainedError, from_run
from trainers.train import main, train

pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def run(logdir):
    return train("4D_drop03", data="mini", epochs=4, l2=1e-4, seed=2, logdir=logdir, run_name="one", histogram_every=2)


def test_each_epoch_has_a_row(run):
    rows = RunFolder(run.folder).rows()
    assert tuple(rows[0]) == COLUMNS and rows == run.history
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 8), (2, 16), (3, 24), (4, 32)]
    for row in rows:
        assert row["objective"] == pytest.approx(row["loss"] + row["penalty"], rel=1e-12)
        assert row["images_per_second"] == pytest.approx(1800 / row["seconds"])
        assert row["penalty"] > 0 and all(math.isfinite(value) for value in row.values())
    assert rows[-1]["val_loss"] < rows[0]["val_loss"] < math.log(10)
    assert rows[-1]["train_loss"] < rows[-1]["loss"]  # of the same weights, without dropout


def test_result_is_of_the_best_epoch(run):
    best = min(run.history, key=lambda row: row["val_loss"])
    final = run.result["final"]
    assert final["epoch"] == best["epoch"]
    assert final["val_loss"] == pytest.approx(best["val_loss"], rel=1e-9)
    data = fmnist_zoo.load_data(data="mini")
    logits = run.model(data["fit"].images.astype(np.float32) / 255).numpy()
    assert final["train_loss"] == pytest.approx(metrics.cross_entropy(logits, data["fit"].labels).mean(), rel=1e-5)


def test_replay_of_the_record_gives_the_same_numbers(run, logdir):
    record = json.loads((run.folder / "config.json").read_text())
    assert record["data"]["sha256"] == fmnist_zoo.load_data(data="mini").sha256
    assert {"versions", "commit", "command", "cpu", "threads"} <= set(record["environment"])
    assert main([f"--config={run.folder / 'config.json'}", f"--logdir={logdir}", "--run_name=again"]) == 0
    again = run.folder.parent / "again"
    helpers.assert_equal_runs(again, run.folder)
    assert json.loads((again / "result.json").read_text())["weights_sha256"] == run.result["weights_sha256"]


def test_training_and_validation_lie_on_the_same_charts_by_epoch(run):
    fit, validation = helpers.scalars(run.folder / "train"), helpers.scalars(run.folder)
    shared = {"loss", "accuracy", "objective/total", "objective/penalty"}
    selected = {f"selected/{name}" for name in ("val_loss", "val_accuracy", "train_loss", "epoch")}
    assert set(validation) == shared | selected | {"speed/total_seconds"}
    assert set(fit) == shared | {"while_training/loss", "while_training/accuracy", "speed/images_per_second",
                                 "speed/seconds", *(f"optimizer/{name}" for name in (
                                     "learning_rate", "updates", "gradient_norm", "weight_norm"))}
    for row in run.history:
        epoch = row["epoch"]
        assert fit["loss"][epoch] == pytest.approx(row["train_loss"], rel=1e-6)
        assert fit["while_training/loss"][epoch] == pytest.approx(row["loss"], rel=1e-6)
        assert validation["loss"][epoch] == pytest.approx(row["val_loss"], rel=1e-6)
        assert validation["accuracy"][epoch] == pytest.approx(row["val_accuracy"], rel=1e-6)
        assert fit["optimizer/updates"][epoch] == row["step"]
        assert validation["objective/total"][epoch] == pytest.approx(
            validation["loss"][epoch] + validation["objective/penalty"][epoch], rel=1e-6)
    assert not (run.folder / "validation").exists()  # a run is two rows


def test_each_chart_is_a_curve_that_ends_with_the_selected_weights(run):
    """A chart of one dot says nothing, and HParams takes the last values."""
    found = helpers.scalars(run.folder)
    assert not [tag for tag, values in found.items() if len(values) < 2]
    final = run.result["final"]
    for name in ("val_loss", "val_accuracy", "epoch"):
        assert found[f"selected/{name}"][4] == pytest.approx(final[name], rel=1e-6)
    assert found["selected/train_loss"][4] == pytest.approx(run.history[final["epoch"] - 1]["train_loss"], rel=1e-6)
    assert found["speed/total_seconds"][4] == pytest.approx(run.result["seconds"], rel=1e-6)


def test_events_hold_pictures_histograms_graphs_card_and_result(run):
    found = helpers.summaries(run.folder)
    kinds = {tag: values[0][1].metadata.plugin_data.plugin_name for tag, values in found.items()}
    for tag in ("pictures/first_layer", "pictures/confusion", "pictures/worst"):
        assert kinds[tag] == "images" and [step for step, _ in found[tag]][:2] == [2, 4]
    # The last picture is of the weights that count; those of the last epoch are drawn already.
    assert len(found["pictures/worst"]) == (2 if run.result["final"]["epoch"] == 4 else 3)
    histograms = {tag for tag, kind in kinds.items() if kind == "histograms"}
    names = [f"{layer}/{part}" for layer in ("dense_1", "dense_2", "dense_3", "logits") for part in ("kernel", "bias")]
    assert histograms == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    assert [step for step, _ in found["weights/dense_1/kernel"]] == [2, 4]  # every second epoch
    width, height, png = found["pictures/worst"][0][1].tensor.string_val
    assert png.startswith(b"\x89PNG") and int(width) > 100 and int(height) > 100
    (_, card), (step, result) = ((step, value.tensor.string_val[0].decode()) for step, value in (
        found["settings"][0], found["result"][0]))
    again, final = f"--config={run.folder / 'config.json'}", run.result["final"]
    assert again in card and "784 -> 600" in card and "score on" not in card
    assert step == 4 and again in result and "Published" not in result and "worst classes" in result
    for part, prefix in (("training", "train"), ("validation", "val")):
        assert f"| {part} | {final[f'{prefix}_loss']:.4f} | {final[f'{prefix}_accuracy']:.4f} |" in result
    for before, line, after in zip(result.split("\n"), result.split("\n")[1:], result.split("\n")[2:]):
        assert not line.startswith("| ---") or before.startswith("|") and after.startswith("|")


def test_graph_leads_from_images_to_logits_and_keras_layers_are_beside_it(run):
    (graph,) = (tf.compat.v1.GraphDef.FromString(event.graph_def) for event in helpers.events(run.folder)
                if event.graph_def)
    names = [node.name for node in graph.node]
    assert "images" in names and names[-1] == "logits" and "NoOp" not in {node.op for node in graph.node}
    (_, value), = helpers.summaries(run.folder)["keras"]
    layers = keras_util.keras_model_to_graph_def(json.loads(value.tensor.string_val[0]))
    assert [node.name.split("/")[1] for node in layers.node][-2:] == ["dropout_3", "logits"]


def test_hparams_records_hold_values_metrics_and_status(run, logdir):
    root = helpers.summaries(run.folder)

    def content(summaries, tag):
        return plugin_data_pb2.HParamsPluginData.FromString(summaries[tag][0][1].metadata.plugin_data.content)

    experiment = content(helpers.summaries(logdir), "_hparams_/experiment").experiment
    start = content(root, "_hparams_/session_start_info").session_start_info.hparams
    assert {info.name for info in experiment.hparam_infos} == set(start)
    assert start["model"].string_value == "4D_drop0…=0.0001" and start["dropout"].number_value == 0.3
    assert start["l2"].number_value == 1e-4 and start["seed"].number_value == 2 and start["dropout.4"].number_value == 0
    assert content(root, "_hparams_/session_start_info").session_start_info.group_name == "one 4D_drop03,l2=0.0001"
    assert content(root, "_hparams_/session_end_info").session_end_info.status == api_pb2.STATUS_SUCCESS
    declared = [info.name.tag for info in experiment.metric_infos]
    assert set(declared) <= set(helpers.scalars(run.folder)) and len(declared) == 7


@pytest.mark.long
def test_saved_model_opens_in_plain_keras(run, tmp_path):
    images = fmnist_zoo.load_data(data="mini")["validation"].images[:20].astype(np.float32) / 255
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "look.py").write_text(
        "import sys, importlib.util, keras, numpy\n"
        "sys.path = [entry for entry in sys.path if entry]\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in type(finder).__module__.lower()\n"
        "                 and 'editable' not in getattr(finder, '__name__', '').lower()]\n"
        "assert importlib.util.find_spec('fmnist_zoo') is None, 'it can import us'\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "numpy.save('logits.npy', model.predict(numpy.load('images.npy'), verbose=0))\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "look.py", run.folder / "model.keras"], cwd=tmp_path, capture_output=True,
                          text=True, env=environment)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), run.model(images).numpy(), atol=1e-5)


@pytest.mark.long
def test_last_weights_count_for_the_low_level_networks(logdir):
    run = train("network_A_l1", data="mini", epochs=12, logdir=logdir)
    assert run.result["weights"] == "last" and run.result["final"]["epoch"] == 12
    assert run.history[-1]["step"] == 12 and run.config.recipe.batch_size == "full"
    assert run.history[0]["objective"] == pytest.approx(11.87, abs=0.3)  # the report's "L1 starts at 12"


def test_without_validation_the_last_weights_count(logdir):
    run = train("softmax", data="mini", epochs=2, validation_size=0, logdir=logdir)
    assert run.history[-1]["val_loss"] is None and run.history[-1]["train_loss"] > 0
    assert run.result["final"]["epoch"] == 2 and "val_loss" not in run.result["final"]
    assert run.summary().startswith("done: last weights from epoch 2: loss ")
    for row in run.history:
        assert [name for name, value in row.items() if value is None] == [
            name for name in row if name.startswith("val_")]


@pytest.mark.long
def test_early_stopping(logdir):
    run = train("4L", data="mini", epochs=40, early_stopping=2, learning_rate=0.003, logdir=logdir, histogram_every=0)
    losses = [row["val_loss"] for row in run.history]
    best = losses.index(min(losses)) + 1
    assert run.result["stopped_early"] and len(losses) == best + 2 < 40
    assert run.result["final"]["epoch"] == best


def test_run_that_becomes_nan_fails_with_advice(logdir):
    with pytest.raises(RunError, match=r"at step \d+; .*--learning_rate \(this was 2e\+07\)"):
        train("2L", data="mini", epochs=40, optimizer="sgd", learning_rate=2e7, logdir=logdir, run_name="nan")
    folder = logdir / "2L" / "nan"
    with pytest.raises(TrainedError, match="this run failed .*step.*train it again with other settings"):
        from_run(folder)
    ends = helpers.summaries(folder)["_hparams_/session_end_info"][-1][1].metadata.plugin_data.content
    assert plugin_data_pb2.HParamsPluginData.FromString(ends).session_end_info.status == api_pb2.STATUS_FAILURE
    step, text = helpers.summaries(folder)["result"][0]
    assert step == len(RunFolder(folder).rows()) and b"NaN or infinite at step" in text.tensor.string_val[0]


def test_out_of_memory_is_one_line_that_names_what_helps_and_leaves_no_folder(logdir, capfd):
    flags = ["--model=4L", "--hidden=1,1000000,1000000", "--data=mini", f"--logdir={logdir}"]
    assert main(flags) == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert "out of memory" in error and "batch size 256" in error and "--batch_size" in error
    assert not (logdir / "4L,hidden=1_1000000_1000000").exists()


def test_wrong_data_leaves_no_folder(logdir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fmnist_zoo.backend", None)  # they are refused before TensorFlow is imported
    with pytest.raises(fmnist_zoo.DataError, match="no such file"):
        train("3L", data_dir=str(tmp_path), logdir=logdir)
    assert not (logdir / "3L").exists()


def test_fit_engine_writes_the_same_files(logdir):
    run = train("4D_drop02", data="mini", epochs=2, trainer="fit", logdir=logdir)
    assert tuple(run.history[0]) == COLUMNS
    assert "optimizer/gradient_norm" not in helpers.scalars(run.folder / "train")
    assert run.history[1]["loss"] < run.history[0]["loss"]


@pytest.mark.long
@computes_bfloat16
def test_bfloat16_is_refused_on_processors_without_it(logdir, monkeypatch, capsys):
    monkeypatch.setattr(processor, "has_bfloat16", lambda: False)
    flags = ["--model=4L", "--data=mini", "--precision=mixed_bfloat16", f"--logdir={logdir}", "--run_name=mixed"]
    said = helpers.refused(capsys, main, *flags)
    assert "this processor multiplies no bfloat16" in said and "train in float32" in said
    assert not (logdir / "4L" / "mixed").exists()
    monkeypatch.setattr(processor, "has_bfloat16", lambda: True)  # slower elsewhere, and as right
    assert main([*flags, "--epochs=2"]) == 0
    folder = logdir / "4L" / "mixed"
    assert json.loads((folder / "config.json").read_text())["config"]["precision"] == "mixed_bfloat16"
    charts = {kind: {tag.partition("/")[2] for tag in helpers.summaries(folder) if tag.startswith(kind)}
              for kind in ("weights/", "gradients/")}
    assert charts["gradients/"] == charts["weights/"] != set()


def test_replayed_trial_is_a_run_with_all_validation_images(logdir, capsys):
    """And it writes checkpoints and histograms as often as a run does."""
    folder = runs.make(logdir, "trial", model="softmax", ranking=True, checkpoint_every=1, histogram_every=0)
    flags = [f"--config={folder.config}", "--dry_run"]
    assert main(flags) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["ranking"] is False and "validation" in captured.err
    assert (found["checkpoint_every"], found["histogram_every"]) == (0, "auto")
