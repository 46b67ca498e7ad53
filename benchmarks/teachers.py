"""A convolutional network that teaches fully-connected ones: `--zoo_module=benchmarks.teachers --model=conv_teacher`.

It is no member of the zoo. Trained by the same commands on the same images, it is named by `--teacher=<its run>`.
"""

from __future__ import annotations

from typing import Any

from fmnist_zoo import register
from fmnist_zoo.backend import keras
from fmnist_zoo.spec import Recipe


def residual(widths: tuple[int, ...] = (32, 64, 128)) -> Any:
    """A residual network (He et al. 2016) that halves the image before each width but the first; 0.46 M parameters."""
    layers = keras.layers

    def convolved(flow: Any, width: int, strides: int = 1) -> Any:
        flow = layers.Conv2D(width, 3, strides, padding="same", use_bias=False, kernel_initializer="he_normal")(flow)
        return layers.BatchNormalization(momentum=0.9)(flow)

    images = keras.Input((28, 28, 1))
    flow = layers.ReLU()(convolved(images, widths[0]))
    for width in widths[1:]:
        flow = layers.ReLU()(convolved(flow, width, strides=2))
        inner = layers.ReLU()(convolved(flow, width))
        flow = layers.ReLU()(layers.Add()([flow, convolved(inner, width)]))
    flow = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(flow))
    return keras.Model(images, layers.Dense(10)(flow))


register("conv_teacher", "residual, convolutional, three widths", build=residual, recipe=Recipe(
    epochs=24, batch_size=256, optimizer="adamw", learning_rate=0.003, weight_decay=0.02, schedule="cosine",
    warmup=0.1, label_smoothing=0.05, ema=0.999, shift=2, flip=True, erase=6))
