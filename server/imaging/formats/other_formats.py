"""Name image and volume formats that are not read, each with a program that converts it."""

_SLICES = "save the slice as PNG, or its scan as DICOM files for POST /v1/series"
_TO_PNG = "convert it to PNG with ImageMagick"
_HEIF = "convert it to PNG with heif-convert (libheif)"
_JPEG_2000 = "convert it to PNG with opj_decompress (OpenJPEG); inside DICOM files it is read"
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"GIF8", "GIF", _TO_PNG),
    (4, b"ftypavi", "AVIF", _HEIF),
    (4, b"ftyphe", "HEIC", _HEIF),
    (4, b"ftypmif1", "HEIC", _HEIF),
    (4, b"ftypmsf1", "HEIC", _HEIF),
    (4, b"ftyp", "a video", "extract a frame with ffmpeg"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000", _JPEG_2000),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000", _JPEG_2000),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL", "convert it to PNG with djxl"),
    (0, b"\xff\x0a", "JPEG XL", "convert it to PNG with djxl"),
    (344, b"n+1\0", "a NIfTI volume", _SLICES),
    (344, b"ni1\0", "a NIfTI header", _SLICES),
    (4, b"n+2\0", "a NIfTI volume", _SLICES),
    (4, b"ni2\0", "a NIfTI header", _SLICES),
    (0, b"NRRD", "an NRRD volume", _SLICES),
    (0, b"ObjectType", "a MetaImage volume", _SLICES),
    (0, b"NDims", "a MetaImage volume", _SLICES),
    (0, b"\x5c\x01\x00\x00", "an Analyze header", _SLICES),
    (0, b"\x00\x00\x01\x5c", "an Analyze header", _SLICES),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _SLICES),
    (0, b"\x1f\x8b", "compressed with gzip", "unpack it with gunzip"),
    (0, b"PK\x03\x04", "a ZIP archive", "unpack it, or send a series in it to POST /v1/series"),
    (0, b"%PDF", "PDF", "convert a page to PNG with pdftoppm"),
    (0, b"8BPS", "a Photoshop document", _TO_PNG),
    (0, b"\x76\x2f\x31\x01", "OpenEXR", _TO_PNG),
    (0, b"<svg", "SVG", "render it as PNG"),
    *((0, b"P%d\n" % kind, "PNM", "convert it to PNG with pnmtopng (Netpbm)") for kind in range(1, 8)),
)
"""Offset and bytes, the format's name, and the way out; the first match counts."""


def unread_format(data: bytes) -> str | None:
    """Return the sentence that names the format and the way out, None for bytes of no format that is known here."""
    for offset, magic, name, way_out in _SIGNATURES:
        if data.startswith(magic, offset):
            return f"the file is {name}, which is not read; {way_out}"
    return None
