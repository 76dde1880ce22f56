"""Intervals over repeated runs."""

import math

import pytest

from tests.benchmarks.support.bootstrap import difference_interval, median_interval, ratio_interval, shown


def test_the_interval_holds_the_median_and_stays_within_the_runs() -> None:
    found = median_interval([5.0, 1.0, 4.0, 2.0, 3.0])
    assert found.value == 3.0
    assert 1.0 <= found.low < 3.0 < found.high <= 5.0
    assert found.n == 5


def test_equal_runs_leave_nothing_open() -> None:
    found = median_interval([2.0] * 6)
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)


def test_the_same_runs_give_the_same_interval() -> None:
    assert median_interval([1.0, 2.0, 4.0]) == median_interval([1.0, 2.0, 4.0])


def test_more_runs_of_the_same_spread_are_surer() -> None:
    few, many = median_interval([1.0, 2.0, 3.0]), median_interval([1.0, 2.0, 3.0] * 20)
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize("values", [[7.0], [1.0, math.nan, 3.0]])
def test_one_run_and_missing_figures_have_no_interval(values: list[float]) -> None:
    found = median_interval(values)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_pairs_take_away_what_both_runs_of_a_repeat_share() -> None:
    # The machine was three times as slow in the second repeat, and five times in the third.
    ratio = ratio_interval([0.9, 0.3, 0.18], [1.0, 1 / 3, 0.2])
    assert ratio.value == pytest.approx(0.9)
    assert (ratio.low, ratio.high) == pytest.approx((0.9, 0.9))
    difference = difference_interval([10.0, 110.0], [8.0, 108.0])
    assert (difference.low, difference.value, difference.high) == (2.0, 2.0, 2.0)


def test_a_run_without_its_partner_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio_interval([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no runs"):
        median_interval([])


def test_shown() -> None:
    assert shown(median_interval([0.0123] * 3), scale=1e3) == "12.3 (12.3 to 12.3)"
    assert shown(median_interval([1234.5])) == "1234"
    assert shown(median_interval([math.nan])) == "-"
