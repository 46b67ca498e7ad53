"""Part `crash_points`: a crash of the machine after each operation on files, and all that the disk may then hold.

What a piece of work does is recorded once and kept in the state folder, so that the cases of a campaign stay the same.
"""

from __future__ import annotations

import pathlib
import pickle
import random
import tempfile
from typing import Any, Iterator

from fmnist_zoo.files import atomic_write
from tests import helpers
from tests.campaign import disk, driver, recorder, work
from tests.campaign.disk import Disk, Tree

ROOTED = "rooted"  # a case of each piece of work: no folder is lost in which something was synced


class CrashPoints(driver.Part):
    name = "crash_points"
    about = "states of the disk after a crash, of " + ", ".join(f"`{name}`" for name in work.ALL)

    def __init__(self) -> None:
        self._recordings: dict[str, tuple[Disk, Any]] = {}

    def cases(self, seed: int) -> Iterator[driver.Case]:
        """The states of all pieces of work, in a random order; of a sweep as many as it says."""
        dice, chosen = random.Random(seed), []
        for one in work.ALL.values():
            found = self._disk(one).sample(dice, one.most) if one.most else self._disk(one).states()
            chosen += [f"{one.name}:{ROOTED}", *(f"{one.name}:{state.after}:{state.variant}" for state in found)]
        dice.shuffle(chosen)
        return map(driver.Case, chosen)

    def find(self, seed: int, id: str) -> driver.Case | None:
        name, _, rest = id.partition(":")
        return driver.Case(id) if name in work.ALL and (rest == ROOTED or self._tree(id)) else None

    def run(self, case: driver.Case, folder: pathlib.Path) -> str | None:
        name, _, rest = case.id.partition(":")
        one = work.ALL[name]
        if rest == ROOTED:
            unrooted = self._disk(one).unrooted()
            return f"synced, and lost with the name of a folder above: {', '.join(unrooted)}" if unrooted else None
        tree = self._tree(case.id)
        assert tree is not None
        disk.write_tree(tree, folder)
        with work.quiet_engine():
            return one.again(folder) or helpers.difference(self._recording(one)[1], helpers.plain(one.outcome(folder)))

    def _tree(self, id: str) -> Tree | None:
        name, count, variant = id.split(":")
        return self._disk(work.ALL[name]).state(int(count), variant)

    def _disk(self, one: work.Work) -> Disk:
        return self._recording(one)[0]

    def _recording(self, one: work.Work) -> tuple[Disk, Any]:
        """What the disk may hold, and the outcome of the undisturbed work."""
        if one.name not in self._recordings:
            path = self.keep / f"{one.name}.pickle"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as file:
                    pickle.dump(take(one), file)
            found = pickle.loads(path.read_bytes())
            self._recordings[one.name] = Disk(found["before"], found["operations"]), found["expected"]
        return self._recordings[one.name]


def take(one: work.Work) -> dict[str, Any]:
    """Records a piece of work; checks that the record explains every byte of what it left."""
    with tempfile.TemporaryDirectory(prefix="campaign-") as name, work.quiet_engine():
        root = pathlib.Path(name).resolve()
        one.prepare(root)
        before = disk.read_tree(root)
        operations = recorder.record(lambda: one.act(root), root)
        left = disk.read_tree(root)
        expected = helpers.plain(one.outcome(root))
    made = Disk(before, operations).tree()
    wrong = sorted(path for path in {*made, *left} if made.get(path, "") != left.get(path, ""))
    assert not wrong, f"the record does not explain {', '.join(wrong)}"
    return {"before": before, "operations": operations, "expected": expected}
