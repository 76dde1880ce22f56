"""How often, how soon."""

from medmoe.server.lifecycle.supervisor import RestartPolicy


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_is_at_once_and_the_others_wait_longer_and_longer() -> None:
    policy = RestartPolicy(attempts=5, window_seconds=600, first_delay=1, clock=Clock())
    assert [policy.next_delay() for _ in range(6)] == [0, 1, 2, 4, 8, None]


def test_no_delay_is_longer_than_a_minute() -> None:
    policy = RestartPolicy(attempts=10, window_seconds=600, first_delay=20, clock=Clock())
    assert [policy.next_delay() for _ in range(5)] == [0, 20, 40, 60, 60]


def test_what_happened_long_ago_does_not_count() -> None:
    clock = Clock()
    policy = RestartPolicy(attempts=2, window_seconds=100, first_delay=1, clock=clock)
    assert [policy.next_delay() for _ in range(3)] == [0, 1, None]
    clock.now = 101
    assert policy.next_delay() == 0


def test_giving_up_is_not_counted_as_an_attempt() -> None:
    clock = Clock()
    policy = RestartPolicy(attempts=1, window_seconds=100, first_delay=1, clock=clock)
    assert policy.next_delay() == 0
    clock.now = 99
    assert policy.next_delay() is None
    clock.now = 101
    assert policy.next_delay() == 0
