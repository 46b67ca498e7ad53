"""What a compiled program of steps takes as tensors, so that it serves all runs that differ in numbers alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from trainers.engine.augmentation import Amounts
from trainers.engine.network import Rates


class Arguments(NamedTuple):
    """What a compiled program takes from a run, as tensors: its seed (uint32) and the numbers of its recipe."""

    seed: Any
    rates: Rates
    amounts: Amounts
    weight_decay: Any
    label_smoothing: Any
    ema: Any
    clip_norm: Any
    teacher_weight: Any
    teacher_temperature: Any


class OfEpoch(NamedTuple):
    """What a compiled program takes from an epoch.

    Attributes:
        pixels: the images in the order of the epoch, filled up to whole batches with the last one, (steps * batch, 784)
            uint8. TensorFlow gathers them ahead of the steps that need them, where XLA would wait for each.
        labels: theirs, (steps * batch,) int32.
        first_step: the number of its first update, int64.
        learning_rates: one for each update, (steps,) float32.
        shares: of each image in its mixture, (steps * batch,) float32; empty without mixup.
        taught: the teachers' logits for each view of an image, (steps * batch, views, teachers, 10); empty if
            they are computed at each step.
    """

    pixels: Any
    labels: Any
    first_step: Any
    learning_rates: Any
    shares: Any
    taught: Any
