"""Models that a function of the user's builds: what is accepted, what is refused, and the same bits for a seed."""

import concurrent.futures
import functools
import json
import random
import sys
import threading

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import custom, models, prediction, registry
from fmnist_zoo.__main__ import main as listing
from fmnist_zoo.backend import keras, tf
from fmnist_zoo.spec import ModelSpec, SpecError
from tests import custom_zoo
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


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The module `zoo_of_cnn` in the working folder, with the model `my_cnn`; not imported yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo_of_cnn.py").write_text(MODULE)
    yield "zoo_of_cnn"
    sys.modules.pop("zoo_of_cnn", None)


def bits(model):
    return {variable.path: np.asarray(variable).tobytes() for variable in model.variables}


@pytest.mark.parametrize("function", custom_zoo.TRAINABLE)
def test_same_seed_gives_the_same_bits_whatever_was_done_before(function):
    spec = registry.spec_of(function)
    first = bits(models.build_model(spec, 3))
    models.build_model("4L")
    keras.layers.Dense(3)(np.zeros((1, 2)))
    np.random.rand(), random.random(), keras.random.normal(())
    assert bits(models.build_model(spec, 3)) == first
    assert bits(models.build_model(spec, 4)) != first


def test_threads_that_draw_random_numbers_change_no_bit():
    """As those of a dask worker do."""
    spec, stop = registry.spec_of(custom_zoo.cnn), threading.Event()
    first = bits(models.build_model(spec, 3))

    def draw():
        while not stop.is_set():
            random.random()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        pool.submit(draw)
        try:
            assert bits(models.build_model(spec, 3)) == first
        finally:
            stop.set()


def test_random_state_names_and_dtypes_are_restored():
    def draws():
        name = keras.layers.Dense(2).name  # which also draws a seed from Python's generator
        return (random.random(), np.random.rand(), float(tf.random.normal(())), float(keras.random.normal(())),
                name.rpartition("_")[0])

    def changing():
        keras.config.set_dtype_policy("mixed_bfloat16")
        keras.config.set_floatx("float64")
        keras.utils.set_random_seed(9)
        return keras.Sequential([keras.Input((784,), dtype="float32"), keras.layers.Dense(10, dtype="float32")])

    names = [keras.layers.Dense(2).name]
    keras.utils.set_random_seed(5)
    expected = [draws(), draws()]
    keras.utils.set_random_seed(5)
    first = draws()
    for function in (custom_zoo.of_random_numbers, changing):
        models.build_model(registry.spec_of(function))
    assert [first, draws()] == expected
    names.append(keras.layers.Dense(2).name)
    numbers = [int(name.rpartition("_")[2] or 0) if "_" in name else 0 for name in names]
    assert numbers[1] == numbers[0] + 5
    assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float32", "float32")


@pytest.mark.parametrize("function", custom_zoo.REFUSED, ids=lambda function: function.__qualname__)
def test_model_that_cannot_be_trained_is_refused_in_one_line(function):
    registry.register("mine", build=function)
    with pytest.raises(SpecError, match=custom_zoo.REFUSED[function]) as caught:
        models.build_model("mine")
    assert str(caught.value).startswith("mine, built by tests.custom_zoo.") and str(caught.value).isprintable()


@pytest.mark.parametrize("function", [custom_zoo.softmax_at_the_end, custom_zoo.softmax_in_the_last_layer,
                                      custom_zoo.softmax_of_keras_ops])
def test_a_last_softmax_is_dropped_with_a_note(function):
    spec = registry.spec_of(function)
    model = models.build_model(spec, seed=3)
    assert "its last softmax is dropped" in custom.builder(spec.name, spec.build).notes[0]
    kernel, bias = model.get_weights()
    pixels = np.random.default_rng(0).random((5, 784), np.float32)
    logits = model(pixels.reshape(5, *custom.input_shape(model))).numpy()
    np.testing.assert_allclose(logits, pixels @ kernel + bias, rtol=1e-5, atol=1e-5)


def test_what_a_beginner_brings_along_is_noted():
    def scaled_again():
        return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
                                 keras.layers.Dense(32, "relu"), keras.layers.Dense(10)])

    for function, notes in ((scaled_again, ["a Rescaling(1/255) makes them all black"]),
                            (custom_zoo.cnn, [])):
        spec = registry.spec_of(function)
        models.build_model(spec)
        found = custom.builder(spec.name, spec.build).notes
        assert len(found) == len(notes) and all(text in note for text, note in zip(notes, found))


@pytest.mark.parametrize("function", [custom_zoo.the_same_model, custom_zoo.the_same_layer])
def test_layers_of_an_earlier_model_are_refused(function):
    """Otherwise a second run would start from the trained weights of the first."""
    model = models.build_model(registry.spec_of(function))
    with pytest.raises(SpecError, match="returns layers that it has returned before"):
        models.build_model(registry.spec_of(function))
    assert model.built


@pytest.mark.parametrize("wrong, complaint", [
    ("cnn", "build='cnn': expected a function .*not a callable"),
    (lambda width: None, "takes hp, .* or no argument without a default .*'width'"),
    (keras.Sequential([keras.layers.Dense(10)]), "expected a function .*this is a model"),
])
def test_what_is_no_build_function_is_refused_when_it_is_registered(wrong, complaint):
    with pytest.raises(SpecError, match=complaint):
        registry.register("mine", build=wrong)
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
        registry.register(f"wide_{units}", build=functools.partial(custom_zoo.wide, units))
    assert [models.build_model(f"wide_{units}").count_params() for units in (8, 16)] == [785 * 8 + 90, 785 * 16 + 170]
    assert registry.get_spec("wide_8").build == "tests.custom_zoo:wide"


def test_a_function_alone_gives_a_spec_with_its_name():
    spec = registry.spec_of(custom_zoo.cnn)
    assert (spec.name, spec.build, spec.description) == ("cnn", "tests.custom_zoo:cnn", "a small convolutional network")
    assert registry.spec_of(custom_zoo.cnn) is spec is registry.get_spec("cnn")
    registry.register("mine", build=custom_zoo.normalized)
    assert registry.spec_of(custom_zoo.normalized).name == "mine"
    with pytest.raises(SpecError, match="a lambda, .* has no name: write def my_cnn"):
        registry.spec_of(lambda: custom_zoo.cnn())

    def softmax():
        return custom_zoo.cnn()

    with pytest.raises(SpecError, match="'softmax' is registered already"):
        registry.spec_of(softmax)


def test_a_function_of_a_notebook_may_be_defined_again():
    for units in (8, 16):
        cell = {"__name__": "__main__", "custom_zoo": custom_zoo, "register": registry.register}
        exec(f"def net():\n    return custom_zoo._dense({units})\n", cell)
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
    assert config.spec.get_config()["build"] == "zoo_of_cnn:cnn" and config.recipe.epochs == 2
    custom._BUILDERS.clear()
    del sys.modules[module]
    again = RunConfig.from_config(json.loads(json.dumps(config.get_config())))
    assert again == config and again.identity == config.identity
    with pytest.raises(SpecError, match="^my_cnn is built by zoo_of_cnn.cnn; name its module: --zoo_module=zoo_of_cnn"):
        models.build_model(again.spec)
    assert "build" not in resolve("4L").identity and "build" not in registry.get_spec("4L").get_config()


@pytest.mark.parametrize("function, shape", [
    (custom_zoo.cnn, (28, 28, 1)), (custom_zoo.normalized, (784,)), (custom_zoo.undeclared, (28, 28)),
    (custom_zoo.Subclassed, (28, 28, 1))])
def test_pixels_are_shaped_for_the_model(function, shape):
    model = models.build_model(registry.spec_of(function))
    pixels = np.random.default_rng(0).random((3, 784), np.float32)
    assert custom.input_shape(model) == shape
    expected = np.asarray(model(pixels.reshape(3, *shape), training=False))
    assert np.array_equal(prediction.outputs_of(model, pixels), expected)
    assert np.array_equal(np.asarray(prediction.as_input(model, tf.constant(pixels))), pixels.reshape(3, *shape))


def test_features_are_the_input_of_the_last_layer():
    pixels = np.random.default_rng(0).random((7, 784), np.float32)
    for spec in (registry.spec_of(custom_zoo.cnn), registry.get_spec("4D_drop03,hidden=6_4_4")):
        model = models.build_model(spec)
        features = prediction.outputs_of(models.feature_model(model), pixels)
        kernel, bias = model.get_weights()[-2:]
        np.testing.assert_allclose(features @ kernel + bias, prediction.outputs_of(model, pixels), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(fmnist_zoo.feature_model(models.build_model("softmax"))(pixels), pixels)
    with pytest.raises(SpecError, match="is a subclass of keras.Model"):
        models.feature_model(models.build_model(registry.spec_of(custom_zoo.Subclassed)))


def test_listing_counts_what_was_built_and_builds_nothing(module, capsys):
    def shown(*arguments):
        assert listing(["--zoo_module", module, *arguments]) == 0
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    assert shown("my_*")[-1].split()[:3] == ["my_cnn", "-", "-"]
    assert shown("my_cnn")[3] == "built by zoo_of_cnn.cnn when it is trained"
    assert json.loads("".join(shown("my_cnn", "--json")))["parameters"] is None
    models.build_model("my_cnn")
    assert shown("my_*")[-1].split()[:3] == ["my_cnn", "2674", "-"]
    card = shown("my_cnn")
    assert any("conv2d (Conv2D)" in line and "(None, 8, 8, 4)" in line for line in card)  # as Keras prints it
    assert "parameters 2674, built by zoo_of_cnn.cnn for images of shape (28, 28, 1)" in card


def test_fixed_parameters_are_counted_apart():
    spec = registry.spec_of(custom_zoo.normalized)
    assert (spec.parameters, spec.fixed_parameters) == (2 * 784 + 785 * 16 + 170, 2 * 784)
