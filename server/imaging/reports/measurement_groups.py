"""Write the measurement groups of a report (template TID 1501, PS3.16): one for the answer, one for each slice.

https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_A.html#sect_TID_1501
"""

import hashlib
import uuid

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ImageContentItem,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from highdicom.sr.enum import RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from medmoe.server.imaging.reports.content import ReportContent, SeriesContent, SliceContent
from medmoe.server.imaging.reports.values import long_string, text_value

MANUFACTURER = "Med-MoE Serve"
NOT_FOR_DIAGNOSIS = "Research software, not a medical device: not for diagnosis, triage or treatment."
ABSTAINED = "ABSTAINED: this finding is not to be relied on."
UNIFORM = "The slice comes out as one shade; it was not asked about."
NONE_OF_THE_LABELS = "None of the labels"
SCHEME = "99MEDMOE"
"""Coding scheme of the codes that DICOM has not."""
QUESTION = CodedConcept(value="question", scheme_designator=SCHEME, meaning="Question")
LABELS = CodedConcept(value="labels", scheme_designator=SCHEME, meaning="Labels to choose from")
AGGREGATION = CodedConcept(value="aggregation", scheme_designator=SCHEME, meaning="Aggregation rule")
SLICES = CodedConcept(value="slices", scheme_designator=SCHEME, meaning="Slices of the series")
FINDING = CodedConcept(value="121071", scheme_designator="DCM", meaning="Finding")
COMMENT = CodedConcept(value="121106", scheme_designator="DCM", meaning="Comment")
CERTAINTY = CodedConcept(value="111012", scheme_designator="DCM", meaning="Certainty of Finding")
BEST_SLICE = CodedConcept(value="121080", scheme_designator="DCM", meaning="Best illustration of finding")
_AI = CodedConcept(value="113086", scheme_designator="DCM", meaning="Artificial Intelligence")
_CONTAINS = RelationshipTypeValues.CONTAINS

Group = MeasurementsAndQualitativeEvaluations
Item = TextContentItem | NumContentItem | ImageContentItem


def groups(evidence: Dataset, content: ReportContent, *, frames: int) -> list[Group]:
    """Return the group of the answer, then those of the slices of a series; `frames` counts those of `evidence`."""
    series = content.series
    if series is None:
        images = [_source_image(evidence.SOPClassUID, evidence.SOPInstanceUID, content.frame if frames > 1 else None)]
    else:
        images = [_slice_image(one) for one in series.slices if not one.uniform]
    group = Group(
        tracking_identifier=_tracking(evidence, content, name=content.model),
        algorithm_id=AlgorithmIdentification(
            name=content.model,
            version=content.weights_sha256 or "without weights",
            family=_AI,
            manufacturer=MANUFACTURER,
            parameters=_parameters(content),
        ),
        source_images=images,
        qualitative_evaluations=_evaluations(content.findings) if content.labels else None,
    )
    group[0].ContentSequence.extend(_items(content))
    if series is None:
        return [group]
    group[0].ContentSequence.extend(_aggregation(series))
    return [group, *(_slice_group(evidence, content, one) for one in series.slices)]


def uid(*parts: str) -> str:
    """Return a UID that the parts determine, so that the same answer has the same one."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(0).join(('medmoe', *parts))).int}"


def _slice_group(evidence: Dataset, content: ReportContent, one: SliceContent) -> Group:
    group = Group(
        tracking_identifier=_tracking(evidence, content, str(one.index), name=f"slice {one.index + 1}"),
        source_images=[_slice_image(one)],
        qualitative_evaluations=_evaluations(one.findings) if content.labels else None,
    )
    if one.uniform:
        items: list[Item] = [TextContentItem(COMMENT, UNIFORM, _CONTAINS)]
    else:
        items = _finding(one.findings, one.certainty, abstained=one.abstained)
    group[0].ContentSequence.extend(items)
    return group


def _tracking(evidence: Dataset, content: ReportContent, *slice_: str, name: str) -> TrackingIdentifier:
    parts = (evidence.SOPInstanceUID, content.question, *content.labels)
    if content.series is not None:
        parts = ("series", evidence.SeriesInstanceUID, *slice_, *parts[1:])
    return TrackingIdentifier(uid=uid("tracking", *parts), identifier=name)


def _slice_image(one: SliceContent) -> SourceImageForMeasurementGroup:
    return _source_image(one.sop_class, one.instance, one.frame)


def _source_image(sop_class: str, instance: str, frame: int | None) -> SourceImageForMeasurementGroup:
    numbers = None if frame is None else [frame + 1]
    return SourceImageForMeasurementGroup(sop_class, instance, referenced_frame_numbers=numbers)


def _items(content: ReportContent) -> list[Item]:
    """Return what the template has no row for; it is extensible."""
    items: list[Item] = [TextContentItem(QUESTION, text_value(content.question), _CONTAINS)]
    if content.labels:
        items.append(TextContentItem(LABELS, text_value("\n".join(content.labels)), _CONTAINS))
    items += _finding(content.findings, content.certainty, abstained=content.abstained)
    items.append(TextContentItem(COMMENT, NOT_FOR_DIAGNOSIS, _CONTAINS))
    return items


def _finding(findings: tuple[str, ...], certainty: float | None, *, abstained: bool) -> list[Item]:
    # Also for labels: a code's meaning holds 64 characters, and of a free answer there is no code.
    found = [text_value(finding) or "(empty answer)" for finding in findings] or [NONE_OF_THE_LABELS]
    items: list[Item] = [TextContentItem(FINDING, finding, _CONTAINS) for finding in found]
    if certainty is not None:
        percent = round(100 * certainty, 1)
        items.append(NumContentItem(CERTAINTY, percent, codes.UCUM.Percent, relationship_type=_CONTAINS))
    if abstained:
        items.append(TextContentItem(COMMENT, ABSTAINED, _CONTAINS))
    return items


def _aggregation(series: SeriesContent) -> list[Item]:
    """Return how the result was made, and the slice that decides."""
    best = next(one for one in series.slices if one.index == series.best_slice)
    looked = f"{len(series.slices)} of {series.slice_count}"
    return [
        TextContentItem(AGGREGATION, series.rule, _CONTAINS),
        TextContentItem(SLICES, looked, _CONTAINS),
        ImageContentItem(
            BEST_SLICE,
            best.sop_class,
            best.instance,
            referenced_frame_numbers=None if best.frame is None else [best.frame + 1],
            relationship_type=_CONTAINS,
        ),
    ]


def _evaluations(labels: tuple[str, ...]) -> list[QualitativeEvaluation]:
    return [_evaluation(label) for label in labels]


def _evaluation(label: str) -> QualitativeEvaluation:
    # Code values hold 16 characters.
    code = hashlib.sha256(label.encode()).hexdigest()[:16]
    value = CodedConcept(value=code, scheme_designator=SCHEME, meaning=long_string(label) or "label")
    return QualitativeEvaluation(name=FINDING, value=value)


def _parameters(content: ReportContent) -> list[str]:
    adapter = [f"adapter_sha256={content.adapter_sha256}"] if content.adapter_sha256 else []
    return [*adapter, *map(text_value, content.parameters)]
