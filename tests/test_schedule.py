"""The learning rates of a run, against those of Keras and PyTorch."""

import math

import numpy as np
import pytest

from fmnist_zoo.backend import keras
from fmnist_zoo.spec import Recipe
from trainers.config import ConfigError, resolve
from trainers.engine import schedule


def rates(steps=10, **settings):
    """The learning rates of all updates of a run."""
    recipe = Recipe(**settings)
    return np.concatenate([schedule.learning_rates(recipe, steps_an_epoch=steps, epoch=epoch)
                           for epoch in range(recipe.epochs)])


def test_cosine_and_warmup_equal_keras():
    decay = keras.optimizers.schedules.CosineDecay(0.02, decay_steps=200)
    np.testing.assert_allclose(rates(epochs=20, learning_rate=0.02, schedule="cosine"),
                               [float(decay(step)) for step in range(200)], atol=1e-8)
    warm = keras.optimizers.schedules.CosineDecay(0.0, decay_steps=160, warmup_target=0.02, warmup_steps=40)
    ours = rates(epochs=20, learning_rate=0.02, schedule="cosine", warmup=0.2)
    np.testing.assert_allclose(ours[40:], [float(warm(step)) for step in range(40, 200)], atol=1e-8)
    np.testing.assert_allclose(ours[:40], 0.02 * np.arange(1, 41) / 40, rtol=1e-6)  # Keras' begins with a rate of 0


def test_linear_step_and_constant_are_as_written():
    np.testing.assert_allclose(rates(epochs=2, schedule="linear"), 0.001 * (1 - np.arange(20) / 20), rtol=1e-6)
    np.testing.assert_allclose(rates(epochs=2, schedule="step"),
                               [0.001] * 10 + [0.0001] * 5 + [0.00001] * 5, rtol=1e-6)
    np.testing.assert_allclose(rates(epochs=2, warmup=0.2), [0.00025, 0.0005, 0.00075] + [0.001] * 17, rtol=1e-6)
    np.testing.assert_array_equal(rates(epochs=2), np.float32(0.001))


def test_one_cycle_equals_pytorch():
    """OneCycleLR(max_lr=1, total_steps=10001), as PyTorch's documentation defines it, at tenths of the run."""
    ours = rates(epochs=1000, schedule="one_cycle", learning_rate=1.0)
    torch = []
    for step in range(0, 10000, 1000):
        first, last = 0.3 * 10001 - 1, 10001 - 1
        start, end, share = (1 / 25, 1, step / first) if step <= first else (
            1, 1 / 25 / 1e4, (step - first) / (last - first))
        torch.append(end + (start - end) / 2 * (1 + math.cos(math.pi * share)))
    np.testing.assert_allclose(ours[::1000], torch, atol=3e-4)  # its first step has the number 0, its last one T - 1
    assert ours[0] == pytest.approx(0.04) and ours.max() == pytest.approx(1)
    assert ours[-1] == pytest.approx(1 / 25e4, abs=1e-6)


def test_a_shorter_run_has_the_first_part_of_its_schedule():
    whole, part = rates(epochs=9, schedule="one_cycle"), rates(epochs=4, schedule_epochs=9, schedule="one_cycle")
    np.testing.assert_array_equal(part, whole[:40])
    assert not np.array_equal(rates(epochs=4, schedule="one_cycle"), part)


def test_length_of_a_schedule_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="schedule_epochs=5 .* the learning rate is constant"):
        resolve("4L", schedule_epochs=5)
