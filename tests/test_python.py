"""Training from Python: build functions, arrays, a function after each epoch, and progress in a notebook."""

import dataclasses
import json
import pathlib
import sys
import types

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo.data import Data, Split
from tests import custom_zoo, helpers
from trainers import evaluate, predict
from trainers.config import ConfigError, read_record
from trainers.engine.epoch import EpochMeans
from trainers.running import progress
from trainers.sweep import sweep
from trainers.train import main, resume, train

pytestmark = pytest.mark.usefixtures("without_xla")
SMALL = dict(hidden=(8,), histogram_every=0)


@pytest.fixture(scope="module")
def images():
    """900 images (n, 784) and their labels."""
    whole = fmnist_zoo.load_data(("fit",), data="mini")["fit"]
    return whole.images[:900], whole.labels[:900]


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    return train("2L", data=images, epochs=3, logdir=tmp_path_factory.mktemp("logs"), run_name="one", **SMALL)


def test_a_build_function_is_trained_under_its_name(tmp_path):
    one = train(custom_zoo.cnn, data="mini", epochs=1, logdir=tmp_path, histogram_every=0)
    assert one.folder.parent == tmp_path / "cnn" and one.result["epochs"] == 1
    assert one.config.spec.build == "tests.custom_zoo:cnn"


# Arrays.

def test_arrays_are_split_and_recorded_by_their_digest(run, images):
    record = read_record(run.folder)
    assert record["config"]["data"] == record["data"]["name"] == "arrays"
    assert (record["data"]["fit"], record["data"]["validation"]) == (810, 90)
    with pytest.raises(ConfigError, match="not those of the recorded run: sha256"):
        resume(run.folder, epochs=4, data=(images[0], images[1][::-1].copy()))
    with pytest.raises(ConfigError, match="not those of the recorded run: sha256"):
        resume(run.folder, epochs=4, data=(images[0][:-1], images[1][:-1]))


def test_shape_of_images_and_type_of_labels_and_of_the_pair_do_not_matter(run, images, tmp_path):
    again = train("2L", data=[images[0].reshape(-1, 28, 28), list(map(int, images[1]))], epochs=3, logdir=tmp_path,
                  **SMALL)
    assert again.result["weights_sha256"] == run.result["weights_sha256"]
    assert read_record(again.folder)["data"] == read_record(run.folder)["data"]


def test_data_of_ones_own_keep_their_splits(images, tmp_path):
    data = fmnist_zoo.load_data(data="mini", validation_size=300)
    own = train("2L", data=data, epochs=2, logdir=tmp_path, **SMALL)
    named = train("2L", data="mini", validation_size=300, epochs=2, logdir=tmp_path, **SMALL)
    assert own.result["weights_sha256"] == named.result["weights_sha256"]
    assert own.config.recipe.validation_size == 300
    assert [row["val_loss"] for row in own.history] == [row["val_loss"] for row in named.history]
    for splits in ({"fit": Split(*images)}, {"fit": Split(*images), "validation": Split(images[0][:0], images[1][:0])}):
        alone = train("2L", data=Data("x", tmp_path, "", "", splits), epochs=1, logdir=tmp_path, **SMALL)
        assert alone.config.recipe.validation_size == 0 and alone.history[0]["val_loss"] is None


@pytest.mark.parametrize("change, text", [
    (lambda x, y: (x.astype(np.float32), y), "images are uint8, pixels from 0 to 255; received float32"),
    (lambda x, y: (x / 255, y), r"received float64: .* as \(255 \* images\).round\(\).astype\('uint8'\)$"),
    (lambda x, y: (x.astype(int), y), r"received int64: convert them, such as images.round\(\).astype\('uint8'\)$"),
    (lambda x, y: (x.T, y), r"shape \(n, 784\) or \(n, 28, 28\); received \(784, 900\)"),
    (lambda x, y: (x, y[:-1]), r"900 images have labels of shape \(900,\); received \(899,\)"),
    (lambda x, y: (x, y + 1), "a label of 10; ten classes have labels 0 to 9"),
    (lambda x, y: (x, y.astype(int) - 1), "a label of -1"),
    (lambda x, y: (x, y.astype(float)), "labels are integers from 0 to 9; received float64"),
    (lambda x, y: (x[:0], y[:0]), "no images in it"),
    (lambda x, y: ([[1], [1, 2]], y), "not arrays: "),
    (lambda x, y: ((x, y), (x[:9], y[:9])), "of two pairs, as Keras' load_data returns them, give the first"),
    (lambda x, y: (x,), r"a pair \(images, labels\), or a fmnist_zoo.Data; received tuple of 1"),
    (lambda x, y: x, "received ndarray"),
    (lambda x, y: "cifar", "received 'cifar'"),
    (lambda x, y: "arrays", "given in Python as arrays, and no file holds them"),
    (lambda x, y: fmnist_zoo.load_data(("validation",), data="mini"), "no split fit to train on; received validation"),
    (lambda x, y: Data("x", pathlib.Path(), "", "", {"fit": Split(x, y), "validation": Split(x[:1], y[:1])}),
     "is a single image"),
])
def test_wrong_data_are_refused_in_one_line_and_leave_no_folder(images, tmp_path, change, text):
    with pytest.raises(ValueError, match=text) as caught:
        train("2L", data=change(*images), logdir=tmp_path, **SMALL)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("2L*"))


def test_settings_that_disagree_with_arrays_are_refused(images, tmp_path):
    with pytest.raises(ConfigError, match="validation_size=0.2: the data have a split of their own"):
        train("2L", data=fmnist_zoo.load_data(data="mini"), validation_size=0.2, logdir=tmp_path)
    with pytest.raises(ConfigError, match="given in Python: drop --data_dir"):
        train("2L", data=images, data_dir="x", logdir=tmp_path)
    for folder in ("gs://bucket/logs", pathlib.Path("s3://bucket/logs")):
        with pytest.raises(fmnist_zoo.SpecError, match=f"logdir={folder}: is an address"):
            train("2L", data=images, logdir=folder)
    with pytest.raises(ValueError, match="data must be one of fashion_mnist, mini, received [^\n]*$"):
        sweep("2L", {"l2": [0, 1]}, data=images, logdir=tmp_path)


def test_commands_refuse_a_run_on_arrays_where_they_need_its_images(run, tmp_path, capsys):
    for flags, text in (([f"--resume={run.folder}", "--epochs=5"], f"trainers.train.resume({str(run.folder)!r}, data="),
                        ([f"--config={run.folder}", f"--logdir={tmp_path}"], "no file holds them"),
                        (["--model=2L", "--data=arrays"], "one of fashion_mnist, mini, received 'arrays'")):
        assert text in helpers.refused(capsys, main, *flags)
    with pytest.raises(ConfigError, match="no file holds them"):
        resume(run.folder, epochs=5)
    said = helpers.refused(capsys, evaluate.main, f"--run={run.folder}")
    assert "was trained on arrays that were given in Python" in said
    np.save(tmp_path / "one.npy", fmnist_zoo.load_data(("validation",), data="mini")["validation"].images[:1])
    assert predict.main([str(tmp_path / "one.npy"), f"--run={run.folder}"]) == 0
    assert "--resume" not in run.summary() and "model.keras" in run.summary()
    texts = b"".join(value.tensor.SerializeToString() for part in ("", "train") for name, values in helpers.summaries(
        run.folder / part).items() for _, value in values if value.metadata.plugin_data.plugin_name == "text")
    assert b"validation" in texts and b"--config" not in texts


# After each epoch.

def test_a_run_that_a_function_stops_is_resumed_to_the_same_bits(run, images, tmp_path):
    rows = []

    def after(row):
        rows.append(dict(row))
        row.clear()  # it is a copy
        return row is not None and len(rows) == 2

    stopped = train("2L", data=images, epochs=3, logdir=tmp_path, on_epoch=after, **SMALL)
    assert stopped.result is None and rows == stopped.history and len(rows) == 2
    assert f"trainers.train.resume({str(stopped.folder)!r}, data=(images, labels))" in stopped.summary()
    done = resume(stopped.folder, data=images, on_epoch=rows.append)
    assert done.result["weights_sha256"] == run.result["weights_sha256"]
    assert rows == done.history and helpers.rows_without_times(done.folder) == helpers.rows_without_times(run.folder)


@pytest.mark.long
def test_a_function_that_raises_ends_the_run_with_its_checkpoint(tmp_path):
    def after(row):
        if row["epoch"] == 2:
            raise OSError("my own")

    with pytest.raises(OSError, match="my own"):
        train("softmax", data="mini", epochs=9, logdir=tmp_path, run_name="one", on_epoch=after)
    done = resume(tmp_path / "softmax" / "one", epochs=9)
    assert len(done.history) == 9
    assert json.loads((done.folder / "config.json").read_text())["starts"][1]["epoch"] == 2
    with pytest.raises(ConfigError, match="--epochs=3 disagrees with the run"):
        resume(done.folder, epochs=3)
    with pytest.raises(ConfigError, match="data='fashion_mnist' disagrees with the run in .*, which has mini"):
        resume(done.folder, data="fashion_mnist")


@pytest.mark.parametrize("model, more, text", [
    (3, {}, "model is a name, a ModelSpec, a function that returns a Keras model, or such a model; received 3"),
    ("softmax", {"on_epoch": 3}, "on_epoch is a function that takes an epoch's row; received 3")])
def test_arguments_of_another_type_are_named_and_leave_no_folder(tmp_path, model, more, text):
    with pytest.raises(TypeError, match=text):
        train(model, data="mini", epochs=1, logdir=tmp_path, **more)
    assert not list(tmp_path.iterdir())


def test_an_answer_after_the_last_epoch_changes_nothing(tmp_path):
    assert train("softmax", data="mini", epochs=1, logdir=tmp_path, on_epoch=lambda row: True).result


# What a person sees.

class Shell:
    """What IPython.get_ipython() returns in the kernel of a notebook."""

    kernel = object()


class Display:
    """Stands in for IPython.display, which this project does not need: keeps the content of each output."""

    def __init__(self):
        self.outputs = []

    def display(self, content, *, raw, display_id):
        assert raw and display_id
        self.outputs.append([content])
        return types.SimpleNamespace(update=lambda content, raw: self.outputs[-1].append(content))


@pytest.fixture
def notebook(monkeypatch):
    shown = Display()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=Shell, display=shown))
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    monkeypatch.setattr(progress.Notebook, "SECONDS", 0.0)
    return shown


def test_a_notebook_shows_progress_by_default_in_one_output(notebook, tmp_path, capsys):
    train("softmax", data="mini", epochs=2, logdir=tmp_path)
    (texts,) = [[content["text/plain"] for content in output] for output in notebook.outputs]
    assert any("epoch 2 " in text and "100%" in text and "left" in text.splitlines()[-1] for text in texts)
    last = texts[-1].splitlines()
    assert last[0].startswith("model       softmax") and last[-1].startswith("epoch 2/2  loss") and len(last) == 7
    assert capsys.readouterr().out == ""
    train("softmax", data="mini", epochs=1, logdir=tmp_path, verbose=False)
    assert len(notebook.outputs) == 1


def test_a_sweep_shows_its_progress_and_result_in_one_output_of_a_notebook(notebook, tmp_path, pretending_pool, capsys):
    rows = sweep("softmax", "l2=0,1e-4", tuner="grid", data="mini", epochs=2, logdir=tmp_path)
    (texts,) = [[content["text/plain"] for content in output] for output in notebook.outputs]
    assert texts[0].startswith("sweep ") and any("trials  ━" in text for text in texts)
    assert "train the best" in texts[-1] and "━" not in texts[-1] and len(rows) == 2
    again = sweep("softmax", "l2=0,1e-4", tuner="grid", data="mini", epochs=2, logdir=tmp_path, verbose=False)
    assert again == rows and len(notebook.outputs) == 1 and capsys.readouterr().out == ""


def test_a_run_is_a_line_where_a_notebook_prints_it(tmp_path):
    run = train("softmax", data="mini", epochs=2, logdir=tmp_path, run_name="one")
    final = run.result["final"]
    assert repr(run) == (f"Run('{tmp_path}/softmax/one', 2 of 2 epochs, val_loss={final['val_loss']:.4f}, "
                         f"val_accuracy={final['val_accuracy']:.4f})")
    assert "1 of 2 epochs, interrupted" in repr(dataclasses.replace(run, history=run.history[:1], result=None))


def test_bar_of_a_notebook_grows(notebook):
    reporter = progress.for_output()
    means = EpochMeans(0.5, 0.0, 0.75)
    reporter.part(3, 0.5, means, 1000.0, 65.0)
    reporter.trials(1, 4, {"0002": (1, 2)})
    reporter.close()
    texts = [content["text/plain"] for content in notebook.outputs[0]]
    assert texts == [f"epoch 3  {'━' * 12}{' ' * 12}   50%  loss 0.5000 accuracy 0.7500  1:05 left",
                     f"trials  {'━' * 9}{' ' * 15}   38%  0002: epoch 1/2", ""]


def test_a_notebook_is_not_updated_too_often(notebook, monkeypatch):
    monkeypatch.setattr(progress.Notebook, "SECONDS", 60.0)
    reporter = progress.Notebook()
    for line in "abc":
        reporter.note(line)
    assert len(notebook.outputs[0]) == 1
    reporter.close()
    assert notebook.outputs[0][-1] == {"text/plain": "a\nb\nc"}


@pytest.mark.parametrize("verbose, terminal, shown", [
    (None, False, progress.Reporter), (None, True, progress.Bar), (True, False, progress.Lines),
    (True, True, progress.Bar), (False, True, progress.Reporter)])
def test_a_script_shows_progress_on_a_terminal_or_where_it_asks(monkeypatch, verbose, terminal, shown):
    monkeypatch.setattr(progress, "_on_terminal", lambda: terminal)
    assert type(progress.for_caller(verbose)) is shown
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))  # imported, no shell
    assert type(progress.for_caller(verbose)) is shown
