"""Images of a real PACS: as good as the same file sent, and listed without a patient."""

from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest

from medmoe.client import AsyncClient, BadRequest, Instance
from tests.integration.conftest import Medmoe, ServiceFactory, check
from tests.integration.dicomweb.conftest import CT, INSTANCE, REFERENCE, SERIES, STUDY, SourcesFile
from tests.support.service.orthanc import Orthanc, needs_orthanc
from tests.support.service.server_process import server_process

pytestmark = needs_orthanc

BODIES: dict[str, dict[str, Any]] = {
    "/v1/vqa": {"question": "Is there a fracture?"},
    "/v1/classify": {"labels": ["CT", "MRI", "X-ray"]},
    "/v1/render": {},
}


def without_clock(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("id", "timings")}


async def test_the_answer_is_that_to_the_same_file_sent(
    running: ServiceFactory, pacs: Orthanc, sources_file: SourcesFile
) -> None:
    async with running(dicomweb_sources=sources_file(pacs.url)) as service:
        for route, fields in BODIES.items():
            named = await service.client.post(route, json={"image": REFERENCE, "window": "lung", **fields})
            form = fields | {"window": "lung"}
            sent = await service.client.post(route, data=form, files={"image": CT})
            assert (named.status_code, sent.status_code) == (200, 200), named.text
            assert without_clock(named.json()) == without_clock(sent.json())
            if route != "/v1/render":
                assert named.json()["timings"]["fetch"] > 0 == sent.json()["timings"]["fetch"]


async def test_what_the_source_lists(running: ServiceFactory, pacs: Orthanc, sources_file: SourcesFile) -> None:
    async with running(dicomweb_sources=sources_file(pacs.url)) as service:

        async def listed(path: str, **query: Any) -> Any:
            answer = await service.client.get(f"/v1/sources{path}", params=query)
            assert answer.status_code == 200, answer.text
            assert "PHANTOM" not in answer.text.upper()
            return answer.json()["data"]

        assert await listed("") == [{"name": "pacs", "store": False}]
        (study,) = await listed("/pacs/studies", modality="CT", date="20260101-20261231")
        assert (study["study"], study["date"], study["modalities"]) == (STUDY, "20260514", ["CT"])
        assert await listed("/pacs/studies", modality="MR") == []
        (series,) = await listed(f"/pacs/studies/{STUDY}/series")
        assert (series["series"], series["modality"], series["number"]) == (SERIES, "CT", 1)
        (instance,) = await listed(f"/pacs/studies/{STUDY}/series/{SERIES}/instances")
        assert (instance["instance"], instance["rows"], instance["columns"]) == (INSTANCE, 64, 64)


async def test_what_the_source_does_not_have(running: ServiceFactory, pacs: Orthanc, sources_file: SourcesFile) -> None:
    path = sources_file(pacs.url)
    async with running(dicomweb_sources=path) as service:

        async def ask(**changes: str) -> Any:
            return await service.client.post("/v1/render", json={"image": REFERENCE | changes})

        check(await ask(source="vna"), 404, "source_not_found", "source")
        for name in ("study", "series", "instance"):
            check(await ask(**{name: "1.2.3"}), 404, "instance_not_found")
        (path.parent / "password").write_text("medmoe:wrong")
    async with running(dicomweb_sources=path) as service:
        check(await ask(), 502, "source_refused")


async def test_the_python_client(running: ServiceFactory, pacs: Orthanc, sources_file: SourcesFile) -> None:
    async with running(dicomweb_sources=sources_file(pacs.url)) as service:
        transport = httpx.ASGITransport(app=service.app)
        async with AsyncClient("http://service", api_key="", transport=transport) as client:
            (source,) = await client.sources()
            (study,) = await client.studies(source.name, modality="CT")
            (series,) = await client.series(source.name, study.study)
            (found,) = await client.instances(source.name, study.study, series.series)
            image = Instance(source=source.name, study=study.study, series=series.series, instance=found.instance)
            named = await client.ask(image, "Is there a fracture?", window="lung")
            sent = await client.ask(CT, "Is there a fracture?", window="lung")
            assert (named.answer, named.provenance) == (sent.answer, sent.provenance)
            assert (await client.classify(image, ["CT", "MRI"])).label in ("CT", "MRI")
            assert STUDY not in repr(image)
            with pytest.raises(BadRequest) as caught:
                await client.series("vna", study.study)
            assert caught.value.code == "source_not_found"


def test_the_command_line(
    checkpoint: Path, pacs: Orthanc, sources_file: SourcesFile, medmoe: Medmoe, tmp_path: Path
) -> None:
    settings = {"MEDMOE_MODEL": str(checkpoint), "MEDMOE_ENGINE": "fake"}
    with server_process(
        settings=settings | {"MEDMOE_DICOMWEB_SOURCES": str(sources_file(pacs.url, store=True))}
    ) as server:
        server.wait_ready(300)
        assert "pacs" in medmoe("query", url=server.url).stdout
        assert STUDY in medmoe("query", "pacs", "--modality", "CT", url=server.url).stdout
        assert SERIES in medmoe("query", "pacs", "--study", STUDY, url=server.url).stdout
        assert INSTANCE in medmoe("query", "pacs", "--study", STUDY, "--series", SERIES, url=server.url).stdout
        named = ["--source", "pacs", "--study", STUDY, "--series", SERIES, "--instance", INSTANCE]
        done = medmoe("ask", *named, "Is there a fracture?", url=server.url)
        assert (done.returncode, done.stdout != "") == (0, True), done.stderr
        done = medmoe("classify", *named, "CT", "MRI", url=server.url)
        assert (done.returncode, "probability" in done.stdout) == (0, True), done.stderr
        done = medmoe(
            "ask", *named, "--store", "pacs", "--sr", tmp_path / "sr.dcm", "Is there a fracture?", url=server.url
        )
        assert "report stored in pacs" in done.stderr
        report = pydicom.dcmread(tmp_path / "sr.dcm")
        assert report.SOPInstanceUID in done.stderr
        (found,) = pacs.http.post("/tools/lookup", content=report.SOPInstanceUID).json()
        pacs.http.delete(found["Path"]).raise_for_status()
        assert medmoe("ask", "ct.png", "--store", "pacs", "Is there a fracture?", url=server.url).returncode == 2
        assert medmoe("ask", *named[:4], "Is there a fracture?", url=server.url).returncode == 2
        assert medmoe("ask", *named, "ct.png", "Is there a fracture?", url=server.url).returncode == 2
