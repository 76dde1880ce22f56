"""Forms in which other programs write the same request: each gets the same answer."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.conftest import Service, image_bytes

RAW = image_bytes((61, 40))
"""Its base64 has padding, and characters that are others in the URL-safe alphabet."""
PLAIN = base64.b64encode(RAW).decode()
FORMS: dict[str, Callable[[], str]] = {
    "plain": lambda: PLAIN,
    "data URL": lambda: f"data:image/png;base64,{PLAIN}",
    "capitals": lambda: f"DATA:IMAGE/PNG;BASE64,{PLAIN}",
    "parameters": lambda: f"data:image/png;charset=utf-8;name=a.png;base64,{PLAIN}",
    "no media type": lambda: f"data:;base64,{PLAIN}",
    "line breaks": lambda: "data:image/png;base64," + base64.encodebytes(RAW).decode(),
    "CRLF": lambda: base64.encodebytes(RAW).decode().replace("\n", "\r\n"),
    "no padding": lambda: PLAIN.rstrip("="),
    "URL-safe": lambda: base64.urlsafe_b64encode(RAW).decode(),
    "URL-safe without padding": lambda: base64.urlsafe_b64encode(RAW).decode().rstrip("="),
}


async def ask(service: Service, body: dict[str, Any], *, before: bytes = b"") -> dict[str, Any]:
    content = before + json.dumps(body).encode()
    response = await service.client.post("/v1/vqa", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_base64_in_every_spelling_is_the_same_file(service: Service) -> None:
    assert PLAIN.endswith("=")
    assert {"+", "/"} & set(PLAIN)
    found = {
        name: (await ask(service, {"image": form(), "question": "What?"}))["provenance"]["image_sha256"]
        for name, form in FORMS.items()
    }
    assert len(set(found.values())) == 1, found


async def test_a_byte_order_mark_and_whole_floats_are_read(service: Service) -> None:
    body = {"image": PLAIN, "question": "What?", "max_tokens": 2.0, "temperature": 1.0, "seed": 7.0}
    answer = await ask(service, body, before=b"\xef\xbb\xbf")
    assert (answer["provenance"]["max_tokens"], answer["provenance"]["seed"]) == (2, 7)


@pytest.mark.parametrize("number", [2.5, 1e300, -1.0])
async def test_other_floats_are_no_integers(service: Service, number: float) -> None:
    body = {"image": PLAIN, "question": "What?", "max_tokens": number}
    response = await service.client.post("/v1/vqa", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (422, "max_tokens")


async def test_a_proxy_is_told_not_to_hold_events_back(service: Service) -> None:
    response = await service.client.post("/v1/vqa", json={"image": PLAIN, "question": "What?", "stream": True})
    assert response.headers["x-accel-buffering"] == "no"


async def test_a_body_is_not_kept_beside_what_was_read_from_it(service: Service) -> None:
    """Peak of the service's own objects while the engine works, in bodies."""
    import tracemalloc

    body = json.dumps({"image": base64.b64encode(RAW + bytes(6 * 2**20)).decode(), "question": "What?"}).encode()
    held: list[int] = []
    real = service.state.active.images.read

    async def measured(*arguments: Any, **named: Any) -> Any:
        held.append(tracemalloc.get_traced_memory()[0])
        return await real(*arguments, **named)

    async def sent() -> Any:
        for start in range(0, len(body), 2**16):
            yield body[start : start + 2**16]

    service.state.active.images.read = measured  # type: ignore[method-assign]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await service.client.post("/v1/vqa", content=sent(), headers={"content-type": "application/json"})
    finally:
        tracemalloc.stop()
    assert held[0] - before < 1.5 * len(body)
