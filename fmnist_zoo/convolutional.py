"""A convolutional network from which fully-connected ones start: `--zoo_module=fmnist_zoo.convolutional`.

It is no member of the zoo, and is listed only where this module is named. Since it has strides and no pooling, it is a
fully-connected network that shares weights: `5L_unrolled` begins as the same function, and then trains each weight.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from fmnist_zoo.registry import register
from fmnist_zoo.spec import Recipe


def strided(widths: tuple[int, ...] = (12, 24, 48, 48), kernels: tuple[int, ...] = (5, 5, 3, 3),
            strides: tuple[int, ...] = (2, 2, 2, 1)) -> Any:
    """Four convolutions, each with batch normalization and GELU, then the logits; 0.05 M parameters."""
    from fmnist_zoo.backend import keras  # not needed to read the recipes

    layers = keras.layers
    images = flow = keras.Input((28, 28, 1))
    for width, kernel, stride in zip(widths, kernels, strides):
        flow = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False)(flow)
        flow = layers.Activation("gelu")(layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(flow))
    return keras.Model(images, layers.Dense(10)(layers.Dropout(0.2)(layers.Flatten()(flow))))


RECIPE = Recipe(
    epochs=20, batch_size=256, optimizer="adamw", learning_rate=0.004, weight_decay=0.05, schedule="cosine",
    warmup=0.05, label_smoothing=0.05, shift=2, flip=True, mixup=0.2, weights="last")

register("conv_strided", "convolutional: no member of the zoo", build=strided, recipe=RECIPE)
register("conv_strided_8", "conv_strided for eight epochs", build=strided, recipe=dataclasses.replace(RECIPE, epochs=8))
