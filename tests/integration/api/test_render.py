"""POST /v1/render: what people and the model see of a file, within the limits of every other image."""

import asyncio
import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.integration.conftest import Service, ServiceFactory, check, image_bytes, until
from tests.support.images.dicom_files import dicom, gradient, look_up_table
from tests.support.images.hostile_images import BOMBS, encoded, large
from tests.support.images.tagged_images import png

RENDER = "/v1/render"
CANARY = "canary7f3q"
CT = {"RescaleSlope": 1, "RescaleIntercept": -24, "WindowCenter": 40, "WindowWidth": 400}


async def render(service: Service, data: bytes, **fields: Any) -> httpx.Response:
    return await service.client.post(RENDER, data=fields, files={"image": ("anything", data, "x/y")})


def shown(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    head, _, encoded_png = response.json()["image"].partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(encoded_png)))
    image.load()
    return image


async def test_a_frame_is_shown_as_stored_and_says_what_windows_there_are(service: Service) -> None:
    values = gradient((40, 48))
    response = await render(service, dicom(values, **CT))
    assert shown(response).size == (48, 40)
    body = response.json()
    assert set(body) == {"image", "width", "height", "rendering", "windowing"}
    assert (body["width"], body["height"]) == (48, 40)
    assert body["rendering"]["windows"] == [{"source": "file", "centre": 40.0, "width": 400.0, "function": "LINEAR"}]
    windowing = body["windowing"]
    assert (windowing["smallest"], windowing["largest"]) == (float(values.min()) - 24, float(values.max()) - 24)
    assert {"lung", "bone"} <= set(windowing["presets"])


async def test_every_named_window_is_one_that_the_file_takes(service: Service) -> None:
    data = dicom(gradient((40, 48)), **CT)
    presets = (await render(service, data)).json()["windowing"]["presets"]
    images = {shown(await render(service, data, window=name)).tobytes() for name in presets}
    assert len(images) > 1
    other = dicom(gradient((40, 48)), Modality="MR")
    assert (await render(service, other)).json()["windowing"]["presets"] == []


async def test_the_window_that_a_person_sees_is_the_one_that_the_model_gets(service: Service) -> None:
    """An image of the model's size is not resized: then the two must be equal to the last pixel."""
    data = dicom(gradient((32, 32)), **CT)
    seen = shown(await render(service, data, window="100/300"))
    form = {"question": "What?", "window": "100/300"}
    assert (await service.client.post("/v1/vqa", data=form, files={"image": ("a", data, "x/y")})).status_code == 200
    assert service.engine.last_request is not None
    assert seen.tobytes() == service.engine.last_request.image.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
async def test_the_models_view_is_what_the_model_gets(service: Service, kind: str) -> None:
    data = image_bytes((120, 50), kind=kind)
    seen = shown(await render(service, data, view="model"))
    files = {"image": ("a", data, "x/y")}
    await service.client.post("/v1/vqa", data={"question": "What?"}, files=files)
    assert service.engine.last_request is not None
    assert seen.tobytes() == service.engine.last_request.image.tobytes()
    frame = await render(service, data)
    assert shown(frame).size == (120, 50)
    assert frame.json()["windowing"] is None


async def test_large_images_are_reduced_and_small_ones_are_not_enlarged(service: Service) -> None:
    wide = await render(service, image_bytes((2000, 500)))
    assert shown(wide).size == (1024, 256)
    assert (wide.json()["width"], wide.json()["height"]) == (2000, 500)
    assert shown(await render(service, image_bytes((20, 16)))).size == (20, 16)


async def test_frames_are_counted_and_chosen(service: Service) -> None:
    data = dicom(np.stack([np.full((32, 32), shade, np.uint8) for shade in (10, 200)]), NumberOfFrames=2)
    for frame, shade in enumerate((10, 200)):
        response = await render(service, data, frame=str(frame), allow_uniform="true")
        assert response.json()["rendering"]["frames"] == 2
        assert shown(response).getpixel((16, 16)) == (shade,) * 3
    check(await render(service, data, frame="2"), 422, "invalid_field", "frame")


async def test_colours_have_no_window_and_a_table_has_no_numbers(service: Service) -> None:
    colours = np.full((32, 32, 3), 90, np.uint8)
    assert (await render(service, dicom(colours, colours=3), allow_uniform="true")).json()["windowing"] is None
    table = dicom(
        np.arange(1024, dtype=np.uint16).reshape(32, 32) % 64,
        VOILUTSequence=[look_up_table(list(range(0, 65536, 1024)))],
    )
    body = (await render(service, table)).json()
    assert body["rendering"]["windows"] == [{"source": "file", "centre": None, "width": None, "function": None}]
    assert (body["windowing"]["smallest"], body["windowing"]["largest"]) == (0, 63)


async def test_json_takes_base64(service: Service) -> None:
    data = image_bytes()
    response = await service.client.post(RENDER, json={"image": base64.b64encode(data).decode(), "view": "frame"})
    assert shown(response).tobytes() == shown(await render(service, data)).tobytes()


async def test_nothing_of_the_file_comes_back_but_its_pixels(service: Service) -> None:
    tagged = dicom(gradient((32, 32)), PatientName=CANARY, PatientID=CANARY, ImageComments=CANARY, **CT)
    for data in (tagged, png(CANARY)):
        for view in ("frame", "model"):
            response = await render(service, data, view=view)
            image = shown(response)
            assert CANARY not in response.text
            assert CANARY.encode() not in base64.b64decode(response.json()["image"].partition(",")[2])
            assert not image.info
            assert not image.getexif()


@pytest.mark.parametrize("view", ["frame", "model"])
@pytest.mark.parametrize("kind", list(BOMBS))
async def test_a_bomb_is_refused(service: Service, kind: str, view: str) -> None:
    check(await render(service, BOMBS[kind](16_000, 16_000), view=view), 413, "image_too_large", "image")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 415, "unsupported_image"),
        (b"%PDF-1.7", 415, "unsupported_image"),
        (image_bytes((200, 200))[:200], 422, "unreadable_image"),
        (dicom(gradient((40, 48)))[:-900], 422, "unreadable_image"),
        (dicom(gradient((40, 48)), BurnedInAnnotation="YES"), 422, "burned_in_annotation"),
        (encoded(Image.new("RGB", (400, 10)), "PNG"), 422, "unreadable_image"),
    ],
    ids=["empty", "pdf", "truncated", "truncated DICOM", "burned in", "long"],
)
async def test_what_no_question_may_hold_is_not_shown_either(
    service: Service, data: bytes, status: int, code: str
) -> None:
    check(await render(service, data), status, code, "image")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"view": "thumbnail"}, "view"),
        ({"window": "40/0"}, "window"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"x": 1}, None),
    ],
    ids=str,
)
async def test_bad_fields_are_422_and_named(service: Service, fields: dict[str, Any], param: str | None) -> None:
    check(await render(service, dicom(gradient((40, 48))), **fields), 422, "invalid_field", param)


async def test_an_image_that_takes_too_much_memory_is_refused(running: ServiceFactory) -> None:
    async with running(image_workers=1, image_memory_mib=100) as service:
        check(await render(service, large()), 422, "image_too_costly", "image")
        assert (await render(service, image_bytes())).status_code == 200


async def test_a_deadline_ends_it(running: ServiceFactory) -> None:
    async with running(image_workers=1) as service:
        check(await render(service, large(), timeout_ms="20"), 504, "deadline_exceeded")
        assert service.state.admission.in_flight == 0


async def test_a_full_house_renders_nothing_more(running: ServiceFactory, vqa_body: dict[str, Any]) -> None:
    async with running(max_concurrent=1, max_queued=0) as service:
        service.engine.delay = 3600
        inside = asyncio.create_task(service.client.post("/v1/vqa", json=vqa_body))
        await until(lambda: service.state.admission.in_flight == 1)
        check(await render(service, image_bytes()), 429, "overloaded")
        inside.cancel()
        await asyncio.gather(inside, return_exceptions=True)


async def test_a_client_that_leaves_ends_the_work(running: ServiceFactory) -> None:
    async with running(image_workers=1) as service:
        asking = asyncio.create_task(render(service, large()))
        await until(lambda: not service.state.active.decoders.pids)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: service.state.admission.in_flight == 0)
        assert (await render(service, image_bytes())).status_code == 200


async def test_the_engine_has_no_part_in_it_and_the_metrics_know_it(service: Service) -> None:
    before = service.engine.started
    assert (await render(service, image_bytes())).status_code == 200
    assert service.engine.started == before
    text = (await service.client.get("/metrics")).text
    assert f'medmoe_requests_total{{route="{RENDER}",status="200"}} 1.0' in text
    assert (await service.client.get("/v1/router/stats")).json()["requests"] == 0
