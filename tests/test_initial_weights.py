"""Runs that start from trained weights: as they are, or as the dense layers that a convolutional network is."""

import json
import shutil
import signal
import time

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import custom, registry, unrolling
from fmnist_zoo.backend import keras
from fmnist_zoo.errors import SpecError
from fmnist_zoo.spec import Recipe
from tests.test_resume import assert_equal_runs, stopped_run
from trainers import cli, sweep
from trainers.config import ConfigError, read_record
from trainers.running import table
from trainers.running.trained import from_run
from trainers.train import main, train

pytestmark = pytest.mark.usefixtures("without_xla")

layers = keras.layers
DENSE = dict(hidden=(75, 16), activation="gelu", dropout=0, data="mini", histogram_every=0)
FIRST = "tests.test_initial_weights:tiny_conv"


def conv():
    return keras.Sequential([
        keras.Input((28, 28, 1)), layers.Conv2D(3, 5, 6, padding="same", use_bias=False), layers.BatchNormalization(),
        layers.Activation("gelu"), layers.Conv2D(4, 3, 1, padding="same", activation="gelu"),
        layers.AveragePooling2D(2), layers.Flatten(), layers.Dropout(0.5), layers.Dense(10)])


def tiny_conv():
    return keras.Sequential([
        keras.Input((28, 28, 1)), layers.Conv2D(3, 5, 6, padding="same", use_bias=False), layers.BatchNormalization(),
        layers.Activation("gelu"), layers.Conv2D(4, 3, 2, padding="valid", activation="gelu"), layers.Flatten(),
        layers.Dense(10)])


@pytest.fixture(autouse=True)
def _registered(tmp_path, monkeypatch):
    """The registry holds `tiny_conv` meanwhile; what is known of it is kept elsewhere than in the user's cache."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    monkeypatch.setattr(custom, "_BUILDERS", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fmnist_zoo.register("tiny_conv", build=tiny_conv, recipe=Recipe(epochs=2, batch_size=100))


@pytest.fixture
def logdir(tmp_path):
    return tmp_path / "logs"


def pixels(count=40):
    return fmnist_zoo.load_data(("fit",), data="mini")["fit"].images[:count] / np.float32(255)


def test_dense_layers_compute_what_a_sequence_of_affine_layers_and_activations_does():
    model = conv()
    model.layers[1].set_weights([np.array([1.5, 0.5, 1]), np.array([0, 1, -1]), np.array([0.1, 0.2, 0.3]),
                                 np.array([0.5, 1, 2])])  # scale, offset, moving mean and variance
    arrays = unrolling.dense_arrays(model)
    assert [array.shape for array in arrays] == [(784, 75), (75,), (75, 100), (100,), (100, 10), (10,)]
    flow = pixels()
    for kernel, bias in zip(arrays[:-2:2], arrays[1:-2:2]):
        flow = keras.ops.convert_to_numpy(keras.activations.gelu(flow @ kernel + bias))
    expected = keras.ops.convert_to_numpy(model(pixels().reshape(-1, 28, 28, 1), training=False))
    assert np.allclose(flow @ arrays[-2] + arrays[-1], expected, atol=1e-4)
    assert model.layers[3].activation is keras.activations.gelu  # it was linear meanwhile


@pytest.mark.parametrize("inner, text", [
    ([layers.MaxPooling2D(7)], "max_pooling2d.*: not affine, and so no dense layer; take strides"),
    ([layers.Activation("relu"), layers.Activation("gelu")], "two activations follow each other"),
])
def test_layers_that_are_no_dense_layer_are_refused(inner, text):
    model = keras.Sequential([keras.Input((28, 28, 1)), *inner, layers.Flatten(), layers.Dense(10)])
    with pytest.raises(SpecError, match=text):
        unrolling.dense_arrays(model)


def test_network_that_is_no_sequence_is_refused():
    images = keras.Input((784,))
    flow = layers.Dense(784, activation="relu")(images)
    with pytest.raises(SpecError, match="are no sequence: add.* takes more, or something else"):
        unrolling.dense_arrays(keras.Model(images, layers.Dense(10)(layers.Add()([images, flow]))))


@pytest.mark.long
def test_model_of_a_module_is_trained_first_with_the_same_seed_and_used_again(logdir, capsys):
    settings = dict(epochs=2, seed=3, initial_weights=FIRST, logdir=logdir, verbose=True, **DENSE)
    whole = train("4L", run_name="whole", learning_rate=1e-7, **settings)
    said = capsys.readouterr().out
    assert said.count("[1/1] tiny_conv (tape, seed 3)") == 1 and said.count("epoch 2/2") == 2  # of both networks
    first = from_run(next(logdir.glob("tiny_conv/*/config.json")).parent)
    named, = read_record(whole.folder)["initial_weights"]
    assert named.pop("seconds") == json.loads((first.folder / "result.json").read_text())["seconds"]
    assert named == {"title": FIRST, "weights_sha256": first.weights_sha256, "same_split": True}
    theirs = keras.ops.convert_to_numpy(first.model(pixels().reshape(-1, 28, 28, 1), training=False))
    assert np.allclose(keras.ops.convert_to_numpy(whole.model(pixels())), theirs, atol=1e-3)  # it hardly moved
    train("4L", run_name="second", **{**settings, "epochs": 1})
    assert "tiny_conv (tape" not in capsys.readouterr().out


def test_stopped_run_goes_on_from_its_checkpoint_to_the_same_bits(logdir):
    source = train("4L", epochs=1, logdir=logdir, run_name="source", **DENSE).folder
    settings = dict(hidden=(75, 16), activation="gelu", dropout=0.1, epochs=3, initial_weights=str(source))
    whole = train("4L", data="mini", logdir=logdir, run_name="whole", **settings)
    folder = stopped_run(logdir, 1, model="4L", **settings)
    shutil.rmtree(source)  # the checkpoint has all weights
    assert main([f"--resume={folder}"]) == 0
    assert_equal_runs(folder, whole.folder)
    assert read_record(folder)["initial_weights"] == read_record(whole.folder)["initial_weights"]


@pytest.mark.parametrize("changed, text", [
    (dict(activation="relu"), "it computes other logits .* apart.; its activations must be those of that network"),
    (dict(hidden=(75, 17)), r"that has arrays of shapes \[\(784, 75\), \(75,\), \(75, 16\)"),
    (dict(normalization="batch"), "that has arrays of shapes"),
])
def test_network_that_cannot_be_the_same_function_is_refused_and_leaves_no_folder(changed, text, logdir):
    train("tiny_conv", epochs=1, data="mini", logdir=logdir, run_name="first", histogram_every=0)
    settings = {**DENSE, "hidden": (75, 16), **changed}
    with pytest.raises(ConfigError, match=text):
        train("4L", epochs=1, logdir=logdir, initial_weights=str(logdir / "tiny_conv/first"), **settings)
    assert [path.name for path in logdir.iterdir() if path.is_dir()] == ["tiny_conv"]


@pytest.mark.parametrize("flags, text", [
    (["--initial_weights=no_such_module:cnn"], "--initial_weights: --zoo_module=no_such_module cannot be imported"),
    (["--initial_weights=tests.custom_zoo:no_model"], "--initial_weights: no model is named 'no_model'"),
    (["--initial_weights=4LL"], "--initial_weights: no model is named '4LL'; did you mean 4L"),
    (["--initial_weights=4L,5L"], "--initial_weights names one trained model; received 2: 4L, 5L"),
    (["--initial_weights=4L", "--trainer=fit"], "--trainer=fit has no initial_weights"),
    (["--initial_weights=network_A"], "=network_A has hidden layers of 300 units, and 4L of 600, 400, 200; name a"),
    (["--initial_weights=softmax"], "=softmax has hidden layers of no units, and 4L of 600"),
    (["--initial_weights=tiny_conv"], "no trained weights come with 'tiny_conv'; name the folder of a finished run of"),
])
@pytest.mark.parametrize("dry", [True, False])
def test_name_that_is_no_trained_model_is_refused_in_a_line(flags, text, dry, logdir, capsys):
    assert main(["--model=4L", "--data=mini", f"--logdir={logdir}", *flags, *["--dry_run"] * dry]) == 2
    said = capsys.readouterr().err
    assert text in said and said.count("\n") == 1 and not logdir.exists()


def test_first_network_that_would_be_refused_is_not_trained(logdir):
    with pytest.raises(ConfigError, match=r"4L,hidden=75_17.* the weights of tiny_conv: that has arrays of shapes"):
        train("4L", epochs=1, logdir=logdir, initial_weights=FIRST, **{**DENSE, "hidden": (75, 17)})
    assert not list(logdir.glob("*/*"))


@pytest.mark.parametrize("recipes, text", [
    ({"one": "one"}, "{0}one would be trained before itself: {0}one needs {0}one; the"),
    ({"one": "two", "two": "one"}, "{0}two would be trained before itself: {0}two needs {0}one needs {0}two; the"),
])
def test_network_that_would_be_trained_before_itself_is_refused_in_a_line(recipes, text, logdir, capsys):
    module = "tests.test_initial_weights:"
    for name, before in recipes.items():
        fmnist_zoo.register(name, hidden=(20,), recipe=Recipe(initial_weights=module + before))
    assert main(["--model=one", "--data=mini", f"--logdir={logdir}"]) == 2
    said = capsys.readouterr().err
    assert text.format(module) in said and said.count("\n") == 1 and not logdir.exists()


def test_sweep_starts_from_a_trained_model_alone(pretending_pool, logdir, capsys):
    with pytest.raises(ConfigError, match=f"--initial_weights={FIRST} is trained before each run, and a sweep has"):
        sweep.sweep("4L", "l2=0", tuner="grid", initial_weights=FIRST, data="mini", logdir=logdir)
    with pytest.raises(ConfigError, match="=4L has hidden layers of 600, 400, 200 units, and 4L,hidden=20 of 20"):
        sweep.sweep("4L", "hidden=600_400_200,20", tuner="grid", initial_weights="4L", data="mini", logdir=logdir)
    sweep.sweep("4L", "l2=0", tuner="grid", initial_weights="4L", data="mini", logdir=logdir, verbose=True)
    assert "the initial weights are those of 4L, which was trained on other data" in capsys.readouterr().out


def test_recipe_shows_where_the_weights_come_from(logdir, capsys):
    assert main(["--model=4L", "--data=mini", "--initial_weights=4L", "--dry_run"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["initial_weights"] == "4L"


@pytest.mark.long
def test_run_that_is_stopped_while_the_first_network_trains_leaves_that_one_alone(logdir, capsys, monkeypatch):
    flags = ["--model=4L", "--hidden=75,16", "--activation=gelu", "--dropout=0", "--data=mini", "--epochs=1",
             f"--initial_weights={FIRST}", f"--logdir={logdir}", "--run_name=one"]
    append, asks = table.MetricsTable.append, cli.StopSignal.__call__

    def append_and_interrupt(self, row):
        append(self, row)
        signal.raise_signal(signal.SIGINT)

    def asks_when_the_signal_has_arrived(self):
        while list(logdir.glob("*/*/metrics.csv")) and not asks(self):  # a thread reads signals
            time.sleep(0.001)
        return asks(self)

    with monkeypatch.context() as patch:
        patch.setattr(table.MetricsTable, "append", append_and_interrupt)
        patch.setattr(cli.StopSignal, "__call__", asks_when_the_signal_has_arrived)
        assert main(flags) == 130
    assert capsys.readouterr().out.endswith("which this run needs, was trained; the same command continues\n")
    assert [path.name for path in logdir.iterdir() if path.is_dir()] == ["tiny_conv"]
    assert main(flags) == 0
    assert len(list(logdir.glob("*/*/result.json"))) == 2
