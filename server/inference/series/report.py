"""Answer about a series with a report: as the response, inside it, or stored in a DICOMweb source."""

from contextlib import aclosing

from starlette.responses import Response

from medmoe.server.admission.deadline import Deadline
from medmoe.server.dicomweb.client import DICOMwebClient
from medmoe.server.imaging.reports.content import ReportContent, SeriesContent, SliceContent
from medmoe.server.imaging.series_intake import OpenSeries
from medmoe.server.inference.report import (
    LABEL_QUESTION,
    ReportDemand,
    deliver_report,
    found_labels,
    label_certainty,
    report_content,
    require_store,
    vqa_certainty,
)
from medmoe.server.inference.series.answer import answer_series
from medmoe.server.inference.series.context import SeriesContext
from medmoe.server.inference.series.slices import AskedSlice
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.inference import SentSeries
from medmoe.server.schemas.series import AnsweredSlice, SeriesAnswer, SeriesClassification, SeriesFields

AnySeries = SeriesAnswer | SeriesClassification


async def answer_series_with_report(
    context: SeriesContext,
    demand: ReportDemand,
    fields: SeriesFields,
    *,
    dicomweb: DICOMwebClient,
    series: SentSeries,
    deadline: Deadline,
    record: RequestRecord,
) -> AnySeries | Response:
    """Return the response of `answer_series` with its report, or the report alone.

    Raises what `require_store`, `answer_series`, SeriesIntake.read and `deliver_report` raise.
    """
    require_store(demand, dicomweb, series)
    opened: list[OpenSeries] = []
    pieces = answer_series(context, fields, series=series, deadline=deadline, record=record, opened_as=opened.append)
    async with aclosing(pieces):
        (answer,) = [piece async for piece in pieces if isinstance(piece, AnySeries)]
    (files,) = opened
    best = next(one for one in answer.slices if one.index == answer.best_slice)
    decisive = files.places.index(best.file)
    return await deliver_report(
        demand,
        answer,
        _content(fields, answer, files, best),
        images=context.inference.images,
        dicomweb=dicomweb,
        file=await context.intake.read(files, decisive, deadline=deadline, record=record),
        study=files.files[decisive].uids.study,
        deadline=deadline,
        record=record,
    )


def _content(fields: SeriesFields, answer: AnySeries, files: OpenSeries, best: AskedSlice) -> ReportContent:
    """Return what a report says: no probability of the result, which is not calibrated."""
    decisive = best.answer if isinstance(best, AnsweredSlice) else best.classification
    assert decisive is not None
    return report_content(
        fields,
        answer.model,
        decisive.provenance,
        question=fields.question or LABEL_QUESTION,
        labels=fields.labels or (),
        findings=(answer.answer,) if isinstance(answer, SeriesAnswer) else answer.labels,
        certainty=None,
        abstained=answer.abstained,
        series=SeriesContent(
            rule=answer.rule,
            slice_count=answer.series.slice_count,
            best_slice=answer.best_slice,
            slices=tuple(_slice(one, files) for one in answer.slices),
        ),
    )


def _slice(one: AskedSlice, files: OpenSeries) -> SliceContent:
    findings: tuple[str, ...] = ()
    certainty, abstained = None, False
    if isinstance(one, AnsweredSlice):
        if one.answer is not None:
            findings, certainty, abstained = (one.answer.answer,), vqa_certainty(one.answer), one.answer.abstained
    elif one.classification is not None:
        found = one.classification
        findings, certainty, abstained = found_labels(found), label_certainty(found), found.abstained
    return SliceContent(
        index=one.index,
        instance=one.instance,
        sop_class=files.files[files.places.index(one.file)].sop_class,
        frame=one.frame,
        findings=findings,
        certainty=certainty,
        abstained=abstained,
        uniform=one.uniform,
    )
