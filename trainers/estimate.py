"""How long a run should take, from its arithmetic: a guess for progress lines and dry runs, made before TensorFlow."""

from __future__ import annotations

import os

from trainers.config import RunConfig

IMAGES = {"fashion_mnist": 60_000, "mini": 2_000}
# Seconds that were measured on two cores with AVX-512: a floating-point operation, a parameter's update, a step.
FLOP, UPDATE, STEP = 6e-12, 1.1e-9, 1e-4


def seconds(config: RunConfig, *, epochs: int | None = None, cores: int | None = None) -> float:
    """Of training; good for a factor of two."""
    recipe, spec = config.recipe, config.spec
    total = IMAGES.get(config.data, IMAGES["fashion_mnist"])
    size = recipe.validation_size
    images = round(total * (1 - size)) if size < 1 else max(1, total - int(size))
    steps = -(-images // config.batch(images))
    speed = 2 / max(1, cores or os.cpu_count() or 1)
    an_epoch = images * spec.training_flops * FLOP * speed + steps * (spec.parameters * UPDATE + STEP) + 0.1
    return an_epoch * (epochs or recipe.epochs)


def clock(seconds: float) -> str:
    """`0:05`, `12:34`, `1:02:03`."""
    whole = round(seconds)
    hours = f"{whole // 3600}:{whole // 60 % 60:02}" if whole >= 3600 else f"{whole // 60}"
    return f"{hours}:{whole % 60:02}"
