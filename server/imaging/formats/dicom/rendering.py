"""Render the stored values of a DICOM frame in the order of the standard (PS3.4 N.2).

Values that no window limits stay numbers: the model room's `convert` stretches them as it does those of a 16-bit PNG.
"""

from typing import Literal

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from medmoe.model.image_processor import to_rgb
from medmoe.server.errors import InvalidField, UnreadableImage
from medmoe.server.imaging.formats.dicom.attributes import code, get
from medmoe.server.imaging.formats.dicom.file import DicomFile
from medmoe.server.imaging.formats.dicom.modality_lut import apply_modality
from medmoe.server.imaging.formats.dicom.padding import declared_padding, undeclared_padding
from medmoe.server.imaging.formats.dicom.palette import apply_palette
from medmoe.server.imaging.formats.dicom.pixel_data import decode_frame
from medmoe.server.imaging.formats.dicom.voi_lut import apply_table, apply_window, file_table, file_window
from medmoe.server.schemas.images import AppliedWindow, Rendering, RenderingStep, Windowing
from medmoe.server.schemas.voi_window import PRESETS, Channel

_GREY = ("MONOCHROME1", "MONOCHROME2")
_ATTRIBUTES = (
    "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "RescaleType",
    "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
)  # fmt: skip
_FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)

Shown = tuple[Image.Image, Rendering, Windowing | None]
"""An image for `convert`, how it was rendered, and for grey images what a window can be chosen from."""


def show(file: DicomFile, channels: tuple[Channel, ...]) -> Shown:
    """Decode the frame and render it, without channels as the file says.

    Raises InvalidField for a window that does not fit, UnreadableImage, or anything that pydicom raises.
    """
    grey = file.colour in _GREY
    if channels and not grey:
        raise InvalidField("only grey pictures have a window, and this one has colours", param="window")
    if any(channel.hounsfield for channel in channels) and code(file.dataset, "Modality") != "CT":
        raise InvalidField("named windows are in Hounsfield units and this is no CT; send centre/width", param="window")
    stored = decode_frame(file)
    return _Grey(file, stored).show(channels) if grey else _colour(file, stored)


def _colour(file: DicomFile, stored: np.ndarray) -> Shown:
    steps = list(file.repairs)
    bits = file.bits_stored
    if file.colour == "PALETTE COLOR":
        steps.append("palette")
        stored, bits = apply_palette(stored, file.dataset, signed=file.signed, big_endian=file.big_endian)
    if bits > 8:
        steps.append("high_byte")
        stored = stored >> (bits - 8)
    if get(file.dataset, "ICCProfile") is not None and code(file.dataset, "ColorSpace") not in ("", "SRGB"):
        steps.append("icc_profile_ignored")
    image = Image.fromarray(np.ascontiguousarray(np.clip(stored, 0, 255).astype(np.uint8)))
    return image, _rendering(file, steps, []), None


def _rendering(file: DicomFile, steps: list[RenderingStep], windows: list[AppliedWindow]) -> Rendering:
    if any((group, 0x3000) in file.dataset for group in _OVERLAY_GROUPS):
        steps.append("overlay_ignored")
    return Rendering(
        format="DICOM",
        colour=file.colour,
        frame=file.frame,
        frames=file.frames,
        steps=tuple(steps),
        windows=tuple(windows),
    )


class _Grey:
    """Renders one frame of grey values and notes each step."""

    def __init__(self, file: DicomFile, stored: np.ndarray) -> None:
        self._file = file
        self._attributes = _frame_attributes(file)
        self._inverted = file.colour == "MONOCHROME1"
        self._steps: list[RenderingStep] = list(file.repairs)
        self._windows: list[AppliedWindow] = []
        kind = {"bits": file.bits_stored, "signed": file.signed, "big_endian": file.big_endian}
        padding = declared_padding(stored, file.dataset, lossy=file.lossy, **kind)  # type: ignore[arg-type]
        modality = apply_modality(
            stored, self._attributes, modality=code(file.dataset, "Modality"), **kind  # type: ignore[arg-type]
        )  # fmt: skip
        values = modality.values
        self._steps += modality.steps
        self._lowest = modality.lowest
        self.hounsfield = modality.hounsfield
        # As an 8-bit PNG of it would be: nothing to stretch.
        self._plain = values is stored and stored.dtype == np.uint8 and file.bits_stored == 8
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        self._values = self._without(values, padding)

    def _without(self, values: np.ndarray, padding: np.ndarray | None) -> np.ndarray:
        """Return `values` with those of no data made background, whatever number stands for it."""
        hidden = np.zeros(values.shape, bool) if padding is None else padding
        if self.hounsfield and (outside := undeclared_padding(values) & ~hidden).any():
            self._note("padding_inferred")
            hidden = hidden | outside
        if values.dtype.kind == "f":
            if np.isinf(values[~hidden]).any():
                raise UnreadableImage("the DICOM picture holds values that are not numbers")
            if (unknown := np.isnan(values)).any():
                self._note("not_a_number")
                hidden = hidden | unknown
                if hidden.all():
                    raise UnreadableImage("the DICOM picture holds values that are not numbers")
        if hidden.any() and not hidden.all():
            kept = values[~hidden]
            values = values.copy()
            values[hidden] = kept.max() if self._inverted else kept.min()
        return values

    def show(self, channels: tuple[Channel, ...]) -> Shown:
        if any(channel.hounsfield for channel in channels) and not self.hounsfield:
            raise InvalidField(
                "named windows are in Hounsfield units and this CT's values are not: it has no rescaling to HU; send "
                "centre/width",
                param="window",
            )
        asked = channels or (Channel(choice="file"),)
        images = [self._channel(channel) for channel in asked]
        if self._inverted:
            self._note("invert")
        image = images[0]
        if len(images) > 1:
            image = Image.merge("RGB", [to_rgb(one).getchannel(0) for one in images])
        windowing = Windowing(
            smallest=float(self._values.min()),
            largest=float(self._values.max()),
            presets=tuple(PRESETS) if self.hounsfield else (),
        )
        return image, _rendering(self._file, self._steps, self._windows), windowing

    def _channel(self, channel: Channel) -> Image.Image:
        choice = channel.choice
        source: Literal["file", "preset", "request"]
        if choice == "file":
            if (image := self._looked_up()) is not None:
                return image
            window, steps = file_window(self._attributes)
            for step in steps:
                self._note(step)
            choice = window or "full"
            if choice == "full" and self._plain:
                return self._image(self._values)
            source = "file"
        else:
            source = "preset" if channel.hounsfield else "request"
        if choice == "full":
            return self._full()
        self._note("window")
        self._windows.append(
            AppliedWindow(source=source, centre=choice.centre, width=choice.width, function=choice.function)
        )
        return self._image(apply_window(self._values, choice))

    def _full(self) -> Image.Image:
        low, high = float(self._values.min()), float(self._values.max())
        self._windows.append(
            AppliedWindow(source="full", centre=(low + high) / 2, width=high - low, function="LINEAR_EXACT")
        )
        values = self._values.astype(np.float32)
        return Image.fromarray(-values if self._inverted else values)

    def _looked_up(self) -> Image.Image | None:
        """Return the image through the file's VOI LUT, None where it has none that holds data."""
        if get(self._attributes, "VOILUTSequence") is None:
            return None
        table = file_table(self._attributes, lowest=self._lowest, big_endian=self._file.big_endian)
        if table is None:
            self._note("voi_lut_ignored")
            return None
        if table.repaired:
            self._note("lut_descriptor_corrected")
        self._note("voi_lut")
        self._windows.append(AppliedWindow(source="file"))
        return self._image(apply_table(self._values, table))

    def _image(self, shades: np.ndarray) -> Image.Image:
        return Image.fromarray(255 - shades if self._inverted else shades)

    def _note(self, step: RenderingStep) -> None:
        if step not in self._steps:
            self._steps.append(step)


def _frame_attributes(file: DicomFile) -> Dataset:
    """Return what says how this frame's values are shown: the file's attributes, overlaid by the frame's groups."""
    found = Dataset()
    found.file_meta = file.dataset.file_meta
    sources = [file.dataset]
    groups = list(get(file.dataset, "SharedFunctionalGroupsSequence") or [])[:1]
    groups += list(get(file.dataset, "PerFrameFunctionalGroupsSequence") or [])[file.frame : file.frame + 1]
    for group in groups:
        sources += [item for name in _FRAME_GROUPS for item in list(get(group, name) or [])[:1]]
    for source in sources:
        for keyword in _ATTRIBUTES:
            if get(source, keyword) is not None:
                found[keyword] = source[keyword]
    return found
