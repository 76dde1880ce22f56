"""Shares are printed in percent without a promise that they do not make."""

import pytest

from medmoe.client.commands.terminal import percent


@pytest.mark.parametrize(
    ("alpha", "told"), [(0.05, "95 %"), (0.2, "80 %"), (0.025, "97.5 %"), (0.004, "99.6 %"), (0.0001, "> 99.9 %")]
)
def test_a_prediction_set_says_no_more_than_what_was_asked_for(alpha: float, told: str) -> None:
    assert percent(1 - alpha) == told


def test_only_nothing_and_all_are_0_and_100_percent() -> None:
    assert [percent(share) for share in (0, 0.0004, 0.9996, 1)] == ["0 %", "< 0.1 %", "> 99.9 %", "100 %"]
