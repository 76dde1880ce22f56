"""Limits of bodies that come slowly or all at once, over a bare app that reads its body."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from medmoe.server.auth.tenants import Grant, Tenant
from medmoe.server.errors import Overloaded, RequestTimeout
from medmoe.server.http.body_limit import BodyLimit
from medmoe.server.observability.request_record import RequestRecord

WARD, OFFICE = (Tenant(log_id=name, cache_salt=None) for name in ("ward", "office"))


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    if (held := scope.get("held")) is not None:
        await held.wait()


def limited(**limits: Any) -> BodyLimit:
    return BodyLimit(reads, **{"max_bytes": 2**20, "max_at_once": 2, "max_memory": 2**22} | limits)


async def upload(limit: BodyLimit, body: AsyncIterator[bytes], *, tenant: Tenant | None = None, **more: Any) -> None:
    record = RequestRecord(request_id="r", method="POST", grant=tenant and Grant(tenant=tenant))
    scope: Scope = {"type": "http", "path": "/", "headers": [], **more}
    record.attach(scope)

    async def receive() -> Message:
        async for piece in body:
            return {"type": "http.request", "body": piece, "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Message) -> None:
        raise AssertionError

    await limit(scope, receive, send)


async def stalled() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.sleep(3600)


async def steady(seconds: float) -> AsyncIterator[bytes]:
    for _ in range(10):
        yield bytes(8192)
        await asyncio.sleep(seconds / 10)


async def test_a_body_that_stalls_is_given_up_and_a_steady_one_is_not() -> None:
    limit = limited(patience=0.5)
    with pytest.raises(RequestTimeout):
        await upload(limit, stalled())
    await upload(limit, steady(0.7))


async def test_one_byte_bodies_do_not_lock_anybody_out() -> None:
    limit = limited()
    slow = [asyncio.create_task(upload(limit, stalled())) for _ in range(2)]
    await asyncio.sleep(0.1)
    with pytest.raises(Overloaded):
        await upload(limit, steady(0))
    await asyncio.sleep(1)
    await upload(limit, steady(0))
    done, waiting = await asyncio.wait(slow, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    assert [type(task.exception()) for task in done] == [RequestTimeout]
    for task in waiting:
        task.cancel()


async def test_a_tenant_makes_room_for_one_with_fewer_uploads() -> None:
    limit = limited()
    first = [asyncio.create_task(upload(limit, steady(3), tenant=WARD)) for _ in range(2)]
    await asyncio.sleep(1.1)
    with pytest.raises(Overloaded):
        await upload(limit, steady(0), tenant=WARD)
    await upload(limit, steady(0), tenant=OFFICE)
    done, waiting = await asyncio.wait(first, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    assert [type(task.exception()) for task in done] == [RequestTimeout]
    for task in waiting:
        task.cancel()


async def test_bodies_of_requests_inside_count_for_the_memory() -> None:
    limit = limited(max_bytes=100_000, max_memory=150_000)
    held = asyncio.Event()
    inside = asyncio.create_task(upload(limit, steady(0), held=held))
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded):
        await upload(limit, steady(0))
    held.set()
    await inside
    await upload(limit, steady(0))
