"""Define the answer of `/v1/render`; /docs explains each field."""

from medmoe.client.answers.base import Message
from medmoe.client.answers.vqa import Rendering


class Windowing(Message):
    """The range and the presets for a window of a grey DICOM frame."""

    smallest: float
    largest: float
    presets: tuple[str, ...]


class RenderedImage(Message):
    """Answer of `/v1/render`."""

    image: str
    """PNG as data URL."""
    width: int
    """Width of the image in the file, in pixels."""
    height: int
    rendering: Rendering
    windowing: Windowing | None
