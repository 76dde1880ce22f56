"""Counts that the clock forgets, in bounded memory."""

import numpy as np
import pytest

from medmoe.server.router_stats.sliding_window import BUCKET_SECONDS, LONGEST_SECONDS, SlidingWindow

KEY = ("vqa", "CT")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(clock: Clock) -> SlidingWindow:
    return SlidingWindow(clock=clock)


def tokens(ring: SlidingWindow, seconds: int) -> int:
    return int(sum(counts.sum() for counts in ring.last(seconds).by_key.values()))


@pytest.mark.parametrize(("age", "window", "counted"), [(0, 10, True), (250, 300, True), (320, 300, False)])
def test_a_window_holds_what_is_young_enough(
    ring: SlidingWindow, clock: Clock, age: float, window: int, counted: bool
) -> None:
    ring.add(KEY, np.array([1, 2]))
    clock.now += age
    assert (tokens(ring, window), ring.last(window).requests) == ((3, 1) if counted else (0, 0))


def test_nothing_younger_than_the_window_is_missed_and_little_older_is_counted(
    ring: SlidingWindow, clock: Clock
) -> None:
    for _ in range(200):
        ring.add(KEY, np.array([1]))
        clock.now += 1
    assert 60 <= tokens(ring, 60) <= 60 + BUCKET_SECONDS


def test_a_bucket_that_comes_round_again_starts_from_nothing(ring: SlidingWindow, clock: Clock) -> None:
    for _ in range(3):
        ring.add(KEY, np.array([1]))
        clock.now += LONGEST_SECONDS + BUCKET_SECONDS
    ring.add(KEY, np.array([1]))
    assert tokens(ring, LONGEST_SECONDS) == 1


def test_memory_is_bounded_however_long_it_runs(ring: SlidingWindow, clock: Clock) -> None:
    for _ in range(5000):
        ring.add(KEY, np.array([1]))
        clock.now += BUCKET_SECONDS
    assert len(ring._buckets) == LONGEST_SECONDS // BUCKET_SECONDS + 1


def test_keys_are_kept_apart_and_what_was_read_does_not_change(ring: SlidingWindow) -> None:
    ring.add(KEY, np.array([1, 0]))
    ring.add(("classify", "CT"), np.array([0, 5]))
    before = ring.last(10)
    ring.add(KEY, np.array([1, 0]))
    assert before.by_key[KEY].tolist() == [1, 0]
    assert ring.last(10).by_key[KEY].tolist() == [2, 0]
    assert ring.last(10).requests == 3
