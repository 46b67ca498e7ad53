"""Models that a function of the user's builds: what is accepted, what is refused, and the same bits for a seed."""

import functools
import json
import os
import pathlib
import random
import subprocess
import sys
import threading

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import building, files, models, own, prediction, registry
from fmnist_zoo.__main__ import main as listing
from fmnist_zoo.backend import keras, tf
from fmnist_zoo.spec import ModelSpec, SpecError
from fmnist_zoo.weights import WeightsError
from tests import own_zoo
from tests.conftest import ROOT
from trainers.config import RunConfig, overlay, resolve
from trainers.tuning import space

MODULE = """
from fmnist_zoo import Recipe, register

def cnn():
    import keras
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Conv2D(4, 5, strides=3, activation="relu"),
                             keras.layers.Flatten(), keras.layers.Dense(10)])

register("my_cnn", "five by five", build=cnn, recipe=Recipe(epochs=2))
"""


@pytest.fixture(autouse=True)
def _own_registry(tmp_path, monkeypatch):
    """Undoes what a test registers, and gives it a cache of its own."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    monkeypatch.setattr(own, "_BUILDERS", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The module `zoo_of_cnn` in the working folder, with the model `my_cnn`; not imported yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo_of_cnn.py").write_text(MODULE)
    yield "zoo_of_cnn"
    sys.modules.pop("zoo_of_cnn", None)


def bits(model):
    return {variable.path: np.asarray(variable).tobytes() for variable in model.variables}


@pytest.mark.parametrize("function", own_zoo.TRAINABLE)
def test_same_seed_gives_the_same_bits_whatever_was_built_before(function):
    spec = registry.spec_of(function)
    first = bits(models.build_model(spec, 3))
    models.build_model("4L")
    keras.layers.Dense(3)(np.zeros((1, 2)))
    np.random.rand(), random.random(), keras.random.normal(())
    assert bits(models.build_model(spec, 3)) == first
    assert bits(models.build_model(spec, 4)) != first


def test_threads_that_draw_random_numbers_change_no_bit():
    spec, stop = registry.spec_of(own_zoo.cnn), threading.Event()
    first = bits(models.build_model(spec, 3))

    def draw():
        while not stop.is_set():
            random.random()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        assert bits(models.build_model(spec, 3)) == first
    finally:
        stop.set()
        thread.join()


def test_random_state_and_names_are_restored():
    def draws():
        name = keras.layers.Dense(2).name  # which also draws a seed from Python's generator
        return (random.random(), np.random.rand(), float(tf.random.normal(())), float(keras.random.normal(())),
                name.rpartition("_")[0])

    names = [keras.layers.Dense(2).name]
    keras.utils.set_random_seed(5)
    expected = [draws(), draws()]
    keras.utils.set_random_seed(5)
    first = draws()
    models.build_model(registry.spec_of(own_zoo.of_random_numbers))
    assert [first, draws()] == expected
    names.append(keras.layers.Dense(2).name)
    numbers = [int(name.rpartition("_")[2] or 0) if "_" in name else 0 for name in names]
    assert numbers[1] == numbers[0] + 5


@pytest.mark.parametrize("function", own_zoo.REFUSED, ids=lambda function: own._qualified(function))
def test_model_that_cannot_be_trained_is_refused_in_one_line(function):
    registry.register("mine", build=function)
    with pytest.raises(SpecError, match=own_zoo.REFUSED[function]) as caught:
        models.build_model("mine")
    assert str(caught.value).startswith("mine, built by tests.own_zoo.") and "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong, complaint", [
    (own_zoo.cnn.__name__, "build='cnn': expected a function that returns a new keras.Model"),
    (lambda width: None, r"is called without arguments; .*<lambda> takes \(width\): give them defaults"),
])
def test_what_is_no_build_function_is_refused_when_it_is_registered(wrong, complaint):
    with pytest.raises(SpecError, match=complaint):
        registry.register("mine", build=wrong)
    with pytest.raises(SpecError, match="expected a function"):
        registry.register("mine", build=own_zoo.cnn())
    assert "mine" not in registry.list_models()


def test_function_that_was_not_registered_is_found_in_its_module(module):
    spec = ModelSpec("cnn", build="zoo_of_cnn:cnn")
    with pytest.raises(SpecError, match="--zoo_module=zoo_of_cnn"):
        models.build_model(spec)
    registry.load_zoo_module(module)  # which registers it by another name
    assert models.build_model(spec).count_params() == 2674
    with pytest.raises(SpecError, match="cnn is built by zoo_of_cnn.cnn.<locals>.inner; name its module"):
        models.build_model(ModelSpec("other_cnn", build="zoo_of_cnn:cnn.<locals>.inner"))


def test_functions_that_a_function_makes_are_told_apart_by_their_model():
    for units in (8, 16):
        registry.register(f"wide_{units}", build=functools.partial(_wide, units))
    assert [registry.get_spec(f"wide_{units}").parameters for units in (8, 16)] == [785 * 8 + 90, 785 * 16 + 170]
    assert registry.get_spec("wide_8").build == "tests.test_own_models:_wide"


def _wide(units):
    return keras.Sequential([keras.Input((784,)), keras.layers.Dense(units), keras.layers.Dense(10)])


def test_a_function_alone_gives_a_spec_with_its_name():
    spec = registry.spec_of(own_zoo.cnn)
    assert (spec.name, spec.build, spec.description) == ("cnn", "tests.own_zoo:cnn", "a small convolutional network")
    assert registry.spec_of(own_zoo.cnn) is spec is registry.get_spec("cnn")
    registry.register("mine", build=own_zoo.normalized)
    assert registry.spec_of(own_zoo.normalized).name == "mine"


def test_a_function_without_a_name_of_its_own_gives_no_spec():
    with pytest.raises(SpecError, match="a lambda, .* has no name: write def my_cnn"):
        registry.spec_of(lambda: own_zoo.cnn())

    def softmax():
        return own_zoo.cnn()

    with pytest.raises(SpecError, match="'softmax' is registered already"):
        registry.spec_of(softmax)


def test_a_function_of_a_notebook_may_be_defined_again():
    for units in (8, 16):
        cell = {"__name__": "__main__", "own_zoo": own_zoo, "register": registry.register}
        exec(f"def net():\n    return own_zoo._dense({units})\n", cell)
        spec = registry.spec_of(cell["net"])
        exec("register('mine', build=net)", cell)
        with pytest.raises(SpecError, match=rf"net, built by __main__.net, .* returns \(batch, {units}\)"):
            models.build_model(spec)


@pytest.mark.parametrize("change", [
    lambda: registry.get_spec("my_cnn", hidden=(3,)), lambda: registry.get_spec("my_cnn,hidden=3"),
    lambda: ModelSpec("my_cnn", (3,), build="zoo_of_cnn:cnn"), lambda: overlay(resolve("my_cnn"), hidden=3),
    lambda: space.parse("hidden=3", resolve("my_cnn"))])
def test_settings_of_the_architecture_are_refused(module, change):
    registry.load_zoo_module(module)
    with pytest.raises(ValueError, match="my_cnn is built by zoo_of_cnn.cnn; it has no hidden to set"):
        change()


def test_spec_and_config_are_plain_data(module):
    registry.load_zoo_module(module)
    config = resolve("my_cnn")
    assert config.spec.to_dict()["build"] == "zoo_of_cnn:cnn" and config.recipe.epochs == 2
    own._BUILDERS.clear()
    del sys.modules[module]
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and again.owns(config.identity)
    with pytest.raises(SpecError, match="^my_cnn is built by zoo_of_cnn.cnn; name its module: --zoo_module=zoo_of_cnn"):
        models.build_model(again.spec)


def test_specs_of_the_zoo_do_not_mention_a_function():
    spec = registry.get_spec("4L")
    assert "build" not in spec.to_dict() and "build" not in spec.architecture
    assert "build" not in resolve("4L").identity


def test_facts_are_those_of_the_model():
    spec = registry.spec_of(own_zoo.normalized)
    model = models.build_model(spec)
    assert spec.parameters == sum(np.prod(variable.shape) for variable in model.trainable_variables)
    assert spec.facts.fixed == 2 * 784 and spec.facts.input == (784,)
    assert spec.training_flops == 3 * 2 * (784 * 16 + 16 * 10)
    assert [layer.kind for layer in spec.facts.layers] == ["BatchNormalization", "Dense", "Dense"]
    assert registry.spec_of(own_zoo.cnn).training_flops == 3 * 2 * (8 * 8 * 4 * 25 + 256 * 10)


@pytest.mark.parametrize("function, shape", [
    (own_zoo.cnn, (28, 28, 1)), (own_zoo.normalized, (784,)), (own_zoo.undeclared, (28, 28)),
    (own_zoo.Subclassed, (28, 28, 1))])
def test_pixels_are_shaped_for_the_model(function, shape):
    model = models.build_model(registry.spec_of(function))
    pixels = np.random.default_rng(0).random((3, 784), np.float32)
    assert building.input_shape(model) == shape
    assert prediction.as_input(model, pixels).shape == (3, *shape)
    expected = np.asarray(model(pixels.reshape(3, *shape), training=False))
    assert np.array_equal(prediction.outputs_of(model, pixels), expected)
    assert np.array_equal(np.asarray(prediction.as_input(model, tf.constant(pixels))), pixels.reshape(3, *shape))


def test_features_are_the_input_of_the_last_layer():
    model = models.build_model(registry.spec_of(own_zoo.cnn))
    features = prediction.outputs_of(models.feature_model(model), np.ones((2, 784), np.float32))
    kernel, bias = model.layers[-1].get_weights()
    np.testing.assert_allclose(features @ kernel + bias, prediction.outputs_of(model, np.ones((2, 784), np.float32)),
                               rtol=1e-5, atol=1e-6)
    with pytest.raises(SpecError, match="is a subclass of keras.Model"):
        models.feature_model(models.build_model(registry.spec_of(own_zoo.Subclassed)))


def test_weights_are_loaded_from_files_of_keras(tmp_path):
    spec = registry.spec_of(own_zoo.Subclassed)
    model = models.build_model(spec, 1)
    model.save_weights(tmp_path / "a.weights.h5")
    again = models.build_model(spec, 2, weights=tmp_path / "a.weights.h5")
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))
    with pytest.raises(WeightsError, match="Subclassed is built by tests.own_zoo.Subclassed: take .weights.h5"):
        models.build_model(spec, weights=tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="no trained weights come with 'Subclassed'"):
        fmnist_zoo.load_model(spec)


def listed():
    """The card of `my_cnn` in a process of its own; the variables of seed 7 there, if TensorFlow was imported."""
    code = ("import sys; from fmnist_zoo.__main__ import main\n"
            "assert main(['--zoo_module=zoo_of_cnn', 'my_cnn']) == 0\n"
            "if not {'tensorflow', 'numpy'} & set(sys.modules): sys.exit()\n"
            "import fmnist_zoo; model = fmnist_zoo.build_model('my_cnn', 7)\n"
            "print({variable.path: variable.numpy().tobytes() for variable in model.variables})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    card, _, variables = done.stdout.partition("{")
    return card, variables


@pytest.mark.long
def test_the_card_needs_tensorflow_once_and_bits_are_the_same_in_any_process(module):
    first, second = listed(), listed()
    assert second == (first[0], "")
    registry.load_zoo_module(module)
    assert first[1].strip() == str(bits(models.build_model("my_cnn", 7)))[1:]
    lines = [" ".join(line.split()) for line in second[0].splitlines()]
    assert lines[:5] == ["my_cnn: five by five", "", "layers", "name layer output parameters",
                         "conv2d Conv2D (8, 8, 4) 104"]
    assert lines[7] == ("parameters 2674, training about 0.05 MFLOP an image, built by zoo_of_cnn.cnn for images of "
                        "shape (28, 28, 1)")


def test_the_table_counts_the_layers(module, capsys):
    assert listing(["--zoo_module", module]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:6] == ["my_cnn", "3", "layers", "-", "-", "2674"]


def test_a_changed_source_is_built_again(module):
    registry.load_zoo_module(module)
    assert registry.get_spec("my_cnn").parameters == 2674
    pathlib.Path("zoo_of_cnn.py").write_text(MODULE.replace("Conv2D(4", "Conv2D(5") + "#")
    del sys.modules[module], registry._MODELS["my_cnn"]
    registry.load_zoo_module(module)
    assert registry.get_spec("my_cnn").parameters == 26 * 5 + 321 * 10


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"layers": []}', "\0"])
def test_a_broken_cache_is_ignored(module, damage):
    registry.load_zoo_module(module)
    assert registry.get_spec("my_cnn").parameters == 2674
    (path,) = (files.cache_folder() / "models").iterdir()
    path.write_text(damage)
    own._BUILDERS["my_cnn"].facts = None
    assert registry.get_spec("my_cnn").parameters == 2674
    assert json.loads(path.read_text())["parameters"] == 2674


def test_a_cache_that_cannot_be_written_is_ignored(module, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    registry.load_zoo_module(module)
    assert registry.get_spec("my_cnn").parameters == 2674


def test_json_of_a_model_gives_its_spec_back(module, capsys):
    assert listing(["--zoo_module", module, "my_cnn", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["parameters"], found["build"], found["weights"]) == (2674, "zoo_of_cnn:cnn", None)
