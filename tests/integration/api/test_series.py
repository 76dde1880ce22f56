"""POST /v1/series as a client sees it."""

import asyncio
import base64
import json
import random
import struct
import zipfile
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import numpy as np
import pytest

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import GenerationChunk, GenerationError, GenerationRequest
from medmoe.server.engine.fake_engine import FakeEngine
from tests.integration.conftest import Service, ServiceFactory, check, image_bytes, until
from tests.support.images.phantom import chest_ct_file
from tests.support.images.series_files import LESION, SERIES, archive, ct_series, ct_slice, enhanced_ct

QUESTION = {"question": "Is there a fracture?"}
LABELS = {"labels": ["yes", "no"]}
_BRIGHT = 250


class SeeingEngine(FakeEngine):
    """Says yes the more surely the brighter the image is."""

    def __init__(self, config: MedMoEConfig, prompt: Prompt) -> None:
        super().__init__(config, prompt)
        self._bright: dict[str, float] = {}
        (self._yes, _) = prompt.answer("yes")

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        grey = np.asarray(request.image)[..., 0]
        self._bright[request.image_id] = float((grey > _BRIGHT).mean())
        return super().generate(request)

    def log_probabilities(self, image_id: str, ids: Any) -> np.ndarray:
        # No noise of each image's own.
        scores = super().log_probabilities("", ids).copy()
        if ids[-1] != self._yes:
            scores[self._yes] += 120 * self._bright.get(image_id, 0.0)
        return scores - float(np.logaddexp.reduce(scores))


@pytest.fixture
def engine(config: MedMoEConfig, prompt: Prompt) -> SeeingEngine:
    return SeeingEngine(config, prompt)


async def post(service: Service, files: list[bytes], **fields: Any) -> httpx.Response:
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    parts = [("series", ("a", file, "application/dicom")) for file in files]
    return await service.client.post("/v1/series", data=form, files=parts)


async def ask(service: Service, files: list[bytes], **fields: Any) -> dict[str, Any]:
    response = await post(service, files, **fields)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def without_clock(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {key: without_clock(value) for key, value in answer.items() if key not in ("id", "timings")}
    return [without_clock(one) for one in answer] if isinstance(answer, list) else answer


def events(text: str) -> list[Any]:
    blocks = [block.removeprefix("data: ") for block in text.strip().split("\n\n")]
    return [block if block == "[DONE]" else json.loads(block) for block in blocks]


async def test_the_best_of_64_shuffled_slices_shows_the_lesion(service: Service) -> None:
    files = ct_series()
    random.Random(3).shuffle(files)
    answer = await ask(service, files, slices=16, aggregate="max", **LABELS)
    sampled = list(range(2, 64, 4))
    assert answer["series"] == {
        "slice_count": 64,
        "sampled": sampled,
        "ordered_by": "position",
        "spacing": 2.0,
        "irregular": False,
        "window": "39.5/399",
        "window_source": "middle_slice",
        "ignored_files": 0,
    }
    assert [one["index"] for one in answer["slices"]] == sampled
    assert [one["position"] for one in answer["slices"]] == [2.0 * index for index in sampled]
    for one in answer["slices"]:
        assert one["instance"] == f"{SERIES}.{one['index'] + 1}"
        assert (files[one["file"]], one["frame"]) == (ct_slice(one["index"]), None)
    shares = {one["index"]: one["classification"]["probabilities"][0]["probability"] for one in answer["slices"]}
    assert min(shares[index] for index in sampled if index in LESION) > 0.9, shares
    assert max(shares[index] for index in sampled if index not in LESION) < 0.5, shares
    yes, no = answer["probabilities"]
    assert yes == {"label": "yes", "probability": max(shares.values()), "best_slice": yes["best_slice"]}
    assert yes["best_slice"] in LESION
    assert no["best_slice"] not in LESION
    assert (answer["rule"], answer["calibrated"]) == ("max", False)
    likeliest = max(answer["probabilities"], key=lambda one: one["probability"])
    assert (answer["labels"], answer["best_slice"]) == ([likeliest["label"]], likeliest["best_slice"])
    asked = {"slices": 16, "finding": "yes", **LABELS}
    shown = await ask(service, files, **asked)
    assert (shown["rule"], shown["labels"], shown["best_slice"]) == ("max", ["yes"], yes["best_slice"])
    absent = await ask(service, ct_series(range(32, 48)), **asked)
    assert (absent["labels"], absent["best_slice"]) == (["no"], absent["probabilities"][0]["best_slice"])
    mean = await ask(service, ct_series(range(24, 28)), **LABELS)
    assert (mean["rule"], mean["labels"]) == ("mean", ["yes"])
    assert mean["probabilities"][0]["probability"] == pytest.approx(
        sum(one["classification"]["probabilities"][0]["probability"] for one in mean["slices"]) / 4
    )


async def test_a_slice_is_answered_as_it_is_alone_in_the_same_window(service: Service) -> None:
    files = ct_series(range(18, 24))
    answer = await ask(service, files, slices=3, **QUESTION)
    assert (answer["kind"], answer["rule"], answer["answer"]) == ("answer", "most_confident", "yes")
    assert answer["best_slice"] in (3, 5)
    assert [one["index"] for one in answer["slices"]] == [1, 3, 5]
    for one in answer["slices"]:
        alone = await service.client.post(
            "/v1/vqa", data=QUESTION | {"window": "39.5/399"}, files={"image": files[one["index"]]}
        )
        assert without_clock(one["answer"]) == without_clock(alone.json())
    best = next(one["answer"] for one in answer["slices"] if one["index"] == answer["best_slice"])
    assert best["answer"] == answer["answer"]
    assert best["confidence"]["value"] == max(one["answer"]["confidence"]["value"] for one in answer["slices"])
    assert answer["timings"]["total"] >= max(one["answer"]["timings"]["total"] for one in answer["slices"])


async def test_the_router_statistics_count_each_slice_as_of_a_series(service: Service) -> None:
    for asked in (QUESTION, LABELS):
        await ask(service, ct_series(range(18, 24)), slices=3, **asked)
    stats = (await service.client.get("/v1/router/stats")).json()
    assert (stats["requests"], set(stats["by_route"])) == (6, {"series"})
    assert stats["by_route"]["series"] == stats["overall"]


async def test_archives_and_frames_are_answered_as_files_are(service: Service) -> None:
    order = [4, 0, 3, 1, 2, 5]
    files = ct_series(order)
    expected = await ask(service, files, **LABELS)
    others = {"DICOMDIR": b"x" * 500, "viewer.exe": b"MZ", "folder/": b"", "__MACOSX/._1.dcm": b"\0" * 200}
    packed = archive(files, others=others)
    assert without_clock(await ask(service, [packed], **LABELS)) == without_clock(expected)
    as_text = {"series": base64.b64encode(packed).decode(), **LABELS}
    response = await service.client.post("/v1/series", json=as_text)
    assert without_clock(response.json()) == without_clock(expected)
    frames = await ask(service, [enhanced_ct(order)], **LABELS)
    assert [one["frame"] for one in frames["slices"]] == [order.index(index) for index in range(6)]
    assert {one["file"] for one in frames["slices"]} == {0}
    assert frames["probabilities"] == expected["probabilities"]
    # A structured report in the archive is a DICOM file and no slice.
    report = ct_slice(9, Rows=None, Columns=None)
    assert (await ask(service, [archive([*files, report])], **LABELS))["series"]["ignored_files"] == 1


async def test_a_file_is_named_by_its_place_in_the_archive_also_behind_one_without_an_image(service: Service) -> None:
    files = [ct_slice(9, Rows=None, Columns=None), *ct_series(range(4))]
    answer = await ask(service, [archive(files)], **LABELS)
    assert [files[one["file"]] for one in answer["slices"]] == files[1:]
    reported = await ask(service, [archive(files)], include_report=True, **LABELS)
    assert [one["file"] for one in reported["slices"]] == [1, 2, 3, 4]
    damaged = [*files[:3], files[3][:-400], files[4]]
    refused = (await post(service, [archive(damaged)], **LABELS)).json()["error"]
    assert refused["message"].startswith("File 4: "), refused


async def test_all_slices_are_shown_in_one_window(service: Service) -> None:
    files = [ct_slice(index, WindowCenter=10 * index, WindowWidth=100 + index) for index in range(5)]
    answer = await ask(service, files, **LABELS)
    windows = [one["classification"]["provenance"]["rendering"]["windows"] for one in answer["slices"]]
    assert windows == 5 * [[{"source": "request", "centre": 19.5, "width": 101.0, "function": "LINEAR_EXACT"}]]
    for window, source in (("lung", "request"), ("-600/1500", "request"), ("full", "middle_slice")):
        series = (await ask(service, files, window=window, **LABELS))["series"]
        assert series["window_source"] == source
        assert series["window"] == (window if source == "request" else "-479/1042")
    colours = ct_series(range(3), VOILUTFunction="SIGMOID")
    assert (await ask(service, colours, **LABELS))["series"]["window_source"] == "each_slice"


async def test_the_slices_are_rendered_as_they_are_asked_about(service: Service) -> None:
    files = [ct_slice(0, np.full((24, 24), -1000, np.int16)), *ct_series(range(1, 6))]
    random.Random(1).shuffle(files)
    parts = [("series", ("a", file, "application/dicom")) for file in files]
    response = await service.client.post("/v1/series/render", data={"slices": "3"}, files=parts)
    assert response.status_code == 200, response.text
    rendered, answer = response.json(), await ask(service, files, slices=3, **LABELS)
    assert rendered["series"] == answer["series"]
    assert "lung" in rendered["windowing"]["presets"]
    for one, asked in zip(rendered["slices"], answer["slices"], strict=True):
        assert {name: one[name] for name in asked if name in one} == {
            name: asked[name] for name in asked if name in one
        }
        alone = {"image": ("a", files[one["file"]])}
        shown = {"window": rendered["series"]["window"], "allow_uniform": "true"}
        assert one["image"] == (await service.client.post("/v1/render", data=shown, files=alone)).json()["image"]
    assert [one["uniform"] for one in rendered["slices"]] == [False, False, False]
    whole = await service.client.post("/v1/series/render", files=parts)
    assert [one["uniform"] for one in whole.json()["slices"]] == [True] + 5 * [False]
    check(await service.client.post("/v1/series/render", files=parts[:1]), 422, "not_a_volume", "series")
    photograph = [*parts[:1], ("series", ("b", image_bytes()))]
    check(await service.client.post("/v1/series/render", files=photograph), 415, "unsupported_image", "series")
    check(
        await service.client.post("/v1/series/render", data={"slices": "65"}, files=parts),
        422,
        "invalid_field",
        "slices",
    )


async def test_slices_of_one_shade_are_left_out(service: Service) -> None:
    empty = np.full((24, 24), -1000, np.int16)
    files = [ct_slice(0, empty), *ct_series(range(1, 5)), ct_slice(5, empty)]
    answer = await ask(service, files, **LABELS)
    assert [one["uniform"] for one in answer["slices"]] == [True, False, False, False, False, True]
    assert answer["slices"][0]["classification"] is None
    asked = await ask(service, files, **QUESTION)
    assert [one["answer"] is None for one in asked["slices"]] == [True, False, False, False, False, True]
    check(await post(service, [ct_slice(index, empty) for index in range(3)], **LABELS), 422, "uniform_image", "series")


def bomb() -> bytes:
    return archive([b"\0" * 128 + b"DICM" + b"\0" * 3_000_000])


def encrypted() -> bytes:
    packed = bytearray(archive(ct_series(range(2))))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = packed.find(magic)
        while at >= 0:
            struct.pack_into("<H", packed, at + offset, 1)
            at = packed.find(magic, at + 4)
    return bytes(packed)


def tilted() -> list[bytes]:
    return [ct_slice(index, ImagePositionPatient=[-12, -12 + index, 2.0 * index]) for index in range(6)]


GOOD = ct_series(range(6))
SAGITTAL = [0, 1, 0, 0, 0, -1]
REFUSED: dict[str, tuple[list[bytes], int, str, str]] = {
    "two series": ([*GOOD, ct_slice(6, SeriesInstanceUID="1.2.3")], 422, "mixed_series", "series"),
    "two patients": ([*GOOD, ct_slice(6, PatientID="another")], 422, "mixed_series", "series"),
    "two sizes": ([*GOOD, ct_slice(6, np.zeros((32, 24), np.int16))], 422, "mixed_series", "series"),
    "a localizer": ([*GOOD, ct_slice(6, ImageOrientationPatient=SAGITTAL)], 422, "mixed_orientation", "series"),
    "a gap": ([*GOOD[:2], *GOOD[4:]], 422, "missing_slices", "series"),
    "a file twice": ([*GOOD, GOOD[0]], 422, "duplicate_slices", "series"),
    "a tilted gantry": (tilted(), 422, "tilted_gantry", "series"),
    "one slice": (GOOD[:1], 422, "not_a_volume", "series"),
    "radiographs": (ct_series(range(2), Modality="DX", ImagePositionPatient=None), 422, "not_a_volume", "series"),
    "a film": ([enhanced_ct(range(4), PerFrameFunctionalGroupsSequence=None)], 422, "not_a_volume", "series"),
    "frames and places": ([enhanced_ct(range(4), NumberOfFrames=3)], 422, "not_a_volume", "series"),
    "no UID": ([GOOD[0], ct_slice(1, StudyInstanceUID=None)], 422, "unreadable_image", "series"),
    "no image": ([GOOD[0], ct_slice(1, Rows=None)], 422, "unreadable_image", "series"),
    "a photograph": ([GOOD[0], image_bytes()], 415, "unsupported_image", "series"),
    "an empty file": ([GOOD[0], b""], 415, "unsupported_image", "series"),
    "a cut slice": ([GOOD[0], GOOD[1][:-200], GOOD[2]], 422, "unreadable_image", "series"),
    "burned-in text": (ct_series(range(3), BurnedInAnnotation="YES"), 422, "burned_in_annotation", "series"),
    "no archive": ([b"PK\x03\x04" + b"\0" * 100], 422, "invalid_archive", "series"),
    "a cut archive": ([archive(GOOD)[:-300]], 422, "invalid_archive", "series"),
    "an archive of nothing": ([archive([])], 422, "invalid_archive", "series"),
    "an archive without DICOM": ([archive([], others={"a.txt": b"a"})], 422, "invalid_archive", "series"),
    "an archive with a damaged file": (
        [archive(GOOD, others={"series/9.DCM": b"", "notes.txt": b"a"})],
        422,
        "invalid_archive",
        "series",
    ),
    "an archive in another": ([archive([archive(GOOD)])], 422, "invalid_archive", "series"),
    "an encrypted archive": ([encrypted()], 422, "invalid_archive", "series"),
    "another compression": ([archive(GOOD, method=zipfile.ZIP_BZIP2)], 422, "invalid_archive", "series"),
    "two archives": ([archive(GOOD), archive(GOOD)], 422, "invalid_archive", "series"),
    "a bomb": ([bomb()], 413, "series_too_large", "series"),
    "too many files": (ct_series(range(31)), 413, "series_too_large", "series"),
    "too many files in an archive": ([archive(ct_series(range(31)))], 413, "series_too_large", "series"),
    "too many frames": ([enhanced_ct(range(31))], 413, "series_too_large", "series"),
    "too many pixels": (ct_series(range(2), Rows=4000, Columns=4000), 413, "series_too_large", "series"),
    "too many bytes": ([b"\0" * 1_100_000], 413, "body_too_large", "series"),
}  # fmt: skip


async def test_what_is_no_series_is_refused_by_its_cause(running: ServiceFactory) -> None:
    limits = {"max_series_files": 30, "max_series_bytes": 2**20, "max_series_pixels": 20_000_000}
    async with running(**limits) as service:
        for name, (files, status, code, param) in REFUSED.items():
            response = await post(service, files, **LABELS)
            found = response.json().get("error", {"code": "an answer"})
            assert (response.status_code, found["code"]) == (status, code), (name, response.text)
            if code != "body_too_large":
                check(response, status, code, param)
            assert SERIES not in response.text
            assert service.state.admission.in_flight == service.state.active.series.places.in_flight == 0
        message = (await post(service, [*GOOD[:2], GOOD[2][:-200]], **LABELS)).json()["error"]["message"]
        assert "File 3" in message
        for files in (tilted(), [*GOOD[:2], *GOOD[4:]]):
            assert (await ask(service, files, allow_irregular=True, **LABELS))["series"]["irregular"] is True


async def test_fields_that_do_not_fit_are_refused(service: Service) -> None:
    for fields, param in (
        ({}, None),
        (QUESTION | {"aggregate": "mean"}, None),
        (LABELS | {"aggregate": "majority"}, None),
        (LABELS | {"max_tokens": 3}, None),
        (LABELS | {"finding": "maybe"}, None),
        (LABELS | {"finding": "yes", "aggregate": "mean"}, None),
        (QUESTION | {"mode": "choice"}, None),
        (QUESTION | {"slices": 65}, "slices"),
        (QUESTION | {"slices": 0}, "slices"),
        (QUESTION | {"window": "huge"}, "window"),
        (QUESTION | {"frame": 2}, None),
        (QUESTION | {"max_tokens": 10_000}, "max_tokens"),
        ({"labels": ["one"]}, "labels"),
    ):
        check(await post(service, GOOD, **fields), 422, "invalid_field", param)
    check(await service.client.post("/v1/series", json=QUESTION), 422, "invalid_field", "series")
    check(await service.client.post("/v1/series", json=QUESTION | {"series": 3}), 422, "invalid_field", "series")
    check(await service.client.post("/v1/series", json=QUESTION | {"series": "?"}), 400, "malformed_image", "series")
    reference = {"source": "pacs", "study": "1.2", "series": "1.3"}
    check(
        await service.client.post("/v1/series", json=QUESTION | {"series": reference}),
        404,
        "source_not_found",
        "source",
    )
    check(
        await service.client.post("/v1/series", data=QUESTION, files={"image": GOOD[0]}), 422, "invalid_field", "series"
    )
    lung = await post(service, ct_series(range(3), Modality="MR"), window="lung", **LABELS)
    check(lung, 422, "invalid_field", "window")


async def test_a_stream_tells_the_series_then_each_slice_then_the_answer(service: Service) -> None:
    response = await post(service, GOOD, slices=4, stream=True, **LABELS)
    assert response.headers["content-type"].startswith("text/event-stream")
    first, *slices, last, end = events(response.text)
    assert first["series"]["sampled"] == [0, 2, 3, 5]
    assert [one["done"] for one in slices] == [1, 2, 3, 4]
    assert sorted(one["slice"]["index"] for one in slices) == [0, 2, 3, 5]
    assert end == "[DONE]"
    assert without_clock(last) == without_clock(await ask(service, GOOD, slices=4, **LABELS))
    # What is found before the first event keeps its status; what fails later is an event.
    check(await post(service, GOOD[:1], stream=True, **LABELS), 422, "not_a_volume", "series")
    service.engine.fail_next = GenerationError("SECRET-at-0x7f2a")
    *_, failure = events((await post(service, GOOD, stream=True, **LABELS)).text)
    assert failure["error"]["code"] == "generation_failed"
    assert service.state.admission.in_flight == 0


async def test_a_client_that_leaves_stops_every_slice(service: Service) -> None:
    service.engine.delay = 3600
    before = service.engine.started
    client = asyncio.create_task(post(service, GOOD, **QUESTION))
    await until(lambda: service.engine.started == before + 4)
    assert service.state.admission.in_flight == 1
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    assert service.engine.aborted == service.engine.started - before == 4
    assert service.state.admission.in_flight == service.state.active.series.places.in_flight == 0


async def test_one_deadline_holds_for_all_slices(service: Service) -> None:
    # So that the images are decoded.
    await ask(service, GOOD, **LABELS)
    before, service.engine.delay = service.engine.started, 3600
    check(await post(service, GOOD, timeout_ms=1000, **QUESTION), 504, "deadline_exceeded")
    assert service.engine.aborted == service.engine.started - before > 0
    assert service.state.admission.in_flight == 0


async def test_each_slice_that_was_asked_about_is_counted_once(service: Service) -> None:
    assert (await post(service, GOOD, slices=2, **QUESTION)).status_code == 200
    metrics = (await service.client.get("/metrics")).text
    assert 'medmoe_images_total{source="decoded"} 2.0' in metrics
    assert 'medmoe_images_total{source="kept"} 0.0' in metrics


async def test_only_so_many_series_are_answered_at_once(running: ServiceFactory) -> None:
    async with running(max_series=1) as service:
        before, service.engine.delay = service.engine.started, 3600
        first = asyncio.create_task(post(service, GOOD, **QUESTION))
        await until(lambda: service.engine.started > before)
        check(await post(service, GOOD, **QUESTION), 429, "overloaded")
        # Other requests are not.
        service.engine.delay = 0
        alone = await service.client.post("/v1/vqa", data=QUESTION, files={"image": chest_ct_file(64)})
        assert alone.status_code == 200
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
