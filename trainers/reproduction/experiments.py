"""What the assignment report ran, printed and claimed, as plain data; see `trainers.reproduction` for the document.

Part B's numbers name no data set: the page prints them beside ours, but they are no target. Imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Sequence

from fmnist_zoo.card import printable
from fmnist_zoo.errors import UsageError

History = list[dict[str, Any]]  # the rows of one run's metrics.csv
Runs = Mapping[str, Sequence[History]]  # model to its runs, one a seed


@dataclasses.dataclass(frozen=True)
class Printed:
    """A row of numbers that the report printed; None where it printed no number."""

    model: str
    epoch: int | None = None  # after which they were taken; 1 is the start of a full-batch run, None the last epoch
    loss: float | None = None
    val_loss: float | None = None
    accuracy: float | None = None
    val_accuracy: float | None = None
    objective: bool = False  # whether the losses include the penalty


@dataclasses.dataclass(frozen=True)
class Claim:
    """The report says that `better` beats `worse` in `column` of the last epoch's row (losses: lower is better)."""

    text: str
    better: str
    worse: str
    column: str


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Models that the report compared. `--only` accepts its `name`, `group` or `part`."""

    name: str
    part: str
    group: str
    title: str
    models: tuple[str, ...]
    printed: tuple[Printed, ...] = ()
    claims: tuple[Claim, ...] = ()
    note: str = ""

    @property
    def trainer(self) -> str:
        """The engine: Part A is trained from its equations, Part B by the fast loop."""
        return "scratch" if self.part == "part_a" else "tape"


LOSS, ACCURACY = "val_loss", "val_accuracy"
UNNAMED = "The report names no data set here; see the section on Part B's numbers."
D4, D5 = ("4D_drop02", "4D_drop03", "4D_drop03_02_01"), ("5D_drop02", "5D_drop03", "5D_drop04_03_02_01")

EXPERIMENTS = (
    Experiment(
        "softmax_full_batch", "part_a", "softmax", "Part A: the softmax classifier", ("network_softmax",),
        (Printed("network_softmax", 350, 0.501, 0.518), Printed("network_softmax", 500, 0.4860666, 0.5207719)),
        note="The report validates on 10,000 images, we on 6,000 of the 60,000. It does not state the learning rate; "
             "0.001 comes closest."),
    Experiment(
        "networks_a_b", "part_a", "networks", "Part A: networks A and B", ("network_A", "network_B"),
        claims=(Claim("B does a little better than A in loss", "network_B", "network_A", LOSS),),
        note="The report prints no numbers here: 'similar; B a little better in loss'."),
    Experiment(
        "penalties_a", "part_a", "penalties", "Part A: L1 and L2 on network A",
        ("network_A", "network_A_l1", "network_A_l2"),
        (Printed("network_A_l1", 1, 12.0, objective=True), Printed("network_A_l1", 500, 0.82, 0.84, objective=True),
         Printed("network_A_l2", 1, 3.0, objective=True), Printed("network_A_l2", 500, 0.42, 0.48, objective=True)),
        (Claim("L2 beats no penalty on unseen images", "network_A_l2", "network_A", LOSS),
         Claim("L1 does better than L2", "network_A_l1", "network_A_l2", LOSS)),
        "These losses are objectives: they include the penalty, so L1 and L2 cannot be compared by them. The report "
        "swaps L2's train and validation figures; here they are swapped back."),
    Experiment(
        "penalties_b", "part_a", "penalties", "Part A: L1 and L2 on network B",
        ("network_B", "network_B_l1", "network_B_l2"),
        claims=(Claim("L1 does better than L2", "network_B_l1", "network_B_l2", LOSS),)),
    Experiment(
        "softmax_2l", "part_b", "depth", "Part B: softmax against two layers", ("softmax", "2L"),
        (Printed("2L", 30, 0.1413, 0.6409),),
        (Claim("2L improves on softmax in accuracy", "2L", "softmax", ACCURACY),
         Claim("2L improves on softmax in loss", "2L", "softmax", LOSS)), UNNAMED),
    Experiment(
        "depth", "part_b", "depth", "Part B: three, four and five layers", ("3L", "4L", "5L"),
        (Printed("3L", 30, 0.1189, 0.7409, 0.9622, 0.8999), Printed("4L", 30, None, 0.5939, None, 0.9049),
         Printed("5L", 30, None, 0.5802, None, 0.9071)),
        (Claim("4L overfits less than 3L", "4L", "3L", LOSS), Claim("5L overfits less than 4L", "5L", "4L", LOSS),
         Claim("4L is more accurate than 3L", "4L", "3L", ACCURACY),
         Claim("5L is more accurate than 4L", "5L", "4L", ACCURACY)), UNNAMED),
    Experiment(
        "dropout_4l", "part_b", "dropout", "Part B: dropout in four layers", ("4L", *D4),
        (Printed("4L", 30, None, 0.5939, None, 0.9049), Printed("4D_drop02", 30, None, 0.3848),
         Printed("4D_drop03", 30, None, 0.3781, None, 0.8911),
         Printed("4D_drop03_02_01", 30, None, 0.3443, None, 0.9034)),
        (Claim("dropout 0.2 improves 4L in loss", "4D_drop02", "4L", LOSS),
         Claim("0.3 improves on 0.2 in loss", "4D_drop03", "4D_drop02", LOSS),
         Claim("the schedule improves on 0.3 in loss", "4D_drop03_02_01", "4D_drop03", LOSS),
         Claim("the schedule improves on 0.3 in accuracy", "4D_drop03_02_01", "4D_drop03", ACCURACY),
         Claim("dropout improves 4L in accuracy too", "4D_drop03", "4L", ACCURACY)), UNNAMED),
    Experiment(
        "dropout_5l", "part_b", "dropout", "Part B: dropout in five layers", ("5L", *D5),
        claims=(Claim("dropout 0.2 improves 5L in loss", "5D_drop02", "5L", LOSS),
                Claim("the schedule improves on 0.3 in loss", "5D_drop04_03_02_01", "5D_drop03", LOSS)),
        note="The report says 'similar effect of dropout' and prints no numbers."),
)


def select(only: str) -> tuple[Experiment, ...]:
    """The experiments that `--only` selects, all if it is empty; `UsageError` for a word that selects none."""
    words = [word for word in only.split(",") if word]
    for word in words:
        if not any(word in (one.name, one.group, one.part) for one in EXPERIMENTS):
            raise UsageError(f"--only={printable(only)}: there is no experiment {word!r}; see --help for their names")
    return tuple(one for one in EXPERIMENTS if not words or {one.name, one.group, one.part} & set(words))
