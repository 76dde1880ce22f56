"""The real process: python -m medmoe.server on a real port, stopped by real signals, its engine killed."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.service.server_process import ServerProcess, server_process

pytestmark = pytest.mark.timeout(600)

MORTAL = ("-m", "tests.support.service.mortal_engine")
START = 300.0


@pytest.fixture
def settings(checkpoint: Path) -> dict[str, str]:
    return {"MEDMOE_MODEL": str(checkpoint), "MEDMOE_ENGINE": "fake", "MEDMOE_LOG_LEVEL": "debug"}


@contextmanager
def slow_server(settings: dict[str, str], *, delay: float, **more: str) -> Iterator[ServerProcess]:
    """`delay` seconds a token."""
    with server_process(arguments=(*MORTAL, "--delay", str(delay)), settings=settings | more) as server:
        server.wait_ready(START)
        yield server


def test_the_process_serves_and_leaves_cleanly(settings: dict[str, str], vqa_body: dict[str, Any]) -> None:
    with server_process(settings=settings) as server:
        server.wait_ready(START)
        answer = httpx.post(f"{server.url}/v1/vqa", json=vqa_body, timeout=60)
        assert answer.status_code == 200, answer.text
        refused = httpx.post(
            f"{server.url}/v1/vqa", content=b"x" * 65 * 2**20, headers={"content-type": "application/json"}, timeout=60
        )
        assert refused.status_code == 413
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(120) == 0
        assert "Traceback" not in "".join(server.lines)


def test_no_process_of_the_service_dumps_its_memory(settings: dict[str, str]) -> None:
    with slow_server(settings, delay=0) as server:
        service = psutil.Process(server.process.pid)
        processes = [service, *service.children(recursive=True)]
        assert server.engine() in processes
        assert {one.rlimit(psutil.RLIMIT_CORE) for one in processes} == {(0, 0)}


FEW = "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (72, 72)); "


def test_idle_connections_do_not_take_the_last_file_descriptor(
    settings: dict[str, str], vqa_body: dict[str, Any]
) -> None:
    few = ("-c", f"{FEW}runpy.run_module('medmoe.server', run_name='__main__')")
    with server_process(arguments=few, settings=settings) as server, ExitStack() as idle:
        server.wait_ready(300)
        address = httpx.URL(server.url)
        for _ in range(150):
            idle.enter_context(socket.create_connection((address.host, address.port or 0)))
        for _ in range(10):
            assert httpx.post(f"{server.url}/v1/vqa", json=vqa_body).status_code == 200


async def test_sigterm_under_load_answers_what_is_inside_and_refuses_what_comes(
    settings: dict[str, str], vqa_body: dict[str, Any]
) -> None:
    patient = {"MEDMOE_TIMEOUT_MS": "3600000", "MEDMOE_DRAIN_SECONDS": "3600", "MEDMOE_ENGINE_HANG_SECONDS": "3600"}
    with slow_server(settings, delay=0, **patient) as server:
        engine = server.engine()
        # It gives no token until it is resumed.
        engine.suspend()
        async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
            inside = [asyncio.create_task(client.post("/v1/vqa", json=vqa_body)) for _ in range(3)]
            await in_engine(client, 3)
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(120):
                while (ready := await client.get("/health/ready")).status_code == 200:
                    await asyncio.sleep(0.01)
            assert ready.json()["error"]["code"] == "draining"
            # One that slips in between is given up by its own deadline.
            brief = vqa_body | {"timeout_ms": 1000}
            async with asyncio.timeout(120):
                while (refused := await client.post("/v1/vqa", json=brief)).status_code == 504:
                    pass
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert (await client.get("/health/live")).status_code == 200
            engine.resume()
            assert {response.status_code for response in await asyncio.gather(*inside)} == {200}
        assert server.process.wait(120) == 0


async def test_what_does_not_end_within_the_bound_is_told_so(
    settings: dict[str, str], vqa_body: dict[str, Any]
) -> None:
    with slow_server(settings, delay=3600, MEDMOE_DRAIN_SECONDS="0.5", MEDMOE_TIMEOUT_MS="3600000") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
            inside = asyncio.create_task(client.post("/v1/vqa", json=vqa_body))
            await in_engine(client, 1)
            server.process.send_signal(signal.SIGTERM)
            response = await inside
            assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")
        assert server.process.wait(120) == 0
        assert "Traceback" not in "".join(server.lines)


async def test_a_hangup_stops_the_service_and_a_second_signal_does_not_wait(
    settings: dict[str, str], vqa_body: dict[str, Any]
) -> None:
    with slow_server(settings, delay=3600, MEDMOE_DRAIN_SECONDS="3600", MEDMOE_TIMEOUT_MS="3600000") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
            inside = asyncio.create_task(client.post("/v1/vqa", json=vqa_body))
            await in_engine(client, 1)
            server.process.send_signal(signal.SIGUSR1)
            server.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(120):
                while (await client.get("/health/ready")).status_code == 200:
                    await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            response = await inside
            assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")
        assert server.process.wait(120) == 0


async def test_a_killed_engine_is_replaced_in_the_same_process(
    settings: dict[str, str], vqa_body: dict[str, Any]
) -> None:
    # No deadline of a request may come before the kill, however busy the machine is.
    with slow_server(settings, delay=3600, MEDMOE_TIMEOUT_MS="3600000") as server:
        first = server.engine()
        async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
            inside = [asyncio.create_task(client.post("/v1/vqa", json=vqa_body)) for _ in range(3)]
            await in_engine(client, 3)
            first.send_signal(signal.SIGKILL)
            for response in await asyncio.gather(*inside):
                assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_dead")
            server.wait_ready(START)
            labels = {"image": vqa_body["image"], "labels": ["CT", "MRI"], "timeout_ms": 100}
            # Asked, although it takes too long.
            assert (await client.post("/v1/classify", json=labels)).status_code == 504
        assert server.engine().pid != first.pid
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(120) == 0


def test_or_ends_the_process_with_a_status_of_its_own(settings: dict[str, str]) -> None:
    with slow_server(settings, delay=0, MEDMOE_ON_ENGINE_DEATH="exit") as server:
        server.engine().send_signal(signal.SIGKILL)
        assert server.process.wait(120) == 3


async def in_engine(client: httpx.AsyncClient, count: int) -> None:
    """Wait until the engine runs `count` requests; one whose image is still being decoded outlives an engine."""
    async with asyncio.timeout(120):
        while f"fake:num_requests_running {count}\n" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)
