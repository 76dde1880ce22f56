"""What `POST /v1/render` takes and answers."""

from pydantic import Field

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.images import ImageFields, Rendering, View, Windowing
from medmoe.server.schemas.vqa import ImageText


class RenderFields(ImageFields):
    """What `POST /v1/render` takes besides the picture."""

    view: View = "frame"
    """frame: for people, upright and reduced to at most 1024 pixels a side. model: exactly what the model gets, padded
    or cropped and resized."""
    timeout_ms: int | None = Field(default=None, ge=1)


class RenderRequest(RenderFields):
    """`POST /v1/render` as JSON."""

    image: ImageText


class RenderResponse(ApiModel):
    """Pixels, and how they came about; nothing else of the file."""

    image: str
    """A PNG as data URL."""
    width: int
    """In the file."""
    height: int
    rendering: Rendering
    windowing: Windowing | None
    """What a window can be chosen from; null for colours and for what is no DICOM."""
