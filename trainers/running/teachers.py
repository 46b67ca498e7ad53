"""What the teachers of a recipe say of images."""

from __future__ import annotations

from typing import Any, Callable, Sequence

from trainers.running.trained import Trained


def of(models: Sequence[Trained]) -> tuple[Callable[[Any], Any], ...]:
    """A function from images (batch, 784) float32 to logits for each teacher. Imports TensorFlow."""
    from trainers.engine.network import Network

    return tuple(Network(one.model, one.spec).forward for one in models)
