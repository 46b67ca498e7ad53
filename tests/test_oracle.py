"""keras-tuner's oracles: what they propose follows from the seed, the trial's number, and the trials they were told."""

import itertools
import os
import random
import subprocess
import sys

import pytest

from tests.sweeps import drive, end
from trainers.config import resolve
from trainers.tuning import hypermodel
from trainers.tuning.oracle import DONE, Oracle
from trainers.tuning.space import apply, parse, parse_start
from trainers.tuning.study import Trial

BASE = resolve("4L", data="mini")
MIXED = "dropout=0,0.1,0.3_0.2_0.1; l2=log(1e-6..1e-2); batch_size=32,full; epochs=2..9"


def make(tuner, text, *, seed=0, start=()):
    space = parse(text, BASE)
    return Oracle(tuner, space, lower_is_better=True, seed=seed, start=parse_start(start, space))


def objective(trial):
    return (trial.values["dropout"] - 0.2) ** 2


def but(*failing):
    """The same objective, but these trials fail."""
    return lambda trial: None if trial.number in failing else objective(trial)


def values_of(trials):
    return [trial.values for trial in trials]


def test_grid_proposes_each_combination_once_before_any_has_ended():
    found = drive(make("grid", "dropout=0,0.1,0.5; l2=0,1e-5; batch_size=32,full"), lambda trial: 0.5, workers=100)
    combinations = {tuple(trial.values.values()) for trial in found}
    assert len(found) == 12 and combinations == set(itertools.product((0.0, 0.1, 0.5), (0.0, 1e-5), (32, "full")))


def test_random_depends_only_on_the_seed_and_stays_within_the_space():
    found = drive(make("random", MIXED), lambda trial: 0.5, count=20)
    assert values_of(drive(make("random", MIXED), lambda trial: None, count=20, workers=7)) == values_of(found)
    assert values_of(drive(make("random", MIXED, seed=1), lambda trial: 0.5, count=20)) != values_of(found)
    for trial in found:
        assert trial.values["dropout"] in (0.0, 0.1, "0.3_0.2_0.1") and trial.values["batch_size"] in (32, "full")
        assert 1e-6 <= trial.values["l2"] <= 1e-2 and trial.values["epochs"] in range(2, 10)
        assert type(trial.values["epochs"]) is int and apply(BASE, trial.values)


def test_random_draws_what_random_search_of_keras_tuner_draws(tmp_path):
    import keras_tuner

    space = parse("dropout=0..0.5; batch_size=32,64,128,256", BASE)
    oracle = keras_tuner.oracles.RandomSearchOracle("val_loss", 9, 4, hypermodel.hyperparameters(
        map(hypermodel.config_of, space.parameters)))
    oracle._set_project_dir(tmp_path, "stock")
    stock = [oracle.create_trial(f"tuner{number}").hyperparameters.values for number in range(9)]
    assert values_of(drive(make("random", space.text, seed=3), lambda trial: 0.5, count=9)) == stock


@pytest.mark.parametrize("seed", range(4))
def test_random_finds_all_combinations_of_a_small_space(seed):
    rates = [index / 100 for index in range(30)]
    found = drive(make("random", f"dropout={','.join(map(str, rates))}", seed=seed), objective)
    assert sorted(trial.values["dropout"] for trial in found) == rates


@pytest.mark.parametrize("tuner, space, count", [
    ("random", MIXED, 12), ("grid", "dropout=0,0.1,0.2,0.3; l2=0,1e-5", 8),
    pytest.param("bayesian", "dropout=0..0.5", 7, marks=pytest.mark.long)])
def test_oracle_that_is_told_of_the_trials_goes_on_as_the_one_before(tuner, space, count):
    """Whenever a sweep is left, and whichever of its trials runs then."""
    whole = drive(make(tuner, space), but(2) if tuner == "bayesian" else lambda trial: 0.5, count=count)
    for left in range(1, count):
        again = make(tuner, space)
        for trial in whole[:left]:
            again.tell(trial)
        assert again.propose(left).values == whole[left].values, left


def test_deleted_trial_is_proposed_again():
    for tuner, space in (("random", MIXED), ("grid", "dropout=0,0.1,0.2,0.3; l2=0,1e-5")):
        whole = drive(make(tuner, space), lambda trial: 0.5, count=8)
        for gone in range(8):
            oracle = make(tuner, space)
            for trial in whole[:gone] + whole[gone + 1:]:
                oracle.tell(trial)
            assert oracle.propose(gone).values == whole[gone].values


@pytest.mark.long
def test_bayesian_finds_the_minimum_and_tries_no_running_trial_again():
    found = drive(make("bayesian", "dropout=0..0.5"), but(2), count=8)
    assert min(abs(trial.values["dropout"] - 0.2) for trial in found[4:]) < 0.05
    assert all(type(trial.values["dropout"]) is float for trial in found)
    oracle = make("bayesian", "dropout=0..0.5")
    for trial in found:
        oracle.tell(trial)
    running = []
    for number in range(8, 12):
        running.append(Trial(f"{number:04}", oracle.propose(number).values, 0))
        oracle.tell(running[-1])
    rates = sorted(trial.values["dropout"] for trial in running)
    assert min(after - before for before, after in itertools.pairwise(rates)) > 1e-3
    random.shuffle(running)
    for trial in running:
        end(trial, objective, oracle)


def test_bayesian_fits_on_one_core_beside_the_workers():
    oracle, threads = make("bayesian", "dropout=0..0.5"), []
    import threadpoolctl

    populate = oracle._oracle.populate_space

    def populate_space(name):
        threads.extend(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
        return populate(name)

    oracle._oracle.populate_space = populate_space
    before = threadpoolctl.threadpool_info()
    drive(oracle, objective, count=1)
    assert set(threads) == {1} and threadpoolctl.threadpool_info() == before


@pytest.mark.parametrize("tuner", ["random", "bayesian"])
def test_given_combinations_are_tried_first(tuner):
    space = "dropout=0,0.1,0.3_0.2_0.1; l2=log(1e-6..1e-2); batch_size=32,full; shift=0..27"
    start = ["dropout=0.1; l2=1e-6; batch_size=full; shift=9", "shift=2; batch_size=32; dropout=0.3_0.2_0.1; l2=0.01"]
    found = values_of(drive(make(tuner, space, start=start), lambda trial: 0.5, count=5))
    assert found[:2] == [{"dropout": 0.1, "l2": 1e-6, "batch_size": "full", "shift": 9},
                         {"dropout": "0.3_0.2_0.1", "l2": 0.01, "batch_size": 32, "shift": 2}]
    assert type(found[0]["shift"]) is int
    assert found[2:] == values_of(drive(make(tuner, space), lambda trial: 0.5, count=5))[2:]


@pytest.mark.long
def test_random_tries_every_combination_of_a_large_listed_space_and_given_ones_once():
    space = "dropout=0,0.1,0.3; batch_size=32,full; shift=0,1,2,3,4; erase=0,2,4,6,8,10; flip=true,false"
    oracle = make("random", space, start=["dropout=0.1; batch_size=full; shift=4; erase=10; flip=true"])
    found = drive(oracle, lambda trial: 0.5)
    assert found[0].values == {"dropout": 0.1, "batch_size": "full", "shift": 4, "erase": 10, "flip": "true"}
    assert len(found) == 360 == len({tuple(trial.values.values()) for trial in found})
    assert oracle.propose(360) == DONE


@pytest.mark.long
def test_another_processor_continues_a_bayesian_sweep():
    """What a Gaussian process proposes differs in its digits between processors; what is recorded is the truth."""
    program = """if True:
        from tests.test_oracle import make, objective, Trial
        oracle = make("bayesian", "dropout=0..0.5; l2=log(1e-6..1e-2)")
        for number in range(12):
            trial = Trial(f"{number:04}", {"dropout": number / 25, "l2": 1.1 ** number * 1e-5}, 0)
            trial.status, trial.score = "COMPLETED", objective(trial)
            oracle.tell(trial)
        print(oracle.propose(12).values["dropout"])"""
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Prescott"}
    answer = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment,
                            check=True)
    assert 0 <= float(answer.stdout) <= 0.5
