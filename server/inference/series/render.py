"""Render slices of a series for people to look at: the response of `/v1/series/render`."""

import asyncio
from contextlib import aclosing
from typing import Any

from medmoe.server.admission.deadline import Deadline
from medmoe.server.errors import UniformImage
from medmoe.server.imaging.image import DecodedImage
from medmoe.server.imaging.intake import ImageIntake
from medmoe.server.imaging.render import png_data_url
from medmoe.server.inference.series.context import SeriesContext
from medmoe.server.inference.series.sampled_series import count_slices, sample_series
from medmoe.server.inference.series.slices import ask_slices
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.images import ImageFields, Windowing
from medmoe.server.schemas.inference import SentSeries
from medmoe.server.schemas.series import SlicesFields
from medmoe.server.schemas.views.series_render import RenderedSlice, SeriesRenderResponse

_SIDE = 512
"""Longest side of a rendered slice in pixels; a response holds many."""


async def render_series(
    context: SeriesContext, fields: SlicesFields, *, series: SentSeries, deadline: Deadline, record: RequestRecord
) -> SeriesRenderResponse:
    """Return the slices that `answer_series` asks about with the same fields.

    Raises InvalidField, Overloaded, and what `sample_series` and ImageIntake.render raise.
    """
    inference = context.inference
    count = count_slices(inference.settings, fields)
    async with (
        context.places.place(deadline=deadline, record=record),
        inference.admission.slot(deadline=deadline, record=record),
    ):
        found = await sample_series(context, fields, series=series, count=count, deadline=deadline, record=record)
        renderer = SliceRenderer(inference.images)
        slices = ask_slices(context.intake, renderer, found, deadline=deadline, record=record)
        async with aclosing(slices):
            rendered = [one async for one in slices]
    return SeriesRenderResponse(
        series=found.description,
        windowing=renderer.windowing[found.middle],
        slices=tuple(sorted(rendered, key=lambda one: one.index)),
    )


class SliceRenderer:
    """Renders the slices of a series, those of one shade too."""

    def __init__(self, images: ImageIntake) -> None:
        self._images = images
        self.windowing: dict[int, Windowing | None] = {}
        """Range and presets of each slice's window, by the slice's index."""

    async def ask(
        self, image: bytes, shown: ImageFields, place: dict[str, Any], *, deadline: Deadline, record: RequestRecord
    ) -> RenderedSlice:
        """Return the slice at `place` as PNG. Raises what ImageIntake.render raises."""

        async def render(fields: ImageFields) -> DecodedImage:
            return await self._images.render(image, fields, view="frame", deadline=deadline, record=record)

        try:
            uniform, rendered = False, await render(shown)
        except UniformImage:
            uniform, rendered = True, await render(shown.model_copy(update={"allow_uniform": True}))
        self.windowing[place["index"]] = rendered.windowing
        return RenderedSlice(
            **place,
            uniform=uniform,
            image=await asyncio.to_thread(png_data_url, rendered.image, side=_SIDE),
            width=rendered.width,
            height=rendered.height,
            rendering=rendered.rendering,
        )
