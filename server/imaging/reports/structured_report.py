"""Write a Comprehensive SR after template TID 1500 (PS3.16), unverified and preliminary.

https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_A.html#sect_TID_1500
"""

import hashlib
import io
import uuid
from datetime import datetime

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from highdicom.sr.enum import RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from medmoe.server.imaging.formats.dicom.attributes import get, number
from medmoe.server.imaging.reports.content import ReportContent

MANUFACTURER = "Med-MoE Serve"
NOT_FOR_DIAGNOSIS = "Research software, not a medical device: not for diagnosis, triage or treatment."
ABSTAINED = "ABSTAINED: the confidence is below the threshold; this finding is not to be relied on."
SCHEME = "99MEDMOE"
"""Coding scheme of the codes that DICOM has not."""
QUESTION = CodedConcept(value="question", scheme_designator=SCHEME, meaning="Question")
LABELS = CodedConcept(value="labels", scheme_designator=SCHEME, meaning="Labels to choose from")
FINDING = CodedConcept(value="121071", scheme_designator="DCM", meaning="Finding")
COMMENT = CodedConcept(value="121106", scheme_designator="DCM", meaning="Comment")
CERTAINTY = CodedConcept(value="111012", scheme_designator="DCM", meaning="Certainty of Finding")
_IMAGING_PROCEDURE = CodedConcept(value="363679005", scheme_designator="SCT", meaning="Imaging procedure")
_AI = CodedConcept(value="113086", scheme_designator="DCM", meaning="Artificial Intelligence")
_SERIES_NUMBER = 9001
_MAX_MEANING = 64
"""Characters of a code meaning (VR LO)."""
_PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
    "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip
"""Attributes of the patient and study modules that a report of the study repeats."""
_IMAGE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality")


def write_report(source: Dataset, content: ReportContent) -> Dataset:
    """Return the report on an image of `source`: in its study, with UIDs that the image and the answer determine.

    Raises anything that highdicom raises on attributes that no study can have.
    """
    evidence = _evidence(source)
    key = content.model_dump_json(exclude={"made", "certainty", "abstained", "software"})
    frames = number(source, "NumberOfFrames") or 1
    report = ComprehensiveSR(
        evidence=[evidence],
        content=_content(evidence, content, frames=int(frames)),
        series_instance_uid=_uid("series", evidence.StudyInstanceUID, str(content.weights_sha256), content.model),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=_uid("instance", evidence.SOPInstanceUID, key),
        instance_number=max(1, min(int(number(source, "InstanceNumber") or 1), 2**31 - 1)),
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        manufacturer_model_name=content.model[:_MAX_MEANING],
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


def _content(evidence: Dataset, content: ReportContent, *, frames: int) -> MeasurementReport:
    device = DeviceObserverIdentifyingAttributes(
        uid=_uid("device", str(content.weights_sha256), content.model),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=content.model,
    )
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=_uid("tracking", evidence.SOPInstanceUID, content.question, *content.labels), identifier=content.model
        ),
        algorithm_id=AlgorithmIdentification(
            name=content.model,
            version=content.weights_sha256 or "without weights",
            family=_AI,
            manufacturer=MANUFACTURER,
            parameters=_parameters(content),
        ),
        source_images=[
            SourceImageForMeasurementGroup(
                evidence.SOPClassUID,
                evidence.SOPInstanceUID,
                referenced_frame_numbers=[content.frame + 1] if frames > 1 else None,
            )
        ],
        qualitative_evaluations=[_evaluation(label) for label in content.findings] if content.labels else None,
    )
    group[0].ContentSequence.extend(_items(content))
    return MeasurementReport(
        observation_context=ObservationContext(ObserverContext(codes.DCM.Device, device)),
        procedure_reported=_IMAGING_PROCEDURE,
        imaging_measurements=[group],
    )


def _items(content: ReportContent) -> list[TextContentItem | NumContentItem]:
    """Return what the template has no row for; it is extensible."""
    contains = RelationshipTypeValues.CONTAINS
    items: list[TextContentItem | NumContentItem] = [TextContentItem(QUESTION, content.question, contains)]
    if content.labels:
        items.append(TextContentItem(LABELS, "\n".join(content.labels), contains))
    # Also for labels: a code's meaning holds 64 characters, and of a free answer there is no code.
    items += [TextContentItem(FINDING, finding or "(empty answer)", contains) for finding in content.findings]
    if not content.findings:
        items.append(TextContentItem(FINDING, "None of the labels", contains))
    if content.certainty is not None:
        percent = round(100 * content.certainty, 1)
        items.append(NumContentItem(CERTAINTY, percent, codes.UCUM.Percent, relationship_type=contains))
    if content.abstained:
        items.append(TextContentItem(COMMENT, ABSTAINED, contains))
    items.append(TextContentItem(COMMENT, NOT_FOR_DIAGNOSIS, contains))
    return items


def _evaluation(label: str) -> QualitativeEvaluation:
    # Code values hold 16 characters.
    code = hashlib.sha256(label.encode()).hexdigest()[:16]
    value = CodedConcept(value=code, scheme_designator=SCHEME, meaning=label[:_MAX_MEANING])
    return QualitativeEvaluation(name=FINDING, value=value)


def _parameters(content: ReportContent) -> list[str]:
    adapter = [f"adapter_sha256={content.adapter_sha256}"] if content.adapter_sha256 else []
    return [*adapter, *content.parameters]


def _uid(*parts: str) -> str:
    """Return a UID that the parts determine, so that the same answer has the same one."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(0).join(('medmoe', *parts))).int}"
