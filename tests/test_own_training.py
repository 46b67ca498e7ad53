"""Layers of a user's own models in training: what Keras' `fit` does with them, `tape` does."""

import functools
import json
from typing import Any

import numpy as np
import pytest

from fmnist_zoo.backend import keras, tf
from fmnist_zoo.errors import SpecError
from tests import custom_zoo
from trainers.config import ConfigError
from trainers.engine import network, twin
from trainers.train import train

layers: Any = keras.layers
SMALL = dict(data="mini", epochs=1, histogram_every=0)
TRAINERS = pytest.mark.parametrize("trainer", ["tape", "fit"])


def long(*values):
    """Parameters of a test that takes seconds and shows a variation."""
    return pytest.param(*values, marks=pytest.mark.long)


def pixels_and(*more):
    return keras.Sequential([keras.Input((784,)), *more, layers.Dense(10)])


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def bounded():
    return pixels_and(layers.Dense(32, "relu", kernel_constraint=keras.constraints.MaxNorm(0.5)))


@pytest.mark.parametrize("settings", [
    {}, long({"optimizer": "sgd", "learning_rate": 0.3}), {"trainer": "fit"}], ids=str)
def test_constraint_is_kept(settings):
    run = train(bounded, **{**SMALL, **settings})
    assert np.linalg.norm(run.model.layers[0].get_weights()[0], axis=0).max() < 0.50001


def dropping_twice():
    pixels, drop = keras.Input((784,)), layers.Dropout(0.5)
    return keras.Model(pixels, layers.Dense(10)(layers.Subtract()([drop(pixels), drop(pixels)])))


def nested_dropping_twice():
    units = keras.Input((784,))
    inner = keras.Model(units, layers.Dropout(0.5)(units))
    pixels = keras.Input((784,))
    return keras.Model(pixels, layers.Dense(10)(layers.Subtract()([inner(pixels), inner(pixels)])))


@TRAINERS
@pytest.mark.parametrize("function", [dropping_twice, long(nested_dropping_twice)])
def test_layer_that_is_called_twice_has_two_masks(function, trainer):
    """Equal masks cancel, and then no gradient reaches the kernel."""
    net = network.Network(function())
    moment = twin.Moment(0, tf.constant(3, tf.int64), net.rates)
    assert np.abs(net.forward(tf.ones((2, 784)), moment).numpy()).max() > 0.1 and moment.calls == 2
    assert len(train(function, trainer=trainer, **SMALL).history) == 1


@pytest.mark.parametrize("noise_shape", [None, (None, 28, 1), (None, 1, 28)])
def test_noise_shape_says_what_shares_a_mask(noise_shape):
    model = keras.Sequential([keras.Input((28, 28)), layers.Dropout(0.5, noise_shape=noise_shape),
                              layers.Reshape((784,)), layers.Dense(784, kernel_initializer="identity")])
    net = network.Network(model)
    units = net.forward(tf.ones((3, 784)), twin.Moment(0, tf.constant(0, tf.int64), net.rates)).numpy()
    units = units.reshape(3, 28, 28)
    along = {1: units.std(axis=1).max(), 2: units.std(axis=2).max()}
    assert [axis for axis, spread in along.items() if spread == 0] == [
        axis for axis, size in enumerate(noise_shape or ()) if size == 1]
    assert 0.3 < np.mean(units == 0) < 0.7


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.drop, self.logits = layers.Dropout(0.5), layers.Dense(10)

    def call(self, images, training=False):
        flow = keras.ops.reshape(images, (-1, 784))
        return self.logits(self.drop(flow, training=training) + self.drop(flow, training=training))


class Dropping(layers.Layer):
    def __init__(self):
        super().__init__()
        self.drop = layers.Dropout(0.5)

    def call(self, units, training=False):
        return self.drop(units, training=training)


def dropping_inside():
    return pixels_and(Dropping())


class ByTensorFlow(layers.Layer):
    def call(self, units, training=False):
        return tf.nn.dropout(units, 0.3) if training else units


class Flipping(layers.Layer):
    def call(self, units, training=False):
        flow = tf.reshape(units, (-1, 28, 28, 1))
        return tf.reshape(tf.image.random_flip_left_right(flow), (-1, 784)) if training else units


class Generating(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.generator = tf.random.Generator.from_seed(1)

    def call(self, units, training=False):
        return units + self.generator.normal(tf.shape(units)) if training else units


class Sampling(layers.Layer):
    def call(self, units):
        return units + tf.random.normal(tf.shape(units))


class Unseeded(layers.Layer):
    def call(self, units, training=False):
        return keras.random.dropout(units, 0.3) if training else units


class ByNumPy(layers.Layer):
    def call(self, units, training=False):
        return units * np.random.binomial(1, 0.5, (1, 784)).astype("float32") if training else units


class ByGenerator(layers.Layer):
    def call(self, units, training=False):
        return units * np.random.default_rng().random((1, 784), np.float32) if training else units


class ByPython(layers.Layer):
    function = staticmethod(tf.numpy_function)

    def call(self, units, training=False):
        noise = self.function(lambda: np.random.default_rng().random((1, 784), np.float32), [], tf.float32)
        return units * tf.ensure_shape(noise, (1, 784)) if training else units


class ByEagerPython(ByPython):
    function = staticmethod(tf.py_function)


class Candidates(layers.Layer):
    def call(self, units):
        drawn = tf.random.log_uniform_candidate_sampler(tf.zeros((1, 1), tf.int64), 1, 784, False, 9)
        return units + tf.cast(drawn.sampled_candidates, tf.float32)


class Pooling(layers.Layer):
    def __init__(self, seed=0, **options):
        super().__init__(**options)
        self.seed = seed

    def call(self, units, training=False):
        flow = tf.reshape(units, (-1, 784, 1, 1))
        return tf.reshape(
            tf.nn.fractional_max_pool(flow, (1, 2, 1, 1), True, seed=self.seed)[0] if training else flow[:, ::2],
            (-1, 392))


class Boxes(layers.Layer):
    def call(self, units, training=False):
        if not training:
            return units
        box = tf.image.sample_distorted_bounding_box([28, 28, 1], tf.zeros((1, 0, 4)), 0,
                                                     use_image_if_no_bounding_boxes=True)
        return units * tf.cast(box.begin[0], tf.float32)


@TRAINERS
@pytest.mark.parametrize("layer", [
    ByTensorFlow, Flipping, Generating, Sampling, Unseeded, ByNumPy, ByGenerator, ByPython, ByEagerPython, Candidates,
    Pooling, Boxes, functools.partial(layers.Lambda, lambda units: tf.nn.dropout(units, 0.5))])
def test_random_numbers_that_no_checkpoint_has_are_refused(layer, trainer, tmp_path):
    def function():
        return pixels_and(layer(name="odd"))

    with pytest.raises(ConfigError, match=r"layer odd \(\w+\) draws .* keras.random.SeedGenerator") as error:
        train(function, trainer=trainer, **SMALL)
    assert "\n" not in str(error.value) and not list(tmp_path.rglob("config.json"))


class Seeded(layers.Layer):
    def call(self, units):
        order = tf.random.experimental.index_shuffle(tf.range(784), [1, 2], 783)
        return tf.gather(units, order, axis=1) + tf.random.stateless_normal((784,), [1, 2])


def test_operations_that_are_functions_of_a_seed_are_none_of_them():
    def function():
        return pixels_and(Seeded(), Pooling(seed=1))

    assert train(function, **SMALL).history


class Raising(layers.Layer):
    def call(self, units, training=False):
        if training:
            raise KeyError("of training")
        return units


@TRAINERS
def test_error_of_a_layer_in_training_is_one_line(trainer, tmp_path):
    def raising():
        return pixels_and(Raising())

    with pytest.raises(SpecError, match="raising, built by .* a call in training raises KeyError: .*of training"):
        train(raising, trainer=trainer, **SMALL)
    assert not list(tmp_path.rglob("config.json"))


class Unknown(layers.Layer):
    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0)

    def call(self, units):
        return units * self.factor


@TRAINERS
def test_a_variable_that_keras_does_not_know_is_refused(trainer, tmp_path):
    def function():
        return pixels_and(Unknown())

    with pytest.raises(ConfigError, match="a layer computes with the tf.Variable Variable:0, .* add_weight"):
        train(function, trainer=trainer, **SMALL)
    assert not list(tmp_path.rglob("config.json"))


def of_operations():
    rows = keras.Input((28, 28))
    flow = rows[:, :14] * 2.0 + keras.ops.flip(rows[:, 14:], axis=1)
    return keras.Model(rows, layers.Dense(10)(layers.Flatten()(layers.Dropout(0.1)(flow))))


@pytest.mark.long
def test_functional_model_of_operations_is_trained_as_by_fit():
    """They are no layers, but have a place in the graph of a functional model, and in its clone."""
    ours, keras_own = (train(of_operations, trainer=trainer, **SMALL) for trainer in ("tape", "fit"))
    assert ours.history[-1]["loss"] == pytest.approx(keras_own.history[-1]["loss"], rel=0.05)


class Positions(layers.Layer):
    def __init__(self):
        super().__init__()
        self.table = layers.Embedding(28, 28)

    def call(self, rows):
        return rows + self.table(keras.ops.arange(28))


def with_embedding():
    return keras.Sequential([keras.Input((28, 28)), Positions(), layers.Flatten(), layers.Dense(10)])


@pytest.mark.long
def test_embedding_is_trained():
    """Its gradients are `IndexedSlices`; it has histograms, and does not decay."""
    losses = [train(with_embedding, **{**SMALL, **more}).history[-1]["train_loss"]
              for more in ({"histogram_every": 1}, {"clip_norm": 100.0}, {"trainer": "fit"})]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-4)
    net = network.Network(with_embedding())
    assert net.is_kernel == [False, True, False]


class Spare(keras.Model):
    def __init__(self):
        super().__init__()
        self.head, self.aux = layers.Dense(10), layers.Dense(5, name="aux")

    def call(self, images):
        flow = keras.ops.reshape(images, (-1, 784))
        self.aux(flow)
        return self.head(flow)


@pytest.mark.filterwarnings("error:Gradients do not exist")
@pytest.mark.parametrize("settings", [
    long({}), {"optimizer": "sgd", "clip_norm": 1.0}, long({"optimizer": "nadam"}), long({"trainer": "fit"})], ids=str)
def test_variable_without_gradient_is_noted_and_left_alone(settings, capsys):
    """It does not decay, either."""
    run = train(Spare, weight_decay=0.1, verbose=True, **{**SMALL, **settings})
    assert capsys.readouterr().out.count("aux/kernel") == 1
    fresh = train(Spare, run_name="other", **{**SMALL, **settings, "learning_rate": 1e-9})
    assert np.array_equal(run.model.aux.get_weights()[0], fresh.model.aux.get_weights()[0])
    assert not np.array_equal(run.model.head.get_weights()[0], fresh.model.head.get_weights()[0])


def test_model_whose_weights_decide_nothing_is_refused():
    class Constant(Spare):
        def call(self, images):
            return keras.ops.stop_gradient(super().call(images))

    with pytest.raises(ConfigError, match="no gradient reaches its weights .*head|kernel"):
        train(Constant, **SMALL)


def active():
    return pixels_and(layers.Dense(64, "relu", activity_regularizer=keras.regularizers.L2(0.01)))


@pytest.mark.long
def test_activity_regularizer_sees_the_images_of_a_short_batch():
    """1,800 images in batches of 1,700 and 100."""
    tape, fit = (train(active, batch_size=1700, trainer=trainer, **{**SMALL, "epochs": 2}).history[-1]
                 for trainer in ("tape", "fit"))
    for name in ("penalty", "objective", "val_loss"):
        assert tape[name] == pytest.approx(fit[name], abs=1e-5)


class Weighted(layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1], 10))

    def call(self, units):
        return units @ self.w


@pytest.mark.long
@TRAINERS
def test_matrix_decays_whatever_its_name(trainer):
    def function():
        return keras.Sequential([keras.Input((784,)), Weighted()])

    norms = [np.linalg.norm(train(function, optimizer="adamw", weight_decay=decay, trainer=trainer, run_name=f"{decay}",
                                  **SMALL).model.get_weights()[0]) for decay in (0.0, 5.0)]
    assert norms[1] < 0.97 * norms[0]


@pytest.mark.long
def test_xla_is_for_the_zoo_or_asked_for(capsys):
    run = train(custom_zoo.pooled, verbose=True, **SMALL)
    assert "--jit_compile=true may be faster" in capsys.readouterr().out
    assert run.config.jit_compile == "auto" and not run.config.compiles
    assert not json.loads((run.folder / "config.json").read_text())["jit_compile"]
    assert not train("conv_strided", verbose=True, batch_size="full", **SMALL).config.compiles
    assert "jit_compile" not in capsys.readouterr().out  # the zoo's convolutions were measured
    assert train(bounded, jit_compile=True, **SMALL).config.compiles
    with pytest.raises(ConfigError, match="jit_compile=true: XLA cannot compile .*MaxPool.*jit_compile=false"):
        train(custom_zoo.pooled, jit_compile=True, run_name="other", **SMALL)


def test_twin_in_bfloat16_has_variables_of_its_own():
    """The model computes in float32, and gets their values by `sync`."""
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Conv2D(3, 5, 6), layers.BatchNormalization(),
                              layers.Dropout(0.3), layers.Flatten(), layers.Dense(10, name="logits")])
    net = network.Network(model, bfloat16=True)
    images = tf.random.stateless_uniform((20, 784), [1, 2])
    plain = net.forward(images).numpy()
    moment = twin.Moment(0, tf.constant(0, tf.int64), net.rates)
    assert net.forward(images, moment).dtype == tf.float32
    assert {layer.compute_dtype for layer in net._twin.model.layers[:-1]} == {"bfloat16"}
    assert net._twin.model.layers[-1].compute_dtype == "float32"
    for variable in net.variables:
        assert variable.dtype == tf.float32
        variable.assign(variable * 1.5)
    np.testing.assert_array_equal(net.forward(images).numpy(), plain)
    net.sync()
    assert not np.allclose(net.forward(images).numpy(), plain)


def test_bfloat16_needs_a_model_that_can_be_copied():
    with pytest.raises(ConfigError, match="mixed_bfloat16 .* subclass"):
        network.Network(Subclassed(), bfloat16=True)
