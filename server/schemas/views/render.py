"""Define the request and the response of `POST /v1/render`."""

from pydantic import Field

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.images import ImageFields, Rendering, View, Windowing
from medmoe.server.schemas.inference import ImageText, InstanceReference, ModelName


class RenderFields(ImageFields):
    """The fields of `POST /v1/render` besides the image."""

    view: View = "frame"
    """frame: for people, upright and reduced to at most 1024 pixels a side. model: exactly what the model gets, padded
    or cropped and resized."""
    timeout_ms: int | None = Field(default=None, ge=1)
    model: ModelName | None = Field(default=None, examples=["medmoe-tiny"])
    """For view model: as in `/v1/vqa`."""


class RenderRequest(RenderFields):
    """`POST /v1/render` as JSON."""

    image: ImageText | InstanceReference


class RenderResponse(ApiModel):
    """The rendered image and how it was rendered; nothing else from the file."""

    image: str
    """A PNG as data URL."""
    width: int
    """Width of the image in the file, in pixels."""
    height: int
    rendering: Rendering
    windowing: Windowing | None
    """The range and the presets for a window; null for colours and for formats other than DICOM."""
