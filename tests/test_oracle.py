"""keras-tuner's oracles, asked and told: what they propose, and that a told-again oracle stands where it stood."""

import collections
import itertools

import pytest

from trainers import config as configs
from trainers.tuning import space as spaces
from trainers.tuning.oracle import Oracle, hyperband_rounds

BASE = configs.resolve("4L", data="mini")
MIXED = "dropout=0,0.1,0.3_0.2_0.1; l2=log(1e-6..1e-2); batch_size=32,full; epochs=2..9"


def make(tuner, text, *, seed=0, epochs=9):
    return Oracle(tuner, spaces.parse(text, BASE), lower_is_better=True, seed=seed, epochs=epochs)


def objective(proposal):
    return (proposal.values["dropout"] - 0.2) ** 2 - 0.001 * (proposal.epochs or 0)


def drive(oracle, count, *, failing=()):
    """Proposals one after the other, each told of before the next; stops where the oracle does."""
    found = []
    for index in range(count):
        proposal = oracle.propose()
        if isinstance(proposal, str):
            assert proposal == "done"
            break
        found.append(proposal)
        oracle.tell(proposal.trial, None if index in failing else objective(proposal))
    return found


def test_grid_tries_each_combination_once_whatever_the_workers_do():
    oracle = make("grid", "dropout=0,0.1,0.5; l2=0,1e-5; batch_size=32,full")
    found = [oracle.propose() for _ in range(12)]  # none has ended yet
    combinations = {(one.values["dropout"], one.values["l2"], one.values["batch_size"]) for one in found}
    assert combinations == set(itertools.product((0.0, 0.1, 0.5), (0.0, 1e-5), (32, "full")))
    assert oracle.propose() == "done"
    assert [one.trial for one in found] == [f"{number:04}" for number in range(12)]


def test_random_depends_on_the_seed_alone_and_keeps_to_the_space():
    first, again, other = (make("random", MIXED, seed=seed) for seed in (0, 0, 1))
    proposals = [first.propose() for _ in range(20)]
    for trial in reversed(range(20)):  # results, in whatever order, change nothing
        again_proposal = again.propose()
        first.tell(f"{trial:04}", 1.0)
        assert again_proposal == proposals[19 - trial]
    assert [other.propose() for _ in range(20)] != proposals
    for one in proposals:
        assert one.values["dropout"] in (0.0, 0.1, "0.3_0.2_0.1") and one.values["batch_size"] in (32, "full")
        assert 1e-6 <= one.values["l2"] <= 1e-2 and one.values["epochs"] in range(2, 10)
        assert type(one.values["epochs"]) is int and spaces.apply(BASE, one.values)


def test_many_failures_do_not_end_a_search():
    assert len(drive(make("random", "dropout=0..0.5"), 12, failing=range(12))) == 12


@pytest.mark.parametrize("epochs", [1, 2, 9, 10, 27, 30])
def test_hyperband_goes_on_from_its_best_and_keeps_to_the_plan(epochs):
    found = drive(make("hyperband", "dropout=0..0.5", epochs=epochs), 500)
    by_name = {one.trial: one for one in found}
    added = collections.Counter()
    for one in found:
        before = by_name[one.parent].epochs if one.parent else 0
        assert one.epochs > before
        added[one.epochs - before] += 1
        if one.parent:
            assert one.values == by_name[one.parent].values
    planned = collections.Counter()
    for trials, more in hyperband_rounds(epochs):
        planned[more] += trials
    assert added == planned
    assert max(one.epochs for one in found) == epochs


@pytest.mark.parametrize("tuner, count", [("hyperband", 30), ("bayesian", 8)])
def test_an_oracle_that_is_told_again_stands_where_it_stood(tuner, count):
    whole = drive(make(tuner, "dropout=0..0.5"), count + 3, failing=(2,))
    again = make(tuner, "dropout=0..0.5")
    assert drive(again, count, failing=(2,)) == whole[:count]
    assert drive(again, 3) == whole[count:count + 3]
    if tuner == "bayesian":
        late = [abs(one.values["dropout"] - 0.2) for one in whole[4:]]
        assert min(late) < 0.05  # it found the valley
        assert all(type(one.values["dropout"]) is float for one in whole)
