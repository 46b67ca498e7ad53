"""Statistics of several comparisons: Holm's correction, Tukey's margin."""

import numpy as np
import pytest
from scipy import stats

from fmnist_zoo import statistics


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_keeps_the_order():
    assert statistics.holm([0.02, 0.01, 0.04]) == pytest.approx([0.04, 0.03, 0.04])
    assert statistics.holm([0.01, 0.4, 0.03]) == pytest.approx([0.03, 0.4, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0] and statistics.holm([]) == []


@pytest.mark.parametrize("freedom", [2, 5, 40])
def test_margin_of_two_is_that_of_the_t_test(freedom):
    assert statistics.tukey_margin(2, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)
    assert statistics.tukey_margin(2, freedom, 0.01) == pytest.approx(stats.t.ppf(0.995, freedom), rel=5e-3)


@pytest.mark.parametrize("count, freedom", [(3, 4), (24, 46), (100, 98), (3, 1e5)])
def test_margin_is_that_of_the_studentized_range(count, freedom):
    assert statistics.tukey_margin(count, freedom) == pytest.approx(
        stats.studentized_range.ppf(0.95, count, freedom) / 2 ** 0.5, rel=1e-3)


def test_ten_thousand_means_lie_as_far_apart_as_their_extremes():
    ranges = [np.ptp(np.random.default_rng(seed).normal(size=10_000)) for seed in range(400)]
    assert statistics.tukey_margin(10_000, 1e6) * 2 ** 0.5 == pytest.approx(np.quantile(ranges, 0.95), rel=0.02)


def test_paired_differences_and_verdicts_of_claims():
    better = np.array([0.30, 0.31, 0.32])
    found = statistics.paired(better, better + [0.10, 0.11, 0.09])
    assert found.verdict(lower_is_better=True) == "holds"
    assert found.verdict(lower_is_better=False).startswith("wrong")
    assert statistics.paired(better, better + [0.01, -0.02, 0.005]).verdict(lower_is_better=True) == "in the noise"
    assert found.difference == pytest.approx(-0.1) and found.error == pytest.approx(0.01 / np.sqrt(3))
    assert found.p == pytest.approx(0.00331, rel=0.01)  # t = -17.32 on 2 degrees of freedom
    reach = 4.302653 * found.error  # the 97.5 % point of t with 2 degrees of freedom
    assert found.interval == pytest.approx((-0.1 - reach, -0.1 + reach))
    alone = statistics.paired(better[:1], better[:1] + 1)
    assert alone.verdict(lower_is_better=True) == "not testable with one seed" and alone.interval is None
