"""Define how a request wants its image rendered, and how it was rendered.

The decoder processes use these models too.
"""

from typing import Literal

from pydantic import Field, field_validator

from medmoe.model.image_processor import Conversion
from medmoe.server.schemas import voi_window
from medmoe.server.schemas.base import ApiModel

FileFormat = Literal["PNG", "JPEG", "TIFF", "BMP", "WEBP", "DICOM"]
BurnedIn = Literal["refuse", "refuse_unless_clear", "accept"]
"""What a deployment does with an image that contains text."""
View = Literal["frame", "model"]
"""The image for people to look at, or as the model gets it."""


def readable_window(window: str | None) -> str | None:
    """Return `window`. Raises ValueError where it does not follow the grammar of `voi_window.parse`."""
    if window is not None:
        voi_window.parse(window)
    return window


class ImageFields(ApiModel):
    """How to render the image. A field that does not apply to the image is refused."""

    window: str | None = Field(
        default=None,
        max_length=voi_window.MAX_LENGTH,
        examples=["lung", "40/400", "lung,mediastinum,bone"],
    )
    """For grey DICOM images: `centre/width` in the image's own units, `file` (the file's window), `full` (smallest
    to largest value), or for CT one of lung, mediastinum, soft_tissue, liver, bone, brain, subdural, stroke. Three of
    these with commas between them become red, green and blue. When absent, the file's window where it has one."""
    frame: int | None = Field(default=None, ge=0, le=2**31, examples=[0])
    """Which frame of a multi-frame DICOM file, page of a TIFF or image of an animation, from 0. The first when
    absent."""
    allow_uniform: bool = Field(default=False, examples=[False])
    """Take an image that comes out as one shade, or nearly. Otherwise it is refused (`uniform_image`): an answer about
    it would say nothing."""

    @field_validator("window")
    @classmethod
    def _readable(cls, window: str | None) -> str | None:
        return readable_window(window)


RenderingStep = (
    Literal[
        "palette", "high_byte", "modality_lut", "rescale", "voi_lut", "window", "invert",
        "meta_header_added", "delimiter_added", "frame_count", "attribute_inferred", "high_bit",
        "modality_lut_ignored", "rescale_ignored", "rescale_completed", "voi_lut_ignored", "lut_descriptor_corrected",
        "window_ignored", "decimal_comma", "voi_function_ignored", "linear_exact",
        "sign_inferred", "unused_bits", "presentation_lut_ignored",
        "padding_inferred", "not_a_number", "pixel_aspect", "pixel_aspect_ignored", "overlay_ignored",
        "shutter_ignored", "palette_ignored", "real_world_values_ignored",
        "subtraction_ignored", "segmentation", "tile", "localizer",
        "end_marker_added", "metadata_dropped", "low_bits", "over_white", "samples_ignored",
    ]
    | Conversion
)  # fmt: skip


class AppliedWindow(ApiModel):
    """The range of values that became black to white."""

    source: Literal["file", "preset", "request", "full"]
    centre: float | None = None
    """In the image's own units, Hounsfield in CT; null for a look-up table of the file."""
    width: float | None = None
    function: voi_window.Function | None = None
    """As DICOM defines them (PS3.3 C.11.2.1)."""


class Rendering(ApiModel):
    """How the file became an 8-bit RGB image; padding or cropping and resizing follow."""

    format: FileFormat
    colour: str
    """As stored: Pillow's mode, or DICOM's photometric interpretation."""
    frame: int
    """The one shown, from 0."""
    frames: int
    """Number of frames in the file."""
    steps: tuple[RenderingStep, ...]
    """What was done, in order: a palette applied; more than 8 bits of colour cut to the upper 8; DICOM's modality
    look-up table, rescaling, VOI look-up table, window, inversion; the camera's orientation undone; grey stretched
    from its minimum and maximum; transparency laid over black.

    And every repair: `meta_header_added`, a DICOM file without preamble, meta header or transfer syntax;
    `delimiter_added`, encapsulated frames without their end; `frame_count`, a wrong NumberOfFrames;
    `attribute_inferred`, a missing attribute that follows from others; `high_bit`, stored bits at an unusual place;
    `modality_lut_ignored`, `rescale_ignored`, `voi_lut_ignored`, `window_ignored`, attributes without usable values, or
    an angiogram's table from logarithms back to intensities;
    `rescale_completed`, one of slope and intercept missing; `sign_inferred`, `unused_bits`, a sign or bits of the
    values that contradict the header; `presentation_lut_ignored`, a presentation look-up table that contradicts the
    photometric interpretation; `lut_descriptor_corrected`, a table whose data are not as
    described; `decimal_comma`, a number with one; `voi_function_ignored`, an unknown function taken as LINEAR;
    `linear_exact`, a LINEAR width under 1; `padding_inferred`, undeclared padding in CT; `not_a_number`, such values
    made background; `pixel_aspect`, pixels made square by their spacing, or by unequal resolutions across and down;
    `pixel_aspect_ignored`, such resolutions that cannot be followed: contradictory, over 4 to 1, or a JPEG's without
    unit, which writers mean either way; `overlay_ignored`, `shutter_ignored`, `icc_profile_ignored`, present and not
    applied; `palette_ignored`, one of enhanced ultrasound; `real_world_values_ignored`, a mapping to units such as SUV
    that the values of windows are not in; `samples_ignored`, samples of a TIFF beyond its colours;
    `icc_profile`, colours brought to sRGB from the file's own ICC profile or a PNG's gAMA and cHRM; `end_marker_added`,
    a JPEG without one; `metadata_dropped`, a damaged chunk of a PNG; `low_bits`, 16-bit colour that holds fewer bits;
    `over_white`, a dark drawing on transparency laid over white.

    And what a DICOM frame is, where it is not simply an image: `subtraction_ignored`, an angiogram from which the file
    wants a mask subtracted; `segmentation`, a mask; `tile`, a part of a larger image; `localizer`, a scout view."""
    windows: tuple[AppliedWindow, ...]
    """One, or one each for red, green and blue; none for colours and for 8-bit grey without a window."""


class Windowing(ApiModel):
    """The range and the presets for a window of this frame."""

    smallest: float
    """Smallest value of the frame, in the image's own units."""
    largest: float
    presets: tuple[str, ...]
    """The names that `window` takes for this image; empty except for CT."""
