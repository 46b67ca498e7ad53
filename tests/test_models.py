"""`fmnist_zoo.models`: layers, initial weights and logits are those of the spec."""

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo.backend import keras
from fmnist_zoo.models import build_model
from fmnist_zoo.registry import get_spec
from fmnist_zoo.spec import ModelSpec, SpecError
from tests import helpers

IMAGES = np.random.default_rng(0).random((8, 784), np.float32)


def kernels(model):
    """The weight matrices, first layer to last."""
    return [layer.kernel.numpy() for layer in model.layers if isinstance(layer, keras.layers.Dense)]


def equal(left, right):
    """Whether two models have the same weights, biases included."""
    pairs = zip(left.get_weights(), right.get_weights(), strict=True)
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


@pytest.fixture(scope="module", params=helpers.OF_THE_REPORT)
def registered(request):
    """A model of the zoo, its weights changed so that biases are not zero, and its spec."""
    model = build_model(request.param, seed=1)
    model.set_weights([weights + np.float32(0.01) for weights in model.get_weights()])
    return model, get_spec(request.param)


def test_parameters_equal_the_closed_form(registered):
    model, spec = registered
    assert model.count_params() == spec.parameters
    assert sum(matrix.size for matrix in kernels(model)) == spec.weight_count


def test_layers_are_those_of_the_spec(registered):
    model, spec = registered
    expected = ["pixels"]
    for place, _ in enumerate(spec.hidden, 1):
        expected += [f"dense_{place}", f"dropout_{place}"] if spec.dropout else [f"dense_{place}"]
    assert [layer.name for layer in model.layers] == [*expected, "logits"]
    assert (model.name, model.input_shape, model.output_shape) == (spec.name, (None, 784), (None, 10))
    assert bool(model.losses) == bool(spec.l1 or spec.l2)
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert tuple(layer.units for layer in dense) == (*spec.hidden, 10)
    assert [layer.activation.__name__ for layer in dense] == ["relu"] * len(spec.hidden) + ["linear"]
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert tuple(rates) == spec.dropout


def test_logits_are_the_matrix_products(registered):
    model, _ = registered
    flow = IMAGES.astype(np.float64)
    for kernel, bias in zip(model.get_weights()[::2], model.get_weights()[1::2]):
        logits = flow @ kernel + bias
        flow = np.maximum(logits, 0)
    received = model(IMAGES)
    assert (received.shape, received.dtype) == ((8, 10), "float32")
    # float32 sums: the absolute error is some 1e-7 of the largest terms, in each layer
    np.testing.assert_allclose(received.numpy(), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name, l1, l2", [
    ("network_A_l1", 1e-3, 0), ("network_B_l1", 1e-3, 0), ("network_A_l2", 0, 1e-3), ("network_B_l2", 0, 1e-3),
    ("4D_drop02,l1=0.25,l2=0.5", 0.25, 0.5)])
def test_the_penalty_is_of_all_kernels_and_no_bias(name, l1, l2):
    model = build_model(name)
    model.set_weights([weights if weights.ndim == 2 else weights + 7 for weights in model.get_weights()])
    expected = sum(l1 * np.abs(matrix.astype(float)).sum() + l2 * np.square(matrix.astype(float)).sum()
                   for matrix in kernels(model))
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-4)  # float32 sums of up to 235,200 terms


@pytest.mark.parametrize("name", ["softmax", "4D_drop03", "network_B"])
def test_initial_weights_are_a_function_of_the_seed(name):
    model = build_model(name, seed=3)
    assert equal(model, build_model(name, seed=3))
    assert equal(build_model(name), build_model(name, seed=0)) and equal(model, build_model(name, seed=np.int64(3)))
    assert not any(bias.any() for bias in model.get_weights()[1::2])
    for ours, theirs in zip(kernels(model), kernels(build_model(name, seed=4))):
        assert np.isclose(ours, theirs).mean() <= 0.01


def test_initial_weights_do_not_depend_on_name_dropout_or_penalty():
    plain = build_model("4L", seed=3)
    for name in ("4D_drop03_02_01", ModelSpec("mine", hidden=(600, 400, 200), l2=0.5)):
        assert equal(plain, build_model(name, seed=3))


def test_layers_of_equal_shape_start_uncorrelated():
    first, second, third = kernels(build_model(ModelSpec("square", hidden=(784, 784, 784)), seed=0))[:3]
    next_seed = kernels(build_model(ModelSpec("square", hidden=(784,)), seed=1))[0]
    for other in (second, third, next_seed):
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("name", ["softmax", "2L", "5D_drop03"])
def test_kernels_start_uniform_within_the_bound_of_glorot(name):
    for matrix in kernels(build_model(name)):
        bound = np.sqrt(6 / sum(matrix.shape))
        assert np.abs(matrix).max() <= np.float32(bound)
        assert matrix.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)  # uniform over the whole range
        assert abs(matrix.mean()) < 5 * bound / np.sqrt(3 * matrix.size)


@pytest.mark.parametrize("name", ["network_softmax", "network_A_l2", "network_B"])
def test_networks_start_normal_with_deviation_0_05(name):
    values = np.concatenate([matrix.ravel() for matrix in kernels(build_model(name))])
    assert values.std() == pytest.approx(0.05, rel=0.03)
    assert abs(values.mean()) < 5 * 0.05 / np.sqrt(values.size)
    assert np.mean(np.abs(values) > 0.1) == pytest.approx(0.0455, abs=0.01)  # not cut off at two deviations


def test_dropout_drops_its_share_in_training_only():
    model = build_model(ModelSpec("x", hidden=(50, 50), dropout=(0.25, 0.5)), seed=2)
    first, second = model.get_layer("dropout_1"), model.get_layer("dropout_2")
    ones = np.ones((200, 50), np.float32)
    for layer, rate in ((first, 0.25), (second, 0.5)):
        np.testing.assert_array_equal(layer(ones, training=False), ones)
        dropped = layer(ones, training=True).numpy()
        assert np.mean(dropped == 0) == pytest.approx(rate, abs=0.03)
        np.testing.assert_allclose(dropped[dropped > 0], 1 / (1 - rate), rtol=1e-6)
    assert not np.array_equal(model(IMAGES, training=True), model(IMAGES, training=False))


def test_a_layer_with_rate_0_has_no_dropout_layer():
    names = [layer.name for layer in build_model("4L", dropout=(0.5, 0, 0.25)).layers]
    assert names == ["pixels", "dense_1", "dropout_1", "dense_2", "dense_3", "dropout_3", "logits"]


@pytest.mark.parametrize("seed", [-1, 1.5, True, 2**32, None, "1"])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(SpecError, match=f"seed must be a whole number .*received {seed!r}"):
        build_model("softmax", seed=seed)


def test_a_spec_can_be_built():
    assert fmnist_zoo.build_model is build_model
    model = build_model(ModelSpec("mine", hidden=(8,)))
    assert (model.name, model.count_params()) == ("mine", 785 * 8 + 9 * 10)
    assert build_model(ModelSpec("mine", hidden=(8,)), l1=0.5).losses


def test_overrides_change_the_name():
    assert build_model("4L", dropout=0.3).name == "4D_drop03"
    assert build_model(get_spec("4D_drop03"), dropout=0).name == "4L"
    assert build_model("3L", hidden=(20, 10)).count_params() == 785 * 20 + 21 * 10 + 11 * 10
    with pytest.raises(SpecError, match="no field 'droput'; did you mean dropout"):
        build_model("4L", droput=0.3)
    with pytest.raises(SpecError, match="no model is named '4M'; did you mean 4L"):
        build_model("4M")


def test_a_saved_model_opens_with_plain_keras(tmp_path):
    model = build_model("4D_drop03,l2=0.5", seed=1)
    model.save(tmp_path / "model.keras")
    opened = keras.models.load_model(tmp_path / "model.keras")
    assert equal(opened, model)
    np.testing.assert_allclose(opened(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model, name", [
    ("2L,l2=1e-05", "2L__l2_1e-05"), (ModelSpec("mine+1", hidden=(8,)), "mine_1"),
])
def test_keras_predict_works_for_names_with_special_characters(model, name):
    """Keras opens a TensorFlow scope with the model's name, in which some characters are not allowed."""
    built = build_model(model)
    assert built.name == name
    np.testing.assert_allclose(built.predict(IMAGES, verbose=0), built(IMAGES), rtol=1e-4, atol=1e-5)
