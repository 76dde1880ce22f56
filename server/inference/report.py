"""Answer a request with a report: as the response, inside it, or stored in a DICOMweb source."""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.responses import Response

from medmoe.server.admission.deadline import Deadline
from medmoe.server.dicomweb.client import DICOMwebClient
from medmoe.server.errors import InvalidField
from medmoe.server.imaging.intake import ImageIntake
from medmoe.server.imaging.reports.content import ReportContent, ReportFormat, SeriesContent
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.classify import (
    AnyClassification,
    ClassifyFields,
    ClassifyResponse,
    MultiLabelResponse,
)
from medmoe.server.schemas.images import ImageFields
from medmoe.server.schemas.inference import Provenance, SentImage, SentSeries, SeriesReference, StoredReport
from medmoe.server.schemas.series import SeriesAnswer, SeriesClassification, SeriesFields
from medmoe.server.schemas.vqa import VQAFields, VQAResponse

MEDIA_TYPES: dict[str, ReportFormat] = {"application/dicom": "dicom", "application/fhir+json": "fhir"}
LABEL_QUESTION = "Which of the labels describes the image?"
"""Stands in a report for the checkpoint's own classification question."""
_NOT_DECIDING = {
    "question", "labels", "stream", "include_routing", "include_report", "store", "timeout_ms", "modality", "model",
}  # fmt: skip
"""Fields that a report holds elsewhere, or that do not change the answer."""
_CHOSEN = {"seed", "max_tokens", "min_confidence", "min_label_mass", "permutations"}
"""Fields of a provenance that the service or the deployment chooses where a request does not."""

Answer = TypeVar("Answer", VQAResponse, AnyClassification, SeriesAnswer | SeriesClassification)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportDemand:
    """Report that a request wants beside its answer."""

    media_type: str | None
    """The report as the whole response; None for the answer as JSON."""
    include: bool
    store: str | None

    @classmethod
    def of(cls, headers: Headers, fields: VQAFields | ClassifyFields | SeriesFields) -> "ReportDemand | None":
        """Return the demand of a request, None where it wants no report."""
        accepted = [one.partition(";")[0].strip().lower() for one in headers.get("accept", "").split(",")]
        media_type = next((one for one in accepted if one in MEDIA_TYPES or one == "application/json"), None)
        if media_type == "application/json":
            media_type = None
        if media_type is None and not fields.include_report and fields.store is None:
            return None
        return cls(media_type=media_type, include=fields.include_report, store=fields.store)


async def answer_with_report(
    demand: ReportDemand,
    *,
    images: ImageIntake,
    dicomweb: DICOMwebClient,
    image: SentImage,
    ask: Callable[[str | bytes], Awaitable[Answer]],
    content: Callable[[Answer], ReportContent],
    deadline: Deadline,
    record: RequestRecord,
) -> Answer | Response:
    """Return the answer that `ask` gives to the file of `image`, with its report, or the report alone.

    Raises what `require_store`, `ask`, ImageIntake.fetch and `deliver_report` raise.
    """
    require_store(demand, dicomweb, image)
    file = await images.fetch(image, deadline=deadline, record=record)
    # Before the engine works: an image of no study has no report.
    source = await images.identify(file, deadline=deadline, record=record)
    answer = await ask(file)
    return await deliver_report(
        demand, answer, content(answer), images=images, dicomweb=dicomweb, file=file, study=source.study,
        deadline=deadline, record=record,
    )  # fmt: skip


def require_store(demand: ReportDemand, dicomweb: DICOMwebClient, sent: SentImage | SentSeries) -> None:
    """Raise InvalidField where the report cannot be stored as asked, and what DICOMwebClient.require_store raises."""
    if demand.store is None:
        return
    if not isinstance(sent, SeriesReference):
        raise InvalidField("a report is stored for images of a source only", param="store")
    dicomweb.require_store(demand.store)


async def deliver_report(
    demand: ReportDemand,
    answer: Answer,
    said: ReportContent,
    *,
    images: ImageIntake,
    dicomweb: DICOMwebClient,
    file: str | bytes,
    study: str,
    deadline: Deadline,
    record: RequestRecord,
) -> Answer | Response:
    """Return `answer` with the report that `said` describes, or the report alone; `file` is of the same `study`.

    Raises what DecoderPool.report and DICOMwebClient.store raise.
    """
    if demand.store is not None or demand.include or demand.media_type == "application/dicom":
        dicom = await images.report(file, said, "dicom", deadline=deadline, record=record)
    if demand.store is not None:
        made = await images.identify(dicom, deadline=deadline, record=record)
        async with deadline.guard():
            await dicomweb.store(demand.store, study, dicom)
        stored = StoredReport(source=demand.store, study=made.study, series=made.series, instance=made.instance)
        answer = answer.model_copy(update={"stored": stored})
    if demand.media_type == "application/dicom":
        return Response(dicom, media_type=demand.media_type)
    if demand.media_type is not None:
        fhir = await images.report(file, said, "fhir", deadline=deadline, record=record)
        return Response(fhir, media_type=demand.media_type)
    if demand.include:
        answer = answer.model_copy(update={"report": base64.b64encode(dicom).decode()})
    return answer


def vqa_content(fields: VQAFields, answer: VQAResponse) -> ReportContent:
    """Return what a report says of an answer."""
    return report_content(
        fields,
        answer.model,
        answer.provenance,
        question=fields.question,
        findings=(answer.answer,),
        certainty=vqa_certainty(answer),
        abstained=answer.abstained,
    )


def classify_content(fields: ClassifyFields, answer: AnyClassification) -> ReportContent:
    """Return what a report says of a classification: no probability that is not calibrated."""
    return report_content(
        fields,
        answer.model,
        answer.provenance,
        question=fields.question or LABEL_QUESTION,
        labels=fields.labels,
        findings=found_labels(answer),
        certainty=label_certainty(answer),
        abstained=answer.abstained,
    )


def vqa_certainty(answer: VQAResponse) -> float | None:
    """Return the confidence of an answer where it is calibrated."""
    confidence = answer.confidence
    return confidence.value if confidence and confidence.calibrated else None


def label_certainty(answer: AnyClassification) -> float | None:
    """Return the probability of the likeliest label where it is calibrated."""
    calibrated = isinstance(answer, ClassifyResponse) and answer.calibration is not None
    return max(one.probability for one in answer.probabilities) if calibrated else None


def found_labels(answer: AnyClassification) -> tuple[str, ...]:
    """Return the likeliest label, or those that are present."""
    return answer.labels if isinstance(answer, MultiLabelResponse) else (answer.label,)


def report_content(
    fields: ImageFields | SeriesFields,
    model: str,
    provenance: Provenance,
    *,
    question: str,
    labels: tuple[str, ...] = (),
    findings: tuple[str, ...],
    certainty: float | None,
    abstained: bool,
    series: SeriesContent | None = None,
) -> ReportContent:
    """Return what a report says, with the time of now."""
    given = fields.model_dump(exclude=_NOT_DECIDING, exclude_none=True, exclude_defaults=True)
    # What the request left open, too.
    used = provenance.model_dump(include=_CHOSEN, exclude_none=True)
    return ReportContent(
        made=datetime.now().astimezone().isoformat(timespec="seconds"),
        software=version("medmoe"),
        model=model,
        weights_sha256=provenance.weights_sha256,
        adapter_sha256=provenance.adapter_sha256,
        frame=provenance.rendering.frame,
        series=series,
        question=question,
        labels=labels,
        findings=findings,
        certainty=certainty,
        abstained=abstained,
        parameters=tuple(f"{name}={value}" for name, value in (given | used).items()),
    )
