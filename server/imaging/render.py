"""Render one image for people to look at: the response of `/v1/render`."""

import asyncio
import base64
import io

from PIL import Image

from medmoe.server.admission.deadline import Deadline
from medmoe.server.admission.slots import Admission
from medmoe.server.imaging.intake import ImageIntake
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.inference import SentImage
from medmoe.server.schemas.views.render import RenderFields, RenderResponse


async def render_png(
    images: ImageIntake,
    fields: RenderFields,
    *,
    image: SentImage,
    admission: Admission,
    deadline: Deadline,
    record: RequestRecord,
) -> RenderResponse:
    """Return `image` as a PNG data URL. Raises Overloaded, DeadlineExceeded, the image errors."""
    async with admission.slot(deadline=deadline, record=record):
        rendered = await images.render(image, fields, view=fields.view, deadline=deadline, record=record)
        url = await asyncio.to_thread(png_data_url, rendered.image)
    return RenderResponse(
        image=url,
        width=rendered.width,
        height=rendered.height,
        rendering=rendered.rendering,
        windowing=rendered.windowing,
    )


def png_data_url(image: Image.Image, *, side: int | None = None) -> str:
    """Return `image` as PNG, reduced to at most `side` pixels a side."""
    if side is not None and max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side))
    file = io.BytesIO()
    # Level 1: a viewer's slider waits for it, and a smaller file would take several times as long.
    image.save(file, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
