"""DICOM through both routes and both content types: the same image, an account of it, and nothing of its tags."""

import base64
import json
import logging
from typing import Any

import httpx
import numpy as np
import pytest

from medmoe.server.observability.json_log import JsonFormatter
from tests.integration.conftest import Service, ServiceFactory, base64_image, check, image_bytes
from tests.support.images.dicom_files import dicom, gradient

CANARY = "canary7f3q"
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/vqa": {"question": "What is shown?"},
    "/v1/classify": {"labels": ["CT", "MRI"]},
    "/v1/render": {},
}
ANSWERED = ("/v1/vqa", "/v1/classify")


@pytest.fixture
def ct() -> bytes:
    return dicom(gradient((40, 48)), RescaleSlope=1, RescaleIntercept=-24, WindowCenter=40, WindowWidth=400)


async def as_json(service: Service, path: str, data: bytes, **fields: Any) -> httpx.Response:
    body = {"image": base64.b64encode(data).decode(), **ROUTES[path], **fields}
    return await service.client.post(path, json=body)


async def as_form(service: Service, path: str, data: bytes, **fields: Any) -> httpx.Response:
    files = {"image": (f"{CANARY}.dcm", data, "application/dicom")}
    return await service.client.post(path, data={**ROUTES[path], **fields}, files=files)


def account(response: httpx.Response) -> dict[str, Any]:
    """What an answer says of its image: in its provenance, or as all that it says."""
    body: dict[str, Any] = response.json()
    return body.get("provenance", body)


@pytest.mark.parametrize("send", [as_json, as_form])
@pytest.mark.parametrize("path", list(ROUTES))
async def test_a_ct_is_read_and_the_answer_says_how(service: Service, ct: bytes, path: str, send: Any) -> None:
    response = await send(service, path, ct)
    assert response.status_code == 200, response.text
    provenance = account(response)
    assert (provenance["width"], provenance["height"]) == (48, 40)
    assert provenance["rendering"] == {
        "format": "DICOM",
        "colour": "MONOCHROME2",
        "frame": 0,
        "frames": 1,
        "steps": ["rescale", "window"],
        "windows": [{"source": "file", "centre": 40.0, "width": 400.0, "function": "LINEAR"}],
    }


@pytest.mark.parametrize("path", ANSWERED)
async def test_what_the_answer_says_of_a_window_reproduces_the_image(service: Service, ct: bytes, path: str) -> None:
    seen = []
    fields: dict[str, Any] = {"window": "lung"}
    for _ in range(2):
        response = await as_json(service, path, ct, **fields)
        (window,) = account(response)["rendering"]["windows"]
        assert service.engine.last_request is not None
        seen.append(service.engine.last_request.image.tobytes())
        fields = {"window": f"{window['centre']:g}/{window['width']:g}"}
    assert seen[0] == seen[1]
    assert (await as_json(service, path, ct)).status_code == 200
    assert service.engine.last_request.image.tobytes() != seen[0]


@pytest.mark.parametrize("send", [as_json, as_form])
async def test_three_windows_are_three_colours(service: Service, ct: bytes, send: Any) -> None:
    response = await send(service, "/v1/vqa", ct, window="lung,mediastinum,bone")
    windows = account(response)["rendering"]["windows"]
    assert [(window["centre"], window["width"]) for window in windows] == [(-600, 1500), (50, 350), (400, 1800)]
    assert service.engine.last_request is not None
    colours = np.moveaxis(service.engine.last_request.image, -1, 0)
    assert len({colour.tobytes() for colour in colours}) == 3


@pytest.mark.parametrize("send", [as_json, as_form])
async def test_a_frame_of_many_is_chosen(service: Service, send: Any) -> None:
    data = dicom(np.stack([np.full((32, 32), shade, np.uint8) for shade in (10, 200)]), NumberOfFrames=2)
    for frame, shade in enumerate((10, 200)):
        response = await send(service, "/v1/vqa", data, frame=frame, allow_uniform=True)
        assert account(response)["rendering"]["frame"] == frame
        assert service.engine.last_request is not None
        assert service.engine.last_request.image[16, 16].tolist() == [shade] * 3
    check(await send(service, "/v1/vqa", data, frame=2), 422, "invalid_field", "frame")


@pytest.mark.parametrize("path", list(ROUTES))
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"window": "CANARY"}, "window"),
        ({"window": ""}, "window"),
        ({"window": "40"}, "window"),
        ({"window": "40/0"}, "window"),
        ({"window": "40/-5"}, "window"),
        ({"window": "nan/5"}, "window"),
        ({"window": "1e9/5"}, "window"),
        ({"window": "9" * 21 + "/5"}, "window"),
        ({"window": "lung,bone"}, "window"),
        ({"window": "lung,bone,brain,liver"}, "window"),
        ({"window": "4" * 500 + "/1"}, "window"),
        ({"window": 40}, "window"),
        ({"frame": -1}, "frame"),
        ({"frame": 1}, "frame"),
        ({"frame": "0"}, "frame"),
        ({"frame": 1.5}, "frame"),
    ],
    ids=str,
)
async def test_bad_windows_and_frames_are_422_and_named(
    service: Service, ct: bytes, path: str, fields: dict[str, Any], param: str
) -> None:
    check(await as_json(service, path, ct, **fields), 422, "invalid_field", param)


@pytest.mark.parametrize("path", list(ROUTES))
@pytest.mark.parametrize(("fields", "param"), [({"window": "40/400"}, "window"), ({"frame": 3}, "frame")])
async def test_fields_that_do_not_apply_are_422(
    service: Service, path: str, fields: dict[str, Any], param: str
) -> None:
    body = {"image": base64_image(), **ROUTES[path], **fields}
    check(await service.client.post(path, json=body), 422, "invalid_field", param)


async def test_burned_in_text_is_the_deployments_decision(running: ServiceFactory) -> None:
    data = dicom(gradient((32, 32)), BurnedInAnnotation="YES")
    async with running() as service:
        check(await as_json(service, "/v1/vqa", data), 422, "burned_in_annotation", "image")
    async with running(dicom_burned_in="accept") as service:
        assert (await as_json(service, "/v1/vqa", data)).status_code == 200


async def test_frames_over_the_limit_are_413(running: ServiceFactory) -> None:
    data = dicom(np.zeros((5, 32, 32), np.uint8), NumberOfFrames=5)
    async with running(max_image_frames=4) as service:
        check(await as_json(service, "/v1/vqa", data), 413, "image_too_large", "image")


@pytest.mark.filterwarnings("ignore")
async def test_tags_reach_no_answer_no_error_no_log_and_no_metric(
    service: Service, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    named = {
        "PatientName": CANARY, "PatientID": CANARY, "ImageComments": CANARY, "StudyDescription": CANARY,
        "SpecificCharacterSet": CANARY, "WindowCenterWidthExplanation": CANARY,
    }  # fmt: skip
    values = gradient((32, 32))
    good = dicom(values, **named)
    bad = [
        good[:-700],
        dicom(values, **named, BurnedInAnnotation="YES"),
        dicom(values, **named, PhotometricInterpretation=CANARY.upper()),
        dicom(values, **named, NumberOfFrames=9999),
        good.replace(b"US\x02\x00", b"DS\x02\x00"),
    ]
    for path in ROUTES:
        for send in (as_json, as_form):
            answer = await send(service, path, good)
            assert answer.status_code == 200, answer.text
            refused = [await send(service, path, data) for data in bad]
            assert {response.status_code for response in refused} <= {413, 415, 422}
            for response in (answer, *refused):
                assert CANARY not in response.text.lower()
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert not [record for record in ours if CANARY in JsonFormatter().format(record).lower()]
    assert CANARY not in (await service.client.get("/metrics")).text.lower()
    written = capfd.readouterr()
    assert CANARY not in (written.out + written.err).lower()


async def test_the_fields_are_documented(service: Service) -> None:
    document = (await service.client.get("/openapi.json")).json()
    for path in ROUTES:
        content = document["paths"][path]["post"]["requestBody"]["content"]
        for kind in ("application/json", "multipart/form-data"):
            properties = content[kind]["schema"]["properties"]
            assert {"window", "frame"} <= properties.keys()
            assert "lung" in properties["window"]["description"]
        assert "DICOM" in json.dumps(content["application/json"]["schema"]["properties"]["image"])
    assert {"Rendering", "AppliedWindow"} <= document["components"]["schemas"].keys()


async def test_an_image_with_dicom_fields_left_empty_is_an_image(service: Service) -> None:
    body = {"image": base64.b64encode(image_bytes()).decode(), "question": "What?", "window": None, "frame": None}
    assert (await service.client.post("/v1/vqa", json=body)).status_code == 200
