"""Engines without a run's folder, for tests of what they compute."""

import numpy as np

from fmnist_zoo import models
from fmnist_zoo.spec import Recipe
from trainers.engine import network
from trainers.engine.fit import FitEngine
from trainers.engine.loop import Sums, TapeEngine
from trainers.engine.optimizers import Optimizer

BATCH = 250  # does not divide the 1,800 fit images of the mini set


def tape(spec, split, *, batch=BATCH, seed=0, bfloat16=False, xla=False, teachers=(), **settings):
    """A network and its engine; without XLA, because compiling takes longer than training does here."""
    net = network.Network(models.build(spec, 0), spec, bfloat16=bfloat16, jit_compile=xla)
    recipe = Recipe(**settings)
    rule = Optimizer(recipe, net.trainable, net.is_kernel)
    return net, TapeEngine(net, rule, recipe, split, batch_size=batch, seed=seed, jit_compile=xla, teachers=teachers)


def fit(spec, split, *, batch=BATCH, **settings):
    """A Keras model and its engine."""
    model = models.build(spec, 0)
    return model, FitEngine(network.Network(model, spec), Recipe(**settings), split, batch_size=batch, seed=0)


def arrays(engine):
    """Copies of everything that changes in training."""
    return [variable.numpy() for variable in engine.variables().values()]


def restart(engine, start, steps_a_call):
    """Sets the variables of an engine to the arrays `start`; compiling a second engine would take seconds."""
    for variable, array in zip(engine.variables().values(), start):
        variable.assign(array)
    engine.steps_a_call = steps_a_call


def assert_equal_arrays(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


def compiled(engine, batch=BATCH, stage="optimized_hlo"):
    """The program of one step as XLA compiles it, as text; `stage="hlo"`, which is faster, as XLA receives it."""
    from fmnist_zoo.backend import tf

    inputs = (engine._of_epoch(0), tf.constant(0), tf.constant(1), tf.zeros(len(Sums._fields), tf.float64))
    steps = engine._program(batch).experimental_get_compiler_ir(*inputs, engine._arguments)
    return steps(stage=stage)
