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
from pydicom.uid import UID

from medmoe.server.errors import UnreadableImage
from medmoe.server.imaging.formats.dicom.attributes import get, number
from medmoe.server.imaging.reports.content import ReportContent, SliceContent
from medmoe.server.imaging.reports.measurement_groups import MANUFACTURER, groups, uid
from medmoe.server.imaging.reports.patient import KEYWORDS, patient_and_study
from medmoe.server.imaging.reports.values import long_string, utc_offset

_IMAGING_PROCEDURE = CodedConcept(value="363679005", scheme_designator="SCT", meaning="Imaging procedure")
_SERIES_NUMBER = 9001
_IMAGE = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality")
_NOT_IDENTIFYING: dict[str, Any] = {
    "made": True,
    "certainty": True,
    "abstained": True,
    "software": True,
    "series": {"slices": {"__all__": {"certainty", "abstained"}}},
}
"""Content that may differ between two reports of one UID."""


class _Report(ComprehensiveSR):
    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Copy nothing: highdicom does not know the modules of every SOP class, and refuses what breaks their rules."""


def write_report(source: Dataset, content: ReportContent) -> Dataset:
    """Return the report on an image of `source`, or on its series: in its study, with UIDs that the answer determines.

    Raises UnreadableImage where the patient's ID cannot be read, or an image has no SOP class.
    """
    carried = patient_and_study(source)
    evidence = _evidence(source)
    key = content.model_dump_json(exclude=_NOT_IDENTIFYING | ({} if content.series else {"series": True}))
    frames = number(source, "NumberOfFrames") or 1
    report = _Report(
        evidence=[evidence] if content.series is None else _instances(evidence, content.series.slices),
        content=_content(evidence, content, frames=int(frames)),
        series_instance_uid=uid("series", evidence.StudyInstanceUID, str(content.weights_sha256), content.model),
        series_number=_SERIES_NUMBER,
        # Where two studies have an image of one UID, each has a report of its own.
        sop_instance_uid=uid(
            "instance", evidence.StudyInstanceUID, evidence.SeriesInstanceUID, evidence.SOPInstanceUID, key
        ),
        instance_number=max(1, min(int(number(source, "InstanceNumber") or 1), 2**31 - 1)),
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        manufacturer_model_name=long_string(content.model) or "model",
        software_versions=content.software,
        series_description=f"{MANUFACTURER}: not for diagnosis",
    )
    report.update(carried)
    _set_time(report, source, made=datetime.fromisoformat(content.made))
    return report


def _set_time(report: Dataset, source: Dataset, *, made: datetime) -> None:
    """Set when the report was made, in the time zone that holds for the dates and times carried over, too.

    Where the image names none, its times are local ones, so the report's are those of the service.
    """
    zone = utc_offset(str(get(source, "TimezoneOffsetFromUTC") or "").strip(" \0"))
    if zone is not None:
        made = made.astimezone(zone)
        report.TimezoneOffsetFromUTC = made.strftime("%z")
    for keyword, value in {"Date": made.strftime("%Y%m%d"), "Time": made.strftime("%H%M%S")}.items():
        setattr(report, f"Content{keyword}", value)
        setattr(report, f"InstanceCreation{keyword}", value)


def to_bytes(report: Dataset) -> bytes:
    """Return the report as a DICOM file."""
    file = io.BytesIO()
    report.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _evidence(source: Dataset) -> Dataset:
    """Return how the report refers to the image, with an empty patient."""
    evidence = Dataset()
    evidence.SpecificCharacterSet = "ISO_IR 192"
    for keyword in KEYWORDS:
        setattr(evidence, keyword, "")
    for keyword in _IMAGE:
        setattr(evidence, keyword, str(get(source, keyword) or "").strip(" \0"))
    _require_sop_class(evidence.SOPClassUID)
    evidence.Rows, evidence.Columns = int(number(source, "Rows") or 1), int(number(source, "Columns") or 1)
    return evidence


def _instances(evidence: Dataset, slices: tuple[SliceContent, ...]) -> list[Dataset]:
    """Return the evidence of each instance of a series, of which `evidence` is one."""
    found = []
    for instance, sop_class in {one.instance: one.sop_class for one in slices}.items():
        _require_sop_class(sop_class)
        another = copy.deepcopy(evidence)
        another.SOPInstanceUID, another.SOPClassUID = instance, sop_class
        found.append(another)
    return found


def _require_sop_class(sop_class: str) -> None:
    if not UID(sop_class).is_valid:
        raise UnreadableImage("the DICOM file lacks a valid SOP class UID, by which a report refers to its image")


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
