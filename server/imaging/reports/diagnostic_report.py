"""Derive a FHIR R4B DiagnosticReport from a structured report that this package has written.

After HL7's guide "DICOM SR to FHIR Resource Mapping"; the resources that it refers to are contained.
"""

import json
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medmoe.server.imaging.reports.measurement_groups import (
    ABSTAINED,
    AGGREGATION,
    BEST_SLICE,
    CERTAINTY,
    COMMENT,
    FINDING,
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    QUESTION,
    SLICES,
)
from medmoe.server.imaging.reports.values import text_value

_DICOM_UID = "urn:dicom:uid"
_CODE_SYSTEM = "http://dicom.nema.org/resources/ontology/DCM"
_MEASUREMENT_GROUP = "125007"
_UCUM = "http://unitsofmeasure.org"


def diagnostic_report(report: Dataset, *, made: str) -> bytes:
    """Return the DiagnosticReport as JSON: preliminary, an Observation for each finding, the model as Device.

    The findings of slices are members of the Observation of their series. `made` is ISO 8601 with a time zone.
    """
    first, *slices = _groups(report)
    study = {"type": "ImagingStudy", "identifier": _uid(report.StudyInstanceUID)}
    patient_id, issuer = _value(report, "PatientID"), _value(report, "IssuerOfPatientID")
    subject: dict[str, Any] | None = {"type": "Patient", "identifier": {"value": patient_id}} if patient_id else None
    if subject and issuer:
        subject["identifier"]["assigner"] = {"display": issuer}
    shared = {
        "status": "preliminary",
        **({"subject": subject} if subject else {}),
        **_effective(report),
        "issued": made,
    }
    device = {
        "resourceType": "Device",
        "id": "model",
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": str(report.ManufacturerModelName), "type": "model-name"}],
        "version": [{"value": version} for version in _texts(first, "111003")],
    }
    about = {**shared, "derivedFrom": [study], "device": {"reference": "#model"}}
    question = {"coding": [_coding(FINDING)], "text": _texts(first, QUESTION)[0]}
    members = [
        one
        for index, items in enumerate(slices, 1)
        for one in _observations(items, f"slice-{index}", {**about, "code": question})
    ]
    results = _observations(first, "finding", {**about, "code": question})
    if members:
        results[0]["hasMember"] = [{"reference": f"#{one['id']}"} for one in members]
    document = {
        "resourceType": "DiagnosticReport",
        "identifier": [_uid(report.SOPInstanceUID)],
        **shared,
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}],
        "code": {"coding": [{"system": _CODE_SYSTEM, "code": "126000", "display": "Imaging Measurement Report"}]},
        "imagingStudy": [study],
        "result": [{"reference": f"#{one['id']}"} for one in results],
        "conclusion": " ".join(
            [ABSTAINED] * (ABSTAINED in _texts(first, COMMENT))
            + ["; ".join(_texts(first, FINDING))]
            + [f"({note})" for note in (*_how_it_was_made(first), NOT_FOR_DIAGNOSIS)]
        ),
        "contained": [device, *results, *members],
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _effective(report: Dataset) -> dict[str, str]:
    """Return when the image was taken: its study's date, with the time where the time zone is known."""
    date, time, offset = (_value(report, name) for name in ("StudyDate", "StudyTime", "TimezoneOffsetFromUTC"))
    if not date:
        return {}
    day = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    if not time or not offset:
        return {"effectiveDateTime": day}
    clock = f"{time[:2]}:{time[2:4] or '00'}:{time[4:6] or '00'}"
    return {"effectiveDateTime": f"{day}T{clock}{offset[:3]}:{offset[3:]}"}


def _value(report: Dataset, keyword: str) -> str:
    """Return an attribute as text; several values, which identity may have, with backslashes between them."""
    value = report.get(keyword)
    return text_value("\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value or ""))


def _observations(items: list[Dataset], id_: str, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an Observation for each finding of a group; one without a value for a slice that was not asked about."""
    notes = [{"text": text} for text in (*_images(items), *_how_it_was_made(items), *_texts(items, COMMENT))]
    shared = {"resourceType": "Observation", **about, **({"note": notes} if notes else {}), **_certainty(items)}
    found = [{"valueString": finding} for finding in _texts(items, FINDING)]
    if not found:
        unknown = {"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "not-performed"}
        found = [{"dataAbsentReason": {"coding": [unknown]}}]  # type: ignore[dict-item]
    return [{**shared, "id": f"{id_}-{index}", **one} for index, one in enumerate(found, 1)]


def _how_it_was_made(items: list[Dataset]) -> list[str]:
    """Return by which rule, and from how many slices, the result of a series was made."""
    rules, slices = _texts(items, AGGREGATION), _texts(items, SLICES)
    return [f"{looked} slices, {rule}" for looked, rule in zip(slices, rules, strict=True)]


def _images(items: list[Dataset]) -> list[str]:
    """Return the one image of a group, or the one that decides."""
    references = [item for item in items if item.ValueType == "IMAGE"]
    best = [item for item in references if item.ConceptNameCodeSequence[0].CodeValue == BEST_SLICE.value]
    return [f"{_meaning(item)}: {_instance(item)}" for item in best or references[:1]]


def _meaning(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def _instance(item: Dataset) -> str:
    (reference,) = item.ReferencedSOPSequence
    frame = reference.get("ReferencedFrameNumber")
    return f"urn:oid:{reference.ReferencedSOPInstanceUID}" + ("" if frame is None else f", frame {frame}")


def _groups(report: Dataset) -> list[list[Dataset]]:
    """Return the items of each measurement group: first those of the answer, then those of slices."""
    return [
        list(_flat(group))
        for container in report.ContentSequence
        for group in container.get("ContentSequence", ())
        if group.ConceptNameCodeSequence[0].CodeValue == _MEASUREMENT_GROUP
    ]


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
