"""Write a Comprehensive SR after template TID 1500 (PS3.16), unverified and preliminary.

https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_A.html#sect_TID_1500
"""

import copy
import io
from datetime import datetime
from typing import Any

from highdicom.sr import (
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from medmoe.server.imaging.formats.dicom.attributes import get, number
from medmoe.server.imaging.reports.content import ReportContent, SliceContent
from medmoe.server.imaging.reports.measurement_groups import MANUFACTURER, groups, uid

_IMAGING_PROCEDURE = CodedConcept(value="363679005", scheme_designator="SCT", meaning="Imaging procedure")
_SERIES_NUMBER = 9001
_MAX_MODEL_NAME = 64
"""Characters (VR LO)."""
_PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
    "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip
"""Attributes of the patient and study modules that a report of the study repeats."""
_IMAGE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality")
_NOT_IDENTIFYING: dict[str, Any] = {
    "made": True,
    "certainty": True,
    "abstained": True,
    "software": True,
    "series": {"slices": {"__all__": {"certainty", "abstained"}}},
}
"""Content that may differ between two reports of one UID."""


def write_report(source: Dataset, content: ReportContent) -> Dataset:
    """Return the report on an image of `source`, or on its series: in its study, with UIDs that the answer determines.

    Raises anything that highdicom raises on attributes that no study can have.
    """
    evidence = _evidence(source)
    key = content.model_dump_json(exclude=_NOT_IDENTIFYING | ({} if content.series else {"series": True}))
    frames = number(source, "NumberOfFrames") or 1
    report = ComprehensiveSR(
        evidence=[evidence] if content.series is None else _instances(evidence, content.series.slices),
        content=_content(evidence, content, frames=int(frames)),
        series_instance_uid=uid("series", evidence.StudyInstanceUID, str(content.weights_sha256), content.model),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=uid("instance", evidence.SOPInstanceUID, key),
        instance_number=max(1, min(int(number(source, "InstanceNumber") or 1), 2**31 - 1)),
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        manufacturer_model_name=content.model[:_MAX_MODEL_NAME],
        software_versions=content.software,
        series_description=f"{MANUFACTURER}: not for diagnosis",
    )
    made = datetime.fromisoformat(content.made)
    for keyword, value in {"Date": made.strftime("%Y%m%d"), "Time": made.strftime("%H%M%S")}.items():
        setattr(report, f"Content{keyword}", value)
        setattr(report, f"InstanceCreation{keyword}", value)
    report.TimezoneOffsetFromUTC = made.strftime("%z")
    return report


def to_bytes(report: Dataset) -> bytes:
    """Return the report as a DICOM file."""
    file = io.BytesIO()
    report.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _evidence(source: Dataset) -> Dataset:
    """Return what the report needs of the image's object, its text in Unicode."""
    evidence = Dataset()
    evidence.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _PATIENT:
        value = get(source, keyword)
        setattr(evidence, keyword, "" if value is None else str(value).strip(" \0"))
    for keyword in _IMAGE:
        setattr(evidence, keyword, str(get(source, keyword) or "").strip(" \0"))
    evidence.Rows, evidence.Columns = int(number(source, "Rows") or 1), int(number(source, "Columns") or 1)
    return evidence


def _instances(evidence: Dataset, slices: tuple[SliceContent, ...]) -> list[Dataset]:
    """Return the evidence of each instance of a series, of which `evidence` is one."""
    found = []
    for instance, sop_class in {one.instance: one.sop_class for one in slices}.items():
        another = copy.deepcopy(evidence)
        another.SOPInstanceUID, another.SOPClassUID = instance, sop_class
        found.append(another)
    return found


def _content(evidence: Dataset, content: ReportContent, *, frames: int) -> MeasurementReport:
    device = DeviceObserverIdentifyingAttributes(
        uid=uid("device", str(content.weights_sha256), content.model),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=content.model,
    )
    return MeasurementReport(
        observation_context=ObservationContext(ObserverContext(codes.DCM.Device, device)),
        procedure_reported=_IMAGING_PROCEDURE,
        imaging_measurements=groups(evidence, content, frames=frames),
    )
