"""What a sweep has taught: which hyper-parameters matter, what each value does, what interacts, what equals the best.

Completed trials alone are used. A sweep whose trials have several lengths (hyperband, asha) is judged by the longest
length that enough trials have reached. Trials that learned nothing, whose score is no better than a guess among ten
classes, count for the importance but not for effects and interactions: one of them would drown all other differences.
NumPy and SciPy's functions; no TensorFlow, no matplotlib.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Sequence

import numpy as np

from trainers.tuning import effects, importance, levels as _levels, ties as _ties
from trainers.tuning.effects import Effect, Pair
from trainers.tuning.execution import COMPLETED, FAILED
from trainers.tuning.importance import Importance
from trainers.tuning.study import OBJECTIVES, Study, Trial
from trainers.tuning.ties import Noise, Ties

ENOUGH = 10  # trials of a length, for effects at this length
GUESS = {"val_loss": math.log(10), "val_accuracy": 0.1}  # of a classifier that knows nothing, for ten classes


@dataclasses.dataclass(frozen=True)
class Lessons:
    """What `learn` finds.

    Attributes:
        objective: `val_loss` or `val_accuracy`.
        completed, failed, running: how many trials there are of each.
        executions: runs of each trial.
        trials: the trials that are used.
        epochs: how long they trained at most.
        longer: whether some trials trained longer; then those that are used are the longest of which there are enough.
        chosen: whether they were chosen from shorter trials because they did well there.
        aimless: how many of the trials that are used learned nothing, and have no part in `effects` and `pairs`.
        importances: of each hyper-parameter; None if nothing can be said.
        effects: of each hyper-parameter, in the order of the space.
        pairs: the strongest first; empty if there are too few trials.
        noise: of a score; None if it is not known.
        ties: None if nothing can be told.
    """

    objective: str
    completed: int
    failed: int
    running: int
    executions: int
    trials: tuple[Trial, ...]
    epochs: int
    longer: bool
    chosen: bool
    aimless: int
    importances: tuple[Importance, ...] | None
    effects: tuple[Effect, ...]
    pairs: tuple[Pair, ...]
    noise: Noise | None
    ties: Ties | None

    @property
    def lower_is_better(self) -> bool:
        return OBJECTIVES[self.objective].lower_is_better


def learn(study: Study) -> Lessons | None:
    """What the completed trials of a sweep say; None if no trial has completed."""
    ranked = study.ranked
    if not ranked:
        return None
    full = max(trial.values.get("epochs", study.base.recipe.epochs) for trial in ranked)
    lengths = {trial.name: trial.epochs or full for trial in ranked}
    used = _longest(ranked, lengths)
    length = lengths[used[0].name]
    objective, lower = study.manifest["objective"], study.objective.lower_is_better
    scores = np.array([trial.score for trial in used], float)
    levels = [_levels.levels(parameter, [trial.values[parameter.name] for trial in used], len(study.space.parameters))
              for parameter in study.space.parameters]
    aimless = scores >= GUESS[objective] if lower else scores <= GUESS[objective]
    if aimless.sum() > len(scores) - 2:
        aimless[:] = False  # all of them: then their differences are what there is to see
    kept = [one.of(~aimless) for one in levels]
    rivals = [trial for trial in ranked if lengths[trial.name] == lengths[ranked[0].name]]
    judges = [trial for trial, lost in zip(used, aimless) if not lost]
    if lengths[ranked[0].name] != length:
        judges += rivals
    noise = _ties.noise(judges, study.objective)
    everyone = list(study.trials.values())
    found = importance.ped_anova(levels, scores if lower else -scores)
    fitted = scores[~aimless]
    if study.executions > 1 and _ties.same_seeds(used):
        fitted = _ties.by_seed(used, study.objective)[~aimless]
    main, pairs = effects.effects_and_pairs(kept, fitted, lower_is_better=lower,
                                            noise=(noise.variance, noise.freedom) if noise else None)
    return Lessons(
        objective=objective, completed=len(study.ranked), failed=sum(one.status == FAILED for one in everyone),
        running=sum(one.status not in (COMPLETED, FAILED) for one in everyone), executions=study.executions,
        trials=tuple(used), epochs=length, longer=length < max(lengths.values()), chosen=length > min(lengths.values()),
        aimless=int(aimless.sum()), importances=None if found is None else tuple(found),
        effects=tuple(main), pairs=tuple(pairs), noise=noise,
        ties=_ties.ties(rivals, noise, lower_is_better=lower) if noise and len(rivals) > 1 else None)


def _longest(ranked: Sequence[Trial], lengths: dict[str, int]) -> list[Trial]:
    """The trials of the longest length that has enough of them; else of the length that has most."""
    groups: dict[int, list[Trial]] = {}
    for trial in ranked:
        groups.setdefault(lengths[trial.name], []).append(trial)
    enough = [length for length, group in groups.items() if len(group) >= ENOUGH]
    return groups[max(enough) if enough else max(groups, key=lambda length: (len(groups[length]), length))]
