"""Intervals hold the truth as often as they say, however few the patients."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from medmoe.training.evaluation.metrics.beta_distribution import beta_quantile, student_quantile
from medmoe.training.evaluation.metrics.interval import mean_interval, share_interval, statistic_interval
from medmoe.training.evaluation.report.markdown_table import percent


def interval(right: list[bool], clusters: Sequence[int]) -> list[float]:
    found = share_interval(right, clusters=clusters)
    assert found.n == len(right)
    return [round(number, 4) for number in (found.value, found.low, found.high)]


def test_one_value_a_cluster_has_the_exact_interval() -> None:
    # 8 of 8 tells no more than that 63 % are right.
    assert interval([True] * 8, range(8)) == [1.0, 0.6306, 1.0]
    assert interval([False] * 8, range(8)) == [0.0, 0.0, 0.3694]
    assert interval([True] * 9 + [False], range(10)) == [0.9, 0.555, 0.9975]
    low, high = interval([True] * 9_000 + [False] * 3_000, range(12_000))[1:]
    assert (low, high) == pytest.approx((0.7421, 0.7577), abs=2e-4)


def test_values_of_one_cluster_that_are_always_alike_count_once() -> None:
    twice = [0, 0, 1, 1, 2, 2, 3, 3]
    assert interval([True] * 8, twice) == [1.0, 0.3976, 1.0]
    assert interval([True] * 4 + [False] * 4, twice) == interval([True, False] * 2, range(4)) == [0.5, 0.0676, 0.9324]
    assert interval([True, False], [0, 0]) == interval([True, False] * 50, [0] * 100)


def test_values_that_do_not_depend_on_their_cluster_all_count() -> None:
    right = [True, False] * 50
    assert interval(right, [place // 2 for place in range(100)]) == interval(right, range(100))


def test_clusters_of_unequal_sizes_have_an_interval_whatever_their_shares() -> None:
    names = [0] * 6 + [1] * 3
    for right in range(10):
        value, low, high = interval([True] * right + [False] * (9 - right), names)
        assert low <= value <= high
        assert high - low > 0.5


def test_larger_clusters_widen_the_interval() -> None:
    right = [True] * 84 + [False] * 36
    widths = []
    for size in (1, 2, 6, 12):
        _, low, high = interval(right, [place // size for place in range(120)])
        widths.append(high - low)
    assert widths == sorted(widths)
    assert widths[-1] > 2 * widths[0]


@pytest.mark.parametrize(
    ("clusters", "size", "share", "correlation"), [(30, 3, 0.95, 0.3), (5, 20, 0.8, 0.2), (40, 8, 0.7, 0.1)]
)
def test_the_interval_holds_the_truth_in_95_of_100_studies(
    clusters: int, size: int, share: float, correlation: float
) -> None:
    draw = np.random.default_rng(20240417)
    spread = (1 - correlation) / correlation
    names = [place // size for place in range(clusters * size)]
    held = 0
    for _ in range(200):
        shares = draw.beta(share * spread, (1 - share) * spread, clusters).repeat(size)
        found = share_interval(list(draw.random(clusters * size) < shares), clusters=names)
        held += found.low <= share <= found.high
    assert held >= 184


def test_the_bootstrapped_interval_of_few_patients_is_not_too_narrow() -> None:
    draw = np.random.default_rng(20240417)
    names = [place // 20 for place in range(100)]
    held = 0
    for _ in range(200):
        values = draw.normal(0, 0.3, 5).repeat(20) + draw.normal(0, 1, 100)
        found = mean_interval(list(values), clusters=names, seed=0, resamples=1_000)
        held += found.low <= 0 <= found.high
    assert held >= 178


@pytest.mark.parametrize("patients", [2, 4])
def test_fewer_than_five_patients_have_no_bootstrapped_interval(patients: int) -> None:
    # From the least to the greatest of two patients' means it would hold the truth in one study of two.
    values, names = np.linspace(0, 1, 40), [place % patients for place in range(40)]
    of_mean = mean_interval(list(values), clusters=names, seed=0, resamples=100)
    of_median = statistic_interval(lambda drawn: float(np.median(values[drawn])), clusters=names, seed=0, resamples=100)
    assert percent(of_mean) == percent(of_median) == "50.0 (no interval)"


def test_quantiles_are_those_of_the_binomial_sum_and_of_the_tables() -> None:
    for successes, n in ((0, 1), (3, 7), (40, 41), (150, 400)):
        end = beta_quantile(0.975, successes + 1, n - successes)
        at_most = sum(math.comb(n, k) * end**k * (1 - end) ** (n - k) for k in range(successes + 1))
        assert at_most == pytest.approx(0.025, rel=1e-9)
    tables = {1: 12.7062, 2: 4.3027, 9: 2.2622, 29: 2.0452, 1_000: 1.9623}
    assert {degrees: round(student_quantile(degrees), 4) for degrees in tables} == tables
