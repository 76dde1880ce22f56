"""Answer a request with a report: as the response, inside it, or stored in a DICOMweb source."""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.responses import Response

from medmoe.server.admission.slots import Deadline
from medmoe.server.dicomweb.client import DICOMwebClient
from medmoe.server.errors import InvalidField
from medmoe.server.imaging.intake import ImageIntake
from medmoe.server.imaging.reports.content import ReportContent, ReportFormat
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.classify import ChoiceResponse, ClassifyFields, ClassifyResponse, MultiLabelResponse
from medmoe.server.schemas.images import ImageFields
from medmoe.server.schemas.inference import InstanceReference, Provenance, SentImage, StoredReport
from medmoe.server.schemas.vqa import VQAFields, VQAResponse

MEDIA_TYPES: dict[str, ReportFormat] = {"application/dicom": "dicom", "application/fhir+json": "fhir"}
_NOT_DECIDING = {"question", "labels", "stream", "include_routing", "include_report", "store", "timeout_ms", "modality"}
"""Fields that a report holds elsewhere, or that do not change the answer."""

Answer = TypeVar("Answer", VQAResponse, ClassifyResponse | ChoiceResponse | MultiLabelResponse)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportDemand:
    """What a request wants beside its answer."""

    media_type: str | None
    """The report as the whole response; None for the answer as JSON."""
    include: bool
    store: str | None

    @classmethod
    def of(cls, headers: Headers, fields: VQAFields | ClassifyFields) -> "ReportDemand | None":
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

    Raises InvalidField where the report cannot be stored as asked, and what `ask`, ImageIntake.fetch,
    DecoderPool.report and DICOMwebClient.store raise.
    """
    if demand.store is not None:
        if not isinstance(image, InstanceReference):
            raise InvalidField("a report is stored for an image of a source only", param="store")
        dicomweb.require_store(demand.store)
    file = await images.fetch(image, deadline=deadline, record=record)
    # Before the engine works: an image of no study has no report.
    source = await images.identify(file, deadline=deadline)
    answer = await ask(file)
    said = content(answer)
    if demand.store is not None or demand.include or demand.media_type == "application/dicom":
        dicom = await images.report(file, said, "dicom", deadline=deadline)
    if demand.store is not None:
        made = await images.identify(dicom, deadline=deadline)
        async with deadline.guard():
            await dicomweb.store(demand.store, source.study, dicom)
        stored = StoredReport(source=demand.store, study=made.study, series=made.series, instance=made.instance)
        answer = answer.model_copy(update={"stored": stored})
    if demand.media_type == "application/dicom":
        return Response(dicom, media_type=demand.media_type)
    if demand.media_type is not None:
        return Response(await images.report(file, said, "fhir", deadline=deadline), media_type=demand.media_type)
    if demand.include:
        answer = answer.model_copy(update={"report": base64.b64encode(dicom).decode()})
    return answer


def vqa_content(fields: VQAFields, answer: VQAResponse) -> ReportContent:
    """Return what a report says of an answer."""
    confidence = answer.confidence
    sampled = answer.provenance
    return _content(
        fields,
        answer.model,
        sampled,
        question=fields.question,
        findings=(answer.answer,),
        certainty=confidence.value if confidence and confidence.calibrated else None,
        abstained=answer.abstained,
        parameters=(f"seed={sampled.seed}", f"max_tokens={sampled.max_tokens}"),
    )


def classify_content(
    fields: ClassifyFields, answer: ClassifyResponse | ChoiceResponse | MultiLabelResponse
) -> ReportContent:
    """Return what a report says of a classification: no probability that is not calibrated."""
    findings = answer.labels if isinstance(answer, MultiLabelResponse) else (answer.label,)
    calibrated = isinstance(answer, ClassifyResponse) and answer.calibration is not None
    return _content(
        fields,
        answer.model,
        answer.provenance,
        question=fields.question or "Which of the labels describes the image?",
        labels=fields.labels,
        findings=findings,
        certainty=max(one.probability for one in answer.probabilities) if calibrated else None,
        abstained=answer.abstained,
    )


def _content(
    fields: ImageFields,
    model: str,
    provenance: Provenance,
    *,
    question: str,
    labels: tuple[str, ...] = (),
    findings: tuple[str, ...],
    certainty: float | None,
    abstained: bool,
    parameters: tuple[str, ...] = (),
) -> ReportContent:
    given = fields.model_dump(exclude=_NOT_DECIDING, exclude_none=True, exclude_defaults=True)
    return ReportContent(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        software=version("medmoe"),
        model=model,
        weights_sha256=provenance.weights_sha256,
        adapter_sha256=provenance.adapter_sha256,
        frame=provenance.rendering.frame,
        question=question,
        labels=labels,
        findings=findings,
        certainty=certainty,
        abstained=abstained,
        parameters=tuple(dict.fromkeys((*(f"{name}={value}" for name, value in given.items()), *parameters))),
    )
