"""Settings of the architecture: what Keras builds, counts and computes is what `ModelSpec` says."""

import itertools
import math

import numpy as np
import pytest

from fmnist_zoo import models, weights
from fmnist_zoo.backend import keras
from fmnist_zoo.spec import ACTIVATIONS, INITIALIZERS, ModelSpec, SpecError

IMAGES = np.random.default_rng(0).random((8, 784), np.float32)
RESHAPED = [(normalization, residual, expansion) for normalization, residual, expansion
            in itertools.product(("none", "batch", "layer"), (False, True), (0, 3))]
PARTS = [((7, 7, 5, 5), (0.1, 0.2, 0, 0.4), "none"), ((7, 7), (), "standardized"), ((784, 784), (0.5,), "whitened")]


def specs(normalization, residual, expansion):
    return [ModelSpec("x", hidden=hidden, dropout=dropout, input=input, l1=0.1, l2=0.2, activation="tanh",
                      normalization=normalization, residual=residual, expansion=expansion)
            for hidden, dropout, input in PARTS]


def with_random_arrays(spec, seed=0):
    """The model with all arrays random; those that divide are positive."""
    model, random = models.build(spec, 1), np.random.default_rng(seed)
    model.set_weights([np.float32(0.1) + random.random(array.shape, np.float32) if "variance" in name else
                       random.normal(0, 0.3, array.shape).astype(np.float32)
                       for name, array in zip(weights.shapes(spec), model.get_weights(), strict=True)])
    return model


@pytest.mark.parametrize("parts", RESHAPED)
def test_names_shapes_and_counts_are_those_of_keras(parts):
    for spec in specs(*parts):
        model = models.build(spec)
        assert [layer.name for layer in model.layers] == ["pixels", *(layer.name for layer in spec.layers)]
        assert list(weights.shapes(spec).items()) == [(variable.path, variable.shape) for variable in model.weights]
        assert spec.parameters == sum(math.prod(variable.shape) for variable in model.trainable_variables)
        assert spec.parameters + spec.fixed_parameters == model.count_params()


@pytest.mark.parametrize("parts", RESHAPED)
def test_flops_and_penalty_are_of_the_kernels_of_dense_layers(parts):
    for spec in specs(*parts):
        model = with_random_arrays(spec)
        dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
        trained = [layer.kernel.numpy().astype(float) for layer in dense if layer.trainable]
        fixed = sum(math.prod(layer.kernel.shape) for layer in dense if not layer.trainable)
        assert spec.weight_count == sum(kernel.size for kernel in trained)
        assert spec.training_flops == 6 * spec.weight_count - 2 * trained[0].size + 2 * fixed
        penalty = sum(0.1 * np.abs(kernel).sum() + 0.2 * np.square(kernel).sum() for kernel in trained)
        assert float(sum(model.losses)) == pytest.approx(penalty, rel=1e-4)


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

    act, flow = np.tanh, images.astype(float)
    if spec.input == "standardized":
        flow = flow * arrays["input_standardization/kernel"] + arrays["input_standardization/bias"]
    elif spec.input == "whitened":
        flow = dense("input_whitening", flow)
    for number, units in enumerate(spec.hidden, 1):
        before, name = flow, f"dense_{number}"
        summed = spec.residual and number > 1 and units == spec.hidden[number - 2]
        if spec.expansion and number == 1:
            flow = dense(name, flow)
        elif spec.expansion:
            flow = dense(name, act(dense(f"expand_{number}", norm(number, flow))))
        elif summed:
            flow = act(dense(name, norm(number, flow)))
        else:
            flow = act(norm(number, dense(name, flow)))
        flow = before + flow if summed else flow
    return dense("logits", flow)


@pytest.mark.parametrize("parts", RESHAPED)
def test_logits_are_those_of_the_equations(parts):
    for spec in specs(*parts)[:2]:
        model = with_random_arrays(spec)
        arrays = dict(zip(weights.shapes(spec), model.get_weights(), strict=True))
        np.testing.assert_allclose(model(IMAGES), reference(spec, arrays, IMAGES), rtol=1e-3, atol=1e-4)


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


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_initializers_have_the_deviations_of_their_names(initializer):
    spec = ModelSpec("x", hidden=(400, 600), initializer=initializer, expansion=2)
    model = models.build(spec)
    for name in ("dense_1", "expand_2", "dense_2"):
        kernel = model.get_layer(name).kernel.numpy()
        fan_in, fan_out = kernel.shape
        deviation = {"glorot": math.sqrt(2 / (fan_in + fan_out)), "he": math.sqrt(2 / fan_in),
                     "lecun": math.sqrt(1 / fan_in), "normal": 0.05}[initializer.split("_")[0]]
        assert kernel.std() == pytest.approx(deviation, rel=0.02)
        uniform = np.abs(kernel).max() < 1.75 * deviation
        assert uniform == initializer.endswith("uniform")


def test_initial_weights_depend_on_seed_and_layer_alone():
    plain = models.build(ModelSpec("x", hidden=(6, 6, 6)), 3)
    for changes in ({"activation": "gelu"}, {"normalization": "batch"}, {"residual": True}, {"input": "whitened"}):
        other = models.build(ModelSpec("y", hidden=(6, 6, 6), **changes), 3)
        for name in ("dense_1", "dense_2", "dense_3", "logits"):
            np.testing.assert_array_equal(plain.get_layer(name).kernel, other.get_layer(name).kernel)
    square = models.build(ModelSpec("x", hidden=(300, 300), expansion=1), 3)
    expand, dense = (square.get_layer(name).kernel.numpy().ravel() for name in ("expand_2", "dense_2"))
    assert abs(np.corrcoef(expand, dense)[0, 1]) < 0.02


def test_dropout_is_where_the_docstring_says():
    def order(**changes):
        return [layer.name for layer in ModelSpec("x", hidden=(6, 6), dropout=(0.5,), **changes).layers]

    assert order() == ["dense_1", "dropout_1", "dense_2", "dropout_2", "logits"]
    assert order(normalization="batch", residual=True) == [
        "dense_1", "norm_1", "activation_1", "dropout_1", "norm_2", "dense_2", "dropout_2", "add_2", "logits"]
    assert order(normalization="layer", expansion=2, residual=True) == [
        "dense_1", "dropout_1", "norm_2", "expand_2", "dropout_2", "dense_2", "add_2", "logits"]


def test_only_equal_widths_are_added():
    spec = ModelSpec("x", hidden=(784, 6, 6, 4), residual=True)
    assert [layer.source for layer in spec.layers if layer.kind == "add"] == ["dense_2"]


@pytest.mark.parametrize("changes, complaint", [
    ({"hidden": (6, 5), "residual": True}, "equally wide, but no two neighbours are: .*received hidden=6_5"),
    ({"hidden": (784,), "residual": True}, "no two neighbours are"),
    ({"hidden": (6,), "expansion": 2}, "expansion=2 changes hidden layers from the second on: .*received hidden=6"),
    ({"activation": "gelu"}, "activation=gelu is for hidden layers, and there are none"),
    ({"normalization": "batch"}, "normalization=batch is for hidden layers"),
    ({"residual": True}, "residual=true is for hidden layers"), ({"expansion": 1}, "expansion=1 is for hidden layers"),
])
def test_setting_that_would_change_nothing_is_refused(changes, complaint):
    with pytest.raises(SpecError, match=complaint):
        ModelSpec("x", **changes)


EVERYTHING = ModelSpec("x", hidden=(6, 6), dropout=(0.1,), l2=0.5, normalization="batch", residual=True, expansion=2,
                       activation="leaky_relu", input="standardized", initializer="he_normal")


def test_saved_model_opens_with_plain_keras(tmp_path):
    model = with_random_arrays(EVERYTHING)
    model.save(tmp_path / "model.keras")
    opened = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(opened(IMAGES), model(IMAGES))
    assert [variable.path for variable in opened.trainable_variables] == [
        variable.path for variable in model.trainable_variables]


@pytest.mark.parametrize("file", ["x.weights.h5", "x.keras", "x.safetensors"])
def test_files_of_weights_hold_all_arrays(tmp_path, file):
    model = with_random_arrays(EVERYTHING)
    if file == "x.safetensors":
        weights.write(tmp_path / file, EVERYTHING, model.get_weights(), dtype="float32")
    else:
        (model.save if file == "x.keras" else model.save_weights)(tmp_path / file)
    received = models.build_model(EVERYTHING, weights=tmp_path / file)
    assert all(map(np.array_equal, received.get_weights(), model.get_weights()))
    features = models.feature_model(received)(IMAGES)
    np.testing.assert_allclose(received.get_layer("logits")(features), model(IMAGES), rtol=1e-5)
