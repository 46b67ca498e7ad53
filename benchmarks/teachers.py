"""Teachers and students that are no members of the zoo: `--zoo_module=benchmarks.teachers --model=5L_taught`.

`conv_teacher` is a convolutional network, trained by the same commands on the same images. It teaches `5L_conv_taught`,
which looks for its run in `tb_logs/conv_teacher/seed0` (Urban et al., "Do Deep Convolutional Nets Really Need to be
Deep and Convolutional?", 2017). `5L_taught` is `5L_unrolled` with one thing more: the trained `5L_unrolled` teaches it
(Furlanello et al., "Born Again Neural Networks", 2018). Both have the network of `5L_unrolled`, and its start.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from fmnist_zoo import get_recipe, get_spec, register
from fmnist_zoo.backend import keras
from fmnist_zoo.spec import Recipe


def residual(widths: tuple[int, ...] = (64, 128)) -> Any:
    """A residual network (He et al. 2016) that halves the image before each width; 0.45 M parameters."""
    layers = keras.layers

    def convolved(flow: Any, width: int, kernel: int = 3, strides: int = 1) -> Any:
        flow = layers.Conv2D(width, kernel, strides, padding="same", use_bias=False,
                             kernel_initializer="he_normal")(flow)
        return layers.BatchNormalization(momentum=0.9)(flow)

    images = flow = keras.Input((28, 28, 1))
    for place, width in enumerate(widths):
        flow = layers.ReLU()(convolved(flow, width, kernel=3 if place else 5, strides=2))
        inner = layers.ReLU()(convolved(flow, width))
        flow = layers.ReLU()(layers.Add()([flow, convolved(inner, width)]))
    flow = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(flow))
    return keras.Model(images, layers.Dense(10)(flow))


register("conv_teacher", "residual, convolutional, two widths", build=residual, recipe=Recipe(
    epochs=24, batch_size=256, optimizer="adamw", learning_rate=0.003, weight_decay=0.02, schedule="cosine",
    warmup=0.1, ema=0.999, shift=1, flip=True, erase=4, weights="last"))

UNROLLED, RECIPE = get_spec("5L_unrolled"), get_recipe("5L_unrolled")
STUDENT = functools.partial(register, hidden=UNROLLED.hidden, activation=UNROLLED.activation, dropout=UNROLLED.dropout)
STUDENT("5L_taught", "5L_unrolled, taught by the trained one",
        recipe=dataclasses.replace(RECIPE, teacher="5L_unrolled", teacher_views=True))
STUDENT("5L_conv_taught", "5L_unrolled, taught by conv_teacher", recipe=dataclasses.replace(
    RECIPE, epochs=36, schedule_epochs=36, learning_rate=0.001, label_smoothing=0.0, mixup=0.0,
    teacher="tb_logs/conv_teacher/seed0", teacher_weight=0.9, teacher_views=True))
