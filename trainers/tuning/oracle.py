"""What to try next: keras-tuner's oracles, asked and told, and nothing else of keras-tuner.

The oracle only proposes. It lives in the memory of the process that leads the sweep, and writes no files: its own are
written in place and tear. After a restart it is told again all that happened, in the same order, and stands where it
stood. What is known of its ways, and closed here:

- a seed of 0 becomes a random one: it gets seed + 1;
- `Float` with a step drops the upper end: values that are listed are a `Choice`;
- its grid waits for results before it goes on, and three failures in a row end a search: grid and random are told of
  the end of a trial when it is proposed, since their proposals depend on nothing but the seed;
- Hyperband names the trial it goes on from; here that means its checkpoint with all of the optimizer's state.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

from trainers.tuning.space import Space

TUNERS = ("random", "grid", "hyperband", "bayesian")
BLIND = ("random", "grid")  # proposals do not depend on results
FACTOR = 3  # Hyperband: a third of the trials goes on, three times as long


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What the oracle wants tried. `epochs` and `parent` (the trial it goes on from) are Hyperband's."""

    trial: str
    values: dict[str, Any]
    epochs: int | None = None
    parent: str | None = None


class Oracle:
    """Asked by `propose`, told by `tell`.

    Args:
        tuner: one of `TUNERS`.
        lower_is_better: the direction of the objective.
        epochs: the longest that Hyperband trains a trial.
    """

    def __init__(self, tuner: str, space: Space, *, lower_is_better: bool, seed: int, epochs: int):
        import keras_tuner
        from keras_tuner import oracles

        from fmnist_zoo.backend import keras  # noqa: F401  (quietly, and before keras-tuner imports it)

        parameters = keras_tuner.HyperParameters()
        for parameter in space.parameters:
            values = list(parameter.values)
            if parameter.kind == "choice":
                same = len({type(value) for value in values}) == 1
                parameters.Choice(parameter.name, values if same else list(map(str, values)), default=values[0]
                                  if same else str(values[0]))
            else:
                kind = parameters.Int if isinstance(values[0], int) else parameters.Float
                kind(parameter.name, *values, sampling=parameter.kind)
        self._types = {parameter.name: {str(value): value for value in parameter.values}
                       for parameter in space.parameters if parameter.kind == "choice"}
        kind = {"random": oracles.RandomSearchOracle, "grid": oracles.GridSearchOracle,
                "hyperband": oracles.HyperbandOracle, "bayesian": oracles.BayesianOptimizationOracle}[tuner]
        more = {"max_epochs": epochs, "factor": FACTOR} if tuner == "hyperband" else {"max_trials": None}
        self._oracle = kind(objective=keras_tuner.Objective("objective", "min" if lower_is_better else "max"),
                            hyperparameters=parameters, allow_new_entries=False, tune_new_entries=False,
                            seed=seed + 1, max_consecutive_failed_trials=None, **more)
        self._oracle.save = self._oracle._save_trial = lambda *trial: None
        self._oracle.verbose = 0
        self.blind = tuner in BLIND

    def propose(self) -> Proposal | str:
        """The next proposal, or "wait" (until another trial ended), or "done" (the space or the plan is exhausted)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the Gaussian process' fit tells of bounds it came close to
            trial = self._oracle.create_trial(f"tuner-{len(self._oracle.trials)}")
        if trial.status != "RUNNING":
            return "done" if trial.status == "STOPPED" else "wait"
        values = dict(trial.hyperparameters.values)
        own = {name.removeprefix("tuner/"): values.pop(name) for name in list(values) if name.startswith("tuner/")}
        if self.blind:
            self._end(trial.trial_id, None)
        values = {name: self._types.get(name, {}).get(str(value), _plain(value))
                  for name, value in values.items()}
        return Proposal(trial.trial_id, values, own.get("epochs"), own.get("trial_id"))

    def tell(self, trial: str, objective: float | None) -> None:
        """A trial ended; None if it failed."""
        if not self.blind:
            self._end(trial, objective)

    def _end(self, trial_id: str, objective: float | None) -> None:
        trial = self._oracle.get_trial(trial_id)
        trial.status = "FAILED" if objective is None else "COMPLETED"
        if objective is not None:
            self._oracle.update_trial(trial_id, {"objective": objective})
        self._oracle.end_trial(trial)


def hyperband_rounds(epochs: int) -> list[tuple[int, int]]:
    """(trials, epochs each adds) of all rounds of Hyperband (Li et al. 2018, algorithm 1, with keras-tuner's sizes)."""
    brackets = int(math.floor(math.log(epochs) / math.log(FACTOR) + 1e-9)) + 1
    rounds = []
    for bracket in range(brackets - 1, -1, -1):
        before = 0
        for number in range(bracket + 1):
            end_size = math.ceil(1 + math.log(epochs, FACTOR)) / (bracket + 1)
            until = math.ceil(epochs / FACTOR ** (bracket - number))
            rounds.append((math.ceil(end_size * FACTOR ** (bracket - number)), until - before))
            before = until
    return rounds


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's."""
    return value.item() if hasattr(value, "item") else value
