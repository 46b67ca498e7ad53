"""Build functions as a user writes them: some that can be trained, and some that cannot."""

import random
from typing import Any

import numpy as np

from fmnist_zoo.backend import keras

layers: Any = keras.layers


def cnn():
    """a small convolutional network"""
    pixels = keras.Input((28, 28, 1))
    flow = layers.Conv2D(4, 5, strides=3, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-3))(pixels)
    flow = layers.Dropout(0.2)(layers.Flatten()(flow))
    return keras.Model(pixels, layers.Dense(10)(flow))


def pooled():
    """convolution and pooling"""
    return keras.Sequential([keras.Input((28, 28, 1)), layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(4),
                             layers.Flatten(), layers.Dense(10)])


def normalized():
    """batch normalization in a Sequential model that declares its input"""
    return keras.Sequential([keras.Input((784,)), layers.BatchNormalization(), layers.Dense(16, activation="relu"),
                             layers.Dense(10)])


def undeclared():
    """a Sequential model that does not say what it takes"""
    return keras.Sequential([layers.Conv1D(4, 5, strides=3), layers.Flatten(), layers.Dense(10)])


class Subclassed(keras.Model):
    """a subclass of keras.Model"""

    def __init__(self):
        super().__init__()
        self.convolution = layers.Conv2D(4, 5, strides=3, activation="relu")
        self.flatten = layers.Flatten()
        self.drop = layers.Dropout(0.5)
        self.logits = layers.Dense(10)

    def call(self, images, training=False):
        return self.logits(self.drop(self.flatten(self.convolution(images)), training=training))


def of_random_numbers():
    """weights from the global states of Keras, NumPy and Python"""
    def initial(shape, dtype):
        return keras.random.normal(shape) * np.random.rand() + random.random()

    return keras.Sequential([keras.Input((784,)), layers.Dense(10, kernel_initializer=initial)])


class Indescribable(Subclassed):
    """a model that Keras cannot save"""

    def get_config(self):
        raise NotImplementedError("no config")


TRAINABLE = (cnn, normalized, undeclared, Subclassed, of_random_numbers)


def wide(units):
    return keras.Sequential([keras.Input((784,)), layers.Dense(units), layers.Dense(10)])


def _dense(units=10, shape=(784,), **options):
    return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(units, **options)])


class Stepping(keras.Sequential):
    def train_step(self, data):
        """Something else than the loop."""


class Pair(keras.Model):
    def __init__(self):
        super().__init__()
        self.logits = layers.Dense(10)

    def call(self, first, second):
        return self.logits(first) + self.logits(second)


class Unfinished(keras.Model):
    def call(self, images):
        return self.missing(images)


def two_inputs():
    pixels, other = keras.Input((784,), name="pixels"), keras.Input((3,), name="age")
    return keras.Model([pixels, other], layers.Dense(10)(layers.Concatenate()([pixels, other])))


def two_outputs():
    pixels = keras.Input((784,))
    return keras.Model(pixels, [layers.Dense(10)(pixels), layers.Dense(1)(pixels)])


def softmax_at_the_end():
    return keras.Sequential([keras.Input((784,)), layers.Dense(10), layers.Softmax()])


def softmax_in_the_last_layer():
    return _dense(activation="softmax")


def softmax_of_keras_ops():
    pixels = keras.Input((28, 28))
    return keras.Model(pixels, keras.ops.softmax(layers.Dense(10)(layers.Flatten()(pixels))))


class Probabilities(keras.Model):
    def __init__(self):
        super().__init__()
        self.last = layers.Dense(10, activation="softmax")

    def call(self, pixels):
        return self.last(pixels)


def raising():
    raise OSError("no file\nof that name")


def returning_nothing():
    cnn()


def fixed_batch():
    return keras.Sequential([keras.Input((784,), batch_size=32), layers.Dense(10)])


def of_bytes():
    return keras.Sequential([keras.Input((784,), dtype="uint8"), layers.Rescaling(1 / 255), layers.Dense(10)])


def half():
    keras.config.set_dtype_policy("mixed_float16")
    return keras.Sequential([keras.Input((784,)), layers.Dense(8, "relu"), layers.Dense(10, dtype="float32")])


def quantized():
    model = _dense()
    model.layers[-1].quantize("int8")
    return model


class Exact(layers.Layer):
    def build(self, shape):
        self.total = self.add_weight(shape=(), dtype="float64", trainable=False)

    def call(self, units):
        return units


class Doubling(layers.Layer):
    def call(self, units):
        return 2 * units


def with_bfloat16():
    """Has a layer of the user's own in bfloat16, without a variable."""
    return keras.Sequential([keras.Input((784,)), Doubling(dtype="bfloat16"),
                             layers.Dense(10, dtype="float32")])


def of_bfloat16():
    pixels = keras.Input((784,))
    return keras.Model(pixels, keras.ops.cast(layers.Dense(10)(pixels), "bfloat16"))


def frozen():
    model = _dense()
    model.trainable = False
    return model


_known: list = []
_layer = layers.Dense(10)


def the_same_model():
    if not _known:
        _known.append(_dense())
    return _known[0]


def the_same_layer():
    return keras.Sequential([keras.Input((784,)), _layer])


REFUSED = {
    two_inputs: r"it takes 2 inputs \(pixels, age\), and there is nothing but the pixels",
    Pair: r"no shape: with \(784,\), \(28, 28\), \(28, 28, 1\) a call on images raises TypeError: .*'second'",
    Unfinished: "a call on images raises AttributeError: .*'missing'",
    two_outputs: r"it returns 2 outputs; logits are \(batch, 10\)",
    lambda: _dense(11): r"it returns \(batch, 11\); logits are \(batch, 10\)",
    Probabilities: "it returns probabilities; return logits: drop the softmax",
    lambda: Stepping([keras.Input((784,)), layers.Dense(10)]): "its class has train_step of its own, which training",
    lambda: _dense(activation="sigmoid"): "it returns probabilities; return logits: drop the sigmoid",
    raising: "its function raises OSError: no file of that name$",
    returning_nothing: "returns None, not a keras.Model; is there a return?",
    lambda: layers.Dense(10): "returns Dense, not a keras.Model",
    fixed_batch: r"its batch is fixed to 32 images; leave it open: keras.Input\(\(784,\)\)",
    of_bytes: "its input is uint8, and images come as float32",
    lambda: _dense(shape=(28, 28, 3)): r"it takes images of shape \(28, 28, 3\); images are \(784,\), \(28, 28\), ",
    lambda: _dense(dtype="float16"): "its layer dense computes in float16, .*--precision=mixed_bfloat16",
    half: "its layer dense computes in float16, .*--precision=mixed_bfloat16",
    lambda: _dense(dtype="float64"): "its layer dense computes in float64, ",
    lambda: keras.Sequential([keras.Input((784,)), Exact(), layers.Dense(10)]): "its variable .* is float64; weights ",
    lambda: _dense(dtype="mixed_bfloat16"): "its layer dense computes in bfloat16, .*--precision=mixed_bfloat16",
    lambda: _dense(dtype="int8_from_float32"): "its layer dense computes in int8, .* do not quantize it",
    quantized: "its layer dense computes in int8, .* do not quantize it",
    with_bfloat16: "its layer doubling computes in bfloat16, .*--precision=mixed_bfloat16",
    of_bfloat16: "it returns bfloat16; give its last layer dtype='float32'",
    lambda: _dense(bias_initializer=keras.initializers.Constant(np.nan)): "returns numbers that are not finite",
    frozen: "it has no variable that is trainable",
}
