"""Derive a FHIR R4B DiagnosticReport from a structured report that this package has written.

After HL7's guide "DICOM SR to FHIR Resource Mapping"; the resources that it refers to are contained.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset

from medmoe.server.imaging.reports.structured_report import (
    ABSTAINED,
    CERTAINTY,
    COMMENT,
    FINDING,
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    QUESTION,
)

_DICOM_UID = "urn:dicom:uid"
_CODE_SYSTEM = "http://dicom.nema.org/resources/ontology/DCM"
_UCUM = "http://unitsofmeasure.org"


def diagnostic_report(report: Dataset) -> bytes:
    """Return the DiagnosticReport as JSON: preliminary, an Observation for each finding, the model as Device."""
    items = list(_flat(report))
    made = datetime.strptime(
        f"{report.ContentDate}{report.ContentTime}{report.TimezoneOffsetFromUTC}", "%Y%m%d%H%M%S%z"
    ).isoformat()
    study = {"type": "ImagingStudy", "identifier": _uid(report.StudyInstanceUID)}
    subject = {"type": "Patient", "identifier": {"value": str(report.PatientID)}} if report.PatientID else None
    if subject and report.get("IssuerOfPatientID"):
        subject["identifier"]["assigner"] = {"display": str(report.IssuerOfPatientID)}  # type: ignore[index]
    comments = _texts(items, COMMENT)
    shared = {"status": "preliminary", **({"subject": subject} if subject else {}), "effectiveDateTime": made}
    device = {
        "resourceType": "Device",
        "id": "model",
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": str(report.ManufacturerModelName), "type": "model-name"}],
        "version": [{"value": version} for version in _texts(items, "111003")],
    }
    observations = [
        {
            "resourceType": "Observation",
            "id": f"finding-{index}",
            **shared,
            "code": {"coding": [_coding(FINDING)], "text": _texts(items, QUESTION)[0]},
            "valueString": finding,
            "derivedFrom": [study],
            "device": {"reference": "#model"},
            "note": [{"text": comment} for comment in comments],
            **_certainty(items),
        }
        for index, finding in enumerate(_texts(items, FINDING), 1)
    ]
    document = {
        "resourceType": "DiagnosticReport",
        "identifier": [_uid(report.SOPInstanceUID)],
        **shared,
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}],
        "code": {"coding": [{"system": _CODE_SYSTEM, "code": "126000", "display": "Imaging Measurement Report"}]},
        "issued": made,
        "imagingStudy": [study],
        "result": [{"reference": f"#{one['id']}"} for one in observations],
        "conclusion": " ".join(
            [ABSTAINED] * (ABSTAINED in comments) + _texts(items, FINDING) + [f"({NOT_FOR_DIAGNOSIS})"]
        ),
        "contained": [device, *observations],
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _flat(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _flat(child)


def _texts(items: list[Dataset], concept: Any) -> list[str]:
    """Return the texts of the items with this concept, given as a code or as its value."""
    code = getattr(concept, "value", concept)
    return [
        str(item.TextValue)
        for item in items
        if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeValue == code
    ]


def _certainty(items: list[Dataset]) -> dict[str, Any]:
    values = [
        float(item.MeasuredValueSequence[0].NumericValue)
        for item in items
        if item.ValueType == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == CERTAINTY.value
    ]
    if not values:
        return {}
    quantity = {"value": values[0], "unit": "%", "system": _UCUM, "code": "%"}
    return {"component": [{"code": {"coding": [_coding(CERTAINTY)]}, "valueQuantity": quantity}]}


def _coding(concept: Any) -> dict[str, str]:
    return {"system": _CODE_SYSTEM, "code": concept.value, "display": concept.meaning}


def _uid(uid: str) -> dict[str, str]:
    return {"system": _DICOM_UID, "value": f"urn:oid:{uid}"}
