"""Which parts of a run on a GPU still fit its time."""

import pytest

from tests.benchmarks.gpu.__main__ import DEFAULT_MINUTES
from tests.benchmarks.gpu.budget import Budget, Part, parts
from tests.benchmarks.gpu.part import NAMES


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def slow_plan(needed: list[float], taken: list[float], *, minutes: float) -> list[bool]:
    """Second by second: a part begins only when all that it should take, and ten seconds, are left."""
    second, begun = 0, []
    for need, take in zip(needed, taken, strict=True):
        left = 0
        while second + left < minutes * 60:
            left += 1
        fits = left >= need + 10
        begun.append(fits)
        if fits:
            second += int(min(take, need * 2, left - 10))
    return begun


@pytest.mark.parametrize("minutes", [1, 3, 5, 8])
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_part_that_does_not_fit_is_left_out_and_a_shorter_one_still_begun(minutes: int, factor: float) -> None:
    needed = [30.0, 60.0, 150.0, 40.0, 20.0]
    clock = Clock()
    budget, begun = Budget(minutes * 60, clock=clock), []
    for need in needed:
        limit = budget.limit(Part(name="steps", seconds=need))
        begun.append(limit is not None)
        if limit is not None:
            clock.now += min(need * factor, limit)
    assert begun == slow_plan(needed, [need * factor for need in needed], minutes=minutes)
    assert budget.left >= 10 or not any(begun)


def test_a_part_is_ended_after_twice_its_time_or_when_the_time_is_over() -> None:
    clock = Clock()
    budget = Budget(100, clock=clock)
    assert budget.limit(Part(name="steps", seconds=30)) == 60
    clock.now += 40
    assert budget.limit(Part(name="steps", seconds=30)) == 50
    assert budget.limit(Part(name="steps", seconds=51)) is None
    clock.now += 100
    assert budget.left == 0


@pytest.mark.parametrize("tiny", [False, True])
def test_a_plan_makes_each_checkpoint_first_and_names_files_once(tiny: bool) -> None:
    plan = parts(tiny=tiny)
    assert {part.name for part in plan} == set(NAMES)
    assert len({part.file for part in plan}) == len(plan)
    made: set[str] = set()
    for part in plan:
        made |= {part.shape} if part.name == "checkpoint" else set()
        assert part.shape in made or part.name == "ceilings"


def test_what_matters_most_fits_the_time_even_when_every_part_takes_as_long_as_it_may() -> None:
    order = [(part.name, part.shape) for part in parts(tiny=False)]
    seconds = sum(part.seconds for part in parts(tiny=False)[: order.index(("eager", "stablelm"))])
    assert seconds * 2 < DEFAULT_MINUTES * 60


def test_both_published_shapes_fit_the_default_time() -> None:
    first = parts(tiny=False)[: [part.label for part in parts(tiny=False)].index("steps phi") + 1]
    assert sum(part.seconds for part in first) < DEFAULT_MINUTES * 60 <= 15 * 60


def test_float32_parity_is_asked_of_stablelm_alone_at_true_size() -> None:
    asked = {(part.shape, part.dtype) for part in parts(tiny=False) if part.name == "parity"}
    assert asked == {("stablelm", "bfloat16"), ("phi", "bfloat16"), ("stablelm", "float32")}
