"""Name the layouts of a TIFF page that are not read, or that programs read in different ways."""

from medmoe.model.errors import ImageFormatError
from medmoe.model.image_formats.tiff.directory import TiffDirectory

_COMPRESSIONS = {
    22610: "JPEG XR", 34934: "JPEG XR", 34933: "PNG",
    33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG of a raw file",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_WITHOUT_PREDICTOR = (1, 32773)
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
