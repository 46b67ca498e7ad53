"""How often a sweep's lessons name a hyper-parameter: `python -m benchmarks.lessons`, half an hour.

Simulated sweeps with four hyper-parameters, three ranges and a choice of two, of which one has an effect that explains
a known share of the variance, or none has. Each row says how often the right one is named, and any other one, by
`trainers.tuning.lessons` and, beside it, by a random forest (of scikit-learn's trees and their importances, with p from
permutations of the losses as of Altmann et al. 2010, "Permutation importance", and by Holm). The permutations of all
sweeps of a row are one distribution, so two of each suffice; a forest takes many times as long, so it has the first 200
sweeps of a row.

    python -m benchmarks.lessons --rows=benchmarks/lessons.csv --page=docs/tutorials/sweep.md   # prints and writes it
    python -m benchmarks.lessons --forest=0                         # a minute, without the forest
    python -m benchmarks.lessons --record=tests/lessons_sweeps.json # runs four sweeps, and keeps values and losses
"""

from __future__ import annotations

import csv
import pathlib
import sys
import tempfile
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from benchmarks import command
from fmnist_zoo import card
from fmnist_zoo.files import atomic_write, write_json
from fmnist_zoo.statistics import LEVEL, holm
from trainers.tuning import lessons
from trainers.tuning.space import Parameter

NAMES = ("range", "second", "third", "choice")
PARAMETERS = (*(Parameter(name, (0.0, 1.0), "linear") for name in NAMES[:3]), Parameter("choice", ("a", "b")))
SLOPE, BEND, STEP, CHOICE, NOTHING = "slope", "bend", "step", "choice", "none"
NORMAL, SKEWED = "normal", "skewed"
FOREST_SWEEPS, PERMUTATIONS = 200, 2  # of a row, and of each sweep
PAGE = "lessons: python -m benchmarks.lessons"  # the mark of the table in a page
RECORDED = "dropout=0..0.5; l2=log(1e-6..1e-3); learning_rate=log(1e-4..1e-2); activation=relu,gelu"


class Case(NamedTuple):
    """`shape`: of the effect; `share`: of the variance that it explains; `noise`: of the losses."""

    trials: int
    shape: str
    share: float
    noise: str


class Sweep(NamedTuple):
    """Values between 0 and 1 (trials, hyper-parameters), and losses (trials,)."""

    values: np.ndarray
    losses: np.ndarray


CASES = [*(Case(trials, NOTHING, 0.0, noise) for trials in (12, 16, 60) for noise in (NORMAL, SKEWED)),
         *(Case(trials, shape, share, NORMAL) for shape in (SLOPE, BEND, STEP, CHOICE) for share in (0.3, 0.6)
           for trials in (12, 16))]


def sweeps(case: Case, count: int) -> Iterator[Sweep]:
    """Random searches; the effect is that of the first range, or of the choice."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        values = generator.uniform(size=(case.trials, len(NAMES)))
        values[:, -1] = generator.permutation(case.trials) % 2
        first = values[:, 0]
        effect = {SLOPE: first, BEND: (first - generator.uniform(0.2, 0.8)) ** 2, STEP: (first < 0.25) * 1.0,
                  CHOICE: values[:, -1], NOTHING: 0 * first}[case.shape]
        noise = generator.normal(size=case.trials) if case.noise == NORMAL else generator.lognormal(size=case.trials)
        scale = np.sqrt(case.share / (1 - case.share)) / (effect.std() or 1.0)
        yield Sweep(values, 0.5 + 0.03 * (scale * (effect - effect.mean()) + noise))


def named_by_lessons(sweep: Sweep) -> list[bool]:
    """Which hyper-parameters have an effect by `trainers.tuning.lessons`."""
    values = [{**dict(zip(NAMES, row)), "choice": "ab"[int(row[-1])]} for row in sweep.values.tolist()]
    return [effect.found for effect in lessons.effects(PARAMETERS, values, sweep.losses)[0]]


def named_by_forest(found: Sequence[Sweep], trees: int) -> list[list[bool]]:
    """The same for each sweep by a random forest: trees of bootstrapped trials, as scikit-learn's, without its threads,
    which take six times as long as so small trees."""
    from sklearn.tree import DecisionTreeRegressor

    generator = np.random.default_rng(1)

    def importances(values: np.ndarray, losses: np.ndarray) -> np.ndarray:
        values, losses = values.astype(np.float32), losses[:, None].copy()
        counts = generator.multinomial(len(losses), np.full(len(losses), 1 / len(losses)), size=trees).astype(float)
        fitted = [DecisionTreeRegressor(random_state=0).fit(values, losses, weights, check_input=False)
                  for weights in counts]
        return np.mean([tree.feature_importances_ for tree in fitted], axis=0)

    chance = np.array([importances(sweep.values, generator.permutation(sweep.losses))
                       for sweep in found for _ in range(PERMUTATIONS)])
    observed = [importances(sweep.values, sweep.losses) for sweep in found]
    p = [(1 + (chance >= one).sum(axis=0)) / (1 + len(chance)) for one in observed]
    return [[bool(one < LEVEL) for one in holm(of_sweep)] for of_sweep in p]


def rates(case: Case, named: Sequence[Sequence[bool]]) -> tuple[float, float]:
    """How often that which has the effect is named, and how often another one; of no effect the first is NaN."""
    table = np.array(named)
    right = {NOTHING: -1, CHOICE: len(NAMES) - 1}.get(case.shape, 0)
    wrong = np.delete(table, right, axis=1) if right >= 0 else table
    return float(table[:, right].mean()) if right >= 0 else float("nan"), float(wrong.any(axis=1).mean())


def row(case: Case, count: int, trees: int) -> dict[str, Any]:
    """A row of the table, in per cent; `trees` of 0: without the forest."""
    found = list(sweeps(case, count))
    cells: dict[str, Any] = {**case._asdict(), "sweeps": count}
    named = {"lessons": [named_by_lessons(sweep) for sweep in found]}
    if trees and case.shape != NOTHING:
        named["forest"] = named_by_forest(found[:FOREST_SWEEPS], trees)
    for name in ("lessons", "forest"):
        right, wrong = rates(case, named[name]) if name in named else (float("nan"), float("nan"))
        cells[f"{name}_right"], cells[f"{name}_wrong"] = ("" if np.isnan(rate) else f"{100 * rate:.1f}"
                                                          for rate in (right, wrong))
    return cells


def write_rows(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown, with an empty cell where nothing could be named or was asked."""
    heads = ("trials", "effect", "variance explained", "losses", "named", "another named", "named by the forest",
             "another by the forest")
    lines = [[str(row["trials"]), row["shape"], f"{100 * float(row['share']):.0f} %", row["noise"],
              *(f"{row[name]} %" if row[name] else "" for name in (
                  "lessons_right", "lessons_wrong", "forest_right", "forest_wrong"))] for row in rows]
    return card.markdown_table([heads, *lines], numeric=[head for head in heads if head not in ("effect", "losses")])


def record(path: pathlib.Path) -> None:
    """Runs four small sweeps, of which the learning rate decides, and keeps their values and losses in a file."""
    from trainers.sweep import sweep

    content = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, tuner, trials, seed in (("bayesian", "bayesian", 12, 0), *(
                (f"random {seed}", "random", 16, seed) for seed in (1, 2, 3))):
            rows = sweep("4L", RECORDED, tuner=tuner, max_trials=trials, seed=seed, epochs=6, data="mini",
                         logdir=folder, name=name.replace(" ", ""))
            names = [part.split("=")[0] for part in RECORDED.split("; ")]
            content[name] = [{"values": {name: row[name] for name in names}, "loss": row["objective"]} for row in rows]
    write_json(path, {"space": RECORDED, "sweeps": content})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.lessons", __doc__)
    parser.add_argument("--sweeps", type=command.count, default=1000, help="of each row")
    parser.add_argument("--forest", type=int, default=30, help="trees; 0: without the forest")
    parser.add_argument("--rows", type=command.file_to_write, help="a CSV file for the table")
    parser.add_argument("--page", type=command.file_to_write, help="a page whose table is replaced")
    parser.add_argument("--record", type=command.file_to_write, help="a JSON file for four small sweeps, and stop")
    values = parser.parse_args(arguments)
    if values.record:
        record(values.record)
        return 0
    rows: list[dict[str, Any]] = []
    for case in CASES:
        rows.append(row(case, values.sweeps, values.forest))
        if values.rows:
            write_rows(values.rows, rows)
    command.show(table(rows), values.page, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
