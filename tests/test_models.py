"""`fmnist_zoo.models`: layers, counts, initial weights and logits are those of the spec."""

import math

import numpy as np
import pytest

from fmnist_zoo import models, weights
from fmnist_zoo.backend import keras
from fmnist_zoo.models import build_model
from fmnist_zoo.spec import ACTIVATIONS, INITIALIZERS, LOCAL, ModelSpec, SpecError

IMAGES = np.random.default_rng(0).random((8, 784), np.float32)
EVERYTHING = ModelSpec("x", hidden=(7, 5), dropout=(0.1,), l1=0.1, l2=0.2, normalization="batch",
                       activation="leaky_relu", initializer="he_normal")


def kernels(model):
    """The weight matrices, first layer to last."""
    return [layer.kernel.numpy() for layer in model.layers if isinstance(layer, keras.layers.Dense)]


def equal(left, right):
    """Whether two models have the same weights, biases included."""
    return all(map(np.array_equal, left.get_weights(), right.get_weights()))


def with_random_arrays(spec, seed=0):
    """The model with all arrays random; those that divide are positive."""
    model, random = models.build(spec, 1), np.random.default_rng(seed)
    model.set_weights([np.float32(0.1) + random.random(array.shape, np.float32) if "variance" in name else
                       random.normal(0, 0.3, array.shape).astype(np.float32)
                       for name, array in zip(weights.shapes(model), model.get_weights(), strict=True)])
    return model


def reference(spec, arrays, images):
    """Logits by the equations in the docstring of `ModelSpec`, in float64, moving statistics where there are any."""
    def dense(name, flow):
        return flow @ arrays[f"{name}/kernel"] + arrays[f"{name}/bias"]

    def norm(number, flow):
        if spec.normalization == "none":
            return flow
        if spec.normalization == "layer":
            mean, variance = flow.mean(axis=1, keepdims=True), flow.var(axis=1, keepdims=True)
        else:
            mean, variance = (arrays[f"norm_{number}/moving_{name}"] for name in ("mean", "variance"))
        unit = (flow - mean) / np.sqrt(variance + 1e-5)
        return arrays[f"norm_{number}/gamma"] * unit + arrays[f"norm_{number}/beta"]

    flow = images.astype(float)
    for number in range(1, len(spec.hidden) + 1):
        flow = np.tanh(norm(number, dense(f"dense_{number}", flow)))
    return dense("logits", flow)


@pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
@pytest.mark.parametrize("hidden, dropout", [((), ()), ((7, 7, 5), (0.1, 0, 0.4))])
def test_names_counts_penalty_and_logits_are_those_of_the_spec(normalization, hidden, dropout):
    spec = ModelSpec("x", hidden=hidden, dropout=dropout, l1=0.1, l2=0.2, activation="tanh" if hidden else "relu",
                     normalization=normalization if hidden else "none")
    model = with_random_arrays(spec)
    assert [layer.name for layer in model.layers] == ["pixels", *(layer.name for layer in spec.layers)]
    assert spec.parameters == sum(math.prod(variable.shape) for variable in model.trainable_variables)
    assert spec.parameters + spec.fixed_parameters == model.count_params()
    kernels = [layer.kernel.numpy().astype(float) for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert spec.training_flops == 6 * sum(kernel.size for kernel in kernels) - 2 * kernels[0].size
    penalty = sum(0.1 * np.abs(kernel).sum() + 0.2 * np.square(kernel).sum() for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(penalty, rel=1e-4)
    arrays = dict(zip(weights.shapes(model), model.get_weights(), strict=True))
    np.testing.assert_allclose(model(IMAGES), reference(spec, arrays, IMAGES), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["softmax", "4D_drop03", "network_B"])
def test_initial_weights_are_a_function_of_the_seed(name):
    model = build_model(name, seed=3)
    assert equal(model, build_model(name, seed=3))
    assert equal(build_model(name), build_model(name, seed=0)) and equal(model, build_model(name, seed=np.int64(3)))
    assert not any(bias.any() for bias in model.get_weights()[1::2])
    for ours, theirs in zip(kernels(model), kernels(build_model(name, seed=4))):
        assert np.isclose(ours, theirs).mean() <= 0.01


def test_layers_of_equal_shape_start_uncorrelated():
    first, second, third = kernels(build_model(ModelSpec("square", hidden=(784, 784, 784)), seed=0))[:3]
    next_seed = kernels(build_model(ModelSpec("square", hidden=(784,)), seed=1))[0]
    for other in (second, third, next_seed):
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.01


ERF = np.vectorize(math.erf)
FORMULAS = {
    "relu": lambda x: np.maximum(x, 0), "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "gelu": lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2, "silu": lambda x: x / (1 + np.exp(-x)),
    "hard_silu": lambda x: x * np.clip(x + 3, 0, 6) / 6, "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "softplus": lambda x: np.log1p(np.exp(x)), "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_the_functions_of_their_names(activation):
    for normalization in ("none", "layer"):  # within the dense layer, and as a layer of its own
        spec = ModelSpec("x", hidden=(5,), activation=activation, normalization=normalization)
        model = with_random_arrays(spec)
        name = "activation_1" if normalization == "layer" else "dense_1"
        last = model.get_layer(name)
        before = keras.Model(model.input, last.input)(IMAGES).numpy().astype(float)
        if name == "dense_1":
            before = before @ last.kernel.numpy() + last.bias.numpy()
        after = keras.Model(model.input, last.output)(IMAGES).numpy()
        np.testing.assert_allclose(after, FORMULAS[activation](before), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("initializer", [one for one in INITIALIZERS if one != LOCAL])
def test_initializers_have_the_deviations_of_their_names(initializer):
    model = models.build(ModelSpec("x", hidden=(400, 600), initializer=initializer))
    for name in ("dense_1", "dense_2"):
        kernel = model.get_layer(name).kernel.numpy()
        fan_in, fan_out = kernel.shape
        deviation = {"glorot": math.sqrt(2 / (fan_in + fan_out)), "he": math.sqrt(2 / fan_in),
                     "lecun": math.sqrt(1 / fan_in), "normal": 0.05}[initializer.split("_")[0]]
        assert kernel.std() == pytest.approx(deviation, rel=0.02)
        uniform = np.abs(kernel).max() < 1.75 * deviation
        assert uniform == initializer.endswith("uniform")


def test_local_weights_are_those_of_he_normal_within_reach():
    """The places within reach are counted here one by one, of a unit for each layer."""
    hidden = (2 * 196, 3 * 49, 2 * 16, 16)
    model = models.build(ModelSpec("x", hidden=hidden, initializer="local"), 5)
    everywhere = models.build(ModelSpec("x", hidden=hidden, initializer="he_normal"), 5)
    for number, (before, after, (row, rows), (column, columns)) in enumerate([
            (28, 14, (0, (0, 1, 2)), (5, (9, 10, 11, 12))), (14, 7, (3, (5, 6, 7, 8)), (6, (11, 12, 13))),
            (7, 4, (3, (4, 5, 6)), (0, (0, 1, 2))), (4, 4, (1, (0, 1, 2)), (3, (2, 3)))], start=1):
        kernel, dense = (one.get_layer(f"dense_{number}").kernel.numpy() for one in (model, everywhere))
        inputs, units = kernel.shape[0] // before ** 2, kernel.shape[1] // after ** 2
        within = [(down * before + along) * inputs + which
                  for down in rows for along in columns for which in range(inputs)]
        unit = (row * after + column) * units
        expected = np.zeros(len(kernel))
        expected[within] = dense[within, unit] * math.sqrt(len(kernel) / len(within))
        np.testing.assert_allclose(kernel[:, unit], expected, rtol=1e-6)
    np.testing.assert_array_equal(model.get_layer("logits").kernel, everywhere.get_layer("logits").kernel)


@pytest.mark.parametrize("hidden, message", [
    ((600, 400), "hidden layer 1 on 14 by 14 places; received 600: take a multiple of 196"),
    ((196, 50), "hidden layer 2 on 7 by 7 places; received 50: take a multiple of 49, or initializer=he_normal"),
    ((), "initializer=local is for hidden layers, and there are none")])
def test_local_weights_need_units_for_each_place(hidden, message):
    with pytest.raises(SpecError, match=message):
        ModelSpec("x", hidden=hidden, initializer="local")


def test_initial_weights_depend_on_seed_and_layer_alone():
    plain = models.build(ModelSpec("x", hidden=(6, 6, 6)), 3)
    for changes in ({"activation": "gelu"}, {"normalization": "batch"}, {"dropout": 0.3}):
        other = models.build(ModelSpec("y", hidden=(6, 6, 6), **changes), 3)
        for name in ("dense_1", "dense_2", "dense_3", "logits"):
            np.testing.assert_array_equal(plain.get_layer(name).kernel, other.get_layer(name).kernel)


def test_dropout_is_where_the_docstring_says():
    def order(**changes):
        return [layer.name for layer in ModelSpec("x", hidden=(6, 6), dropout=(0, 0.5), **changes).layers]

    assert order() == ["dense_1", "dense_2", "dropout_2", "logits"]
    assert order(normalization="batch") == [
        "dense_1", "norm_1", "activation_1", "dense_2", "norm_2", "activation_2", "dropout_2", "logits"]
    model = build_model(ModelSpec("x", hidden=(6, 6), dropout=(0.25, 0.5)))
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.25, 0.5]
    assert not np.array_equal(model(IMAGES, training=True), model(IMAGES, training=False))


@pytest.mark.parametrize("seed", [-1, 1.5, True, 2**32, None, "1"])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(SpecError, match=f"seed must be a whole number .*received {seed!r}"):
        build_model("softmax", seed=seed)


def test_saved_model_opens_with_plain_keras(tmp_path):
    model = with_random_arrays(EVERYTHING)
    model.save(tmp_path / "model.keras")
    opened = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(opened(IMAGES), model(IMAGES))
    assert [variable.path for variable in opened.trainable_variables] == [
        variable.path for variable in model.trainable_variables]


@pytest.mark.parametrize("model, name", [
    ("2L,l2=1e-05", "2L__l2_1e-05"), (ModelSpec("mine+1", hidden=(8,)), "mine_1"),
])
def test_keras_predict_works_for_names_with_special_characters(model, name):
    """Keras opens a TensorFlow scope with the model's name, in which some characters are not allowed."""
    built = build_model(model)
    assert built.name == name
    np.testing.assert_allclose(built.predict(IMAGES, verbose=0), built(IMAGES), rtol=1e-4, atol=1e-5)
