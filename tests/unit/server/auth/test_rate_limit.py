"""How often one caller may ask."""

import pytest

from medmoe.server.auth.rate_limit import TokenBucket
from medmoe.server.errors import RateLimited


class Clock:
    """Seconds, turned by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_minutes_permits_may_come_at_once_and_no_more() -> None:
    bucket = TokenBucket(per_minute=3, clock=Clock())
    for _ in range(3):
        bucket.take()
    with pytest.raises(RateLimited) as caught:
        bucket.take()
    assert caught.value.retry_after == 20


def test_after_the_announced_time_there_is_a_permit() -> None:
    clock = Clock()
    bucket = TokenBucket(per_minute=7, clock=clock)
    for _ in range(7):
        bucket.take()
    with pytest.raises(RateLimited) as caught:
        bucket.take()
    clock.now += caught.value.retry_after
    bucket.take()
    with pytest.raises(RateLimited):
        bucket.take()


def test_a_long_silence_saves_up_one_minute_only() -> None:
    clock = Clock()
    bucket = TokenBucket(per_minute=2, clock=clock)
    clock.now += 3600
    bucket.take()
    bucket.take()
    with pytest.raises(RateLimited):
        bucket.take()
