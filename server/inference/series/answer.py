"""Answer about a series: from validated fields and files to events and the response of `/v1/series`."""

import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from medmoe.server.admission.slots import Deadline
from medmoe.server.errors import InvalidField, UniformImage
from medmoe.server.imaging.series.errors import SeriesTooLarge
from medmoe.server.imaging.series.volume import Volume, arrange
from medmoe.server.imaging.series_intake import OpenSeries, numbered
from medmoe.server.inference.series.context import SeriesContext
from medmoe.server.inference.series.response import series_response
from medmoe.server.inference.series.slices import AskedSlice, LabelAsker, QuestionAsker, ask_slices
from medmoe.server.inference.series.window import WindowSource, depends_on_slice, one_window
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.images import ImageFields
from medmoe.server.schemas.inference import SentSeries
from medmoe.server.schemas.series import SeriesDescription, SeriesFields, SeriesResponse, SeriesStarted, SliceDone
from medmoe.server.settings import Settings

ROUTE = "series"
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
    Raises InvalidField, PromptError, Overloaded, the series errors, and what SeriesIntake and `ask_slices` raise.
    """
    inference, settings = context.inference, context.inference.settings
    count = _count(settings, fields)
    asker = QuestionAsker(inference, fields) if fields.labels is None else LabelAsker(inference, fields)
    async with (
        context.places.slot(deadline=deadline, record=record),
        inference.admission.slot(deadline=deadline, record=record),
    ):
        opened = await context.intake.open(series, deadline=deadline, record=record)
        volume = arrange(opened.files, allow_irregular=fields.allow_irregular)
        sampled = volume.sample(count)
        _check_pixels(settings, opened, volume, sampled)
        opened.keep({volume.slices[index].file for index in sampled})
        window, source = await _window(
            context, fields, opened, volume, sampled[len(sampled) // 2], deadline=deadline, record=record
        )
        description = SeriesDescription(
            slice_count=len(volume.slices),
            sampled=sampled,
            ordered_by=volume.ordered_by,
            spacing=volume.spacing,
            irregular=volume.is_irregular,
            window=window,
            window_source=source,
            ignored_files=opened.ignored,
        )
        if opened_as is not None:
            opened_as(opened)
        yield SeriesStarted(series=description)
        asked: list[AskedSlice] = []
        slices = ask_slices(
            context.intake,
            asker,
            series=opened,
            volume=volume,
            sampled=sampled,
            window=window,
            deadline=deadline,
            record=record,
        )
        async with aclosing(slices):
            async for one in slices:
                asked.append(one)
                yield SliceDone(done=len(asked), slice=one)
        if all(one.uniform for one in asked):
            raise UniformImage("all slices come out as one shade; choose another window")
        yield series_response(
            inference,
            fields,
            slices=sorted(asked, key=lambda one: one.index),
            description=description,
            id_=f"{ROUTE}-{uuid.uuid4().hex}",
            timings=record.timings(),
        )


def _count(settings: Settings, fields: SeriesFields) -> int:
    """Return how many slices to look at. Raises InvalidField."""
    most = settings.max_series_slices
    if fields.slices is None:
        return min(settings.series_slices, most)
    if fields.slices > most:
        raise InvalidField(f"over this service's {most} slices (MEDMOE_MAX_SERIES_SLICES)", param="slices")
    return fields.slices


def _check_pixels(settings: Settings, series: OpenSeries, volume: Volume, sampled: Sequence[int]) -> None:
    """Raise SeriesTooLarge for too many pixels."""
    files = [series.files[volume.slices[index].file] for index in sampled]
    if sum(file.height * file.width for file in files) > settings.max_series_pixels:
        raise SeriesTooLarge.over_pixels(settings.max_series_pixels)


async def _window(
    context: SeriesContext,
    fields: SeriesFields,
    series: OpenSeries,
    volume: Volume,
    middle: int,
    *,
    deadline: Deadline,
    record: RequestRecord,
) -> tuple[str | None, WindowSource]:
    """Return the window for all slices. Raises what SeriesIntake.read and ImageIntake.read raise."""
    if not depends_on_slice(fields.window):
        return fields.window, "request"
    slice_ = volume.slices[middle]
    # Only its window is looked at.
    shown = ImageFields(window=fields.window, frame=slice_.frame, allow_uniform=True)
    with numbered(slice_.file):
        data = await context.intake.read(series, slice_.file, deadline=deadline, record=record)
        decoded = await context.inference.images.read(data, shown, deadline=deadline, record=record)
    series.contents[slice_.file] = data
    return one_window(fields.window, decoded.rendering)
