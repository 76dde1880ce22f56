"""Tell whether a strip of fax data holds all rows of its page, and no more (ITU-T T.4 and T.6).

Other codes in place of its last ones change every strip that needs them; codes behind the last change none that is
whole. libtiff shows rows without codes white.
"""

from collections.abc import Sequence

import numpy as np
from PIL.ExifTags import Base as Tag

from medmoe.model.errors import DamagedImageError
from medmoe.model.image_formats.raster_image import excess_error
from medmoe.model.image_formats.tiff.directory import TiffDirectory
from medmoe.model.image_formats.tiff.libtiff import decoded_strip, grey_tags

RUN_LENGTH, GROUP_3, GROUP_4 = 2, 3, 4
"""Compressions; all are of one bit a pixel."""
_END_OF_LINE = "000000000001"
_RUNS, _BLACK = "101111", "00110101010"
"""Codes of four white pixels and two black ones, and of a black one alone."""
_HORIZONTAL = "001"
_TWO_DIMENSIONAL = 1
"""Bit of the options of group 3: the bit behind each end of line says how its row is coded."""
_ROWS = 8
_LAST_BITS = 32


def check_strip(coded: bytes, page: TiffDirectory, rows: int) -> None:
    """Check a strip that announces `rows`. Raises DamagedImageError, or what Pillow raises on damaged data."""
    width = page.size[0]
    if page.fill_order == 2:
        bits = np.unpackbits(np.frombuffer(coded, np.uint8), bitorder="little")
        coded = np.packbits(bits).tobytes()
    shown = _decoded(coded, page, width, rows)
    held = _without_ends(coded, page)
    # Rows that begin with the other colour than the last one: narrow rows would be alike.
    probe = _probe(page, width, black=not shown[-1, 0])
    if not _is_same(shown, held + probe, page):
        raise DamagedImageError("the image is damaged or truncated: rows of the fax page are missing")
    # A cut within a code may show what was there: white rows, as libtiff shows rows that it cannot decode.
    last = max(len(held) - _LAST_BITS, 0)
    cuts: Sequence[int] = range(last, max(last - 4, -1), -1)
    if page.compression == GROUP_3:
        cuts = (held.rfind(_END_OF_LINE),)
    if min(cuts) >= 0 and all(_is_same(shown, held[:cut] + probe, page) for cut in cuts):
        raise excess_error()
    if page.compression == GROUP_3 and _is_wider(held, page):
        raise excess_error()


def _is_wider(bits: str, page: TiffDirectory) -> bool:
    """Return whether rows that are coded without a reference to the row above have black behind the page's width."""
    _, *codes = bits.split(_END_OF_LINE)
    if page.fax_options & _TWO_DIMENSIONAL:
        codes = [code[1:] for code in codes if code[:1] == "1"]
    if not codes:
        return False
    width = page.size[0]
    alone = _as_bytes("".join(_END_OF_LINE + code for code in codes))
    return bool(_decoded(alone, page, 2 * width, len(codes), options=0)[:, width:].any())


def _is_same(shown: np.ndarray, bits: str, page: TiffDirectory) -> bool:
    """Return whether other codes show the same rows; they need not make sense."""
    try:
        return np.array_equal(shown, _decoded(_as_bytes(bits), page, shown.shape[1], len(shown)))
    except OSError:
        return False


def _probe(page: TiffDirectory, width: int, *, black: bool) -> str:
    """Return codes of rows that are striped, and begin with black or white."""
    codes = [_BLACK] * black + [_RUNS] * -(-(width - black) // 6)
    if page.compression == GROUP_4:
        return "".join(_HORIZONTAL + code for code in codes) * _ROWS
    striped = "".join(codes)
    if page.compression == RUN_LENGTH:
        return (striped + "0" * (-len(striped) % 8)) * _ROWS
    tag = "1" if page.fax_options & _TWO_DIMENSIONAL else ""
    return striped + (_END_OF_LINE + tag + striped) * _ROWS


def _without_ends(coded: bytes, page: TiffDirectory) -> str:
    """Return the bits of a strip without the marks at its end."""
    bits = f"{int.from_bytes(coded, 'big'):0{8 * len(coded)}b}"
    if page.compression == RUN_LENGTH:
        return bits
    tagged = page.compression == GROUP_3 and page.fax_options & _TWO_DIMENSIONAL
    marks = (_END_OF_LINE, _END_OF_LINE + "1") if tagged else (_END_OF_LINE,)
    end = len(bits.rstrip("0"))
    if not bits.endswith(marks, 0, end):
        return bits
    while bits.endswith(marks, 0, end):
        # Zeros before a mark may be of the code before it.
        end = bits.rindex(_END_OF_LINE, 0, end)
    return bits[:end]


def _as_bytes(bits: str) -> bytes:
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _decoded(coded: bytes, page: TiffDirectory, width: int, rows: int, *, options: int | None = None) -> np.ndarray:
    """Return which pixels are black."""
    tags = grey_tags(width, rows, bits=1, compression=page.compression)
    if page.compression == GROUP_3:
        tags[Tag.T4Options] = (page.fax_options if options is None else options,)
    return decoded_strip(coded, tags)
