"""What a sweep has taught, in sweeps whose answer is known: effects, costs, what equals the best, what is not known."""

import itertools
import json
import pathlib
import zlib

import numpy as np
import pytest
from scipy import stats

from benchmarks import lessons as simulation
from fmnist_zoo.statistics import tukey_margin
from tests.sweeps import made
from trainers.config import resolve
from trainers.tuning import lessons
from trainers.tuning.lessons import label, learn, levels
from trainers.tuning.space import Parameter, parse

GRID = "dropout=0,0.1,0.2; l2=0,1e-4,1e-3"
COMBINATIONS = list(itertools.product((0.0, 0.1, 0.2), (0.0, 1e-4, 1e-3)))
SWEEPS = json.loads(pathlib.Path(__file__).with_name("lessons_sweeps.json").read_text(encoding="utf-8"))


def noise_of(values, size=0.001):
    """The same small number for the same values, without a pattern."""
    return size * np.random.default_rng(zlib.crc32(repr(values).encode())).normal()


def drawn(count, names, seed=0):
    """Ranges from 0 to 1, and the values of `count` trials."""
    values = np.random.default_rng(seed).uniform(size=(count, len(names)))
    return [Parameter(name, (0.0, 1.0), "linear") for name in names], [dict(zip(names, row)) for row in values.tolist()]


def effects(parameters, values, costs, **options):
    return {effect.name: effect for effect in lessons.effects(parameters, values, np.array(costs), **options)[0]}


@pytest.mark.parametrize("name", SWEEPS["sweeps"])
def test_learning_rate_is_named_where_it_decides_and_dropout_is_not(name):
    """Sweeps that were run: `python -m benchmarks.lessons --record=tests/lessons_sweeps.json`."""
    trials = SWEEPS["sweeps"][name]
    parameters = parse(SWEEPS["space"], resolve("4L")).parameters
    found = effects(parameters, [trial["values"] for trial in trials], [trial["loss"] for trial in trials])
    assert [effect.name for effect in found.values() if effect.found] == ["learning_rate"]
    rate = found["learning_rate"]
    assert rate.share == max(effect.share for effect in found.values()) and rate.worse[0] and not rate.worse.all()
    scale = np.log([trial["values"]["learning_rate"] for trial in trials])
    losses = np.array([trial["loss"] for trial in trials])
    left = losses - np.polyval(np.polyfit(scale, losses, 2), scale)
    assert rate.share == pytest.approx(1 - left @ left / ((losses - losses.mean()) ** 2).sum())


def test_values_of_a_grid_have_plain_means_intervals_of_their_spread_and_costs(tmp_path):
    scores = dict(zip(COMBINATIONS, (0.31, 0.30, 0.35, 0.29, 0.30, 0.37, 0.30, 0.28, 0.37)))
    found = learn(made(tmp_path / "s", GRID, COMBINATIONS, lambda values, seed: scores[tuple(values.values())]))
    table = np.array(list(scores.values())).reshape(3, 3)
    dropout, l2 = found.effects
    assert dropout.levels.labels == ("0", "0.1", "0.2") and l2.levels.labels == ("0", "1e-4", "1e-3")
    np.testing.assert_allclose(dropout.means, table.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(l2.losses, table.mean(axis=0) - table.mean(axis=0).min(), rtol=1e-9, atol=1e-12)
    within = ((table - table.mean(axis=0)) ** 2).sum()
    assert l2.share == pytest.approx(1 - within / ((table - table.mean()) ** 2).sum())
    assert l2.found and not dropout.found and l2.adjusted is None
    error = np.sqrt(((table / table.mean(axis=0) - 1) ** 2).sum() / 6 / 3)  # of a mean, relative to it
    np.testing.assert_allclose(np.log(l2.high / l2.means), stats.t.ppf(0.975, 6) * error, rtol=1e-6)
    np.testing.assert_allclose(l2.means / l2.low, l2.high / l2.means, rtol=1e-9)
    above = np.log(l2.means / l2.means.min())
    assert list(l2.worse) == list(above > tukey_margin(3, 6) * error * np.sqrt(2)) == [False, False, True]
    assert not dropout.worse.any()


def test_interval_of_a_loss_stays_above_zero_and_that_of_an_accuracy_below_one():
    parameters, values = drawn(12, "ab")
    costs = np.where(np.arange(12) < 2, 2.0, 0.01)
    for effect in effects(parameters, values, costs).values():
        assert (effect.low > 0).all() and (effect.low < effect.means).all() and (effect.means < effect.high).all()
    for effect in effects(parameters, values, costs / 3, lower_is_better=False).values():
        assert (effect.high <= 1).all() and (effect.low < effect.means).all() and (effect.means < effect.high).all()


def test_p_is_that_of_the_f_test_where_losses_are_normal():
    parameters, values = drawn(40, "a")
    line = np.array([of["a"] for of in values])
    costs = 1 + 0.1 * np.random.default_rng(1).normal(size=40) + line / np.sqrt(40)
    left = costs - np.polyval(np.polyfit(line, costs, 2), line)
    share = 1 - left @ left / ((costs - costs.mean()) ** 2).sum()
    expected = stats.f.sf(share / 2 / ((1 - share) / 37), 2, 37)
    assert 1e-4 < expected < 0.5
    assert effects(parameters, values, costs)["a"].p == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("seed", [1, 2])
def test_p_has_mean_and_variance_of_all_permutations_of_skewed_losses(seed):
    parameters, values = drawn(7, "a", seed)
    costs = np.random.default_rng(seed).lognormal(size=7) + 1
    columns = np.vander([of["a"] for of in values], 3)
    fitted = columns @ np.linalg.pinv(columns)
    orders = costs[list(itertools.permutations(range(7)))]
    shares = ((orders @ fitted - costs.mean()) ** 2).sum(axis=1) / ((costs - costs.mean()) ** 2).sum()
    mean = shares.mean()
    size = mean * (1 - mean) / shares.var() - 1
    found = effects(parameters, values, costs)["a"]
    assert found.share == pytest.approx(shares[0])
    assert found.p == pytest.approx(stats.beta.sf(shares[0], mean * size, (1 - mean) * size))
    assert abs(found.p - stats.f.sf(shares[0] / 2 / ((1 - shares[0]) / 4), 2, 4)) > 0.003


def test_value_of_a_grid_of_nine_with_the_three_worst_trials_is_named():
    """Of the tutorial: only one of 28 grids has its worst trials so by chance, but these are far off."""
    costs = [0.2887, 0.2785, 0.3253, 0.2823, 0.2887, 0.3316, 0.2913, 0.2996, 0.3476]
    values = [dict(zip(("dropout", "l2"), one)) for one in COMBINATIONS]
    found = effects(parse(GRID, resolve("4L")).parameters, values, costs)
    assert found["l2"].found and list(found["l2"].worse) == [False, False, True] and not found["dropout"].found


def test_enough_trials_hold_the_others_equal_and_few_do_not():
    """Trials of dropout 0.2 and l2 0 failed: the plain mean of l2 0 lacks the worst dropout."""
    kept = [one for one in COMBINATIONS if one != (0.2, 0.0)]
    values = [dict(zip(("dropout", "l2"), one)) for one in kept]
    parameters = parse(GRID, resolve("4L")).parameters

    def cost(of):
        return 0.3 + of["dropout"] + 0.01 * (of["l2"] > 0) + 0.01 * (of["l2"] > 1e-4)

    found = effects(parameters, values * 4, [cost(of) + noise_of((of, run)) for run in range(4) for of in values])
    np.testing.assert_allclose(found["l2"].adjusted, [0.3875, 0.3975, 0.4075], atol=0.001)
    np.testing.assert_allclose(found["l2"].means, [0.35, 0.41, 0.42], atol=0.002)
    assert found["dropout"].found and found["l2"].found and list(found["l2"].worse) == [False, True, True]
    assert found["l2"].share < 0.1 and found["dropout"].share + found["l2"].share < 1
    alone = effects(parameters, values, [cost(of) + noise_of(of) for of in values])
    assert alone["l2"].adjusted is None and not alone["l2"].found


def test_hyperparameter_that_some_trials_lack_is_tested_on_the_others():
    values = [{"optimizer": "sgd", "momentum": rate / 8} for rate in range(8)] + [{"optimizer": "adam"}] * 8
    values[-1] = {**values[-1], "momentum": None}
    costs = [0.4 + 0.2 * of.get("momentum", 0) + noise_of((of, at)) if at < 8 else 0.3 + noise_of(at)
             for at, of in enumerate(values)]
    parameters = [Parameter("optimizer", ("sgd", "adam")), Parameter("momentum", (0.0, 1.0), "linear"),
                  Parameter("unused", (1, 9), "linear")]
    for runs in (1, 4):  # each alone, and all together
        found = effects(parameters[:2 + (runs == 1)], values * runs, costs * runs)
        assert found["momentum"].found and found["optimizer"].found
        assert found["momentum"].levels.counts.sum() == 8 * runs and found["momentum"].share > 0.05
    assert np.isnan(effects(parameters, values, costs)["unused"].share)


def test_trial_that_learned_nothing_counts_as_a_guess(tmp_path):
    values = [(rate / 32, 10 ** (number % 4 - 6)) for number, rate in enumerate(range(16))]
    found = learn(made(tmp_path / "s", "dropout=0..0.5; l2=log(1e-6..1e-2)", values, lambda values, seed: (
        50.0 if values["l2"] == 1e-3 else 0.3 + noise_of(values))))
    assert found.guesses == 4
    assert found.effects[1].found and found.effects[1].means[-1] == pytest.approx(np.log(10))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_trials_teach_nothing_and_break_nothing(count, tmp_path):
    found = learn(made(tmp_path / "s", "dropout=0,0.1,0.2; l2=0..1", [(0.1 * n, 0.3 * n) for n in range(count)],
                       lambda values, seed: 0.3 + values["dropout"]))
    assert found.ties is None and np.isnan(found.visible)
    assert not any(effect.found or effect.worse.any() for effect in found.effects)


def test_equal_losses_have_no_effect_and_losses_that_follow_exactly_have_one():
    parameters, values = drawn(12, "ab")
    assert all(effect.p == 1 and not effect.share for effect in effects(parameters, values, [0.3] * 12).values())
    found = effects(parameters, values, [0.3 + of["a"] / 10 for of in values])
    assert found["a"].found and found["a"].share == pytest.approx(1) and not found["b"].found


@pytest.mark.parametrize("count", [4, 6, 8, 12, 20])
def test_one_trial_that_differs_in_a_balanced_grid_has_no_effect(count):
    """Wherever it stands, as much is explained: the permutations have no variance."""
    found = effects((Parameter("a", (0, 1)),), [{"a": index % 2} for index in range(count)],
                    [0.5] * (count - 1) + [0.6])["a"]
    assert found.p == 1 and 0 < found.share < 0.5


def test_accuracy_is_better_if_it_is_higher(tmp_path):
    found = learn(made(tmp_path / "s", GRID, COMBINATIONS, lambda values, seed: 0.2 + 100 * values["l2"],
                       halves=lambda values: 0.2 + 100 * values["l2"] + noise_of(values), objective="val_accuracy"))
    _, l2 = found.effects
    np.testing.assert_allclose(l2.means, [0.8, 0.79, 0.7], atol=1e-9)
    np.testing.assert_allclose(l2.losses, [0, 0.01, 0.1], atol=1e-9)
    assert l2.found and l2.worse[2] and {trial.values["l2"] for trial in found.ties.group} == {0.0}


def test_noise_from_seeds_leaves_out_what_a_seed_does_to_all_trials(tmp_path):
    values = [(rate,) for rate in (0.0, 0.1, 0.2, 0.3)]
    table = np.array([[0.30, 0.41, 0.52], [0.31, 0.40, 0.53], [0.32, 0.43, 0.50], [0.40, 0.51, 0.62]])
    found = learn(made(tmp_path / "s", "dropout=0,0.1,0.2,0.3", values,
                       lambda values, seed: table[round(10 * values["dropout"]), seed], seeds=3)).ties
    left = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    assert found.source == lessons.SEEDS
    assert found.margin == pytest.approx(tukey_margin(4, 6) * np.sqrt(2 * (left ** 2).sum() / 6 / 3))
    assert [trial.name for trial in found.group] == ["0000", "0001", "0002"] and len(found.among) == 4


def test_noise_from_halves_leaves_out_their_shift_even_if_it_grows_with_the_loss(tmp_path):
    values = [(rate / 10,) for rate in range(8)]
    wiggle = dict(zip(sum(values, ()), 0.004 * np.array([1, -1, -1, 1, 1, -1, -1, 1])))  # no slope
    clean = {rate: 0.3 + rate / 10 for rate in wiggle}
    found = learn(made(tmp_path / "s", "dropout=" + ",".join(map(str, wiggle)), values,
                       lambda values, seed: 1.1 * clean[values["dropout"]] + wiggle[values["dropout"]] / 2,
                       halves=lambda values: 0.9 * clean[values["dropout"]] - wiggle[values["dropout"]] / 2)).ties
    assert found.source == lessons.HALVES
    assert found.margin == pytest.approx(tukey_margin(8, 6) * np.sqrt(8 * 0.004 ** 2 / 6))


def test_first_rung_teaches_and_the_longest_ranks(tmp_path):
    values = [(rate / 100,) for rate in range(40)]
    study = made(tmp_path / "s", "dropout=0..0.5", [*values, *values[:12], *values[:4]],
                 lambda values, seed: 0.3 + values["dropout"] / 10 + noise_of(values), tuner="asha", epochs=27,
                 halves=lambda values: 0.3 + values["dropout"] / 10 + noise_of({**values, "half": 1}),
                 lengths=[3] * 40 + [9] * 12 + [27] * 4,
                 parents=[None] * 40 + [f"{n:04}" for n in range(12)] + [f"{n + 40:04}" for n in range(4)])
    found = learn(study)
    assert len(found.trials) == 40 and {trial.epochs for trial in found.trials} == {3}
    assert {trial.epochs for trial in found.ties.among} == {27} and len(found.ties.among) == 4
    assert found.effects[0].found


def test_levels_of_each_kind_of_value():
    def found(text, values):
        return levels(parse(text, resolve("4L")).parameters[0], values)

    assert found("l2=0,1e-5,1e-4", [1e-4, 0, 0]).labels == ("0", "1e-4")
    assert found("l2=0,1e-4", [0, 0.5]).labels == ("0", "0.5")  # a start that is not in the list
    assert found("dropout=0.2,0.3_0.2_0.1", [0.2, "0.3_0.2_0.1"]).scale == ""
    assert found("flip=true,false", ["false", "true"]).labels == ("true", "false")
    assert levels(Parameter("batch_norm", (True, False)), [True, False, None]).labels == ("True", "False")
    assert found("dropout.1=0..0.5", np.linspace(0, 0.5, 20)).labels == (
        "0 to 0.079", "0.11 to 0.18", "0.21 to 0.29", "0.32 to 0.39", "0.42 to 0.5")
    assert list(found("dropout=0..0.5", [0.0] * 8 + [0.3] * 4).counts) == [8, 4]  # equal values stay together
    assert found("epochs=2..4", [4, 2, 2]).labels == ("2", "4")
    assert found("batch_size=32..512", [32, 40, 48, 499, 500, 512]).labels == ("32 to 48", "499 to 512")
    assert [label(value) for value in (0, 0.0, 0.1, 1e-3, 2.5e-5, 1e-10, 512, "relu", 0.0025)] == [
        "0", "0", "0.1", "1e-3", "2.5e-5", "1e-10", "512", "relu", "0.0025"]


@pytest.mark.long
@pytest.mark.parametrize("trials", [12, 16, 60])
@pytest.mark.parametrize("noise", [simulation.NORMAL, simulation.SKEWED])
def test_chance_is_named_as_seldom_as_promised(trials, noise):
    """Without any effect, 5 of 100 sweeps name a hyper-parameter."""
    found = [simulation.named_by_lessons(sweep) for sweep in simulation.sweeps(
        simulation.Case(trials, simulation.NOTHING, 0.0, noise), 1000)]
    assert 0.02 <= np.mean([any(named) for named in found]) <= 0.08


@pytest.mark.long
@pytest.mark.parametrize("shape", [simulation.SLOPE, simulation.BEND, simulation.CHOICE])
def test_what_explains_more_than_half_is_found(shape):
    case = simulation.Case(16, shape, 0.6, simulation.NORMAL)
    right, wrong = simulation.rates(case, [simulation.named_by_lessons(sweep)
                                           for sweep in simulation.sweeps(case, 60)])
    assert right > 0.75 and wrong < 0.12
