"""Answer about a series: from validated fields and files to events and the response of `/v1/series`."""

import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from medmoe.server.admission.deadline import Deadline
from medmoe.server.errors import UniformImage
from medmoe.server.imaging.series_intake import OpenSeries
from medmoe.server.inference.series.context import SeriesContext
from medmoe.server.inference.series.response import series_response
from medmoe.server.inference.series.sampled_series import count_slices, sample_series
from medmoe.server.inference.series.slices import ROUTE, AskedSlice, Asker, LabelAsker, QuestionAsker, ask_slices
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.inference import SentSeries
from medmoe.server.schemas.series import SeriesFields, SeriesResponse, SeriesStarted, SliceDone

SeriesPiece = SeriesStarted | SliceDone | SeriesResponse


async def answer_series(
    context: SeriesContext,
    fields: SeriesFields,
    *,
    series: SentSeries,
    deadline: Deadline,
    record: RequestRecord,
    opened_as: Callable[[OpenSeries], None] | None = None,
) -> AsyncGenerator[SeriesPiece, None]:
    """Yield what was made of the series, then each slice, then the response. Closing the iterator aborts the rest.

    A series holds one slot, whatever the number of its slices. `opened_as` is called with its files.
    Raises InvalidField, PromptError, Overloaded, and what `sample_series` and `ask_slices` raise.
    """
    inference = context.inference
    count = count_slices(inference.settings, fields)
    asker: Asker[AskedSlice] = (
        QuestionAsker(inference, fields) if fields.labels is None else LabelAsker(inference, fields)
    )
    async with (
        context.places.place(deadline=deadline, record=record),
        inference.admission.slot(deadline=deadline, record=record),
    ):
        found = await sample_series(context, fields, series=series, count=count, deadline=deadline, record=record)
        if opened_as is not None:
            opened_as(found.files)
        yield SeriesStarted(series=found.description)
        asked: list[AskedSlice] = []
        slices = ask_slices(context.intake, asker, found, deadline=deadline, record=record)
        async with aclosing(slices):
            async for one in slices:
                asked.append(one)
                yield SliceDone(done=len(asked), slice=one)
        if all(one.uniform for one in asked):
            raise UniformImage("all slices come out as one shade; choose another window")
        response = series_response(
            inference,
            fields,
            slices=sorted(asked, key=lambda one: one.index),
            description=found.description,
            id_=f"{ROUTE}-{secrets.token_hex(16)}",
            timings=record.timings(),
        )
        record.note_answer(calibrated=response.calibrated, abstained=response.abstained)
        yield response
