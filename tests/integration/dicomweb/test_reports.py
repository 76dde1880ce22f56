"""Answers as DICOM SR and FHIR: valid, preliminary, the same for the same answer, in the PACS beside the image."""

import asyncio
import base64
import io
import json
import logging
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.sr import srread

from tests.integration.conftest import Service, ServiceFactory, check, image_bytes
from tests.integration.dicomweb.conftest import CT, INSTANCE, REFERENCE, STUDY, SourcesFile
from tests.support.images.phantom import chest_ct_file
from tests.support.images.series_files import SERIES, ct_series, ct_slice, enhanced_ct
from tests.support.images.series_files import STUDY as SERIES_STUDY
from tests.support.service.orthanc import Orthanc, needs_orthanc

SR = {"accept": "application/dicom"}
FHIR = {"accept": "application/fhir+json"}
QUESTION = "Is there a fracture?"
LABELS = {"labels": '["CT", "MRI", "an X-ray of an adult, which is a label that no code meaning of DICOM can hold"]'}
PATIENT = {
    "PatientName": "Müller^Jürgen=山田^太郎",
    "PatientID": "cnry-4711",
    "PatientBirthDate": "19601231",
    "PatientSex": "M",
    "AccessionNumber": "cnry-acc",
    "SpecificCharacterSet": "ISO_IR 192",
}


async def report(
    service: Service, file: bytes = CT, *, route: str = "/v1/vqa", headers: dict[str, str] = SR, **fields: Any
) -> Any:
    fields = fields or ({"question": QUESTION} if route == "/v1/vqa" else LABELS)
    return await service.client.post(route, data=fields, files={"image": file}, headers=headers)


async def series_report(service: Service, files: list[bytes], *, headers: dict[str, str] = SR, **fields: Any) -> Any:
    form = fields or {"question": QUESTION}
    return await service.client.post(
        "/v1/series", data=form, files=[("series", file) for file in files], headers=headers
    )


def texts(dataset: pydicom.Dataset, meaning: str) -> list[str]:
    found = []
    for item in dataset.get("ContentSequence", ()):
        if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeMeaning == meaning:
            found.append(str(item.TextValue))
        found += texts(item, meaning)
    return found


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


@pytest.mark.parametrize("route", ["/v1/vqa", "/v1/classify"])
async def test_a_report_says_what_the_answer_says(service: Service, route: str, tmp_path: Path) -> None:
    answered = (await report(service, chest_ct_file(64, **PATIENT), route=route, headers={})).json()
    response = await report(service, chest_ct_file(64, **PATIENT), route=route)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/dicom"), response.text
    path = tmp_path / "sr.dcm"
    path.write_bytes(response.content)
    found = srread(path)
    assert (found.Modality, found.StudyInstanceUID) == ("SR", STUDY)
    assert (found.CompletionFlag, found.VerificationFlag, found.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    for keyword, value in PATIENT.items():
        assert str(getattr(found, keyword)) == value
    assert texts(found, "Finding") == [answered["answer"] if route == "/v1/vqa" else answered["label"]]
    assert "not for diagnosis" in texts(found, "Comment")[-1]
    assert texts(found, "Algorithm Name") == [answered["model"]]
    (reference,) = found.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == INSTANCE
    # The checkpoint has no calibration: no certainty is stated.
    assert "Certainty of Finding" not in str(found)
    await accepted(path)


@pytest.mark.parametrize(
    ("route", "fields", "named"),
    [
        ("/v1/vqa", {"question": QUESTION}, ("max_tokens", "min_confidence")),
        ("/v1/vqa", {"question": QUESTION, "temperature": "0.5"}, ("seed", "max_tokens", "min_confidence")),
        ("/v1/classify", LABELS | {"mode": "choice"}, ("min_confidence", "min_label_mass", "permutations")),
    ],
)
async def test_a_report_names_what_the_request_left_open(
    running: ServiceFactory, route: str, fields: dict[str, str], named: tuple[str, ...]
) -> None:
    async with running(min_confidence=0.25) as service:
        answered = (await report(service, route=route, headers={}, include_report="true", **fields)).json()
    found = set(texts(read(base64.b64decode(answered["report"])), "Algorithm Parameters"))
    given = {f"{name}={value}" for name, value in fields.items() if name in ("temperature", "mode")}
    assert found == given | {f"{name}={answered['provenance'][name]}" for name in named}


async def accepted(path: Path) -> None:
    """Let dciodvfy, where there is one, look for errors in a report."""
    if checker := shutil.which("dciodvfy"):
        said = (await asyncio.to_thread(subprocess.run, [checker, path], capture_output=True)).stderr.decode("latin-1")
        assert not [line for line in said.splitlines() if line.startswith("Error")], said


def groups(report: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Return the measurement groups of a report."""
    (measurements,) = [one for one in report.ContentSequence if "Imaging Measurements" in meaning(one)]
    return list(measurements.ContentSequence)


def meaning(item: pydicom.Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def images(group: pydicom.Dataset) -> list[tuple[str, str, int | None]]:
    """Return purpose, SOP instance and frame of each image of a group."""
    found = []
    for item in group.ContentSequence:
        if item.ValueType == "IMAGE":
            (reference,) = item.ReferencedSOPSequence
            frame = reference.get("ReferencedFrameNumber")
            found.append((meaning(item), reference.ReferencedSOPInstanceUID, frame and int(frame)))
    return found


async def test_a_series_has_one_report_with_each_slice(service: Service, tmp_path: Path) -> None:
    dark = ct_slice(0, np.full((24, 24), -1000, np.int16), **PATIENT)
    files = [dark, *ct_series(range(1, 6), **PATIENT)]
    answered = (await series_report(service, files, headers={})).json()
    response = await series_report(service, files)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/dicom"), response.text
    path = tmp_path / "sr.dcm"
    path.write_bytes(response.content)
    await accepted(path)
    found = srread(path)
    assert (found.StudyInstanceUID, found.PatientID) == (SERIES_STUDY, PATIENT["PatientID"])
    assert (found.VerificationFlag, found.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    result, *slices = groups(found)
    assert (texts(result, "Finding"), texts(result, "Question")) == ([answered["answer"]], [QUESTION])
    assert texts(result, "Aggregation rule") == ["most_confident"]
    assert texts(result, "Slices of the series") == ["6 of 6"]
    best = answered["slices"][answered["best_slice"]]["instance"]
    assert [one for purpose, one, _ in images(result) if purpose == "Best illustration of finding"] == [best]
    asked = [one["instance"] for one in answered["slices"] if not one["uniform"]]
    assert [one for purpose, one, _ in images(result) if purpose == "Source of Measurement"] == asked
    for one, group in zip(answered["slices"], slices, strict=True):
        assert [instance for _, instance, _ in images(group)] == [one["instance"]]
        assert texts(group, "Finding") == ([] if one["uniform"] else [one["answer"]["answer"]])
    assert "one shade" in texts(slices[0], "Comment")[0]
    evidence = found.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert {one.ReferencedSOPInstanceUID for one in evidence.ReferencedSOPSequence} == {
        one["instance"] for one in answered["slices"]
    }
    again = read((await series_report(service, files)).content)
    other = read((await series_report(service, files, question=QUESTION, slices="3")).content)
    assert again.SOPInstanceUID == found.SOPInstanceUID != other.SOPInstanceUID
    assert again.SeriesInstanceUID == other.SeriesInstanceUID
    check(await series_report(service, files, question=QUESTION, stream="true"), 422, "invalid_field", "stream")
    check(await series_report(service, files, question=QUESTION, store="pacs"), 422, "invalid_field", "store")


async def test_a_report_on_frames_names_them(service: Service, tmp_path: Path) -> None:
    response = await series_report(service, [enhanced_ct(range(4, -1, -1), **PATIENT)], slices="2", **LABELS)
    path = tmp_path / "sr.dcm"
    path.write_bytes(response.content)
    await accepted(path)
    result, *slices = groups(srread(path))
    # Slices 1 and 3 of a file whose frames run against them, counted from 1.
    assert [frame for group in slices for _, _, frame in images(group)] == [4, 2]
    assert texts(result, "Aggregation rule") == ["mean"]
    assert texts(result, "Finding")[0] in json.loads(LABELS["labels"])


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="NO dciodvfy HERE: apt-get install dicom3tools")
def test_the_checker_is_here() -> None:
    """So that its absence is reported."""


async def test_the_same_answer_is_the_same_report(service: Service) -> None:
    first, again = read((await report(service)).content), read((await report(service)).content)
    other = read((await report(service, question="Another question?")).content)
    window = read((await report(service, question=QUESTION, window="lung")).content)
    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert len({first.SOPInstanceUID, other.SOPInstanceUID, window.SOPInstanceUID}) == 3
    assert first.SeriesInstanceUID == other.SeriesInstanceUID


async def test_an_answer_that_abstains_says_so(service: Service) -> None:
    found = read((await report(service, question=QUESTION, min_confidence="1")).content)
    assert any(text.startswith("ABSTAINED") for text in texts(found, "Comment"))


async def test_fhir(service: Service) -> None:
    answered = (await report(service, headers={})).json()
    response = await report(service, headers=FHIR)
    assert response.headers["content-type"] == "application/fhir+json"
    found = response.json()
    assert (found["resourceType"], found["status"]) == ("DiagnosticReport", "preliminary")
    assert found["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{STUDY}"
    assert found["subject"]["identifier"]["value"] == "PHANTOM-1"
    (observation,) = [one for one in found["contained"] if one["resourceType"] == "Observation"]
    assert (observation["valueString"], observation["code"]["text"]) == (answered["answer"], QUESTION)
    assert found["result"] == [{"reference": f"#{observation['id']}"}]
    assert "not for diagnosis" in found["conclusion"]
    _has_the_shape_of_fhir(found)


async def test_fhir_of_a_series(service: Service) -> None:
    dark = ct_slice(0, np.full((24, 24), -1000, np.int16))
    for fields in ({"question": QUESTION, "min_confidence": "1"}, {"mode": "multi_label", **LABELS}):
        found = (await series_report(service, [dark, *ct_series(range(1, 4))], headers=FHIR, **fields)).json()
        _has_the_shape_of_fhir(found)
        contained = {f"#{one['id']}": one for one in found["contained"] if one["resourceType"] == "Observation"}
        first = contained[found["result"][0]["reference"]]
        members = [contained[one["reference"]] for one in first["hasMember"]]
        assert len(contained) == len(found["result"]) + len(members)
        assert "dataAbsentReason" in members[0]
        assert any(f"urn:oid:{SERIES}.2" in note["text"] for note in members[1]["note"])
        assert "4 of 4 slices" in found["conclusion"]
        findings = [contained[one["reference"]]["valueString"] for one in found["result"]]
        assert "; ".join(findings) in found["conclusion"]
        assert len(findings) == (1 if "question" in fields else 2)
        assert ("ABSTAINED" in found["conclusion"]) == ("question" in fields)


def _has_the_shape_of_fhir(report: dict[str, Any]) -> None:
    """Validate a DiagnosticReport and the resources in it, and what the package does not: codes and references."""
    r4b = pytest.importorskip(
        "fhir.resources.R4B.diagnosticreport", reason="fhir.resources is not installed: make checks"
    )
    parsed = r4b.DiagnosticReport.model_validate(report)
    assert [type(one).__name__ for one in parsed.contained] == [one["resourceType"] for one in report["contained"]]
    assert parsed.status == "preliminary"
    for one in parsed.contained[1:]:
        assert one.status == "preliminary"
        assert (one.valueString is None) != (one.dataAbsentReason is None)
    ids = {f"#{one.id}" for one in parsed.contained}
    text = json.dumps(report)
    # Constraint dom-3: each contained resource is referred to.
    assert set(re.findall(r'"reference": "(#[^"]+)"', text)) == ids


async def test_what_has_no_report(service: Service, vqa_body: dict[str, Any]) -> None:
    check(await report(service, image_bytes()), 415, "unsupported_image", "image")
    check(await report(service, chest_ct_file(64, StudyInstanceUID=None)), 422, "unreadable_image", "image")
    check(await report(service, question=QUESTION, stream="true"), 422, "invalid_field", "stream")
    check(await report(service, question=QUESTION, store="pacs"), 422, "invalid_field", "store")
    assert service.engine.started <= 1
    plain = await service.client.post("/v1/vqa", json=vqa_body, headers={"accept": "text/html, */*"})
    assert plain.json()["report"] is None


async def test_nothing_of_the_patient_leaves_but_in_the_report(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = chest_ct_file(64, **PATIENT)
    response = await report(service, file, headers={}, question=QUESTION, include_report="true")
    inside = base64.b64decode(response.json().pop("report"))
    assert b"cnry-4711" in inside
    rest = json.dumps({name: value for name, value in response.json().items() if name != "report"})
    slices = ct_series(range(3), **PATIENT | {"StudyInstanceUID": STUDY})
    answered = (await series_report(service, slices, headers={}, question=QUESTION, include_report="true")).json()
    assert b"cnry-4711" in base64.b64decode(answered.pop("report"))
    rest += json.dumps(answered)
    metrics = (await service.client.get("/metrics")).text
    refused = (await report(service, file[:600])).text
    for place in (rest, metrics, refused, caplog.text, str(response.headers)):
        for text in ("cnry", "Müller", "19601231", STUDY):
            assert text not in place


@needs_orthanc
async def test_into_the_pacs(running: ServiceFactory, pacs: Orthanc, sources_file: SourcesFile) -> None:
    body = {"image": REFERENCE, "question": QUESTION, "store": "pacs"}
    async with running(dicomweb_sources=sources_file(pacs.url, store=True)) as service:
        for _ in range(2):
            response = await service.client.post("/v1/vqa", json=body)
            assert response.status_code == 200, response.text
        stored = response.json()["stored"]
        assert (stored["source"], stored["study"]) == ("pacs", STUDY)
        (series,) = pacs.query(f"/studies/{STUDY}/series", Modality="SR")
        assert series["0020000E"]["Value"] == [stored["series"]]
        (instance,) = pacs.query(f"/studies/{STUDY}/series/{stored['series']}/instances")
        assert instance["00080018"]["Value"] == [stored["instance"]]
        (found,) = pacs.http.post("/tools/lookup", content=stored["instance"]).json()
        kept = srread(io.BytesIO(pacs.http.get(found["Path"] + "/file").content))
        assert texts(kept, "Finding") == [response.json()["answer"]]
        pacs.http.delete(found["Path"]).raise_for_status()
        files = ct_series(range(4))
        for file in files:
            pacs.add(file)
        named = {"source": "pacs", "study": SERIES_STUDY, "series": SERIES}
        for _ in range(2):
            response = await service.client.post(
                "/v1/series", json={"series": named, "question": QUESTION, "store": "pacs"}
            )
            assert response.status_code == 200, response.text
        stored = response.json()["stored"]
        (series,) = pacs.query(f"/studies/{SERIES_STUDY}/series", Modality="SR")
        assert series["0020000E"]["Value"] == [stored["series"]]
        (instance,) = pacs.query(f"/studies/{SERIES_STUDY}/series/{stored['series']}/instances")
        assert instance["00080018"]["Value"] == [stored["instance"]]
        (found,) = pacs.http.post("/tools/lookup", content=stored["instance"]).json()
        kept = srread(io.BytesIO(pacs.http.get(found["Path"] + "/file").content))
        assert texts(groups(kept)[0], "Finding") == [response.json()["answer"]]
        pacs.http.delete(f"/studies/{pacs.http.get(found['Path'] + '/study').json()['ID']}").raise_for_status()
    async with running(dicomweb_sources=sources_file(pacs.url)) as service:
        check(await service.client.post("/v1/vqa", json=body), 422, "invalid_field", "store")
        check(await service.client.post("/v1/vqa", json=body | {"store": "vna"}), 404, "source_not_found", "source")
