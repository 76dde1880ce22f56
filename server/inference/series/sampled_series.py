"""Open a series, arrange its volume, and choose the slices to look at and their window."""

from collections.abc import Sequence
from dataclasses import dataclass

from medmoe.server.admission.deadline import Deadline
from medmoe.server.errors import InvalidField
from medmoe.server.imaging.series.errors import SeriesTooLarge
from medmoe.server.imaging.series.volume import Volume, arrange
from medmoe.server.imaging.series_intake import OpenSeries, numbered
from medmoe.server.inference.series.context import SeriesContext
from medmoe.server.inference.series.window import WindowSource, depends_on_slice, one_window
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.images import ImageFields
from medmoe.server.schemas.inference import SentSeries
from medmoe.server.schemas.series import SeriesDescription, SlicesFields
from medmoe.server.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledSeries:
    """An opened series, and the slices of it to look at."""

    files: OpenSeries
    volume: Volume
    sampled: tuple[int, ...]
    """Indices of the slices to look at, in the order of the series."""
    middle: int
    """Index of the slice whose window all have."""
    description: SeriesDescription


async def sample_series(
    context: SeriesContext,
    fields: SlicesFields,
    *,
    series: SentSeries,
    count: int,
    deadline: Deadline,
    record: RequestRecord,
) -> SampledSeries:
    """Return `count` slices of a series.

    Raises the series errors, and what SeriesIntake.open, SeriesIntake.read and ImageIntake.render raise.
    """
    opened = await context.intake.open(series, deadline=deadline, record=record)
    volume = arrange(opened.files, allow_irregular=fields.allow_irregular)
    sampled = volume.sample(count)
    _check_pixels(context.inference.settings, opened, volume, sampled)
    opened.keep({volume.slices[index].file for index in sampled})
    middle = sampled[len(sampled) // 2]
    window, source = await _window(context, fields, opened, volume, middle, deadline=deadline, record=record)
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
    return SampledSeries(files=opened, volume=volume, sampled=sampled, middle=middle, description=description)


def count_slices(settings: Settings, fields: SlicesFields) -> int:
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
    fields: SlicesFields,
    series: OpenSeries,
    volume: Volume,
    middle: int,
    *,
    deadline: Deadline,
    record: RequestRecord,
) -> tuple[str | None, WindowSource]:
    """Return the window for all slices. Raises what SeriesIntake.read and ImageIntake.render raise."""
    if not depends_on_slice(fields.window):
        return fields.window, "request"
    slice_ = volume.slices[middle]
    # Only its window is looked at; nobody has asked about it yet.
    shown = ImageFields(window=fields.window, frame=slice_.frame, allow_uniform=True)
    with numbered(series.places[slice_.file]):
        data = await context.intake.read(series, slice_.file, deadline=deadline, record=record)
        decoded = await context.inference.images.render(data, shown, view="model", deadline=deadline, record=record)
    series.contents[slice_.file] = data
    return one_window(fields.window, decoded.rendering)
