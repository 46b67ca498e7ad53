"""Which values to try next: keras-tuner's oracles, without the rest of keras-tuner.

The oracle only proposes. It lives in the memory of the process that leads the sweep and writes no files: keras-tuner
writes its files in place, and a crash can leave half of one. After a restart the leader repeats all proposals and
results in their recorded order, which brings a new oracle into the same state. keras-tuner has traps; this module
avoids them:

- A seed of 0 becomes a random seed: the oracle gets seed + 1, or the largest that there is.
- `Float` with a step never tries the upper end: listed values become a `Choice`.
- The grid waits for results before it continues. The proposals of grid and random do not depend on results, so their
  trials are reported as ended as soon as they are proposed.
- Three failures in a row end a search, and after each trial all are scanned for them: the scan is off, because the
  leader counts failures.
- A request that yields no proposal changes the state, so that a later proposal depends on how often idle workers asked:
  the state is restored.
- Random draws stop after 20 repetitions, before all combinations of a small space are found: the limit is raised.
- A trial's copy of the space is made through its config, which takes half a millisecond: it is shared.
- Hyperband names the trial that a new one continues; here a trial continues from the checkpoint, with the optimizer's
  state.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import warnings
from typing import Any, Mapping, Sequence

from fmnist_zoo import backend
from trainers.config import SEEDS
from trainers.tuning.space import Space, Value

ORACLES = ("random", "grid", "hyperband", "bayesian")
BLIND = ("random", "grid")  # proposals do not depend on results
FACTOR = 3  # Hyperband: a third of the trials continue, for three times as many epochs
DRAWS = 50  # per combination: with n of them, 50 n draws miss the last untried one with probability e^-50
STATE = ("_seed_state", "_brackets", "_current_bracket", "_current_iteration")  # what a request may change


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A trial to run. Halving alone sets `epochs`, and `parent`, the trial whose training it continues."""

    trial: str
    values: dict[str, Any]
    epochs: int | None = None
    parent: str | None = None


class Oracle:
    """Proposes trials and learns from their results. Hyperband trains none for longer than `epochs`.

    Args:
        start: combinations that are tried first, where the tuner would draw some at random.
    """

    def __init__(self, tuner: str, space: Space, *, lower_is_better: bool, seed: int, epochs: int,
                 start: Sequence[Mapping[str, Value]] = ()):
        from fmnist_zoo.backend import tf  # noqa: F401  (before keras-tuner, which imports it with all its noise)

        with contextlib.nullcontext() if tuner == "bayesian" else backend.without_wrapped():
            import keras_tuner
            from keras_tuner import oracles

        class HyperParameters(keras_tuner.HyperParameters):
            """A copy has values of its own, and shares what does not change with the original."""

            def copy(self) -> HyperParameters:
                twin = copy.copy(self)
                twin.values = dict(self.values)
                return twin

        parameters, as_text = HyperParameters(), set()
        for parameter in space.parameters:
            values = list(parameter.values)
            if parameter.kind == "choice":
                if len({type(value) for value in values}) > 1:  # a Choice takes values of one type
                    values = list(map(str, values))
                    as_text.add(parameter.name)
                parameters.Choice(parameter.name, values, default=values[0])
            else:
                kind = parameters.Int if isinstance(values[0], int) else parameters.Float
                kind(parameter.name, *values, sampling=parameter.kind)
        self._types = {parameter.name: {str(value): value for value in parameter.values}
                       for parameter in space.parameters if parameter.kind == "choice"}
        oracle = {"random": oracles.RandomSearchOracle, "grid": oracles.GridSearchOracle,
                  "hyperband": oracles.HyperbandOracle, "bayesian": oracles.BayesianOptimizationOracle}[tuner]
        more: dict[str, Any] = {"max_trials": None}
        if tuner == "hyperband":
            more = {"max_epochs": epochs, "factor": FACTOR}
        if tuner == "bayesian" and start:
            more["num_initial_points"] = max(3 * len(space.parameters), len(start))  # the first is keras-tuner's number
        self._oracle = oracle(objective=keras_tuner.Objective("objective", "min" if lower_is_better else "max"),
                              hyperparameters=parameters, allow_new_entries=False, tune_new_entries=False,
                              seed=min(seed + 1, SEEDS - 1), **more)
        self._oracle.save = self._oracle._save_trial = lambda *trial: None
        self._oracle._check_consecutive_failures = lambda: None
        self._oracle.verbose = 0
        if space.size is not None:
            self._oracle._max_collisions = DRAWS * space.size
        self.blind = tuner in BLIND
        self._start = [{name: str(value) if name in as_text else value for name, value in values.items()}
                       for values in reversed(start)]
        self._draw, self._oracle._random_values = self._oracle._random_values, self._random_values

    def _random_values(self) -> dict[str, Any] | None:
        """Stands in for keras-tuner's method of this name."""
        return dict(self._start[-1]) if self._start else self._draw()

    def repeat(self, recorded: Proposal) -> Proposal | str:
        """What it proposes in the place of a recorded proposal."""
        return self.propose()

    def propose(self) -> Proposal | str:
        """The next proposal, "wait" (until another trial ends), or "done" (the space or the plan is exhausted)."""
        before = copy.deepcopy({name: value for name, value in vars(self._oracle).items() if name in STATE})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the fit of the Gaussian process warns of bounds that it came close to
            trial = self._oracle.create_trial(f"tuner-{len(self._oracle.trials)}")
        if trial.status != "RUNNING":
            vars(self._oracle).update(before)
            return "done" if trial.status == "STOPPED" else "wait"
        values, tuner_values = {}, {}
        for name, value in trial.hyperparameters.values.items():
            if name.startswith("tuner/"):
                tuner_values[name.removeprefix("tuner/")] = value
            else:
                values[name] = self._types.get(name, {}).get(str(value), _plain(value))
        if self._start and not tuner_values.get("trial_id"):
            self._start.pop()
        if self.blind:
            self._end(trial.trial_id, None)
        return Proposal(trial.trial_id, values, tuner_values.get("epochs"), tuner_values.get("trial_id"))

    def report(self, trial: str, objective: float | None) -> None:
        """Records the result of a trial; None if it failed."""
        if not self.blind:
            self._end(trial, objective)

    def _end(self, trial_id: str, objective: float | None) -> None:
        trial = self._oracle.get_trial(trial_id)
        trial.status = "FAILED" if objective is None else "COMPLETED"
        if objective is not None:
            self._oracle.update_trial(trial_id, {"objective": objective})
        self._oracle.end_trial(trial)


def hyperband_brackets(epochs: int) -> list[list[tuple[int, int]]]:
    """The brackets of Hyperband, each a list of rounds: (trials, epochs that each of them adds).

    The first round of a bracket draws new combinations, the others continue the best of the round before (Li et al.
    2018, algorithm 1, with keras-tuner's sizes).
    """
    count = int(math.floor(math.log(epochs) / math.log(FACTOR) + 1e-9)) + 1
    brackets = []
    for bracket in range(count - 1, -1, -1):
        end_size = math.ceil(1 + math.log(epochs, FACTOR)) / (bracket + 1)
        rounds, before = [], 0
        for left in range(bracket, -1, -1):
            until = math.ceil(epochs / FACTOR ** left)
            rounds.append((math.ceil(end_size * FACTOR ** left), until - before))
            before = until
        brackets.append(rounds)
    return brackets


def _plain(value: Any) -> Any:
    """A NumPy scalar as a Python number."""
    return value.item() if hasattr(value, "item") else value
