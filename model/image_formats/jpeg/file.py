"""Tell whether a JPEG holds all its scan data, and no more: libjpeg fills what is missing with grey, silently."""

import io
import re
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from medmoe.model.errors import DamagedImageError, ImageFormatError
from medmoe.model.image_formats.jpeg.segments import (
    BASELINE_OR_EXTENDED,
    END,
    LOSSLESS,
    PROGRESSIVE,
    FrameHeader,
    Scan,
    frame_header,
    has_end,
    scans,
)
from medmoe.model.image_formats.raster_image import excess_error

_RESTART = re.compile(rb"(\xff+[\xd0-\xd7])")
"""A marker between two intervals, with fill bytes before it (T.81, B.1.1.2)."""
# Entropy-coded data of two kinds: a decoder that needs more data than there are reads them, to two images.
_PROBES = (b"\x00" * 512, b"\x5a\xa5\x3c\xc3" * 128)
_LAST_PROBE = b"\xe7\x81\x1b\xf9" * 128
_SHORT = 32
"""Bytes of a probe behind an interval."""
_LAST, _LAST_OF_MANY = 4, 8
"""Bytes without which the last block of a scan is not whole: of the only scan, of the first of several."""


class JpegFile(io.BytesIO):
    """A JPEG file for Pillow that notes whether its scan was needed to the end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._scans = list(scans(data))
        self._begun, end = (self._scans[0].begin, self._scans[0].end) if self._scans else (len(data), len(data))
        self._single = end == len(data) or data[end : end + 2] == END
        self._held = len(data[:end].rstrip(b"\0\xff")) - (_LAST if self._single else _LAST_OF_MANY)
        self._needed = self._held <= self._begun

    def read(self, size: int | None = -1, /) -> bytes:
        """Return what io.BytesIO would, but stop once before the end of the scan."""
        at = self.tell()
        if at >= self._held:
            self._needed = True
        elif size is None or not 0 <= size <= self._held - at:
            size = self._held - at
        return super().read(size)

    def has_excess(self) -> bool:
        """Return whether the scan holds more blocks than the size in the header takes. Ask it after decoding.

        Such a size crops or shears the image.
        """
        if self._single:
            return not self._needed
        # Pillow reads the scans of such a file to the end before it decodes any.
        first = self.getvalue()[: self._held].rstrip(b"\xff")
        if _RESTART.search(first, self._begun):
            # `is_whole` counts intervals.
            return False
        seen = {_decoded(first + probe + END) for probe in _PROBES}
        return len(seen) == 1 and _decoded(first + _LAST_PROBE + END) in seen

    def is_whole(self, *, detailed: bool = False) -> bool:
        """Return whether every block of every scan is in the file; True for what Pillow does not decode.

        Data that follow the last block of a scan do not change an image. If the image differs by what follows, blocks
        are missing. Where the last block is known to be `detailed`, the only interval of an only scan is whole.
        """
        data, frame = self.getvalue(), frame_header(self.getvalue())
        if frame is None:
            return True
        if self._scans and _has_lost_data(data, self._scans[0].header, frame):
            return False
        if frame.marker not in (*BASELINE_OR_EXTENDED, PROGRESSIVE) or frame.precision != 8:
            return True
        if not self._scans or not all(_has_all_restarts(data, frame, scan) for scan in self._scans):
            return False
        if frame.marker == PROGRESSIVE and not _has_all_bits(frame, self._scans):
            return False
        if detailed and len(self._scans) == 1 and not self._scans[0].interval:
            return True
        try:
            seen = [_decoded(_probed(data, self._scans, probe)) for probe in _PROBES]
        except OSError:
            return False
        return seen[0] == seen[1]


def check_decoded(file: JpegFile, opened: Image.Image) -> None:
    """Raise DamagedImageError where the file holds less or more than the image that Pillow decoded from it.

    Raises ImageFormatError for inks that may be stored inverted or not.
    """
    if not opened.tell() and file.has_excess():
        raise excess_error()
    # A later image of a multi-picture file begins where Pillow has found it.
    if begin := getattr(opened, "offset", 0):
        file = JpegFile(file.getvalue()[begin:])
    # Blocks that are missing are flat: a last block with detail was decoded. Chroma of the blocks beside it may reach
    # into its first row and column.
    left, top = (edge - 1 - (edge - 1) % 8 + ((edge - 1) % 8 > 0) for edge in opened.size)
    corner = np.asarray(opened.crop((left, top, *opened.size)))
    if not file.is_whole(detailed=bool((corner != corner[-1, -1]).any())):
        raise DamagedImageError("the image is damaged or truncated: scan data of the JPEG are missing")
    if opened.mode == "CMYK" and "adobe" not in opened.info:
        raise ImageFormatError(
            "the CMYK JPEG lacks the Adobe marker, without which nothing tells whether its inks are stored inverted; "
            "save the image as RGB"
        )


def _has_lost_data(data: bytes, start: int, frame: FrameHeader) -> bool:
    """Return whether zeros stand in place of scan data from `start` on.

    A flat image may be coded in zeros, of a bit or two for each block or, in a lossless JPEG, for each pixel.
    """
    width, height = frame.width, frame.height
    units = width * height if frame.marker in LOSSLESS else -(-width // 8) * -(-height // 8)
    end = data.rfind(END) if has_end(data) else len(data)
    most = max(64, units * len(frame.components) * 2 // 8)
    return bytes(most + 1) in data[start:end]


def _has_all_restarts(data: bytes, frame: FrameHeader, scan: Scan) -> bool:
    """Return whether a scan has the restart markers that its size and interval take, in their order."""
    if not scan.interval:
        return True
    found = [marker[-1] & 7 for marker in _RESTART.findall(data, scan.begin, scan.end)]
    factors = {identifier: sampling for identifier, *sampling in frame.components}
    across, down = (8 * max(sampling[axis] for sampling in factors.values()) for axis in (0, 1))
    if len(scan.components) == 1 and scan.components[0] in factors:
        # A scan of one component has units of one block, and only those that the component needs.
        own = factors[scan.components[0]]
        across, down = across // max(own[0], 1), down // max(own[1], 1)
    units: int = -(-frame.width // across) * -(-frame.height // down)
    needed = -(-units // scan.interval) - 1
    # Some writers put a marker behind the last interval too.
    return len(found) in (needed, needed + 1) and found == [index % 8 for index in range(len(found))]


def _has_all_bits(frame: FrameHeader, progressive: Sequence[Scan]) -> bool:
    """Return whether progressive scans code all bits of all coefficients, each scan those before the next."""
    left = {identifier: [0] * 64 for identifier, _, _ in frame.components}
    begun = {name: [False] * 64 for name in left}
    for scan in progressive:
        for name in scan.components:
            for at in range(scan.first, scan.last + 1):
                if name not in left or scan.high != left[name][at] or begun[name][at] != bool(scan.high):
                    return False
                left[name][at], begun[name][at] = scan.low, True
    return all(map(all, begun.values())) and not any(map(any, left.values()))


def _probed(data: bytes, scans: list[Scan], probe: bytes) -> bytes:
    """Return the file with a probe behind each interval and each scan."""
    parts, at = [], 0
    for scan in scans:
        *intervals, last = _RESTART.split(data[scan.begin : scan.end])
        parts.append(data[at : scan.begin])
        parts += [part if index % 2 else part + probe[:_SHORT] for index, part in enumerate(intervals)]
        parts.append((last if scan.end < len(data) else last.rstrip(b"\0")).rstrip(b"\xff") + probe)
        at = scan.end
    return b"".join(parts) + END


def with_probe(data: bytes) -> bytes:
    """Return the stream with entropy-coded data before its end, which change no image that is whole."""
    return _without_end(data) + _PROBES[1] + END


def with_other_ends(data: bytes) -> Iterator[bytes]:
    """Yield the stream with other entropy-coded data in place of its last, which change every image that needs them."""
    kept = _without_end(data).rstrip(b"\0\xff")[:-_LAST_OF_MANY].rstrip(b"\xff")
    for probe in (*_PROBES, _LAST_PROBE):
        yield kept + probe + END


def _without_end(data: bytes) -> bytes:
    """Return the data up to the end marker, or to the zeros that a file without one ends in."""
    body = data[: data.rfind(END)] if has_end(data) else data.rstrip(b"\0")
    # Fill bytes before a marker (T.81, B.1.1.2) would make a marker of what is put behind them.
    return body.rstrip(b"\xff")


def _decoded(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if not image.info.get("progressive"):
            # A scale of 1/8 decodes every block and spares the transform; of a progressive file it skips scans.
            image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
        return image.tobytes()
