"""Runs and sweeps that are killed at random: thirty kills of the campaign's part `kills`."""

import random

import pytest

from tests.campaign import kills
from tests.sweeps import BATCH, rows_of, without_times
from trainers import sweep

SWEEPS = {  # with two workers the promotions of asha depend on which trial ends first
    "random": dict(space="l2=log(1e-6..1e-2); learning_rate=log(1e-4..1e-2)", max_trials=12, epochs=3, workers=2),
    "grid": dict(space="l2=0,1e-5,1e-4; learning_rate=1e-4,3e-4,1e-3,3e-3", epochs=3, workers=2),
    "asha": dict(space="dropout=0..0.5; learning_rate=log(1e-4..1e-2)", max_trials=9, epochs=9, workers=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("tuner", SWEEPS)
def test_sweep_that_was_killed_four_times_equals_an_undisturbed_one(tuner, tmp_path, inline_pool):
    asked = {**SWEEPS[tuner], "tuner": tuner, "data": "mini", "batch_size": BATCH, "name": "one", "model": "2L"}
    flags, path = kills.swept(asked, tmp_path / "killed")
    killed, code = kills.disturbed(flags, path, random.Random(tuner), 4)
    assert code == 0 and killed.total() == 4
    model, space = asked.pop("model"), asked.pop("space")
    sweep.sweep(model, space, **asked, logdir=tmp_path / "calm")
    table, calm = (without_times(rows_of(tmp_path / name / "sweeps" / "one")) for name in ("killed", "calm"))
    assert table == calm and {row["status"] for row in table} == {"COMPLETED"}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_run_that_was_killed_three_times_equals_an_undisturbed_one(number, tmp_path):
    part = kills.Kills()
    case = part.find(30, f"run-{number}")
    assert case and case.tries == 3
    try:
        assert part.run(case, tmp_path) is None
    finally:
        part.close()
