"""keras-tuner's oracles: what they propose, and that repeating the same requests and results restores their state."""

import collections
import copy
import itertools

import pytest

from tests.sweeps import drive
from trainers.config import resolve
from trainers.tuning.oracle import STATE, Oracle, hyperband_brackets
from trainers.tuning.space import apply, parse, parse_start

BASE = resolve("4L", data="mini")
MIXED = "dropout=0,0.1,0.3_0.2_0.1; l2=log(1e-6..1e-2); batch_size=32,full; epochs=2..9"


def make(tuner, text, *, seed=0, epochs=9, start=()):
    space = parse(text, BASE)
    return Oracle(tuner, space, lower_is_better=True, seed=seed, epochs=epochs, start=parse_start(start, space))


def objective(proposal):
    return (proposal.values["dropout"] - 0.2) ** 2 - 0.001 * (proposal.epochs or 0)


def but(*failing):
    """The same objective, but these trials fail."""
    return lambda proposal: None if int(proposal.trial) in failing else objective(proposal)


def test_grid_proposes_each_combination_once_before_any_has_ended():
    oracle = make("grid", "dropout=0,0.1,0.5; l2=0,1e-5; batch_size=32,full")
    found = [oracle.propose() for _ in range(12)]
    combinations = {(one.values["dropout"], one.values["l2"], one.values["batch_size"]) for one in found}
    assert combinations == set(itertools.product((0.0, 0.1, 0.5), (0.0, 1e-5), (32, "full")))
    assert oracle.propose() == "done"
    assert [one.trial for one in found] == [f"{number:04}" for number in range(12)]


def test_random_depends_only_on_the_seed_and_stays_within_the_space():
    first, again, other = (make("random", MIXED, seed=seed) for seed in (0, 0, 1))
    proposals = [first.propose() for _ in range(20)]
    for number in reversed(range(20)):  # results change nothing, in any order
        proposal = again.propose()
        first.report(f"{number:04}", 1.0)
        assert proposal == proposals[19 - number]
    assert [other.propose() for _ in range(20)] != proposals
    for one in proposals:
        assert one.values["dropout"] in (0.0, 0.1, "0.3_0.2_0.1") and one.values["batch_size"] in (32, "full")
        assert 1e-6 <= one.values["l2"] <= 1e-2 and one.values["epochs"] in range(2, 10)
        assert type(one.values["epochs"]) is int and apply(BASE, one.values)


def test_many_failures_do_not_end_a_search():
    assert len(drive(make("random", "dropout=0..0.5"), lambda one: None, count=12)) == 12


@pytest.mark.parametrize("seed", range(4))
def test_random_finds_all_combinations_of_a_small_space(seed):
    rates = [index / 100 for index in range(30)]
    found = drive(make("random", f"dropout={','.join(map(str, rates))}", seed=seed), objective)
    assert sorted(one.values["dropout"] for one in found) == rates


@pytest.mark.parametrize("epochs", [1, 2, 9, 10, 27, 30])
def test_hyperband_continues_its_best_trials_as_planned(epochs):
    found = drive(make("hyperband", "dropout=0..0.5", epochs=epochs), objective)
    by_name = {one.trial: one for one in found}
    added = collections.Counter()
    for one in found:
        before = by_name[one.parent].epochs if one.parent else 0
        assert one.epochs > before
        added[one.epochs - before] += 1
        if one.parent:
            assert one.values == by_name[one.parent].values
    planned = collections.Counter()
    for trials, more in itertools.chain(*hyperband_brackets(epochs)):
        planned[more] += trials
    assert added == planned
    assert max(one.epochs for one in found) == epochs


@pytest.mark.parametrize("seed", range(4))
def test_hyperband_with_idle_workers_completes_on_the_smallest_space_that_fits(seed):
    """Nine epochs draw 9 + 5 + 3 combinations, and this space has 17. How often idle workers ask must not matter."""
    space = f"dropout={','.join(str(index / 100) for index in range(17))}"
    found = drive(make("hyperband", space, seed=seed), objective, workers=2)
    assert [sum(trials for trials, _ in rounds) for rounds in hyperband_brackets(9)] == [13, 7, 3]
    assert len(found) == 23 and len({one.values["dropout"] for one in found}) == 17
    assert drive(make("hyperband", space, seed=seed), objective, workers=2, polls=3) == found


def test_request_without_a_proposal_changes_no_state():
    oracle = make("hyperband", "dropout=0,0.1,0.2,0.3")  # too small: the oracle draws in vain and has to wait
    for _ in range(4):
        oracle.propose()
    before = copy.deepcopy([vars(oracle._oracle)[name] for name in STATE])
    assert [oracle.propose() for _ in range(3)] == ["wait"] * 3
    assert [vars(oracle._oracle)[name] for name in STATE] == before


@pytest.mark.parametrize("tuner, count, more", [
    ("hyperband", 20, 3), pytest.param("bayesian", 5, 2, marks=pytest.mark.long)])
def test_repeating_proposals_and_results_restores_the_state(tuner, count, more):
    whole = drive(make(tuner, "dropout=0..0.5"), but(2), count=count + more)
    again = make(tuner, "dropout=0..0.5")
    assert drive(again, but(2), count=count) == whole[:count]
    assert drive(again, objective, count=more) == whole[count:]
    if tuner == "bayesian":
        assert min(abs(one.values["dropout"] - 0.2) for one in whole[4:]) < 0.05  # near the minimum
        assert all(type(one.values["dropout"]) is float for one in whole)


@pytest.mark.parametrize("failing", [(), (0, 1)])
@pytest.mark.parametrize("tuner", ["random", pytest.param("bayesian", marks=pytest.mark.long), "hyperband"])
def test_given_combinations_are_tried_first_and_repeating_restores_the_state(tuner, failing):
    space = "dropout=0,0.1,0.3_0.2_0.1; l2=log(1e-6..1e-2); batch_size=32,full; shift=0..27"
    start = ["dropout=0.1; l2=1e-6; batch_size=full; shift=9", "shift=2; batch_size=32; dropout=0.3_0.2_0.1; l2=0.01"]
    loss = {0.0: 0.3, 0.1: 0.2, "0.3_0.2_0.1": 0.1}

    def run(oracle, count):
        return drive(oracle, count=count, loss=lambda one: (
            None if int(one.trial) in failing else loss[one.values["dropout"]]))

    count = 13 + len(failing) if tuner == "bayesian" else 16  # the last one is of a Gaussian process
    found = run(make(tuner, space, start=start), count)
    assert [one.values for one in found[:2]] == [
        {"dropout": 0.1, "l2": 1e-6, "batch_size": "full", "shift": 9},
        {"dropout": "0.3_0.2_0.1", "l2": 0.01, "batch_size": 32, "shift": 2}]
    assert type(found[0].values["shift"]) is int and found[2].values not in [one.values for one in found[:2]]
    assert run(make(tuner, space, start=start), count) == found
    if tuner != "bayesian":  # what follows is what would have come without them
        others = run(make(tuner, space), 5)
        assert [one.values for one in found[2:5]] == [one.values for one in others[:3]]


def test_bayesian_tries_more_given_combinations_than_its_random_ones():
    start = [f"dropout=0.{number}" for number in range(1, 8)]
    found = drive(make("bayesian", "dropout=0..0.9", start=start), objective, count=8)
    assert [one.values["dropout"] for one in found[:7]] == [number / 10 for number in range(1, 8)]
    assert found[7].values["dropout"] not in [number / 10 for number in range(1, 8)]


@pytest.mark.long
def test_random_tries_every_combination_of_a_large_listed_space_and_given_ones_once():
    space = "dropout=0,0.1,0.3; batch_size=32,full; shift=0,1,2,3,4; erase=0,2,4,6,8,10; flip=true,false"
    oracle = make("random", space, start=["dropout=0.1; batch_size=full; shift=4; erase=10; flip=true"])
    found = drive(oracle, lambda one: 0.5)
    assert found[0].values == {"dropout": 0.1, "batch_size": "full", "shift": 4, "erase": 10, "flip": "true"}
    assert len(found) == 360 == len({tuple(one.values.values()) for one in found}) and oracle.propose() == "done"
