"""How long a run should take, from its arithmetic: a guess for dry runs and queues, made without TensorFlow."""

from __future__ import annotations

import os

from trainers.config import RunConfig

IMAGES = {"fashion_mnist": 60_000, "mini": 2_000}
# Seconds, measured on two cores with AVX-512: for a floating-point operation, for updating one parameter, for a step,
# and for an epoch apart from its steps.
FLOP, UPDATE, STEP, EPOCH = 3.2e-12, 3e-10, 6e-5, 0.1


def fit_images(config: RunConfig) -> int:
    """How many images a run trains on if its data have the usual size; a guess for other data."""
    total, size = IMAGES.get(config.data, 60_000), config.recipe.validation_size
    return round(total * (1 - size)) if size < 1 else max(1, total - int(size))


def seconds(config: RunConfig) -> float:
    """Of training; right within a factor of two."""
    recipe, spec, images = config.recipe, config.spec, fit_images(config)
    steps = -(-images // config.batch(images))
    threads = min(2, os.cpu_count() or 1)
    products = images * spec.training_flops * FLOP * 2 / threads
    return (products + steps * (spec.parameters * UPDATE + STEP) + EPOCH) * recipe.epochs


def clock(seconds: float) -> str:
    """`0:05`, `12:34`, `1:02:03`."""
    whole = round(seconds)
    hours = f"{whole // 3600}:{whole // 60 % 60:02}" if whole >= 3600 else f"{whole // 60}"
    return f"{hours}:{whole % 60:02}"
