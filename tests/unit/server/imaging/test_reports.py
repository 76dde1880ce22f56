"""Reports on images whose patient, study or labels break DICOM's rules: of the same patient, and valid."""

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from medmoe.server.errors import UnreadableImage
from medmoe.server.imaging.reports.content import ReportContent
from medmoe.server.imaging.reports.document import make_report
from tests.support.images.phantom import chest_ct_file

CONTENT = ReportContent(
    made="2026-05-15T06:00:00+02:00",
    software="1.0",
    model="a\\model",
    weights_sha256="0" * 64,
    adapter_sha256=None,
    frame=0,
    question="Is there\ta fracture?",
    labels=("a\\b", "c\td\ne", "x" * 90, "\\"),
    findings=("a\\b", "c\td\ne", "x" * 90, "\\"),
    certainty=None,
    abstained=False,
    parameters=("window=\x0b",),
)


def file(character_set: str | list[str] | None = None, **raw: bytes | None) -> bytes:
    """Return a CT whose attributes have these bytes; those of None are left out."""
    dataset = pydicom.dcmread(io.BytesIO(chest_ct_file(64, SpecificCharacterSet=character_set)))
    for keyword, value in raw.items():
        tag = Tag(tag_for_keyword(keyword) or 0)
        if value is None:
            del dataset[tag]
        else:
            padded = value + b" " * (len(value) % 2)
            dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(padded), padded, 0, False, True)
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()


def report(data: bytes, content: ReportContent = CONTENT) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(make_report(data, content, "dicom")))


def fhir(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(make_report(data, CONTENT, "fhir"))
    return found


def errors(report: pydicom.Dataset, path: Path) -> list[str]:
    """Return what dciodvfy, where there is one, finds wrong."""
    checker = shutil.which("dciodvfy")
    if checker is None:
        return []
    report.save_as(path)
    said = subprocess.run([checker, path], capture_output=True).stderr.decode("latin-1")
    return [line for line in said.splitlines() if line.startswith("Error")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("keyword", "sent", "written"),
    [
        ("PatientSex", b"W", ""),
        ("PatientSex", b"f", "F"),
        ("PatientBirthDate", b"1950.01.31", "19500131"),
        ("PatientBirthDate", b"1950", ""),
        ("PatientBirthDate", b"00000000", ""),
        ("PatientAge", b"045Y", "045Y"),
        ("PatientAge", b"45 years", None),
        ("StudyDate", b"20261399", ""),
        ("StudyTime", b"10:15:00.5", "101500.5"),
        ("StudyTime", b"9", ""),
        ("StudyDescription", b"CT\\chest", "CT chest"),
        ("StudyDescription", b"x" * 80, "x" * 64),
        ("ReferringPhysicianName", b"A^B\\C^D", "A^B"),
        # A private SOP class, and one that is retired.
        ("SOPClassUID", b"1.3.46.670589.11.0.0.12.1", "1.2.840.10008.5.1.4.1.1.88.33"),
        ("SOPClassUID", b"1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.88.33"),
    ],
)
def test_what_breaks_a_rule_is_made_valid(keyword: str, sent: bytes, written: str | None, tmp_path: Path) -> None:
    found = report(file(**{keyword: sent}))
    value = found.get(keyword)
    assert (None if value is None else str(value)) == written
    assert errors(found, tmp_path / "sr.dcm") == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("keyword", "character_set", "sent"),
    [
        ("PatientID", None, "1\\2"),
        ("PatientID", None, "7" * 80),
        ("PatientID", ["", "ISO 2022 IR 87"], "\u6771\u4eac"),
        ("PatientID", "GB18030", "\u738b"),
        ("PatientID", "ISO_IR 192", "M\u00fcller"),
        ("PatientName", ["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
        ("PatientName", "GB18030", "Wang^XiaoDong=\u738b^\u5c0f\u4e1c"),
        ("PatientName", None, "A^B\\C^D"),
        ("AccessionNumber", None, "A\\B"),
    ],
)
def test_a_report_is_of_the_same_patient_and_order(
    keyword: str, character_set: str | list[str] | None, sent: str
) -> None:
    encodings = {"GB18030": "gb18030", "ISO_IR 192": "utf-8", None: "ascii"}
    encoding = encodings[character_set] if not isinstance(character_set, list) else "iso2022_jp"
    data = file(character_set, **{keyword: sent.encode(encoding)})
    value = report(data)[keyword].value
    assert "\\".join(map(str, value)) == sent if "\\" in sent else str(value) == sent
    if keyword == "PatientID":
        assert fhir(data)["subject"]["identifier"]["value"] == sent


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("character_set", "raw", "why"),
    [
        ("ISO_IR 192", {"PatientID": "M\u00fcller".encode("latin-1")}, "patient's ID"),
        (None, {"PatientID": "\u738b".encode("gb18030")}, "patient's ID"),
        (None, {"SOPClassUID": None}, "SOP class"),
        (None, {"SOPClassUID": b"CT"}, "SOP class"),
    ],
)
def test_what_cannot_be_filed_is_refused_by_its_cause(
    character_set: str | None, raw: dict[str, bytes | None], why: str
) -> None:
    with pytest.raises(UnreadableImage, match=why):
        report(file(character_set, **raw))


def test_an_image_uid_that_two_studies_have_gives_two_reports() -> None:
    uids = {report(chest_ct_file(64, StudyInstanceUID=study)).SOPInstanceUID for study in ("1.2.3", "1.2.4")}
    assert len(uids) == 2


def test_times_are_in_the_time_zone_of_the_image() -> None:
    data = chest_ct_file(64, TimezoneOffsetFromUTC="+0900")
    found = report(data)
    assert (found.StudyDate, found.StudyTime, found.TimezoneOffsetFromUTC) == ("20260514", "101500", "+0900")
    assert (found.ContentDate, found.ContentTime) == ("20260515", "130000")
    assert (found.InstanceCreationDate, found.InstanceCreationTime) == ("20260515", "130000")
    said = fhir(data)
    assert said["effectiveDateTime"] == "2026-05-14T10:15:00+09:00"
    assert {one["effectiveDateTime"] for one in said["contained"][1:]} == {said["effectiveDateTime"]}
    assert said["issued"] == CONTENT.made


def test_no_time_zone_is_claimed_for_an_image_without_one(tmp_path: Path) -> None:
    found = report(chest_ct_file(64))
    assert "TimezoneOffsetFromUTC" not in found
    assert (found.ContentDate, found.ContentTime) == ("20260515", "060000")
    assert errors(found, tmp_path / "sr.dcm") == []
    said = fhir(chest_ct_file(64))
    assert (said["effectiveDateTime"], said["issued"]) == ("2026-05-14", CONTENT.made)
    assert "effectiveDateTime" not in fhir(chest_ct_file(64, StudyDate=None))


def test_a_report_gives_no_cause_of_an_abstention_that_it_does_not_know() -> None:
    content = CONTENT.model_copy(update={"abstained": True})
    document = json.loads(make_report(chest_ct_file(64), content, "fhir"))
    assert document["conclusion"].startswith("ABSTAINED: this finding is not to be relied on. ")
    assert "confidence" not in document["conclusion"]
