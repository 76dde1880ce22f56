"""Apply a palette colour look-up table (PS3.3 C.7.6.3.1.5, C.7.9)."""

import numpy as np
from pydicom.dataset import Dataset

from medmoe.server.errors import UnreadableImage
from medmoe.server.imaging.formats.dicom.attributes import code
from medmoe.server.imaging.formats.dicom.lut.lookup_table import LookupTable, read_descriptor, read_table
from medmoe.server.imaging.formats.dicom.lut.segmented_table import read_segmented_table

_COLOURS = ("Red", "Green", "Blue")
_COLOURED = ("COLOR", "MIXED")
"""Values of PixelPresentation of grey images that have pixels in colour."""


def apply_palette(stored: np.ndarray, dataset: Dataset, *, signed: bool) -> tuple[np.ndarray, int, bool]:
    """Return uint16 [rows, columns, 3], the bits a colour that they hold, and whether the descriptors were corrected.

    Raises UnreadableImage where the dataset has no palette, or a damaged one.
    """
    tables = [_table(dataset, colour, signed=signed) for colour in _COLOURS]
    found = [table for table in tables if table is not None]
    if len(found) < len(_COLOURS):
        raise UnreadableImage("the DICOM image's colours have no palette (Palette Color Lookup Table)")
    # One number of bits for all: a palette without blue holds zeros.
    bits = max(table.bits for table in found)
    repaired = any(table.repaired for table in found if table.bits == bits)
    return np.stack([table(stored) for table in found], axis=-1), bits, repaired


def supplemental_colours(
    stored: np.ndarray, dataset: Dataset, *, signed: bool
) -> tuple[np.ndarray, np.ndarray, bool] | None:
    """Return uint8 colours [rows, columns, 3] of a grey image, the mask of the pixels that have them, and `repaired`.

    They are those from the first value that the supplemental palette maps (PS3.3 C.7.6.19). None without such pixels.
    Raises UnreadableImage where the palette holds no data, or is damaged.
    """
    described = read_descriptor(dataset, "RedPaletteColorLookupTableDescriptor", signed=signed)
    if code(dataset, "PixelPresentation") not in _COLOURED or described is None:
        return None
    coloured = np.asarray(stored >= described[1])
    if not coloured.any():
        return None
    colours, bits, repaired = apply_palette(stored, dataset, signed=signed)
    return (colours >> (bits - 8)).astype(np.uint8), coloured, repaired


def _table(dataset: Dataset, colour: str, *, signed: bool) -> LookupTable | None:
    descriptor, data = (f"{colour}PaletteColorLookupTable{name}" for name in ("Descriptor", "Data"))
    table = read_table(dataset, descriptor=descriptor, data=data, signed=signed)
    if table is not None:
        return table
    return read_segmented_table(dataset, descriptor=descriptor, data=f"Segmented{data}", signed=signed)
