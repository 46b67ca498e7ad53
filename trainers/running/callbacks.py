"""Keras' callbacks in a run: `keras.callbacks.CallbackList` calls them before and after each epoch, under any trainer.

They see a compiled Keras model that has the weights that count, and the row of `metrics.csv` as `logs`. A learning rate
or weights that they set there are the run's, and `model.stop_training` ends it. Importing this module imports
TensorFlow.
"""

from __future__ import annotations

from typing import Callable, Sequence

import numpy as np

from fmnist_zoo.backend import keras
from fmnist_zoo.spec import CLASSES, Recipe
from trainers.config import ConfigError
from trainers.engine.fit import FitEngine, make_optimizer
from trainers.engine.loop import TapeEngine
from trainers.engine.network import Network
from trainers.metrics_table import Row
from trainers.running.checkpoint import Checkpoint
from trainers.running.progress import Reporter

_kinds = keras.callbacks
NOT_CALLED = tuple(f"on_{what}{when}" for what in ("batch", "train_batch", "test_batch", "test")
                   for when in ("_begin", "_end"))
INSTEAD = {_kinds.BackupAndRestore: "a run has checkpoints of its own, which trainers.train.resume continues",
           _kinds.SwapEMAWeights: "give ema=0.999: the averages are then validated and kept",
           _kinds.ProgbarLogger: "verbose=True shows the epochs"}
FIXED = "which follows the recipe's schedule; give schedule='constant' and warmup=0"
SETS_RATE = (_kinds.ReduceLROnPlateau, _kinds.LearningRateScheduler)


def _problem(callback: keras.callbacks.Callback, recipe: Recipe) -> str:
    for kind, instead in INSTEAD.items():
        if isinstance(callback, kind):
            return instead
    if isinstance(callback, SETS_RATE) and recipe.horizon:
        return f"it sets the learning rate, {FIXED}; received {recipe.schedule!r} and {recipe.warmup:g}"
    hooks = [name for name in NOT_CALLED if not _is_of_keras(getattr(callback, name))]
    hooks += [f"{name}={getattr(callback, name)!r}" for name in ("save_freq", "update_freq")
              if getattr(callback, name, "epoch") != "epoch"]
    if isinstance(callback, _kinds.TensorBoard) and callback._start_batch:
        hooks.append("profile_batch")
    if hooks:
        return (f"{', '.join(hooks)} works within an epoch, and a run compiles many batches into one call; use "
                "on_epoch_begin and on_epoch_end")
    return ""


def _is_of_keras(hook: Callable[..., None]) -> bool:
    return getattr(hook, "__module__", "").startswith("keras.")


def compile_model(model: keras.Model, network: Network, recipe: Recipe) -> None:
    """Compiles the model of a run: what is minimised, but for smoothed labels and teachers, its optimizer and accuracy.

    Keras adds the penalty to the loss, so `model.evaluate` returns `val_loss + val_penalty`.
    """
    keras.Model.compile(  # a subclass may have a `compile` with arguments of its own
        model, make_optimizer(recipe, model.trainable_variables, network.is_kernel),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")])


class Callbacks:
    """The callbacks of a run, from its first epoch in this process to its last; without any, nothing happens.

    Attributes:
        names: of their classes.
        error: what one of them raised; None for nothing. The run then ends with its checkpoint first.

    Raises:
        TypeError: for what is not a `keras.callbacks.Callback`.
        ConfigError: for a callback that is called after each batch, that does what a run does itself, or that sets the
            learning rate of a schedule.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], recipe: Recipe):
        for callback in callbacks:
            if not isinstance(callback, _kinds.Callback):
                raise TypeError(f"callbacks are instances of keras.callbacks.Callback; received {callback!r:.80}")
            if problem := _problem(callback, recipe):
                raise ConfigError(f"callbacks: {type(callback).__name__}: {problem}")
        self._given, self._recipe, self._stop = list(callbacks), recipe, False
        self.names = [type(one).__name__ for one in callbacks]
        self.error: Exception | None = None

    def start(self, model: keras.Model, engine: TapeEngine | FitEngine, state: Checkpoint, reporter: Reporter) -> None:
        """Before the first epoch in this process: `state` takes what they set."""
        if not self._given:
            return
        if state.epoch:
            reporter.note("the state of callbacks is their own, and in no checkpoint: they start again")
        self._model, self._engine, self._state, self._reporter = model, engine, state, reporter
        model.stop_training = False
        if not model.optimizer.built:  # else Keras warns when it loads a model that `ModelCheckpoint` saved
            model.optimizer.build(model.trainable_variables)
        # Unless the metrics are built, no callback finds out that more `val_accuracy` is better.
        model._compile_metrics.build(np.zeros(1), np.zeros((1, CLASSES)))
        self._list = _kinds.CallbackList(self._given, add_history=True, model=model, epochs=self._recipe.epochs,
                                         steps=engine.steps_an_epoch, verbose=0)
        self._call(self._list.on_train_begin)

    def begin_epoch(self) -> None:
        """Before an epoch."""
        if self._given:
            self._call(self._list.on_epoch_begin, self._state.epoch)

    def end_epoch(self, row: Row) -> None:
        """After the epoch of a row of `metrics.csv`."""
        if self._given:
            logs = {name: value for name, value in row.items() if value is not None and name != "epoch"}
            self._call(self._list.on_epoch_end, row["epoch"] - 1, logs)
            self._state.stopped = self._stop

    def _call(self, hook: Callable[..., None], *arguments: int | Row) -> None:
        """Calls a hook with the weights that count in the model, and takes over what it sets."""
        model, engine = self._model, self._engine
        weights = [variable.numpy() for variable in engine.weights().values()]
        before, fixed = engine.learning_rate(max(self._state.epoch - 1, 0)), self._fixed()
        with engine.counting():
            model.set_weights(weights)  # some engines train a copy, or variables of their own
            model.optimizer.learning_rate = before
            try:
                hook(*arguments)
            except Exception as error:
                self.error = error
            changed = model.get_weights()
        self._stop |= model.stop_training  # `Model.fit` forgets it
        if self._fixed() != fixed:
            self.error = self.error or ConfigError(
                "a callback has compiled the model again, given it a schedule, or changed what is trainable, and the "
                "compiled program does not take it over; end the run there by model.stop_training = True, and train "
                "run.model")
            return
        if _differ(weights, changed):
            for variables in (engine.weights(), engine.weights(averaged=False)):
                for variable, array in zip(variables.values(), changed):
                    variable.assign(array)
        rate = float(model.optimizer.learning_rate)
        if rate == np.float32(before):
            return
        if self._recipe.horizon:
            self.error = ConfigError(f"a callback has set the learning rate to {rate:g}, {FIXED}")
            return
        self._state.learning_rate = rate
        engine.set_learning_rate(rate)

    def _fixed(self) -> tuple[int, int, list[bool]]:
        """What is in the compiled program, and must not change in a hook."""
        optimizer = self._model.optimizer
        return id(optimizer), id(optimizer._learning_rate), [one.trainable for one in self._model.variables]

    def finish(self) -> None:
        """After the last epoch, with the selected weights in the model. Those that are set now count no more."""
        if not self._given:
            return
        selected = [variable.numpy() for variable in self._engine.weights().values()]
        self._model.set_weights(selected)
        try:
            self._list.on_train_end()
        except Exception as error:
            self.error = error
        if _differ(selected, self._model.get_weights()):
            self._model.set_weights(selected)
            self._reporter.note("a callback has set weights at the end; those that count are of the lowest val_loss "
                                "(weights='best') or the last (weights='last')")


def _differ(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    """Whether two lists of arrays differ."""
    return not all(map(np.array_equal, some, others))
