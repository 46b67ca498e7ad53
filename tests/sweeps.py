"""What the tests of the sweep share: a pool without processes, and ways to read its tables."""

import csv
import pathlib

from trainers.tuning import pool as pools, trial as trials

SPACE = {"dropout": [0, 0.5], "l2": [0, 0.001]}
GRID = dict(tuner="grid", data="mini", epochs=2)


class Inline:
    """A pool without processes: jobs run here, when they are waited for; `lose` are jobs whose worker dies."""

    def __init__(self, slots=1, lose=(), order=1):
        self.slots, self.jobs, self.lose, self.order, self.ran = slots, {}, list(lose), order, []

    def submit(self, name, job):
        assert len(self.jobs) < self.slots
        self.jobs[name] = job

    def wait(self, timeout):
        name = list(self.jobs)[:: self.order][0]
        job = self.jobs.pop(name)
        self.ran.append(name)
        if name in self.lose:
            self.lose.remove(name)
            return [(name, {"status": pools.DIED, "begun": True})]
        return [(name, trials.run(job))]

    def close(self):
        pass


def rows_of(path):
    with open(pathlib.Path(path) / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
