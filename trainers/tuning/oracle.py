"""Which values to try next: keras-tuner's oracles, without the rest of keras-tuner.

A proposal is a function of the seed, the number of the trial, and the trials that the oracle knows. So nothing is
replayed: a new oracle gets the recorded trials, and proposes what the earlier one would propose. keras-tuner has traps,
which this module avoids:

- Its oracles draw from random states that move with each request: they are set from (seed, number) before each, so
  that random draws what `keras_tuner.RandomSearch(seed=seed + 1)` draws. There, a seed of 0 becomes a random one.
- `Float` with a step never tries the upper end: listed values become a `Choice`.
- The grid waits for results before it continues, repeats combinations of what the function did not ask for, and takes
  values of one scope for another's: what comes after the trial before is found here, in its order.
- A value is lost if a scope that is not active has one of the same name.
- Random draws stop after 20 repetitions, before all combinations of a small space are found: the limit is raised.
- A `Choice` makes 1 and 0 of True and False: they are turned back.
- The Gaussian process guesses the results of running trials by its fit for the proposal before: here they have the
  median of the results (a "constant liar"; Ginsbourger et al. 2010).
- A trial's copy of the space is made through its config, which takes half a millisecond: it is shared.

What a function of the user's asks for has its own name here; a setting has a name that no function would choose.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import statistics
import warnings
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from fmnist_zoo import arguments, backend
from trainers.config import SEEDS
from trainers.tuning.execution import COMPLETED
from trainers.tuning.space import Space, Value
from trainers.tuning.study import RUNNING, Trial

ORACLES = ("random", "grid", "bayesian")
SETTING = "setting: "
DRAWS = 50  # per combination: if one of n is untried, 50 n draws miss it with probability e^-50
WAIT, DONE = "wait", "done"


class Proposal(NamedTuple):
    """Values to try. Successive halving alone sets `epochs`, and `parent`, the trial whose training it continues."""

    values: dict[str, Value]
    epochs: int | None = None
    parent: str | None = None


class Oracle:
    """Proposes trials of a space.

    Args:
        start: combinations that are tried first.
    """

    def __init__(self, tuner: str, space: Space, *, lower_is_better: bool, seed: int,
                 start: Sequence[Mapping[str, Value]] = ()):
        from fmnist_zoo.backend import tf  # noqa: F401  (before keras-tuner, which imports it with all its noise)

        with contextlib.nullcontext() if tuner == "bayesian" else backend.quick_imports():
            import keras_tuner
            from keras_tuner import oracles
        from trainers.tuning import hypermodel

        class HyperParameters(keras_tuner.HyperParameters):
            """A copy has values of its own, and shares what does not change with the original."""

            def copy(self) -> HyperParameters:
                twin = copy.copy(self)
                twin.values = dict(self.values)
                return twin

            def ensure_active_values(self) -> None:
                """The values are complete; keras-tuner's own drops one whose name another scope has, too."""

        self._seed, self._start = seed, start
        self._listed = {parameter.name: parameter.values for parameter in space.parameters
                        if parameter.kind == "choice"}
        settings = [dataclasses.replace(parameter, name=SETTING + parameter.name) for parameter in space.own]
        self._parameters = HyperParameters()
        self._grow([*space.configs, *map(hypermodel.config_of, settings)])
        oracle = oracles.BayesianOptimizationOracle if tuner == "bayesian" else oracles.RandomSearchOracle
        self._oracle = oracle(objective=keras_tuner.Objective("objective", "min" if lower_is_better else "max"),
                              hyperparameters=self._parameters, allow_new_entries=False, tune_new_entries=False,
                              max_trials=None, seed=min(seed + 1, SEEDS - 1))
        self._is_grid, self._is_bayesian = tuner == "grid", tuner == "bayesian"
        self._running: dict[str, Any] = {}
        self._unasked: dict[str, set[str]] = {}
        self._drawn: list[int] = []  # values of each trial that were drawn, each by a seed of its own

    def tell(self, trial: Trial) -> None:
        """Takes note of a trial, when it is proposed and again when it has ended."""
        from keras_tuner.engine.trial import Trial as Told

        told = self._oracle.trials.get(trial.name)
        if told is None:
            known, count = {**trial.values, **trial.unused}, len(self._parameters.space)
            self._grow(trial.found)
            values, drawn = self._parameters.copy(), 0
            values.values = {}
            for index, one in enumerate(values.space):
                if values.is_active(one):
                    values.values[one.name] = type(one.default)(known.get(_label(one.name), one.default))
                    drawn += index < count
            self._drawn += [0] * (trial.number + 1 - len(self._drawn))
            self._drawn[trial.number] = drawn
            told = self._oracle.trials[trial.name] = Told(values, trial.name)
            self._oracle._record_values(told)
            self._running[trial.name] = told
            self._unasked[trial.name] = set(trial.unused)
        if trial.status != RUNNING:
            told.status, told.score = trial.status, trial.score
            self._running.pop(trial.name, None)

    def propose(self, number: int) -> Proposal | str:
        """What the trial of this number tries; DONE if there is nothing more to try."""
        if number < len(self._start):
            return Proposal(dict(self._start[number]))
        self._oracle._seed_state = self._seed + 1 + sum(self._drawn[:number])
        self._oracle._max_collisions = DRAWS * (1 + len(self._oracle.trials))
        if self._is_bayesian:
            self._prepare_fit(number)
        if self._is_grid:
            values = self._following(f"{number - 1:04}") if number else self._completed({})
        else:
            with warnings.catch_warnings(), _one_thread() if self._is_bayesian else contextlib.nullcontext():
                warnings.simplefilter("ignore")  # the fit of the Gaussian process warns of bounds that it came close to
                values = self._oracle.populate_space(f"{number:04}")["values"]
        if values is None:
            return DONE
        return Proposal({_label(name): self._meant(_label(name), value) for name, value in values.items()})

    def _following(self, name: str) -> dict[str, Any] | None:
        """What the grid has after the trial of this name: the last value that can be, is moved to the next."""
        told = self._oracle.trials[name].hyperparameters
        active = [one for one in told.space if one.name in told.values and told.is_active(one)]
        while active:
            last = active.pop()
            values = [last.default, *(value for value in last.values if value != last.default)]
            if told.values[last.name] != values[-1] and _label(last.name) not in self._unasked[name]:
                following = values[values.index(told.values[last.name]) + 1]
                return self._completed({one.name: told.values[one.name] for one in active} | {last.name: following})
        return None

    def _completed(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values, and defaults of all else that is active with them."""
        completed = self._parameters.copy()
        completed.values = values
        for one in completed.space:
            if completed.is_active(one):
                completed.values.setdefault(one.name, one.default)
        return completed.values

    def _meant(self, name: str, value: Any) -> Value:
        """The value for which keras-tuner's space has this one: see `hypermodel.config_of`."""
        value = value.item() if hasattr(value, "item") else value
        return next((one for one in self._listed.get(name, ()) if value in (one, str(one))), value)

    def _grow(self, configs: Iterable[Mapping[str, Any]]) -> None:
        """Takes further hyper-parameters into the space."""
        from trainers.tuning import hypermodel

        if configs:
            self._parameters.merge(hypermodel.hyperparameters(configs), overwrite=False)

    def _prepare_fit(self, number: int) -> None:
        """Sets the random state of the Gaussian process, and the scores that it assumes for the running trials."""
        import numpy as np

        self._oracle._random_state = np.random.RandomState([self._seed, number])
        scores = [told.score for told in self._oracle.trials.values() if told.score is not None
                  and told.trial_id not in self._running]
        enough = len(scores) >= max(3, 3 * len(self._parameters.space))  # before, keras-tuner draws at random
        for told in self._running.values():
            told.status, told.score = (COMPLETED, statistics.median(scores)) if enough else (RUNNING, None)


def _one_thread() -> contextlib.AbstractContextManager[Any]:
    """Within the block the Gaussian process takes one core: workers train on the others, and it is not faster on more.
    """
    import threadpoolctl  # of scikit-learn

    return threadpoolctl.threadpool_limits(1)


def _label(name: str) -> str:
    """The label of what has this name in keras-tuner's space."""
    return name.removeprefix(SETTING) if name.startswith(SETTING) else arguments.label(name)
