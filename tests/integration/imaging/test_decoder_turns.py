"""Callers take turns at the decoders, whatever they have done with their files."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from medmoe.server.auth.key_file import new_key
from medmoe.server.imaging.sandbox import pool
from medmoe.server.imaging.sandbox.protocol import IdentifyRequest
from tests.integration.conftest import ServiceFactory, until
from tests.support.images.series_files import ct_series, ct_slice


async def test_a_report_does_not_wait_for_another_caller_s_series(
    running: ServiceFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, begun, go = pool._exchange, list[Any](), asyncio.Event()

    async def exchange_once_told(worker: Any, request: Any, *rest: Any, **limits: Any) -> Any:
        begun.append(type(request))
        await go.wait()
        return await exchange(worker, request, *rest, **limits)

    ward, ward_line = new_key("ward-7")
    lab, lab_line = new_key("lab")
    keys = tmp_path / "keys"
    keys.write_text(f"{ward_line}\n{lab_line}\n")
    async with running(api_keys=keys, image_workers=1) as service:
        monkeypatch.setattr(pool, "_exchange", exchange_once_told)
        waiting = service.state.active.decoders._slots._waiting

        async def post(path: str, key: str, files: list[tuple[str, bytes]], **fields: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            data = {"question": "Is there a fracture?"} | fields
            return (await service.client.post(path, headers=headers, files=files, data=data)).status_code

        files = [("series", file) for file in ct_series()[:20]]
        asking = [asyncio.create_task(post("/v1/series", ward, files, slices="2")) for _ in range(2)]
        await until(lambda: sum(map(len, waiting.values())) == 7)
        asking.append(asyncio.create_task(post("/v1/vqa", lab, [("image", ct_slice(3))], include_report="true")))
        await until(lambda: sum(map(len, waiting.values())) == 8)
        go.set()
        assert await asyncio.gather(*asking) == [200] * 3
    # One of the ward's had the decoder, and one its turn.
    assert begun.index(IdentifyRequest) <= 2
