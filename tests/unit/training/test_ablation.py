"""Methods over seeds, and their difference to the reference on the same samples."""

from pathlib import Path

import pytest

from medmoe.training.ablation.comparison import compare
from medmoe.training.ablation.report import ablation_report
from medmoe.training.ablation.trial import Trial
from medmoe.training.data.sample import Sample

SAMPLES = [
    Sample(
        id=str(number),
        dataset="d",
        image=Path(f"/{number // 2}.png"),
        split="test",
        question="What?",
        answer="yes",
        answer_type="closed",
    )
    for number in range(16)
]
SETUP = {
    "base": {"name": "b", "weights_sha256": "0"},
    "budget": {"epochs": 2.0, "limit": None},
    "data": [{"dataset": "d", "samples": 16}],
    "split": "val",
}


def trial(method: str, seed: int | None, right: int) -> Trial:
    """The first `right` answers are."""
    answers = {sample.id: "yes" if place < right else "no" for place, sample in enumerate(SAMPLES)}
    return Trial(
        method=method,
        seed=seed,
        recipe_sha256=None,
        trained=1,
        activated=2,
        total=3,
        steps=4,
        seconds=5.0 + (seed or 0),
        answers=answers,
    )


def test_seeds_are_averaged_and_differences_are_paired() -> None:
    trials = [
        trial("base", None, 4),
        trial("dense", 1, 8),
        trial("dense", 2, 12),
        trial("ours", 1, 16),
        trial("ours", 2, 12),
    ]
    base, dense, ours = compare(trials, samples=SAMPLES, reference="dense", resamples=200)
    found = dense.figures["d closed"]
    assert (found.mean, found.low, found.high, found.n) == (5 / 8, 4 / 8, 6 / 8, 16)
    assert found.difference is None
    assert (dense.seeds, dense.seconds, base.seeds) == ((1, 2), 6.5, ())
    difference = ours.figures["d closed"].difference
    assert difference is not None
    # The first four images never differ, the other four always by a half.
    assert difference.value == pytest.approx(2 / 8)
    assert 0 <= difference.low < difference.value < difference.high <= 0.5
    below = base.figures["d closed"].difference
    assert below is not None
    assert below.value == pytest.approx(-3 / 8)


def test_the_page_is_the_same_for_the_same_trials_and_shows_what_was_reached() -> None:
    rows = compare([trial("base", None, 4), trial("dense", 1, 8)], samples=SAMPLES, reference="dense", resamples=50)
    text = ablation_report(rows, setup=SETUP, reference="dense")
    assert text == ablation_report(rows, setup=SETUP, reference="dense")
    assert "| base | - | - | 0.00 M | 0.00 M | - | - | 25.0 |" in text
    assert "| dense | 1 | 0.00 M | 0.00 M | 0.00 M | 4 | 6 | 50.0 |" in text
    assert "| base | -25.0 (" in text
    assert "- budget: epochs 2" in text


def test_a_difference_over_few_images_has_no_interval() -> None:
    rows = compare([trial("base", None, 0), trial("dense", 1, 4)], samples=SAMPLES[:8], reference="dense")
    assert "| base | -50.0 (no interval) |" in ablation_report(rows, setup=SETUP, reference="dense")


def test_without_a_reference_nothing_is_compared() -> None:
    (row,) = compare([trial("ours", 1, 4)], samples=SAMPLES, reference="dense")
    assert row.figures["d closed"].difference is None
    assert "Against" not in ablation_report([row], setup=SETUP, reference="dense")
