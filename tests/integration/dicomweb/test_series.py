"""Series of a source: only the chosen slices are fetched, and each must be what the metadata say."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.conftest import Service, ServiceFactory, check
from tests.integration.dicomweb.conftest import SourcesFile
from tests.integration.dicomweb.test_hostile_source import hostile, part, related
from tests.support.images.image_host import Answer, raw, whole
from tests.support.images.series_files import SERIES, STUDY, ct_series, ct_slice, enhanced_ct
from tests.support.service.orthanc import Orthanc, needs_orthanc

REFERENCE = {"source": "pacs", "study": STUDY, "series": SERIES}
LABELS = {"labels": ["yes", "no"]}


def without_clock(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {key: without_clock(value) for key, value in answer.items() if key not in ("id", "timings", "file")}
    return [without_clock(one) for one in answer] if isinstance(answer, list) else answer


async def ask(service: Service, **changes: Any) -> httpx.Response:
    return await service.client.post("/v1/series", json={"series": REFERENCE | changes, "slices": 3, **LABELS})


@pytest.fixture
def series_in_pacs(pacs: Orthanc) -> Iterator[list[bytes]]:
    files = ct_series([3, 0, 5, 1, 4, 2])
    for file in files:
        pacs.add(file)
    yield files
    for study in pacs.http.get("/studies").json():
        if pacs.http.get(f"/studies/{study}").json()["MainDicomTags"]["StudyInstanceUID"] == STUDY:
            pacs.http.delete(f"/studies/{study}").raise_for_status()


@needs_orthanc
async def test_a_series_of_a_real_pacs_is_answered_as_the_same_files_sent(
    running: ServiceFactory, pacs: Orthanc, series_in_pacs: list[bytes], sources_file: SourcesFile
) -> None:
    async with running(dicomweb_sources=sources_file(pacs.url)) as service:
        named = await ask(service)
        form = {"labels": json.dumps(LABELS["labels"]), "slices": "3"}
        sent = await service.client.post("/v1/series", data=form, files=[("series", one) for one in series_in_pacs])
        assert (named.status_code, sent.status_code) == (200, 200), named.text
        assert without_clock(named.json()) == without_clock(sent.json())
        assert named.json()["timings"]["fetch"] > 0
        check(await ask(service, series="1.2.3"), 404, "instance_not_found")
        check(await ask(service, source="vna"), 404, "source_not_found", "source")


def metadata(*files: dict[str, Any]) -> bytes:
    return json.dumps(
        [
            {
                "0020000D": {"vr": "UI", "Value": [STUDY]},
                "0020000E": {"vr": "UI", "Value": [SERIES]},
                "00080018": {"vr": "UI", "Value": [f"{SERIES}.{index + 1}"]},
                "00080060": {"vr": "CS", "Value": ["CT"]},
                "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Phantom^Series"}]},
                "00280010": {"vr": "US", "Value": [24]},
                "00280011": {"vr": "US", "Value": [24]},
                "00200032": {"vr": "DS", "Value": [-12, -12, 2.0 * index]},
                "00200037": {"vr": "DS", "Value": [1, 0, 0, 0, 1, 0]},
            }
            | changes
            for index, changes in enumerate(files)
        ]
    ).encode()


def listed(body: bytes) -> Answer:
    return whole(body, content_type="application/dicom+json")


NO_UIDS = b'[{"00280010": {"vr": "US", "Value": [9]}, "00280011": {"vr": "US", "Value": [9]}}]'
OF_ANOTHER = {"0020000E": {"vr": "UI", "Value": ["1.2.3"]}}
FAR_AWAY = {"00200032": {"vr": "DS", "Value": [-12, -12, 60]}}
LIES: dict[str, tuple[Answer, int, str]] = {
    "HTML": (whole(b"<html>log in</html>", content_type="text/html"), 502, "invalid_source_answer"),
    "no list": (listed(b"{}"), 502, "invalid_source_answer"),
    "no JSON": (listed(b"[" * 100_000), 502, "invalid_source_answer"),
    "no objects": (listed(b"[1]"), 502, "invalid_source_answer"),
    "no UIDs": (listed(NO_UIDS), 502, "invalid_source_answer"),
    "values of no kind": (listed(b'[{"00280010": 5, "00200032": [[]]}]'), 502, "invalid_source_answer"),
    "nothing": (listed(b"[]"), 422, "not_a_volume"),
    "no content": (whole(b"", status="204 No Content"), 404, "instance_not_found"),
    "another series": (listed(metadata({}, {}, OF_ANOTHER)), 502, "invalid_source_answer"),
    "a gap": (listed(metadata({}, {}, {}, FAR_AWAY)), 422, "missing_slices"),
    "refuses": (whole(b"", status="401 Unauthorized"), 502, "source_refused"),
    "closes": (raw(b""), 502, "invalid_source_answer"),
}


async def test_lies_about_a_series(
    running: ServiceFactory, sources_file: SourcesFile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with hostile(raw(b"")) as host, running(dicomweb_sources=sources_file(host.url)) as service:
        for name, (host.answer, status, code) in LIES.items():
            response = await ask(service)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code), (name, response.text)
            assert service.state.admission.in_flight == 0
        for name, (file, code) in {
            "another place": (ct_slice(1, ImagePositionPatient=[-12, -12, 9.0]), "wrong_instance"),
            "another instance": (ct_slice(7), "wrong_instance"),
            "other frames": (enhanced_ct(range(3), SOPInstanceUID=f"{SERIES}.2"), "wrong_instance"),
        }.items():
            # The metadata first, then each instance.
            answers = iter([listed(metadata({}, {}, {})), *3 * [related(part(file))]])

            async def answer(writer: Any) -> None:
                await next(answers)(writer)  # noqa: B023 (called within the loop)

            host.answer = answer
            response = await ask(service)
            assert response.json()["error"]["code"] == code, (name, response.text)
    for text in (STUDY, "Phantom"):
        assert text not in caplog.text
