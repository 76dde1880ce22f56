"""Name the layouts of a TIFF page that are not read, or that programs read in different ways."""

from medmoe.model.errors import ImageFormatError
from medmoe.model.image_formats.tiff.directory import TiffDirectory

_COMPRESSIONS = {
    22610: "JPEG XR", 34934: "JPEG XR", 34933: "PNG",
    33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG of a raw file",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_WITHOUT_PREDICTOR, _PREDICTED = (1, 32773), (5, 8, 32946, 34925, 50000)
_HORIZONTAL, _FLOATING = 2, 3
"""Predictors."""
_FLOAT = 3
_FLOAT_BITS, _WHOLE_BITS = (16, 32, 64), (8, 16, 32, 64)
_JPEG, _PALETTE, _INKS = 7, 3, 5
_IN_PLANES = (0, 1, 2, 5, 6)
"""Photometric interpretations of separate planes that are read."""


def require_layout(page: TiffDirectory) -> None:
    """Raise ImageFormatError for a compression, or for samples, that are not read or not understood."""
    name = _COMPRESSIONS.get(page.compression)
    if name is not None:
        raise ImageFormatError(f"TIFF with {name} compression is not read; convert the page with tiffcp or vips")
    if page.predictor != 1 and page.compression in _WITHOUT_PREDICTOR:
        raise ImageFormatError(
            "the TIFF announces a predictor beside a compression with which some programs apply it and others do not; "
            "save the page with LZW or Deflate compression"
        )
    if page.photometric < 0:
        raise ImageFormatError(
            "the TIFF has no photometric interpretation, without which nothing tells whether 0 is black or white; "
            "export the page anew"
        )
    if reason := _misread(page):
        raise ImageFormatError(f"TIFF {reason} are not read; convert the page to RGB with vips")


def _misread(page: TiffDirectory) -> str | None:
    """Return what libtiff or Pillow would misread, None for a page that they read."""
    if page.sample_format == 0:
        return "samples of different types"
    is_float = page.sample_format == _FLOAT
    if is_float and page.bits not in _FLOAT_BITS:
        return "floating-point samples of other than 16, 32 or 64 bits"
    if page.compression in _PREDICTED and page.predictor != 1:
        is_known = (
            page.bits in _WHOLE_BITS if page.predictor == _HORIZONTAL else page.predictor == _FLOATING and is_float
        )
        if not is_known:
            return "differences of samples of this depth"
    if page.photometric == _PALETTE and page.bits and len(page.palette) != 3 * 2**page.bits:
        return "palettes with fewer or more colours than their samples can name"
    if page.photometric == _INKS and not page.has_plain_inks:
        return "inks other than cyan, magenta, yellow and black"
    if page.separate_planes and page.photometric not in _IN_PLANES:
        return "planes of this photometric interpretation"
    if page.compression == _JPEG and page.bits > 8 and page.size[0] * page.samples % 2:
        # libtiff drops the last sample of a row.
        return "rows of an odd number of samples of over 8 bits in JPEG compression"
    return None
