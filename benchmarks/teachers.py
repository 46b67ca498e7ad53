"""Teachers and students that are no members of the zoo: `--zoo_module=benchmarks.teachers --model=5L_taught`.

`conv_teacher` is a convolutional network. Trained by the same commands on the same images, it is named by
`--teacher=<its run>`. `5L_taught` is `5L_unrolled` with one thing more: the trained `5L_unrolled` teaches it
(Furlanello et al., "Born Again Neural Networks", 2018).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from fmnist_zoo import get_recipe, get_spec, register
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

UNROLLED = get_spec("5L_unrolled")
register("5L_taught", "5L_unrolled, taught by the trained one", hidden=UNROLLED.hidden, activation=UNROLLED.activation,
         dropout=UNROLLED.dropout,
         recipe=dataclasses.replace(get_recipe("5L_unrolled"), teacher="5L_unrolled", teacher_views=True))
