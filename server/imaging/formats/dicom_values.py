"""Render the stored values of a DICOM frame: modality LUT, VOI window, photometric interpretation (PS3.4 N.2).

Values that no window limits stay numbers: the model room's `to_rgb` stretches them as it does those of a 16-bit PNG.
"""

from typing import Any, Literal

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi

from medmoe.model.image_processor import to_rgb
from medmoe.server.errors import InvalidField, UnreadableImage
from medmoe.server.imaging.formats.dicom_file import DicomFile
from medmoe.server.schemas.images import AppliedWindow, Rendering, RenderingStep, Windowing
from medmoe.server.schemas.voi_window import PRESETS, Channel, Function, Window, usable

_GREY = ("MONOCHROME1", "MONOCHROME2")
_MODALITY = ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept")
_VOI = ("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction")
_FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_FUNCTIONS: dict[str, Function] = {"LINEAR": "LINEAR", "LINEAR_EXACT": "LINEAR_EXACT", "SIGMOID": "SIGMOID"}


Shown = tuple[Image.Image, Rendering, Windowing | None]
"""An image for `convert`, how it was rendered, and for grey images what a window can be chosen from."""


def show(file: DicomFile, channels: tuple[Channel, ...]) -> Shown:
    """Decode the frame and render it, without channels as the file says.

    Raises InvalidField for a window that does not fit, UnreadableImage, or anything that pydicom raises.
    """
    grey = file.colour in _GREY
    if channels and not grey:
        raise InvalidField("only grey pictures have a window, and this one has colours", param="window")
    if any(channel.hounsfield for channel in channels) and not _is_ct(file):
        raise InvalidField("named windows are in Hounsfield units and this is no CT; send centre/width", param="window")
    decoder = get_decoder(file.transfer_syntax)
    stored, _ = decoder.as_array(file.dataset, index=file.frame, decoding_plugin=file.decoder)
    return _Grey(file, stored).show(channels) if grey else _colour(file, stored)


def _is_ct(file: DicomFile) -> bool:
    return bool(file.dataset.get("Modality") == "CT")


def apply_window(values: np.ndarray, window: Window) -> np.ndarray:
    """uint8 of the same shape: 0 below the window, 255 above it (PS3.3 C.11.2.1)."""
    scaled: np.ndarray = values.astype(np.float32)
    centre, width = window.centre, window.width
    if window.function == "SIGMOID":
        scaled -= centre
        scaled *= -4 / width
        np.exp(np.clip(scaled, -80, 80, out=scaled), out=scaled)
        scaled += 1
        np.divide(255, scaled, out=scaled)
    else:
        if window.function == "LINEAR":
            centre, width = centre - 0.5, width - 1
        scaled -= centre - width / 2
        # A width of nothing is a threshold.
        scaled *= 255 / max(width, 1e-6)
    np.rint(np.clip(scaled, 0, 255, out=scaled), out=scaled)
    shades: np.ndarray = scaled.astype(np.uint8)
    return shades


def _colour(file: DicomFile, stored: np.ndarray) -> Shown:
    steps: list[RenderingStep] = []
    bits = int(file.dataset.BitsStored)
    if file.colour == "PALETTE COLOR":
        steps.append("palette")
        stored = apply_color_lut(stored, file.dataset)[..., :3]
        bits = 8 * stored.dtype.itemsize
    if bits > 8:
        steps.append("high_byte")
        stored = stored >> (bits - 8)
    return Image.fromarray(np.ascontiguousarray(stored.astype(np.uint8))), _rendering(file, steps, []), None


def _rendering(file: DicomFile, steps: list[RenderingStep], windows: list[AppliedWindow]) -> Rendering:
    return Rendering(
        format="DICOM",
        colour=file.colour,
        frame=file.frame,
        frames=file.frames,
        steps=tuple(steps),
        windows=tuple(windows),
    )


class _Grey:
    """One frame of grey values on its way; notes what it does."""

    def __init__(self, file: DicomFile, stored: np.ndarray) -> None:
        self._file = file
        self._attributes = _frame_attributes(file)
        self._presets = tuple(PRESETS) if _is_ct(file) else ()
        self._inverted = file.colour == "MONOCHROME1"
        self._steps: list[RenderingStep] = []
        self._windows: list[AppliedWindow] = []
        padding = _padding(file.dataset, stored)
        values = apply_modality_lut(stored, self._attributes)
        if values is not stored:
            self._note("modality_lut" if self._attributes.get("ModalityLUTSequence") else "rescale")
        # As an 8-bit PNG of it would be: nothing to stretch.
        self._plain = values is stored and stored.dtype == np.uint8 and int(file.dataset.BitsStored) == 8
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise UnreadableImage("the DICOM picture holds values that are not numbers")
        if padding is not None and padding.any() and not padding.all():
            # Padding is background, whatever number stands for it.
            kept = values[~padding]
            values[padding] = kept.max() if self._inverted else kept.min()
        self._values = values

    def show(self, channels: tuple[Channel, ...]) -> Shown:
        asked = channels or (Channel(choice="file"),)
        images = [self._channel(channel) for channel in asked]
        if self._inverted:
            self._note("invert")
        image = images[0]
        if len(images) > 1:
            image = Image.merge("RGB", [to_rgb(one).getchannel(0) for one in images])
        windowing = Windowing(
            smallest=float(self._values.min()), largest=float(self._values.max()), presets=self._presets
        )
        return image, _rendering(self._file, self._steps, self._windows), windowing

    def _channel(self, channel: Channel) -> Image.Image:
        choice = channel.choice
        source: Literal["file", "preset", "request"]
        if choice == "file":
            if self._attributes.get("VOILUTSequence"):
                return self._looked_up()
            choice = self._own_window() or "full"
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

    def _looked_up(self) -> Image.Image:
        self._note("voi_lut")
        self._windows.append(AppliedWindow(source="file"))
        mapped = apply_voi(np.rint(self._values).astype(np.int32), self._attributes).astype(np.float32)
        mapped *= 255 / (2 ** int(self._attributes.VOILUTSequence[0].LUTDescriptor[2]) - 1)
        return self._image(np.rint(np.clip(mapped, 0, 255)).astype(np.uint8))

    def _image(self, shades: np.ndarray) -> Image.Image:
        return Image.fromarray(255 - shades if self._inverted else shades)

    def _own_window(self) -> Window | None:
        """The first that the file names, where it can be used."""
        centre, width = (_first(self._attributes.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
        if centre is None or width is None or not usable(centre, width):
            return None
        function = _FUNCTIONS.get(str(self._attributes.get("VOILUTFunction") or "LINEAR").upper(), "LINEAR")
        # LINEAR has no meaning under a width of 1, which pictures of small values nevertheless have.
        return Window(centre=centre, width=width, function="LINEAR_EXACT" if width < 1 else function)

    def _note(self, step: RenderingStep) -> None:
        if step not in self._steps:
            self._steps.append(step)


def _frame_attributes(file: DicomFile) -> Dataset:
    """What says how this frame's values are shown: the file's own attributes, overlaid by the frame's groups."""
    found = Dataset()
    found.file_meta = file.dataset.file_meta
    sources = [file.dataset]
    groups = list(file.dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    groups += list(file.dataset.get("PerFrameFunctionalGroupsSequence") or [])[file.frame : file.frame + 1]
    for group in groups:
        sources += [item for name in _FRAME_GROUPS for item in list(group.get(name) or [])[:1]]
    for source in sources:
        for keyword in (*_MODALITY, *_VOI):
            if source.get(keyword) not in (None, ""):
                found[keyword] = source[keyword]
    return found


def _padding(dataset: Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Where the picture holds no data (PS3.3 C.7.5.1.1.2)."""
    first = _first(dataset.get("PixelPaddingValue"))
    if first is None:
        return None
    last = _first(dataset.get("PixelPaddingRangeLimit"))
    low, high = sorted((first, first if last is None else last))
    inside: np.ndarray = (stored >= low) & (stored <= high)
    return inside


def _first(value: Any) -> float | None:
    """The first of one or several numbers; None for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        return float(value[0])
    except (TypeError, ValueError, LookupError):
        return None
