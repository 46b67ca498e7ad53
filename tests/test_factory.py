"""One compiled program serves runs that differ in numbers alone, and changes no bit of them."""

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import models
from trainers.config import resolve
from trainers.engine import factory

FAST = dict(data="mini", hidden=(24, 16), batch_size=250, epochs=3)


@pytest.fixture(scope="module")
def split():
    return fmnist_zoo.load_data(("fit",), data="mini")["fit"]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(factory, "_kept", type(factory._kept)())


def trial(number):
    """Settings that are numbers, all on, of trial `number`."""
    random = np.random.default_rng(number)
    return dict(
        FAST, seed=number, dropout=random.uniform(0.1, 0.5), l1=10 ** random.uniform(-6, -4), optimizer="momentum",
        l2=10 ** random.uniform(-5, -3), learning_rate=random.uniform(0.005, 0.05),
        weight_decay=random.uniform(0.01, 0.1), label_smoothing=random.uniform(0.05, 0.2),
        ema=random.uniform(0.8, 0.99), clip_norm=random.uniform(0.5, 2), shift=int(random.integers(1, 4)),
        erase=int(random.integers(2, 9)), mixup=random.uniform(0.1, 1),
        warmup=random.uniform(0, 0.3), schedule=["cosine", "linear", "step", "one_cycle", "constant"][number % 5])


def leased(split, **settings):
    config = resolve("3L", **settings)
    return factory.take(config, models.build(config.spec, config.seed), split, origin="mini")


def numbers(engine):
    """Means of two epochs, and all arrays after them."""
    means = [engine.run_epoch(epoch) for epoch in range(2)]
    return means, {name: variable.numpy() for name, variable in engine.variables().items()}


def assert_same(one, other):
    assert one[0] == other[0]
    for name, array in one[1].items():
        np.testing.assert_array_equal(array, other[1][name], err_msg=name)


@pytest.mark.long
def test_trials_on_one_program_equal_those_on_their_own(split):
    """Compiled by XLA; each has another schedule."""
    engines, shared = set(), []
    for number in range(3):
        engine = leased(split, **trial(number))
        shared.append(numbers(engine))
        engines.add(id(engine))
        factory.keep(engine)
    assert len(engines) == 1
    for number in range(3):
        factory._kept.clear()
        assert_same(numbers(leased(split, **trial(number))), shared[number])


@pytest.mark.parametrize("change", [
    dict(dropout=0.0), dict(dropout=(0.0, 0.2)), dict(l1=1e-4), dict(hidden=(24, 17)), dict(activation="gelu"),
    dict(optimizer="sgd"), dict(batch_size=200), dict(ema=0.9), dict(label_smoothing=0.1), dict(shift=1),
    dict(flip=True), dict(mixup=0.2), dict(clip_norm=1.0), dict(weight_decay=0.1), dict(normalization="batch")])
def test_other_program_is_another_engine(split, without_xla, change):
    """What is on, and the architecture, are parts of a program."""
    config, other = (resolve("3L", **{**FAST, "dropout": 0.2, **one}) for one in ({}, change))
    assert factory._key(config, ("mini", 1800)) != factory._key(other, ("mini", 1800))


def test_engine_in_use_is_not_shared(split, without_xla):
    first, second = leased(split, **FAST), leased(split, **FAST)
    assert first is not second


@pytest.mark.long
def test_only_some_programs_are_kept(split, without_xla):
    for width in range(factory.KEPT + 2):
        factory.keep(leased(split, **{**FAST, "hidden": (8 + width,)}))
    assert len(factory._kept) == factory.KEPT
