"""Apply a palette colour look-up table (PS3.3 C.7.6.3.1.5, C.7.9)."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from medmoe.server.errors import UnreadableImage
from medmoe.server.imaging.formats.dicom.attributes import code, get
from medmoe.server.imaging.formats.dicom.lut.lookup_table import read_descriptor, read_table

_COLOURS = ("Red", "Green", "Blue")
_COLOURED = ("COLOR", "MIXED")
"""Values of PixelPresentation of grey images that have pixels in colour."""


def apply_palette(stored: np.ndarray, dataset: Dataset, *, signed: bool) -> tuple[np.ndarray, int]:
    """Return uint8 or uint16 [rows, columns, 3] and the bits a colour that they hold.

    Raises UnreadableImage where the dataset has no palette.
    """
    tables = [
        read_table(
            dataset,
            descriptor=f"{colour}PaletteColorLookupTableDescriptor",
            data=f"{colour}PaletteColorLookupTableData",
            signed=signed,
        )
        for colour in _COLOURS
    ]
    found = [table for table in tables if table is not None]
    if len(found) == len(_COLOURS):
        # One number of bits for all: a palette without blue holds zeros.
        return np.stack([table(stored) for table in found], axis=-1), max(table.bits for table in found)
    if get(dataset, "SegmentedRedPaletteColorLookupTableData") is None:
        raise UnreadableImage("the DICOM image's colours have no palette (Palette Color Lookup Table)")
    return _segmented(stored, dataset, signed=signed)


def supplemental_colours(stored: np.ndarray, dataset: Dataset, *, signed: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Return uint8 colours [rows, columns, 3] of a grey image, and the mask of the pixels that have them.

    They are those from the first value that the supplemental palette maps (PS3.3 C.7.6.19). None without such pixels.
    Raises UnreadableImage where the palette holds no data.
    """
    described = read_descriptor(dataset, "RedPaletteColorLookupTableDescriptor", signed=signed)
    if code(dataset, "PixelPresentation") not in _COLOURED or described is None:
        return None
    coloured = np.asarray(stored >= described[1])
    if not coloured.any():
        return None
    colours, bits = apply_palette(stored, dataset, signed=signed)
    return (colours >> (bits - 8)).astype(np.uint8), coloured


def _segmented(stored: np.ndarray, dataset: Dataset, *, signed: bool) -> tuple[np.ndarray, int]:
    """Apply a segmented palette with pydicom, its descriptors' signedness corrected."""
    palette = Dataset()
    palette.file_meta = dataset.file_meta
    for colour in _COLOURS:
        descriptor = f"{colour}PaletteColorLookupTableDescriptor"
        setattr(palette, descriptor, read_descriptor(dataset, descriptor, signed=signed))
        segments = f"Segmented{colour}PaletteColorLookupTableData"
        setattr(palette, segments, get(dataset, segments))
    colours = apply_color_lut(stored.astype(np.int32), palette)
    return colours[..., :3], 8 * colours.dtype.itemsize
