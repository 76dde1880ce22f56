"""Closed and open loops over answers that take no time, and the figures made of them."""

import asyncio
import math

import pytest

from tests.benchmarks.support.request_file import Asked, make_requests, read_requests, write_requests
from tests.benchmarks.support.traffic import Answer, Reply, Traffic, closed_loop, open_loop, poisson_times


def asked(count: int) -> list[Asked]:
    return [Asked(number=number, image=b"", question="?", max_tokens=1) for number in range(count)]


def traffic(replies: list[Reply], **fields: object) -> Traffic:
    given = {"kind": "closed", "level": 2, "warm": False, "cpu_seconds": 1.0, "client_share": None}
    return Traffic(replies=tuple(replies), **(given | fields))  # type: ignore[arg-type]


def test_poisson_times_rise_and_keep_the_rate() -> None:
    times = poisson_times(4.0, 4000, seed=1)
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert all(gap > 0 for gap in gaps)
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.25, rel=0.05)
    # Of an exponential distribution: as wide as its mean, so requests do come in clusters.
    assert math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) == pytest.approx(mean, rel=0.1)


def test_poisson_times_are_the_same_for_every_rung() -> None:
    assert poisson_times(4.0, 10, seed=3) == poisson_times(4.0, 10, seed=3)
    assert poisson_times(4.0, 10, seed=3) != poisson_times(4.0, 10, seed=4)


async def test_a_closed_loop_asks_everything_once_and_never_more_at_once() -> None:
    inside = most = 0

    async def ask(_: Asked) -> Answer:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        return Answer(first=None, text="yes", tokens=2)

    replies = await closed_loop(ask, asked(7), clients=3)
    assert sorted(reply.number for reply in replies) == list(range(7))
    assert most == 3


async def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    done = asyncio.Event()

    async def ask(request: Asked) -> Answer:
        # The first one holds nobody up.
        await (done.wait() if request.number == 0 else asyncio.sleep(0))
        done.set()
        return Answer(first=None, text="yes", tokens=2)

    replies, late = await open_loop(ask, asked(5), rate=1000.0, seed=0)
    assert [reply.begun for reply in replies] == pytest.approx(poisson_times(1000.0, 5, seed=0))
    assert late >= 0
    assert all(reply.failure is None for reply in replies)


async def test_a_request_without_an_answer_is_counted_and_the_others_go_on() -> None:
    async def ask(request: Asked) -> Answer:
        if request.number == 1:
            raise RuntimeError("429 overloaded")
        return Answer(first=None, text="yes", tokens=2)

    found = traffic(await closed_loop(ask, asked(3), clients=1))
    assert found.failures() == {"429 overloaded": 1}


def test_figures() -> None:
    found = traffic(
        [
            Reply(number=0, begun=0.0, first=1.0, ended=2.0, tokens=4, stages={"image": 0.1}),
            Reply(number=1, begun=1.0, first=4.0, ended=5.0, tokens=6, stages={"image": 0.3}),
            Reply(number=2, begun=2.0, first=None, ended=10.0, failure="lost"),
        ],
        cpu_seconds=6.0,
    )
    figures = found.figures()
    assert figures["throughput"] == pytest.approx(0.2)
    assert figures["tokens_per_second"] == pytest.approx(1.0)
    assert (figures["ttft_p50"], figures["ttft_p99"]) == (1.0, 3.0)
    assert (figures["e2e_p50"], figures["e2e_p99"]) == (2.0, 4.0)
    assert figures["cpu_per_request"] == pytest.approx(2.0)
    assert figures["stage_image"] == pytest.approx(0.1)


def test_labels_tell_loads_apart() -> None:
    labels = {
        traffic([], kind=kind, level=level, warm=warm).label
        for kind, level, warm in [
            ("closed", 8, False),
            ("closed", 8, True),
            ("open", 8, False),
            ("batch", 8, False),
            ("closed", 32, False),
        ]
    }
    assert labels == {"c=8", "c=8, warm", "8 req/s", "batch 8", "c=32"}


def test_requests_survive_their_file_and_have_images_of_their_own(tmp_path: object) -> None:
    made = make_requests(70, side=64, max_tokens=3)
    path = tmp_path / "requests.jsonl"  # type: ignore[operator]
    write_requests(path, made)
    assert read_requests(path) == made
    assert len({request.image for request in made}) == len(made)
