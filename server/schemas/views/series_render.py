"""Define the request and the response of `POST /v1/series/render`."""

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.images import Rendering, Windowing
from medmoe.server.schemas.inference import SeriesReference
from medmoe.server.schemas.series import SeriesDescription, SeriesText, SlicePlace, SlicesFields


class SeriesRenderRequest(SlicesFields):
    """`POST /v1/series/render` as JSON."""

    series: SeriesText | SeriesReference


class RenderedSlice(SlicePlace):
    image: str
    """A PNG as data URL, upright and reduced to at most 512 pixels a side."""
    width: int
    """Width of the image in the file, in pixels."""
    height: int
    rendering: Rendering


class SeriesRenderResponse(ApiModel):
    """The slices that `/v1/series` asks about with the same fields, as they are shown there."""

    series: SeriesDescription
    windowing: Windowing | None
    """The range of the middle slice, and the presets for a window; null for colours."""
    slices: tuple[RenderedSlice, ...]
    """In the order of the series."""
