"""What a sweep has taught as plain English, and as tables of text. What the trials cannot tell is said, too."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Sequence

import numpy as np

from fmnist_zoo import card
from fmnist_zoo.statistics import LEVEL
from trainers.tuning.effects import Effect
from trainers.tuning.lessons import Lessons
from trainers.tuning.levels import label
from trainers.tuning.space import Parameter, Space
from trainers.tuning.study import Trial
from trainers.tuning.ties import SEEDS, Ties

CLAUSES = 3  # hyper-parameters that describe a group of trials
SLIGHT = 0.05  # the share of trials that a limit has to set apart to be worth a word
FEW = 8  # trials


def text(lessons: Lessons, space: Space) -> str:
    """All of it as text: the sentences, importances, effects, and the strongest pairs."""
    parts = [f"what the sweep has taught, from {basis(lessons)}:",
             "\n".join(f"- {sentence}" for sentence in sentences(lessons, space)),
             card.aligned(importance_rows(lessons), numeric=IMPORTANCE[1:]),
             card.aligned(effect_rows(lessons), numeric=EFFECT[2:-1])]
    strong = sum(pair.strength > 0 for pair in lessons.pairs)
    if strong:
        parts.append(card.aligned(pair_rows(lessons)[:1 + min(strong, 5)], numeric=PAIR[1:]))
    return "\n\n".join(parts)


def basis(lessons: Lessons) -> str:
    """Which trials are used, and which are not."""
    count = len(lessons.trials)
    short = any((trial.result or {})["epochs"] < lessons.epochs for trial in lessons.trials)  # by early stopping
    found = f"{_count(count, 'trial')} of {'up to ' * short}{_count(lessons.epochs, 'epoch')}"
    if lessons.executions > 1:
        found += f", each the mean of {lessons.executions} seeds"
    notes = []
    if lessons.longer:
        notes.append("longer trials are too few")
    if lessons.chosen:
        notes.append("they were chosen because they did well in fewer epochs, which hides a part of the effects")
    if lessons.aimless:
        notes.append(f"of these {lessons.aimless} learned nothing, and effects and interactions leave them out")
    others = lessons.completed - count
    unused = [_count(number, what) for number, what in ((others, "trial of another length"), (lessons.failed, "failed"),
                                                        (lessons.running, "unfinished")) if number]
    if unused:
        notes.append(f"not used: {_list(unused)}")
    return found + "".join(f"; {note}" for note in notes)


def sentences(lessons: Lessons, space: Space) -> list[str]:
    """What matters, in a few sentences."""
    return [*_group(lessons, space), *_costs(lessons), *_interactions(lessons)]


def _group(lessons: Lessons, space: Space) -> list[str]:
    """Which trials equal the best, and how far behind a trial is worse."""
    ties = lessons.ties
    if ties is None:
        few = "one trial alone has no rival" if lessons.completed == 1 else "these trials are too few to know the noise"
        return [f"Whether a trial is better than another cannot be told: {few}."]
    group, among = ties.trials, len(ties.among)
    if len(group) == among:
        found = [f"No trial can be told from the best: all {among} are within the noise."]
    elif len(group) == 1:
        found = [f"Trial {group[0].name} ({group[0].text}) is better than each of the {among - 1} others by more than "
                 "the noise."]
    else:
        found = [_described(ties, space)]
    if ties.among[0].epochs not in (None, lessons.epochs):
        found.append(f"That is among the {_count(among, 'trial')} of {_count(ties.among[0].epochs, 'epoch')}.")
    if ties.noise.source == SEEDS:
        how = f"the {lessons.executions} seeds of each trial"
        limit = ""
    else:
        how = "the two halves of the validation images"
        limit = "; the luck of a seed is not in it, and --executions=3 would measure that"
    return [*found, f"A trial counts as worse if it is more than {_amount(ties.margin)} behind the best: the noise is "
                    f"estimated from {how}{limit}."]


def _described(ties: Ties, space: Space) -> str:
    """The group of the best by the values that its trials have, of the hyper-parameters that set most others apart."""
    group, inside = ties.trials, list(ties.among)
    said: list[tuple[int, str]] = []
    limits = [_limits(parameter, group, ties.among) for parameter in space.parameters]
    while len(inside) > len(group) and len(said) < CLAUSES:
        left = [[trial for trial in inside if within(trial)] for _, within in limits]
        chosen = min(range(len(limits)), key=lambda index: len(left[index]))
        if len(inside) - len(left[chosen]) < max(1.0, SLIGHT * len(ties.among)):
            break
        inside = left[chosen]
        said.append((chosen, limits[chosen][0]))
    if not said:
        return (f"{len(group)} of {len(ties.among)} trials cannot be told from the best, and no hyper-parameter sets "
                "them apart from the others.")
    if len(group) < 4 and any(space.parameters[index].kind != "choice" for index, _ in said):  # any two set some limits
        return f"Trials {_list(trial.name for trial in group)} are one group; all other trials are worse."
    where = _list(words for _, words in sorted(said))
    if len(inside) == len(group):
        return f"The {len(group)} trials with {where} are one group: they cannot be told from the best."
    return f"{len(group)} of the {len(inside)} trials with {where} cannot be told from the best; all others are worse."


def _limits(parameter: Parameter, group: Sequence[Trial],
            among: Sequence[Trial]) -> tuple[str, Callable[[Trial], bool]]:
    """The values of a group's trials in words, and a test whether a trial has such a value.

    Numbers have limits; one that hardly any trial lies beyond is left out, and so is one in a gap of the group.
    """
    name = parameter.name
    own = {trial.values[name] for trial in group}
    tried = [trial.values[name] for trial in among]
    numbers = all(isinstance(value, (int, float)) for value in tried)
    low, high = (min(own), max(own)) if numbers else (None, None)
    if not numbers or parameter.kind == "choice" and own != {value for value in tried if low <= value <= high}:
        listed = [value for value in parameter.values if value in own] or sorted(own, key=str)
        return f"{name} {_list(map(label, listed), 'or')}", lambda trial: trial.values[name] in own
    few = SLIGHT * len(tried) if parameter.kind != "choice" else 0
    below, above = sum(value < low for value in tried) > few, sum(value > high for value in tried) > few
    first, last = (label(end if parameter.kind == "choice" else float(f"{end:.2g}")) for end in (low, high))
    words = f"{first} to {last}" if below and above else f"from {first}" if below else f"up to {last}"
    return (f"{name} {first if low == high else words}",
            lambda trial: (not below or trial.values[name] >= low) and (not above or trial.values[name] <= high))


def _costs(lessons: Lessons) -> list[str]:
    """What matters most, which values cost how much, and for what no effect shows."""
    known = [effect for effect in lessons.effects if len(effect.levels.labels) > 1]
    if not known:
        return ["No hyper-parameter has two values among these trials, so nothing can be said of effects."]
    if all(np.isnan(effect.p) for effect in known):
        return [f"What matters cannot be told: {_count(len(lessons.trials), 'trial')} leave no estimate of the noise."]
    matter = {effect.name for effect in known if effect.p < LEVEL}
    found = []
    clear = [effect for effect in known if effect.name in matter and effect.share > 0]
    if clear:
        most = max(clear, key=lambda effect: effect.share)
        others = sorted((effect for effect in clear if effect is not most), key=lambda effect: -effect.share)
        also = _list(f"{effect.name} {_percent(effect.share)}" for effect in others) if others else ""
        found.append(f"{most.name} explains {_percent(most.share)} of the variance between trials"
                     + (f", {also}." if also else "."))
    clauses = [clause for effect in known for clause in _clause(effect)]
    if clauses:
        found.append("; ".join(clauses) + f" (mean {lessons.objective}, against the best value).")
    silent = [effect.name for effect in known if effect.name not in matter and not effect.worse.any()]
    if len(silent) == len(known):
        found.append(f"What matters cannot be told: {_count(len(lessons.trials), 'trial')} are too few."
                     if lessons.importances is None and len(lessons.trials) < FEW else
                     "No hyper-parameter has an effect that these trials can tell from noise.")
    elif silent:
        found.append(f"No effect of {_list(silent, 'or')} can be told from noise.")
    if not all(effect.adjusted for effect in known):
        found.append("Each hyper-parameter is looked at alone: there are too few trials to hold the others equal.")
    return found


def _clause(effect: Effect) -> list[str]:
    """`l2 of 1e-3 costs 0.041`: the values that are worse than the best one by more than noise."""
    worse = np.flatnonzero(effect.worse)
    if not len(worse):
        return []
    low, high = (_amount(end) for end in (effect.costs[worse].min(), effect.costs[worse].max()))
    return [f"{effect.name} {_named(effect, worse)} costs {low if low == high else f'{low} to {high}'}"]


def _named(effect: Effect, chosen: np.ndarray) -> str:
    """Some levels in words: `of relu or tanh`, `of 0.3 or more`, `below 1e-4 or above 0.01`."""
    labels, top = effect.levels.labels, len(effect.levels.labels) - 1
    if not effect.levels.ordered:
        return f"of {_list((labels[level] for level in chosen), 'or')}"
    bins = effect.levels.values is not None
    found = []
    for run in np.split(chosen, np.flatnonzero(np.diff(chosen) > 1) + 1):  # neighbours together
        first, last = labels[run[0]].split(" to ")[0], labels[run[-1]].split(" to ")[-1]
        if run[0] == 0 and (bins or len(run) > 1):
            found.append(f"below {last}" if bins else f"of {last} or less")
        elif run[-1] == top and (bins or len(run) > 1):
            found.append(f"above {first}" if bins else f"of {first} or more")
        else:
            found.append(f"of {first}" if first == last else f"of {first} to {last}")
    return _list(found, "or")


def _interactions(lessons: Lessons) -> list[str]:
    if sum(len(effect.levels.labels) > 1 for effect in lessons.effects) < 2:
        return []
    known = [pair for pair in lessons.pairs if pair.p == pair.p]
    if not known:
        return ["Whether hyper-parameters interact cannot be told: there are too few trials."]
    names = [effect.name for effect in lessons.effects]
    strong = [pair for pair in known if pair.p < LEVEL and pair.strength > 0][:3]
    if not strong:
        return ["No interaction can be told from noise."]
    said = _list([f"{names[pair.first]} and {names[pair.second]} ({_amount(pair.strength)})" for pair in strong])
    return [f"The effect of one depends on the other: {said}; in brackets the standard deviation of "
            f"{lessons.objective} beyond the sum of both effects."]


IMPORTANCE = ("hyper-parameter", "importance", "p", "variance", "p (F)")
EFFECT = ("hyper-parameter", "value", "trials", "mean", "± 95 %", "costs", "")
PAIR = ("pair", "interaction", "p (F)")


def importance_rows(lessons: Lessons) -> list[tuple[str, ...]]:
    """A head and a row for each hyper-parameter, the most important first."""
    from fmnist_zoo.statistics import holm

    order = list(range(len(lessons.effects)))
    shares = [np.nan] * len(order)
    chances = [np.nan] * len(order)
    if lessons.importances:
        shares = [one.share for one in lessons.importances]
        chances = holm([one.p for one in lessons.importances])
    order.sort(key=lambda index: (-np.nan_to_num(shares[index]), -np.nan_to_num(lessons.effects[index].share)))
    return [IMPORTANCE, *((lessons.effects[index].name, _number(shares[index], ".2f"), _number(chances[index], ".2g"),
                           _number(lessons.effects[index].share, ".2f"), _number(lessons.effects[index].p, ".2g"))
                          for index in order)]


def effect_rows(lessons: Lessons) -> list[tuple[str, ...]]:
    """A head and a row for each value of each hyper-parameter."""
    rows: list[tuple[str, ...]] = [EFFECT]
    for effect in lessons.effects:
        for level, words in enumerate(effect.levels.labels):
            note = "worse" if effect.worse[level] else ""
            if not effect.costs[level] and len(effect.means) > 1:
                note = "best"
            rows.append((effect.name, words, str(effect.levels.counts[level]), f"{effect.means[level]:.4f}",
                         _number(effect.errors[level], ".4f"), f"{effect.costs[level]:.4f}", note))
    return rows


def pair_rows(lessons: Lessons) -> list[tuple[str, ...]]:
    """A head and a row for each pair, the strongest first."""
    names = [effect.name for effect in lessons.effects]
    return [PAIR, *((f"{names[pair.first]} x {names[pair.second]}", _number(pair.strength, ".4f"),
                     _number(pair.p, ".2g")) for pair in lessons.pairs)]


def _number(value: float, form: str) -> str:
    return "-" if np.isnan(value) else f"{value:{form}}"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %") if share >= 0.01 else "less than 1 %"


def short(value: Any) -> str:
    """A trial's value with four digits."""
    return label(float(f"{value:.4g}") if isinstance(value, float) else value)


def _amount(value: float) -> str:
    """With two digits: 0.040, 0.0012."""
    return f"{value:#.2g}".rstrip(".") if value >= 1e-4 else label(float(f"{value:.2g}"))


def _count(number: int, what: str) -> str:
    plural = number != 1 and what not in ("failed", "unfinished")
    first, _, rest = what.partition(" ")
    return f"{number} {first}{'s' * plural}{' ' * bool(rest)}{rest}"


def _list(words: Iterable[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end
