"""What a sweep has taught, in sweeps whose answer is known: importances, effects, interactions, ties, lengths."""

import itertools
import zlib

import numpy as np
import pytest

from fmnist_zoo.statistics import tukey_margin
from tests.sweeps import made
from trainers.tuning import effects, importance
from trainers.tuning.lessons import learn
from trainers.tuning.levels import label, levels
from trainers.tuning.space import Parameter

GRID = "dropout=0,0.1,0.2; l2=0,1e-4,1e-3"
COMBINATIONS = list(itertools.product((0.0, 0.1, 0.2), (0.0, 1e-4, 1e-3)))


def noise_of(values, size=0.001):
    """The same small number for the same values, without a pattern."""
    return size * np.random.default_rng(zlib.crc32(repr(values).encode())).normal()


def drawn(count, names, seed=0):
    """(levels, values (count, names)) of ranges from 0 to 1."""
    values = np.random.default_rng(seed).uniform(size=(count, len(names)))
    return [levels(Parameter(name, (0.0, 1.0), "linear"), column, len(names))
            for name, column in zip(names, values.T)], values


def test_means_of_a_grid_are_plain_means_and_their_intervals_those_of_its_residuals(tmp_path):
    scores = dict(zip(COMBINATIONS, (0.31, 0.30, 0.35, 0.29, 0.30, 0.33, 0.30, 0.28, 0.37)))
    found = learn(made(tmp_path / "s", GRID, COMBINATIONS, lambda values, seed: scores[tuple(values.values())]))
    table = np.array(list(scores.values())).reshape(3, 3)
    dropout, l2 = found.effects
    assert dropout.levels.labels == ("0", "0.1", "0.2") and l2.levels.labels == ("0", "1e-4", "1e-3")
    np.testing.assert_allclose(dropout.means, table.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(l2.means, table.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(l2.costs, table.mean(axis=0) - table.mean(axis=0).min(), rtol=1e-9)
    left = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    deviation = np.sqrt((left ** 2).sum() / 4)
    np.testing.assert_allclose(l2.errors, 2.776445 * deviation / np.sqrt(3), rtol=1e-6)  # 97.5 % of t, 4 degrees
    variance = 3 * ((table.mean(axis=0) - table.mean()) ** 2).sum() - 2 * deviation ** 2
    assert l2.share == pytest.approx(variance / ((table - table.mean()) ** 2).sum())
    gap = tukey_margin(3, 4, 0.05 / 2) * deviation * np.sqrt(2 / 3)
    assert list(l2.worse) == list(l2.costs > gap) == [False, False, True] and not dropout.worse.any()


def test_missing_trials_of_a_grid_do_not_move_the_means_of_the_other_hyperparameter():
    """Trials of dropout 0.2 and l2 0 failed: the plain mean of l2 0 would lack the worst dropout."""
    kept = [(a, b) for a, b in itertools.product(range(3), range(3)) if (a, b) not in ((2, 0),)]
    codes = np.array(kept)
    found, _ = effects.effects_and_pairs(
        [levels(Parameter("dropout", (0.0, 0.1, 0.2)), list(codes[:, 0] / 10)),
         levels(Parameter("l2", (0.0, 1.0, 2.0)), list(codes[:, 1].astype(float)))],
        0.3 + 0.1 * codes[:, 0] + 0.01 * codes[:, 1], lower_is_better=True)
    np.testing.assert_allclose(found[1].means, [0.4, 0.41, 0.42], rtol=1e-9)


def test_hyperparameter_that_matters_is_told_from_those_that_do_not():
    columns, values = drawn(300, "abcd")
    costs = (values[:, 1] - 0.3) ** 2 + 0.002 * np.random.default_rng(1).normal(size=300)
    found = importance.ped_anova(columns, costs)
    assert found[1].share > 0.9 and found[1].p < 0.001 and min(one.p for one in found if one is not found[1]) > 0.05
    main, _ = effects.effects_and_pairs(columns, costs, lower_is_better=True)
    assert main[1].share > 0.8 and main[1].p < 1e-10 and max(one.share for one in main if one is not main[1]) < 0.02
    assert "0.17 to 0.33" == main[1].levels.labels[int(np.argmin(main[1].means))]


@pytest.mark.long
def test_chance_alone_is_important_as_seldom_as_promised():
    """60 sweeps of 40 trials in which nothing matters: p is below 0.05 in about 3 of them, in both tests."""
    by_importance, by_effect, pairs = [], [], []
    for seed in range(60):
        columns, _ = drawn(40, "ab", seed)
        costs = np.random.default_rng(1000 + seed).normal(size=40)
        by_importance += [one.p for one in importance.ped_anova(columns, costs)]
        main, found = effects.effects_and_pairs(columns, costs, lower_is_better=True)
        by_effect += [min(one.p for one in main)]
        pairs += [found[0].strength > 0]
    for p in (by_importance, by_effect):
        assert np.mean(np.array(p) < 0.05) < 0.11
    assert 0 < np.sum(pairs) <= 7


def test_pearson_divergence_of_listed_values_is_that_of_their_shares():
    """8 of 20 trials have value x; 4 of the best 5 do: 0.4 (2 - 1)^2 + 0.6 (1/3 - 1)^2."""
    index = np.array([1, 1, 1, 1, 0] + [1] * 4 + [0] * 11)
    top = np.arange(20) < 5
    found = importance._divergences(np.eye(2)[index], top[None] / 5)
    assert found == pytest.approx([0.4 * 1 + 0.6 * 4 / 9])
    assert list(importance.best(np.arange(20.0))) == list(top)
    assert importance.best(np.arange(200.0)).sum() == 20 and importance.best(np.array([0.0] * 7 + [1])).sum() == 7


def test_interaction_is_found_between_the_two_that_interact():
    columns, values = drawn(400, "abc", 2)
    good = (values[:, 0] > 0.5) == (values[:, 2] > 0.5)
    _, pairs = effects.effects_and_pairs(columns, 0.3 - 0.02 * good + 0.004 * np.random.default_rng(2).normal(size=400),
                                         lower_is_better=True)
    assert (pairs[0].first, pairs[0].second) == (0, 2) and pairs[0].p < 1e-10
    assert pairs[0].strength == pytest.approx(0.01, rel=0.15)
    assert all(pair.strength < 0.001 and pair.p > 0.05 for pair in pairs[1:])
    top = len(pairs[0].table) - 1
    assert pairs[0].table[0, 0] < -0.005 and pairs[0].table[0, top] > 0.005


def test_accuracy_is_better_if_it_is_higher(tmp_path):
    found = learn(made(tmp_path / "s", GRID, COMBINATIONS, lambda values, seed: 0.2 + 10 * values["l2"],
                       halves=lambda values: 0.2 + 10 * values["l2"] + noise_of(values), objective="val_accuracy"))
    _, l2 = found.effects
    assert l2.means[0] > l2.means[2] and l2.costs[0] == pytest.approx(0, abs=0.002) and l2.worse[2]
    assert {trial.values["l2"] for trial in found.ties.trials} == {0.0, 1e-4}


def test_noise_from_seeds_leaves_out_what_a_seed_does_to_all_trials(tmp_path):
    values = [(rate,) for rate in (0.0, 0.1, 0.2, 0.3)]
    table = np.array([[0.30, 0.41, 0.52], [0.31, 0.40, 0.53], [0.32, 0.43, 0.50], [0.40, 0.51, 0.62]])
    found = learn(made(tmp_path / "s", "dropout=0,0.1,0.2,0.3", values,
                       lambda values, seed: table[round(10 * values["dropout"]), seed], seeds=3))
    left = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    assert found.noise.source == "seeds" and found.noise.freedom == 6
    assert found.noise.variance == pytest.approx((left ** 2).sum() / 6 / 3)
    assert found.ties.margin == pytest.approx(tukey_margin(4, 6) * np.sqrt(2 * found.noise.variance))
    assert [trial.name for trial in found.ties.trials] == ["0000", "0001", "0002"]
    (effect,) = found.effects  # one trial a value: the seeds alone tell effects from noise
    assert effect.p < 0.001 and list(effect.worse) == [False, False, False, True]


def test_noise_from_halves_leaves_out_their_shift_even_if_it_grows_with_the_loss(tmp_path):
    values = [(rate / 10,) for rate in range(8)]
    wiggle = dict(zip(sum(values, ()), 0.004 * np.array([1, -1, -1, 1, 1, -1, -1, 1])))  # no slope
    clean = {rate: 0.3 + rate / 10 for rate in wiggle}
    found = learn(made(tmp_path / "s", "dropout=" + ",".join(map(str, wiggle)), values,
                       lambda values, seed: 1.1 * clean[values["dropout"]] + wiggle[values["dropout"]] / 2,
                       halves=lambda values: 0.9 * clean[values["dropout"]] - wiggle[values["dropout"]] / 2))
    assert found.noise.source == "halves" and found.noise.freedom == 6
    assert found.noise.variance == pytest.approx(8 * 0.004 ** 2 / 6 / 2)


def test_failed_running_and_aimless_trials_are_counted_and_have_no_effect(tmp_path):
    from trainers.tuning.oracle import Proposal

    values = [(rate, l2) for rate in (0.0, 0.1, 0.2) for l2 in (0.0, 1e-4, 1e-3, 1.0)] + [(0.5, 0.0)]

    def score(values, seed):
        if values["dropout"] == 0.5:
            return None
        return 2.31 if values["l2"] == 1.0 else 0.3 + values["dropout"] / 10 + noise_of(values)

    study = made(tmp_path / "s", "dropout=0,0.1,0.2,0.5; l2=0,1e-4,1e-3,1", values, score)
    study.add(Proposal("0013", {"dropout": 0.5, "l2": 1e-3}))
    found = learn(study)
    assert (found.completed, found.failed, found.running, found.aimless) == (12, 1, 1, 3)
    assert found.effects[1].levels.labels == ("0", "1e-4", "1e-3") and len(found.effects[0].levels.labels) == 3
    assert found.effects[0].p < 0.01 < found.effects[1].p and found.ties.among == tuple(study.ranked)


def test_effects_are_of_the_longest_trials_that_are_enough(tmp_path):
    values = [(rate / 100,) for rate in range(40)]
    lengths = [3] * 25 + [9] * 12 + [30] * 3
    study = made(tmp_path / "s", "dropout=0..0.5", values,
                 lambda values, seed: 0.3 + values["dropout"] / 10 + noise_of(values), lengths=lengths)
    found = learn(study)
    assert {trial.epochs for trial in found.trials} == {9} and found.epochs == 9 and len(found.trials) == 12
    assert found.longer and found.chosen
    assert {trial.epochs for trial in found.ties.among} == {3}  # the best trial's


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_trials_teach_nothing_and_break_nothing(count, tmp_path):
    found = learn(made(tmp_path / "s", "dropout=0,0.1,0.2; l2=0..1", [(0.1 * n, 0.3 * n) for n in range(count)],
                       lambda values, seed: 0.3 + values["dropout"]))
    assert found.importances is None and not found.pairs and found.ties is None
    assert all(not effect.worse.any() for effect in found.effects)


def test_levels_of_each_kind_of_value():
    def found(text, values, **options):
        from trainers.config import resolve
        from trainers.tuning.space import parse

        return levels(parse(text, resolve("4L")).parameters[0], values, **options)

    assert found("l2=0,1e-5,1e-4", [1e-4, 0, 0]).labels == ("0", "1e-4")
    assert found("dropout=0.2,0.3_0.2_0.1", [0.2, "0.3_0.2_0.1"]).ordered is False
    assert found("flip=true,false", ["false", "true"]).labels == ("true", "false")
    assert found("dropout.1=0..0.5", np.linspace(0, 0.5, 20)).labels[:2] == ("0 to 0.083", "0.083 to 0.17")
    logarithmic = found("l2=log(1e-6..1e-2)", [1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    np.testing.assert_allclose(logarithmic.values, [0, 0.25, 0.5, 0.75, 1])
    assert found("epochs=2..4", [4, 2, 2]).labels == ("2", "4")
    assert found("batch_size=32..512", [32, 40, 500, 512]).labels == ("32 to 40", "500 to 512")
    assert found("l2=0,1e-4", [0, 0.5]).labels == ("0", "0.5")  # a point that is not in the list
    assert [label(value) for value in (0, 0.0, 0.1, 1e-3, 2.5e-5, 1e-10, 512, "relu", 0.0025)] == [
        "0", "0", "0.1", "1e-3", "2.5e-5", "1e-10", "512", "relu", "0.0025"]
