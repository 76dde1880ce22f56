"""Images are decoded in other processes: what one of them suffers, its own request pays and nobody else's."""

import asyncio
import io
import math
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from medmoe.model.config import MedMoEConfig
from medmoe.server.errors import ImageTooCostly
from medmoe.server.imaging.sandbox import worker
from medmoe.server.imaging.sandbox.pool import DecoderPool
from medmoe.server.imaging.sandbox.spawner import WORKER_SPAWNER
from medmoe.server.schemas.images import ImageFields
from medmoe.server.settings import Settings
from tests.integration.conftest import Service, ServiceFactory, base64_image, check, until
from tests.support.images.hostile_images import large


async def post_large(service: Service, **fields: Any) -> Any:
    files = {"image": ("a.png", large(), "image/png")}
    return await service.client.post("/v1/vqa", data={"question": "What?"} | fields, files=files)


async def busy_child(service: Service) -> int:
    """The one child of a service with one worker, as soon as it has work."""
    (pid,) = service.state.active.decoders.pids
    await until(lambda: not service.state.active.decoders.pids)
    return pid


def open_files(pid: int) -> dict[str, str]:
    """What each descriptor of a process leads to; `socket` for one, whatever its number."""
    found = {entry.name: str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    sockets = [number for number, name in found.items() if name.startswith("socket:")]
    assert len(sockets) == 1
    del found[sockets[0]]
    return found | {"socket": "socket"}


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


async def killed(pid: int) -> None:
    """Kill a worker; return when its socket is closed, which others see a moment after the signal."""
    process = psutil.Process(pid)
    process.kill()
    await until(lambda: process.status() == psutil.STATUS_ZOMBIE)


async def test_a_child_that_is_killed_costs_one_request(running: ServiceFactory, vqa_body: dict[str, Any]) -> None:
    async with running(image_workers=1) as service:
        asking = asyncio.create_task(post_large(service))
        os.kill(await busy_child(service), signal.SIGKILL)
        check(await asking, 422, "decoder_died", "image")
        assert service.state.admission.in_flight == 0
        assert 'medmoe_rejections_total{reason="decoder_died"} 1.0' in (await service.client.get("/metrics")).text
        assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200


async def test_a_child_that_dies_between_requests_costs_none(running: ServiceFactory, vqa_body: dict[str, Any]) -> None:
    async with running(image_workers=1, image_cache_entries=0) as service:
        for _ in range(3):
            (pid,) = service.state.active.decoders.pids
            await killed(pid)
            assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200
            assert service.state.active.decoders.pids != (pid,)


async def test_the_next_question_about_an_image_needs_no_child(
    running: ServiceFactory, vqa_body: dict[str, Any], classify_body: dict[str, Any]
) -> None:
    async with running(image_workers=1) as service:
        first = (await service.client.post("/v1/vqa", json=vqa_body)).json()
        (pid,) = service.state.active.decoders.pids
        await killed(pid)
        again = (await service.client.post("/v1/vqa", json=vqa_body)).json()
        classified = (await service.client.post("/v1/classify", json=classify_body)).json()
        assert service.state.active.decoders.pids == (pid,)
        assert (first["provenance"], first["answer"]) == (again["provenance"], again["answer"])
        for field in ("image_sha256", "rendering", "width", "height"):
            assert classified["provenance"][field] == first["provenance"][field]
        other = (await service.client.post("/v1/vqa", json=vqa_body | {"image": base64_image(shade=1)})).json()
        assert other["provenance"]["image_sha256"] != first["provenance"]["image_sha256"]
        assert service.state.active.decoders.pids != (pid,)


async def test_a_child_that_hangs_is_replaced(
    running: ServiceFactory, vqa_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medmoe.server.imaging.sandbox.pool._GRACE", 0.1)
    async with running(image_workers=1, image_seconds=3) as service:
        (pid,) = service.state.active.decoders.pids
        os.kill(pid, signal.SIGSTOP)
        check(await service.client.post("/v1/vqa", json=vqa_body), 422, "image_too_costly", "image")
        await until(lambda: gone(pid))
        assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200


async def test_an_image_that_takes_too_much_memory_is_refused(
    running: ServiceFactory, vqa_body: dict[str, Any]
) -> None:
    async with running(image_workers=1, image_memory_mib=100) as service:
        (pid,) = service.state.active.decoders.pids
        for _ in range(2):
            check(await post_large(service), 422, "image_too_costly", "image")
            assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200
        assert service.state.active.decoders.pids != (pid,)


@pytest.mark.parametrize("limit", [{"image_cpu_seconds": 0.05}, {"image_seconds": 0.05}], ids=str)
async def test_an_image_that_takes_too_much_time_is_refused(config: MedMoEConfig, limit: dict[str, float]) -> None:
    pool = DecoderPool.of(Settings(image_workers=1, **limit), config)  # type: ignore[arg-type]
    try:
        for _ in range(2):
            with pytest.raises(ImageTooCostly, match="time"):
                await pool.decode(large(), ImageFields())
        assert pool.pids == ()
    finally:
        pool.close()


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "PNG"), ("F", "TIFF"), ("RGBA", "PNG"), ("RGBA", "WEBP")])
async def test_the_default_memory_is_enough_for_the_largest_image(config: MedMoEConfig, mode: str, kind: str) -> None:
    settings = Settings(image_workers=1)
    side = math.isqrt(settings.max_image_pixels)
    file = io.BytesIO()
    options = {"TIFF": {"compression": "tiff_adobe_deflate"}, "WEBP": {"method": 0}}.get(kind, {})
    Image.new(mode, (side, side)).save(file, format=kind, **options)
    pool = DecoderPool.of(settings, config)
    try:
        assert (await pool.decode(file.getvalue(), ImageFields(allow_uniform=True))).width == side
    finally:
        pool.close()


async def test_the_same_image_within_the_limits_is_answered(service: Service) -> None:
    response = await post_large(service)
    assert response.status_code == 200, response.text
    assert response.json()["provenance"]["rendering"]["steps"] == ["over_black"]


async def test_a_deadline_ends_the_work_and_not_only_the_wait(running: ServiceFactory) -> None:
    async with running(image_workers=1) as service:
        (pid,) = service.state.active.decoders.pids
        os.kill(pid, signal.SIGSTOP)
        check(await post_large(service, timeout_ms="1000"), 504, "deadline_exceeded")
        await until(lambda: gone(pid))


async def test_a_client_that_leaves_ends_the_work(running: ServiceFactory, vqa_body: dict[str, Any]) -> None:
    async with running(image_workers=1) as service:
        asking = asyncio.create_task(post_large(service))
        pid = await busy_child(service)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: gone(pid))
        assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200


async def test_no_more_children_than_workers_and_none_after_the_end(
    running: ServiceFactory, vqa_body: dict[str, Any]
) -> None:
    async with running(image_workers=2) as service:
        answers = await asyncio.gather(*(service.client.post("/v1/vqa", json=vqa_body) for _ in range(12)))
        assert {answer.status_code for answer in answers} == {200}
        pids = service.state.active.decoders.pids
        assert 1 <= len(pids) <= 2
    await until(lambda: all(gone(pid) for pid in pids))


async def test_a_child_does_not_serve_for_ever(
    running: ServiceFactory, vqa_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medmoe.server.imaging.sandbox.pool._LIFETIME", 2)
    async with running(image_workers=1) as service:
        (first,) = service.state.active.decoders.pids
        assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200
        assert service.state.active.decoders.pids == ()
        await until(lambda: gone(first))
        assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200


async def test_the_process_that_makes_children_is_replaced_too(service: Service, vqa_body: dict[str, Any]) -> None:
    assert WORKER_SPAWNER._process is not None
    (pid,) = service.state.active.decoders.pids
    WORKER_SPAWNER._process.send_signal(signal.SIGKILL)
    WORKER_SPAWNER._process.wait()
    # They die with it.
    await until(lambda: gone(pid))
    assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200


async def test_a_process_that_makes_children_and_hangs_is_replaced(
    running: ServiceFactory, vqa_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medmoe.server.imaging.sandbox.spawner._ANSWER_SECONDS", 0.2)
    async with running(image_workers=1) as service:
        assert WORKER_SPAWNER._process is not None
        (pid,) = service.state.active.decoders.pids
        hanging = WORKER_SPAWNER._process
        hanging.send_signal(signal.SIGSTOP)
        await killed(pid)
        assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200
        assert hanging.returncode == -signal.SIGKILL


async def test_an_image_whose_worker_goes_down_with_its_maker_is_not_blamed(running: ServiceFactory) -> None:
    async with running(image_workers=1) as service:
        asking = asyncio.create_task(post_large(service))
        await busy_child(service)
        assert WORKER_SPAWNER._process is not None
        WORKER_SPAWNER._process.kill()
        check(await asking, 503, "decoder_unavailable")


async def test_no_process_or_thread_for_a_decoder_is_503_and_passes(
    running: ServiceFactory, vqa_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_process(*_: object, **__: object) -> dict[str, None]:
        return {"pid": None}

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async with running(image_workers=1) as service:
        (pid,) = service.state.active.decoders.pids
        await killed(pid)
        for name, failing in (("_ask", no_process), ("spawn", no_thread)):
            with monkeypatch.context() as patch:
                patch.setattr(WORKER_SPAWNER, name, failing)
                check(await service.client.post("/v1/vqa", json=vqa_body), 503, "decoder_unavailable")
        assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200


def test_a_fork_that_fails_is_an_answer_and_not_the_end(monkeypatch: pytest.MonkeyPatch, config: MedMoEConfig) -> None:
    def fails() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", fails)
    control, descriptor = socket.socketpair()
    with control:
        assert worker._spawn(control, DecoderPool.of(Settings(), config)._config, descriptor.detach()) is None


async def test_children_know_neither_secrets_nor_frameworks_nor_control_c(
    service: Service, monkeypatch: pytest.MonkeyPatch, vqa_body: dict[str, Any]
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "SECRET-token")
    (old,) = service.state.active.decoders.pids
    WORKER_SPAWNER.close()
    await until(lambda: gone(old))
    assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200
    child = psutil.Process(service.state.active.decoders.pids[0])
    assert "SOME_TOKEN" not in child.environ()
    assert open_files(child.pid) == {"0": os.devnull, "1": os.devnull, "2": os.devnull, "socket": "socket"}
    for stop in (signal.SIGINT, signal.SIGTERM):
        child.send_signal(stop)
    assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200
    assert service.state.active.decoders.pids == (child.pid,)


def test_the_decoding_process_imports_no_framework() -> None:
    code = textwrap.dedent(
        """
        import importlib, sys
        from medmoe.server.imaging.sandbox import worker
        for module in worker._PRELOADED:
            importlib.import_module(module)
        print(sorted({"torch", "vllm", "fastapi", "starlette", "uvicorn", "transformers"} & set(sys.modules)))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def server(checkpoint: Path) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"MEDMOE_MODEL": str(checkpoint), "MEDMOE_ENGINE": "fake", "MEDMOE_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "medmoe.server"], env=environment, stderr=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.timeout(600)
async def test_children_die_with_a_service_that_is_killed(server: subprocess.Popen[str]) -> None:
    assert server.stderr is not None
    while '"ready"' not in server.stderr.readline():
        pass
    family = psutil.Process(server.pid).children(recursive=True)
    assert len(family) == 2
    server.kill()
    await until(lambda: not any(member.is_running() and member.status() != "zombie" for member in family))
