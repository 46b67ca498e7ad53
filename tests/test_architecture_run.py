"""Models with new layers from the command line to the exported file: trained, resumed, swept, measured, exported."""

import json

import numpy as np
import pytest

from fmnist_zoo import data, models, prediction, weights
from fmnist_zoo.backend import keras
from tests import helpers, sweeps
from trainers.board import hparams
from trainers.config import resolve
from trainers.export import export
from trainers.publishing.formats import FORMATS
from trainers.running import trained
from trainers.sweep import sweep
from trainers.train import main, train

MODEL = "2L,hidden=16_16,activation=gelu,normalization=batch,residual=true,expansion=2,input=whitened"
SETTINGS = ["--hidden=16,16", "--activation=gelu", "--normalization=batch", "--residual", "--expansion=2",
            "--input=whitened"]


@pytest.fixture(scope="module")
def run(without_xla, tmp_path_factory):
    """The folder of a finished run of three epochs, started by flags."""
    logdir = tmp_path_factory.mktemp("logs")
    assert main(["--model=2L", *SETTINGS, "--dropout=0.25", "--data=mini", "--epochs=3", "--histogram_every=3",
                 f"--logdir={logdir}", "--run_name=one"]) == 0
    (folder,) = logdir.glob("2L*/one")
    return folder


def test_run_learns_and_its_folder_names_its_layers(run):
    assert run.parent.name == MODEL.replace("16_16", "16_16,dropout=0.25_0.25")
    losses = [float(row["val_loss"]) for row in helpers.rows_without_times(run)]
    assert losses[-1] < losses[0] < 2.4
    tags = helpers.summaries(run)
    assert {"weights/expand_2/kernel", "gradients/norm_2/gamma"} <= set(tags)
    assert not {"gradients/norm_2/moving_mean", "gradients/input_whitening/kernel"} & set(tags)


@pytest.mark.long
@pytest.mark.parametrize("changes", [
    {"normalization": "batch", "residual": True, "input": "standardized"},
    {"normalization": "layer", "expansion": 2, "activation": "silu", "input": "whitened", "initializer": "he_normal"}])
def test_tape_and_fit_agree(without_xla, tmp_path, changes):
    """Without dropout, whose masks are others. The last batch is smaller than the others."""
    tape, fit = (train("2L", hidden=(16, 16), l2=1e-3, optimizer="sgd", epochs=2, data="mini", trainer=trainer,
                       logdir=tmp_path, run_name=trainer, histogram_every=0, **changes) for trainer in ("tape", "fit"))
    for ours, theirs in zip(tape.model.get_weights(), fit.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    for ours, theirs in zip(tape.history, fit.history):
        for name in ("loss", "penalty", "accuracy", "val_loss"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4)


def test_saved_model_takes_pixels_and_holds_the_layer_of_the_fit_images(run):
    subject = trained.from_run(run)
    splits = data.load_data(("fit", "validation"), data="mini")
    fresh = models.build(subject.spec)
    models.fit_input(fresh, subject.spec, splits["fit"].images)
    kernel = fresh.get_layer("input_whitening").kernel
    for one in (subject.model, keras.saving.load_model(run / "model.keras")):
        np.testing.assert_array_equal(one.get_layer("input_whitening").kernel, kernel)
        accuracy = (prediction.outputs_of(one, prediction.as_pixels(splits["validation"].images)).argmax(axis=1)
                    == splits["validation"].labels).mean()
        assert accuracy == pytest.approx(json.loads((run / "result.json").read_text())["final"]["val_accuracy"])


@pytest.mark.parametrize("format", FORMATS)
def test_exported_file_gives_what_keras_gives(run, tmp_path, format, capfd):
    """`export` compares the two on 2,000 images."""
    written = export(trained.from_run(run), format, tmp_path / f"x{FORMATS[format].suffix}")
    assert written.difference < 1e-5 and written.path.exists()
    assert capfd.readouterr().err == ""


@pytest.mark.long
def test_export_of_gelu_to_onnx_prints_one_result(run, tmp_path, command):
    done = command("trainers.export", f"--run={run}", "--format=onnx", f"--out={tmp_path / 'x.onnx'}")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(f"{tmp_path / 'x.onnx'}: ")


def test_shipped_weights_give_the_same_logits(run, tmp_path):
    subject = trained.from_run(run)
    pixels = np.random.default_rng(0).random((20, 784), np.float32)
    for dtype, tolerance in (("float32", 0), ("float16", 0.05)):
        weights.write(tmp_path / "x.safetensors", subject.spec, subject.model.get_weights(), dtype=dtype)
        received = models.build_model(subject.spec, weights=tmp_path / "x.safetensors")
        np.testing.assert_allclose(received(pixels), subject.model(pixels), atol=tolerance)


@pytest.mark.long
def test_sweep_searches_switches(without_xla, tmp_path, inline_pool):
    sweep("2L,hidden=8_8", {"residual": [True, False]}, tuner="grid", epochs=1, data="mini", logdir=tmp_path,
          name="grid")
    rows = sweeps.rows_of(tmp_path / "sweeps" / "grid")
    assert [row["residual"] for row in rows] == ["true", "false"]
    assert {row["status"] for row in rows} == {"COMPLETED"} and rows[0]["objective"] != rows[1]["objective"]


def test_settings_have_columns_in_tensorboard():
    values = hparams.hyperparameters(resolve(MODEL), 256)
    assert (values["activation"], values["residual"], values["expansion"], values["input"]) == (
        "gelu", "true", 2, "whitened")
    assert hparams.hyperparameters(resolve("4L"), 256)["residual"] == "false"


@pytest.mark.long
def test_run_of_a_model_with_a_long_name_is_found_again(tmp_path):
    changes = dict(hidden=(4, 4), dropout=(1 / 3, 1 / 7), l1=1e-5 / 3, l2=1e-5 / 7, expansion=1, residual=True,
                   normalization="layer", activation="hard_silu", input="standardized", initializer="glorot_normal")
    first = train("2L", data="mini", trainer="fit", epochs=1, logdir=tmp_path, run_name="one", **changes)
    assert len(first.config.spec.name) > 200 >= len(first.folder.parent.name)
    assert trained.from_run(first.folder).spec == first.config.spec
    assert main([f"--resume={first.folder}", "--epochs=2"]) == 0
