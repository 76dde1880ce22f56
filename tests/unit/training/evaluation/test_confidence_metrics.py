"""AUC, reliability, risk and coverage: worked by hand, ties included."""

import doctest

import numpy as np
import pytest

from medmoe.training.evaluation.metrics import auc as auc_module
from medmoe.training.evaluation.metrics.auc import auc, macro_auc
from medmoe.training.evaluation.metrics.reliability import BINS, reliability
from medmoe.training.evaluation.metrics.risk_coverage import risk_coverage


def test_worked_examples_of_the_docstrings() -> None:
    result = doctest.testmod(auc_module)
    assert result.attempted
    assert not result.failed


def test_auc_is_the_share_of_pairs_in_the_right_order_with_ties_half() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 5, 60) / 5, rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auc(scores, positive) == pytest.approx(np.mean(pairs))


def test_auc_does_not_depend_on_the_order_of_samples() -> None:
    scores, positive = np.array([0.5, 0.5, 0.5, 0.2]), np.array([True, False, True, False])
    for order in ([3, 2, 1, 0], [1, 0, 3, 2]):
        assert auc(scores[order], positive[order]) == auc(scores, positive) == 0.75


def test_two_labels_have_the_binary_auc() -> None:
    p = np.array([0.9, 0.8, 0.3, 0.6])
    truth = np.array([0, 1, 1, 0])
    assert macro_auc(np.stack([p, 1 - p], axis=1), truth) == auc(p, truth == 0) == 0.75


def test_a_class_that_was_not_offered_is_not_held_against_the_sample() -> None:
    offered = np.array([[0.9, 0.1, np.nan], [0.2, 0.8, np.nan], [np.nan, 0.3, 0.7], [np.nan, 0.6, 0.4]])
    truth = np.array([0, 1, 2, 1])
    assert macro_auc(offered, truth) == 1.0


def test_a_class_without_negatives_or_positives_is_left_out() -> None:
    assert np.isnan(macro_auc(np.array([[0.9, 0.1]]), np.array([0])))
    p = np.array([0.9, 0.8, 0.3, 0.6])
    assert macro_auc(np.stack([p, 0.9 - p, 0 * p + 0.1], axis=1), np.array([0, 1, 1, 0])) == 0.75


def test_a_model_as_right_as_it_is_sure_has_no_calibration_error() -> None:
    confidences = [0.25] * 4 + [0.75] * 4
    correct = [True, False, False, False, True, True, True, False]
    found = reliability(confidences, correct)
    assert found.ece_equal_mass == found.ece_equal_width == 0
    assert [(b.n, b.confidence, b.accuracy) for b in found.bins] == [(4, 0.25, 0.25), (4, 0.75, 0.75)]


def test_calibration_error_weighs_bins_by_their_samples() -> None:
    found = reliability([1.0] * 3 + [0.5], [True, True, False, True])
    assert found.ece_equal_width == pytest.approx((3 * (1 - 2 / 3) + 1 * 0.5) / 4)


def test_bins_of_equal_width_are_fifteen() -> None:
    middles = (np.arange(BINS) + 0.5) / 15
    correct = [number % 2 == 0 for number in range(BINS)]
    found = reliability(middles.tolist(), correct)
    assert found.ece_equal_width == pytest.approx(np.abs(correct - middles).mean())


def test_equal_mass_bins_hold_equally_many() -> None:
    confidences = np.random.default_rng(1).random(BINS * 20) ** 4
    found = reliability(confidences.tolist(), [True] * len(confidences))
    assert [b.n for b in found.bins] == [20] * BINS


def test_samples_with_one_confidence_share_a_bin_whatever_their_order() -> None:
    confidences = [0.9] * 40 + [0.2] * 5
    correct = [True] * 20 + [False] * 25
    first, turned = reliability(confidences, correct), reliability(confidences[::-1], correct[::-1])
    assert first.ece_equal_mass == pytest.approx(turned.ece_equal_mass)
    assert [b.n for b in first.bins] == [5, 40]


def test_risk_falls_where_the_sure_answers_are_right() -> None:
    found = risk_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    assert found.curve == ((0.25, 0), (0.5, 0), (0.75, pytest.approx(1 / 3)), (1, 0.25))
    assert found.aurc == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert found.coverage == 0.5


def test_a_threshold_cannot_divide_equal_confidences() -> None:
    right_first = risk_coverage([0.9, 0.9], [True, False])
    wrong_first = risk_coverage([0.9, 0.9], [False, True])
    assert right_first == wrong_first
    assert (right_first.aurc, right_first.coverage) == (0.5, 0)


def test_five_percent_exactly_is_accepted() -> None:
    assert risk_coverage(np.linspace(1, 0.5, 20).tolist(), [True] * 19 + [False]).coverage == 1
    assert risk_coverage(np.linspace(1, 0.5, 19).tolist(), [True] * 18 + [False]).coverage == 18 / 19


@pytest.mark.parametrize("measure", [reliability, risk_coverage])
def test_nothing_to_measure_is_refused(measure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="0 confidences"):
        measure([], [])
