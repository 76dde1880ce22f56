"""Who may run in the next engine: everybody, one at a time, or never."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import numpy as np
import pytest

from medmoe.server.engine.base import GenerationRequest
from medmoe.server.engine.quarantine import Quarantine
from medmoe.server.errors import EngineDeadError, Quarantined


def request(number: int, **changes: object) -> GenerationRequest:
    fields: dict[str, object] = {
        "request_id": f"r{number}",
        "prompt_ids": (1, 3, 70 + number),
        "image": np.zeros((32, 32, 3), np.uint8),
        "image_id": "an image",
        "max_tokens": 8,
    }
    return GenerationRequest(**(fields | changes))  # type: ignore[arg-type]


async def crash_with(quarantine: Quarantine, *requests: GenerationRequest) -> None:
    async with AsyncExitStack() as inside:
        for one in requests:
            await inside.enter_async_context(quarantine.admit(one))
        quarantine.engine_died()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Visit:
    """One request that stays in the engine until told to leave."""

    def __init__(self, quarantine: Quarantine, request: GenerationRequest) -> None:
        self.inside = False
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._stay(quarantine, request))

    async def _stay(self, quarantine: Quarantine, request: GenerationRequest) -> None:
        async with quarantine.admit(request):
            self.inside = True
            await self._leave.wait()
        self.inside = False

    async def leave(self) -> None:
        self._leave.set()
        await self.task
        await turn()


async def test_a_request_that_was_alone_at_a_second_death_is_refused_from_then_on() -> None:
    quarantine = Quarantine()
    await crash_with(quarantine, request(1), request(2))
    assert (quarantine.suspects, quarantine.refused) == (2, 0)
    await crash_with(quarantine, request(2))
    assert (quarantine.suspects, quarantine.refused) == (1, 1)
    with pytest.raises(Quarantined):
        async with quarantine.admit(request(2)):
            pass
    async with quarantine.admit(request(1)):
        pass


async def test_being_alone_at_one_death_refuses_nobody() -> None:
    quarantine = Quarantine()
    await crash_with(quarantine, request(1))
    async with quarantine.admit(request(1)):
        pass


async def test_a_suspect_is_cleared_by_an_engine_that_survives_it() -> None:
    quarantine = Quarantine()
    await crash_with(quarantine, request(1))
    async with quarantine.admit(request(1)):
        quarantine.clear(request(1))
    assert quarantine.suspects == 0
    await crash_with(quarantine, request(1))
    assert (quarantine.suspects, quarantine.refused) == (1, 0)


async def test_leaving_early_clears_nobody() -> None:
    quarantine = Quarantine()
    await crash_with(quarantine, request(1))
    async with quarantine.admit(request(1)):
        pass
    assert quarantine.suspects == 1


async def test_suspects_run_alone_and_one_at_a_time_in_the_order_they_came() -> None:
    quarantine = Quarantine()
    await crash_with(quarantine, request(1), request(2))
    others = [Visit(quarantine, request(number)) for number in (7, 8)]
    await turn()
    assert all(other.inside for other in others)
    suspects = [Visit(quarantine, request(number)) for number in (1, 2)]
    late = Visit(quarantine, request(9))
    await turn()
    assert not any(visit.inside for visit in (*suspects, late))
    await others[0].leave()
    assert not suspects[0].inside
    await others[1].leave()
    assert [visit.inside for visit in (*suspects, late)] == [True, False, False]
    await suspects[0].leave()
    assert [visit.inside for visit in (suspects[1], late)] == [True, False]
    await suspects[1].leave()
    assert late.inside
    await late.leave()


async def test_who_stops_waiting_does_not_hold_up_the_others() -> None:
    quarantine = Quarantine()
    await crash_with(quarantine, request(1))
    first, suspect, late = (Visit(quarantine, request(number)) for number in (7, 1, 9))
    await turn()
    assert [visit.inside for visit in (first, suspect, late)] == [True, False, False]
    suspect.task.cancel()
    await turn()
    assert late.inside
    await first.leave()
    await late.leave()


async def test_whoever_waits_when_the_engine_dies_is_told_at_once_and_not_suspected() -> None:
    quarantine = Quarantine()
    await crash_with(quarantine, request(1))
    suspect = Visit(quarantine, request(1))
    await turn()
    late = Visit(quarantine, request(9))
    await turn()
    quarantine.engine_died()
    with pytest.raises(EngineDeadError):
        await late.task
    assert (quarantine.suspects, quarantine.refused) == (0, 1)
    await suspect.leave()


async def test_who_is_slow_to_leave_a_dead_engine_is_not_counted_in_the_next() -> None:
    quarantine = Quarantine()
    slow = Visit(quarantine, request(5))
    await turn()
    quarantine.engine_died()
    assert slow.inside
    suspect = Visit(quarantine, request(5))
    await turn()
    assert suspect.inside
    quarantine.engine_died()
    assert (quarantine.suspects, quarantine.refused) == (0, 1)
    await slow.leave()
    await suspect.leave()


async def test_what_is_the_same_request() -> None:
    quarantine = Quarantine()
    await crash_with(quarantine, request(1))
    await crash_with(quarantine, request(1, request_id="another", seed=5))
    assert quarantine.refused == 1
    for other in (
        request(2),
        request(1, image_id="another image"),
        request(1, max_tokens=9),
        request(1, temperature=0.5),
        request(1, logprob_token_ids=(4,)),
        request(1, cache_salt="another tenant"),
    ):
        async with quarantine.admit(other):
            pass
    with pytest.raises(Quarantined):
        async with quarantine.admit(replace(request(1), seed=9)):
            pass


async def test_only_the_latest_are_remembered() -> None:
    quarantine = Quarantine(capacity=3)
    for number in range(5):
        await crash_with(quarantine, request(number))
    assert quarantine.suspects == 3
    # Forgotten, and so a first death again.
    await crash_with(quarantine, request(0))
    assert quarantine.refused == 0
    await crash_with(quarantine, request(4))
    assert quarantine.refused == 1


async def test_the_same_request_has_another_hash_in_another_process() -> None:
    fingerprints = set()
    for _ in range(2):
        quarantine = Quarantine()
        await crash_with(quarantine, request(1))
        fingerprints |= set(quarantine._suspects)
    assert len(fingerprints) == 2


async def test_nothing_is_kept_of_a_request_that_an_engine_has_survived() -> None:
    quarantine = Quarantine()
    async with quarantine.admit(request(1)):
        assert len(quarantine._inside.requests) == 1
    assert not quarantine._inside.requests
