"""Render the stored values of a DICOM frame in the order of the standard (PS3.4 N.2).

Values that no window limits stay numbers: the model room's `convert` stretches them as it does those of a 16-bit PNG.
"""

from typing import Literal

import numpy as np
from PIL import Image

from medmoe.model.image_formats.no_data import no_data
from medmoe.model.image_processor import convert, to_rgb
from medmoe.server.errors import InvalidField, UnreadableImage
from medmoe.server.imaging.formats.dicom.attributes import code, get, sequence
from medmoe.server.imaging.formats.dicom.bit_geometry import StoredValues
from medmoe.server.imaging.formats.dicom.file import DicomFile
from medmoe.server.imaging.formats.dicom.image_kind import kind_steps
from medmoe.server.imaging.formats.dicom.lut.frame_attributes import (
    check_frames,
    frame_attributes,
    ignores_modality_lut,
)
from medmoe.server.imaging.formats.dicom.lut.modality_lut import apply_modality
from medmoe.server.imaging.formats.dicom.lut.palette import apply_palette, supplemental_colours
from medmoe.server.imaging.formats.dicom.lut.voi_lut import apply_table, apply_window, file_table, file_window
from medmoe.server.imaging.formats.dicom.padding import declared_padding, undeclared_padding
from medmoe.server.imaging.formats.dicom.pixel_data import decode_frame
from medmoe.server.schemas.images import AppliedWindow, Rendering, RenderingStep, Windowing
from medmoe.server.schemas.voi_window import PRESETS, Channel

_GREY = ("MONOCHROME1", "MONOCHROME2")
_PATH = "OpticalPathIdentifier"
_STEPS = 2**16
"""Steps of float32 between the smallest and the largest value."""

Shown = tuple[Image.Image, Rendering, Windowing | None]
"""An image for `convert`, how it was rendered, and for grey images what a window can be chosen from."""


def show(file: DicomFile, channels: tuple[Channel, ...]) -> Shown:
    """Decode the frame and render it, without channels as the file says.

    Raises InvalidField for a window that does not fit, UnreadableImage, or anything that pydicom raises.
    """
    grey = file.colour in _GREY
    if channels and not grey:
        raise InvalidField("only grey images have a window, and this one has colours", param="window")
    if any(channel.hounsfield for channel in channels) and code(file.dataset, "Modality") != "CT":
        raise InvalidField("named windows are in Hounsfield units and this is no CT; send centre/width", param="window")
    stored = decode_frame(file)
    return _Grey(file, stored).show(channels) if grey else _colour(file, stored)


def _colour(file: DicomFile, stored: StoredValues) -> Shown:
    steps = [*file.repairs, *stored.steps]
    values, bits = stored.values, stored.bits
    if file.colour == "PALETTE COLOR":
        steps.append("palette")
        values, bits, repaired = apply_palette(values, file.dataset, signed=stored.signed)
        if repaired:
            steps.append("lut_descriptor_corrected")
    held = int(values.max()).bit_length()
    if bits == 16 and held <= 14:
        steps.append("low_bits")
        values = values >> (max(held, 8) - 8)
    elif bits > 8:
        steps.append("high_byte")
        values = values >> (bits - 8)
    elif bits < 8 and held <= bits:
        steps.append("low_bits")
        values = np.rint(values * (255 / (2**bits - 1)))
    shades = np.ascontiguousarray(np.clip(values, 0, 255).astype(np.uint8))
    image = Image.fromarray(shades, "YCbCr").convert("RGB") if stored.ybr else Image.fromarray(shades)
    profiles = _colour_profiles(file)
    if len(profiles) == 1:
        # `convert` applies it.
        (image.info["icc_profile"],) = profiles
    elif profiles:
        steps.append("icc_profile_ignored")
    return image, _rendering(file, steps, []), None


def _colour_profiles(file: DicomFile) -> set[bytes]:
    """Return the ICC profiles that may be the frame's: the file's own, or those of the optical paths of a slide.

    There are several where nothing tells the path of the frame.
    """
    paths = sequence(file.dataset, "OpticalPathSequence")
    named = file.functional_group("OpticalPathIdentificationSequence")
    of_frame = [path for path in paths if named and code(path, _PATH) == code(named, _PATH)]
    sources = [file.dataset] if get(file.dataset, "ICCProfile") else of_frame or paths
    return {profile for source in sources if isinstance(profile := get(source, "ICCProfile"), bytes)}


def _rendering(file: DicomFile, steps: list[RenderingStep], windows: list[AppliedWindow]) -> Rendering:
    return Rendering(
        format="DICOM",
        colour=file.colour,
        frame=file.frame,
        frames=file.frames,
        steps=(*steps, *kind_steps(file)),
        windows=tuple(windows),
    )


def _compact(values: np.ndarray) -> np.ndarray:
    """Return float64 as float32, unless the values lie so close together that they would become equal."""
    if values.dtype != np.float64:
        return values
    compact = values.astype(np.float32)
    return compact if np.spacing(np.abs(compact).max()) * _STEPS <= np.ptp(values) else values


class _Grey:
    """Renders one frame of grey values and notes each step."""

    def __init__(self, file: DicomFile, stored: StoredValues) -> None:
        self._file = file
        check_frames(file.dataset, file.frames)
        self._attributes = frame_attributes(file.dataset, file.functional_groups)
        self._inverted = file.colour == "MONOCHROME1"
        self._steps: list[RenderingStep] = [*file.repairs, *stored.steps]
        self._windows: list[AppliedWindow] = []
        padding = declared_padding(
            stored.values,
            file.dataset,
            bits=stored.bits,
            signed=stored.signed,
            lossy=file.lossy,
            cut="unused_bits" in stored.steps,
        )
        modality = apply_modality(
            stored.values,
            self._attributes,
            modality=code(file.dataset, "Modality"),
            bits=stored.bits,
            signed=stored.signed,
            ignored=ignores_modality_lut(file.dataset),
        )
        values = modality.values
        self._steps += modality.steps
        self._lowest = modality.lowest
        self.hounsfield = modality.hounsfield
        # As an 8-bit PNG of it would be: nothing to stretch.
        self._plain = values is stored.values and not stored.signed and stored.bits == 8
        self._colours = supplemental_colours(stored.values, file.dataset, signed=stored.signed)
        apart = [mask for mask in (padding, self._colours[1] if self._colours else None) if mask is not None]
        found = self._without(values, np.logical_or.reduce(apart) if apart else np.zeros(values.shape, bool))
        self._values = _compact(found)
        # Padding that is darker than all data stays as dark where a window or a table shows it.
        self._shown = self._values
        if padding is not None and padding.any():
            darker = np.fmax(found, values) if self._inverted else np.fmin(found, values)
            self._shown = np.where(padding, darker, found).astype(self._values.dtype)

    def _without(self, values: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """Return `values` with those of no data made background, whatever number stands for it."""
        if self.hounsfield and (outside := undeclared_padding(values) & ~hidden).any():
            self._note("padding_inferred")
            hidden = hidden | outside
        if values.dtype.kind == "f":
            if np.isinf(values[~hidden]).any():
                raise UnreadableImage("the DICOM image holds values that are not numbers")
            if (unknown := no_data(values) & ~hidden).any():
                self._note("not_a_number")
                hidden = hidden | unknown
                if hidden.all():
                    raise UnreadableImage("the DICOM image holds values that are not numbers")
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
        shape = code(self._file.dataset, "PresentationLUTShape")
        contradicted = shape == ("IDENTITY" if self._inverted else "INVERSE")
        if contradicted or get(self._file.dataset, "PresentationLUTSequence") is not None:
            self._note("presentation_lut_ignored")
        if self._inverted:
            self._note("invert")
        image = images[0]
        if len(images) > 1:
            image = Image.merge("RGB", [to_rgb(one).getchannel(0) for one in images])
        if self._colours is not None:
            image = self._in_colours(image, *self._colours)
        windowing = Windowing(
            smallest=float(self._values.min()),
            largest=float(self._values.max()),
            presets=tuple(PRESETS) if self.hounsfield else (),
        )
        return image, _rendering(self._file, self._steps, self._windows), windowing

    def _in_colours(self, image: Image.Image, colours: np.ndarray, coloured: np.ndarray, repaired: bool) -> Image.Image:
        grey, steps = convert(image)
        for step in steps:
            self._note(step)
        self._note("palette")
        if repaired:
            self._note("lut_descriptor_corrected")
        return Image.fromarray(np.where(coloured[..., None], colours, np.asarray(grey)))

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
                return self._image(self._shown.astype(np.uint8))
            source = "file"
        else:
            source = "preset" if channel.hounsfield else "request"
        if choice == "full":
            return self._full()
        self._note("window")
        self._windows.append(
            AppliedWindow(source=source, centre=choice.centre, width=choice.width, function=choice.function)
        )
        return self._image(apply_window(self._shown, choice))

    def _full(self) -> Image.Image:
        low, high = float(self._values.min()), float(self._values.max())
        self._windows.append(
            AppliedWindow(source="full", centre=(low + high) / 2, width=high - low, function="LINEAR_EXACT")
        )
        # From the smallest on: of 32 bits a float32 holds 24.
        kind = np.float64 if self._values.dtype.itemsize > 2 else np.float32
        values = np.asarray(np.subtract(self._values, low, dtype=kind), np.float32)
        return Image.fromarray(-values if self._inverted else values)

    def _looked_up(self) -> Image.Image | None:
        """Return the image through the file's VOI LUT, None where it has none that holds data."""
        if get(self._attributes, "VOILUTSequence") is None:
            return None
        table = file_table(self._attributes, lowest=self._lowest)
        if table is None:
            self._note("voi_lut_ignored")
            return None
        if table.repaired:
            self._note("lut_descriptor_corrected")
        self._note("voi_lut")
        self._windows.append(AppliedWindow(source="file"))
        return self._image(apply_table(self._shown, table))

    def _image(self, shades: np.ndarray) -> Image.Image:
        return Image.fromarray(255 - shades if self._inverted else shades)

    def _note(self, step: RenderingStep) -> None:
        if step not in self._steps:
            self._steps.append(step)
