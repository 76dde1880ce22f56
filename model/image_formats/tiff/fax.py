"""Tell whether strips of fax data hold all rows of their page, and no more (ITU-T T.4 and T.6).

Other codes in place of its last ones change every strip that needs them; codes behind the last change none that is
whole. libtiff shows rows without codes white.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL.ExifTags import Base as Tag

from medmoe.model.errors import DamagedImageError
from medmoe.model.image_formats.raster_image import excess_error
from medmoe.model.image_formats.tiff.directory import TiffDirectory
from medmoe.model.image_formats.tiff.libtiff import decoded_strips, grey_tags

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
_ZEROS = "0" * 32
"""More than stand in or between codes, except in group 3, which fills up rows with zeros."""
_LAST_ZEROS = 3
"""Zeros at the end of a code."""


def check_strips(coded: Sequence[bytes], page: TiffDirectory, rows: int) -> None:
    """Check the strips of a page, of `rows` each, the last of the rest.

    Raises DamagedImageError, or what Pillow raises on damaged data.
    """
    width, height = page.size
    ends = [min((index + 1) * rows, height) for index in range(len(coded))]
    shown = _decoded(coded, page, width, height, rows)
    held = [_without_ends(strip, page) for strip in coded]
    # Rows that begin with the other colour than the last one: narrow rows would be alike.
    probes = [_probe(page, width, min(rows + 1, _ROWS), black=black) for black in (False, True)]
    behind = [probes[not shown[end - 1, 0]] for end in ends]
    if not all("1" in bits for bits in held) or (
        page.compression != GROUP_3 and any(_ZEROS in bits.rstrip("0") for bits in held)
    ):
        raise DamagedImageError("the image is damaged: zeros stand in place of rows of the fax page")
    if not all(_is_same(shown, probed, page, rows) for probed in _probed(coded, held, behind, page)):
        raise DamagedImageError("the image is damaged or truncated: rows of the fax page are missing")
    for index in {0, len(coded) - 1}:
        # Decoded alone, rows without codes do not show those of another strip.
        alone = _decoded([coded[index]], page, width, ends[index] - index * rows, rows)
        if _is_longer(alone, held[index], behind[index], page):
            raise excess_error()


def _probed(
    coded: Sequence[bytes], held: Sequence[str], behind: Sequence[str], page: TiffDirectory
) -> Iterator[list[str]]:
    """Yield the strips with a probe behind each, where they end in many zeros also behind a few more of these."""
    cut = [strip.endswith(bytes(len(_ZEROS) // 8)) for strip in coded]
    for more in range(8 if any(cut) else 1):
        filled = [bits + "0" * more * is_cut for bits, is_cut in zip(held, cut, strict=True)]
        if page.compression == RUN_LENGTH:
            filled = [bits + "0" * (-len(bits) % 8) for bits in filled]
        yield [bits + probe for bits, probe in zip(filled, behind, strict=True)]


def _is_longer(shown: np.ndarray, held: str, probe: str, page: TiffDirectory) -> bool:
    """Return whether a strip holds more than the rows that are shown of it."""
    # A cut within a code may show what was there: white rows, as libtiff shows rows that it cannot decode.
    last = max(len(held) - _LAST_BITS, 0)
    cuts: Sequence[int] = range(last, max(last - 4, -1), -1)
    if page.compression == GROUP_3:
        cuts = (held.rfind(_END_OF_LINE),)
    if min(cuts) >= 0 and all(_is_same(shown, [held[:cut] + probe], page, len(shown)) for cut in cuts):
        return True
    return page.compression == GROUP_3 and _is_wider(held, page)


def _is_wider(bits: str, page: TiffDirectory) -> bool:
    """Return whether rows that are coded without a reference to the row above have black behind the page's width."""
    _, *codes = bits.split(_END_OF_LINE)
    if page.fax_options & _TWO_DIMENSIONAL:
        codes = [code[1:] for code in codes if code[:1] == "1"]
    if not codes:
        return False
    width = page.size[0]
    alone = _as_bytes("".join(_END_OF_LINE + code for code in codes))
    shown = _decoded([alone], page, 2 * width, len(codes), len(codes), options=0)
    return bool(shown[:, width:].any())


def _is_same(shown: np.ndarray, strips: Sequence[str], page: TiffDirectory, rows: int) -> bool:
    """Return whether other codes show the same rows; they need not make sense."""
    height, width = shown.shape
    try:
        return np.array_equal(shown, _decoded([_as_bytes(bits) for bits in strips], page, width, height, rows))
    except OSError:
        return False


def _probe(page: TiffDirectory, width: int, rows: int, *, black: bool) -> str:
    """Return codes of rows that are striped, and begin with black or white."""
    codes = [_BLACK] * black + [_RUNS] * -(-(width - black) // 6)
    if page.compression == GROUP_4:
        return "".join(_HORIZONTAL + code for code in codes) * rows
    striped = "".join(codes)
    if page.compression == RUN_LENGTH:
        return (striped + "0" * (-len(striped) % 8)) * rows
    tag = "1" if page.fax_options & _TWO_DIMENSIONAL else ""
    return striped + (_END_OF_LINE + tag + striped) * rows


def _without_ends(coded: bytes, page: TiffDirectory) -> str:
    """Return the bits of a strip without the marks at its end."""
    bits = f"{int.from_bytes(coded, 'big'):0{8 * len(coded)}b}"
    end = len(bits.rstrip("0"))
    if page.compression == RUN_LENGTH:
        return bits[: end + _LAST_ZEROS]
    tagged = page.compression == GROUP_3 and page.fax_options & _TWO_DIMENSIONAL
    marks = (_END_OF_LINE, _END_OF_LINE + "1") if tagged else (_END_OF_LINE,)
    if not bits.endswith(marks, 0, end):
        # Zeros in place of codes would stop a decoder before what is put behind them.
        return bits[: end + _LAST_ZEROS] if bits.endswith(_ZEROS) else bits
    while bits.endswith(marks, 0, end):
        # Zeros before a mark may be of the code before it.
        end = bits.rindex(_END_OF_LINE, 0, end)
    return bits[:end]


def _as_bytes(bits: str) -> bytes:
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _decoded(
    coded: Sequence[bytes], page: TiffDirectory, width: int, height: int, rows: int, *, options: int | None = None
) -> np.ndarray:
    """Return which pixels are black."""
    tags = grey_tags(width, height, bits=1, compression=page.compression)
    if page.compression == GROUP_3:
        tags[Tag.T4Options] = (page.fax_options if options is None else options,)
    return decoded_strips(coded, tags, rows)
