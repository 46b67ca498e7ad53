"""The convolutional models of the zoo: one whose weights a fully-connected network starts from, and one that teaches.

`catalog.py` registers them. Importing this module does not import Keras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def strided(widths: tuple[int, ...] = (12, 24, 48, 48), kernels: tuple[int, ...] = (5, 5, 3, 3),
            strides: tuple[int, ...] = (2, 2, 2, 1)) -> keras.Model:
    """Four convolutions, each with batch normalization and GELU, then the logits.

    Since it has strides and no pooling, it is a fully-connected network that shares weights: `5L_unrolled` begins as
    the same function (`fmnist_zoo.unrolling`), and then trains each weight.
    """
    from fmnist_zoo.backend import keras

    layers = keras.layers
    images = flow = keras.Input((28, 28, 1))
    for number, (width, kernel, stride) in enumerate(zip(widths, kernels, strides), start=1):
        flow = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, name=f"conv_{number}")(flow)
        flow = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"norm_{number}")(flow)
        flow = layers.Activation("gelu", name=f"activation_{number}")(flow)
    flow = layers.Dropout(0.2, name="dropout")(layers.Flatten(name="flatten")(flow))
    return keras.Model(images, layers.Dense(10, name="logits")(flow))


def residual(widths: tuple[int, ...] = (64, 128)) -> keras.Model:
    """A residual network (He et al. 2016) that halves the image before each width: three convolutions a width."""
    from fmnist_zoo.backend import keras

    layers = keras.layers

    def convolved(name: str, flow: keras.KerasTensor, width: int, kernel: int = 3, strides: int = 1
                  ) -> keras.KerasTensor:
        flow = layers.Conv2D(width, kernel, strides, padding="same", use_bias=False, kernel_initializer="he_normal",
                             name=f"conv_{name}")(flow)
        return layers.BatchNormalization(momentum=0.9, name=f"norm_{name}")(flow)

    images = flow = keras.Input((28, 28, 1))
    for number, width in enumerate(widths, start=1):
        flow = layers.ReLU()(convolved(f"{number}_halving", flow, width, kernel=3 if number > 1 else 5, strides=2))
        inner = layers.ReLU()(convolved(f"{number}_first", flow, width))
        flow = layers.ReLU()(layers.Add()([flow, convolved(f"{number}_second", inner, width)]))
    flow = layers.Dropout(0.2, name="dropout")(layers.GlobalAveragePooling2D(name="mean")(flow))
    return keras.Model(images, layers.Dense(10, name="logits")(flow))
