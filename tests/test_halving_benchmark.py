"""`benchmarks.halving`: which time counts, that it continues, and what it compares. Nothing here trains."""

import csv
import itertools
import json
import types

import pytest

from benchmarks import halving
from tests.sweeps import Pretending, replace_pool
from trainers.config import RunConfig


class Timed(Pretending):
    """Trials that take a second an epoch, by a clock of their own; Ctrl-C in the trial number `interrupted`."""

    def __init__(self, interrupted):
        super().__init__()
        self.now, self.interrupted = 1e9, interrupted

    def run(self, job):
        if len(self.ran) == self.interrupted:
            self.ran.append("")
            raise KeyboardInterrupt
        epochs = RunConfig.from_dict(job["config"]).recipe.epochs
        self.now += epochs
        outcome = super().run(job)
        outcome["final"]["ranking_loss"] += 1 / epochs
        return {**outcome, "ended": self.now}


def rows_of(path, tuner):
    with open(path / "halving.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if row["tuner"] == tuner]


@pytest.fixture
def timed(monkeypatch):
    pool = replace_pool(monkeypatch, Timed(interrupted=6))
    monkeypatch.setattr(halving, "time", types.SimpleNamespace(time=lambda: pool.now))
    return pool


@pytest.mark.long
def test_searches_continue_and_breaks_do_not_count(timed, tmp_path, capsys):
    asked = ["--data=mini", "--trials=9", "--epochs=9", "--seeds=1,2", "--budget=2", f"--logdir={tmp_path}"]
    assert halving.main(asked) == 130
    timed.now += 1000
    assert halving.main(asked) == 0
    printed = capsys.readouterr().out
    asha, random = rows_of(tmp_path, "asha"), rows_of(tmp_path, "random")
    for rows in ([row for row in both if row["seed"] == seed] for both in (asha, random) for seed in ("1", "2")):
        assert [float(row["seconds"]) for row in rows] == list(itertools.accumulate(int(row["epochs"]) for row in rows))
        best = itertools.accumulate((float(row["loss"]) for row in rows), min)
        assert [float(row["best"]) for row in rows] == list(best)
    first = [row for row in asha if row["seed"] == "1"]
    assert len(first) == 13 and first[-1]["epochs_so_far"] == "21"  # 9, 3 and 1 trials, which add 1, 2 and 6 epochs
    limit = 2 * float(first[-1]["seconds"])
    assert sum(row["seed"] == "1" for row in random) == limit // 9
    content = json.loads((tmp_path / "halving.json").read_text())
    assert [one["seed"] for one in content["seeds"]] == [1, 2] and content["seeds"][0]["asha"]["seconds"] == 27
    assert (tmp_path / "halving.png").read_bytes().startswith(b"\x89PNG")
    assert printed.count("random takes") == 3
    ran = len(timed.ran)
    assert halving.main(asked) == 0 and len(timed.ran) == ran  # all is there already


def test_compared_is_what_either_needs_for_the_best_loss_that_both_found():
    asha = [halving.Row(1, "asha", "0000", 1, 10.0, 1, 0.5, 0.5), halving.Row(1, "asha", "0001", 3, 20.0, 3, 0.3, 0.3)]
    random = [halving.Row(1, "random", f"{number:04}", 9, 30.0 * (number + 1), 9 * (number + 1), loss, best)
              for number, (loss, best) in enumerate([(0.6, 0.6), (0.4, 0.4), (0.45, 0.4)])]
    found = halving.summarize(asha, random)
    assert found["target"] == 0.4 and found["seconds_ratio"] == 60 / 20 and found["epochs_ratio"] == 18 / 3
    assert [found["random"][f"best_at_{times}"] for times in (1, 2, 3)] == [None, 0.6, 0.4]
    assert "random nothing in 1 times, 0.6000 in 2 times, 0.4000 in 3 times that time, 0.4000 in 90 s" in \
        halving.describe(found)
