"""Tell whether a JPEG holds all its scan data, and no more: libjpeg fills what is missing with grey, silently."""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from medmoe.model.image_formats.no_data import has_lost_bytes

_END = b"\xff\xd9"
_SCAN = 0xDA
_BASELINE_OR_EXTENDED, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_LOSSLESS = (0xC3, 0xF7)
_PROBED = (*_BASELINE_OR_EXTENDED, _PROGRESSIVE)
"""Frames that Pillow decodes where samples have 8 bits."""
_FRAMES = (*_BASELINE_OR_EXTENDED, _PROGRESSIVE, *_LOSSLESS, 0xC9, 0xCA)
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_UNUSUAL = {
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "arithmetic-coded JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7), "hierarchical JPEG"), 0xC3: "lossless JPEG", 0xF7: "JPEG-LS",
}  # fmt: skip
"""Codings of which Pillow reads none, or some files of them without a word about missing data."""
# Entropy-coded data of two kinds: a decoder that needs more data than there are reads them, to two images.
_PROBES = (b"\x00" * 512, b"\x5a\xa5\x3c\xc3" * 128)
_LAST_PROBE = b"\xe7\x81\x1b\xf9" * 128
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""A marker that ends entropy-coded data."""
_RESTART = re.compile(rb"(\xff+[\xd0-\xd7])")
"""A marker between two intervals, with fill bytes before it (T.81, B.1.1.2)."""
_SHORT = 32
"""Bytes of a probe behind an interval."""
_INTERVAL = 0xDD
_LAST, _LAST_OF_MANY = 4, 8
"""Bytes without which the last block of a scan is not whole: of the only scan, of the first of several."""


class JpegFile(io.BytesIO):
    """A JPEG file for Pillow that notes whether its scan was needed to the end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._scans = list(_scans(data))
        self._begun, end = (self._scans[0].begin, self._scans[0].end) if self._scans else (len(data), len(data))
        self._single = end == len(data) or data[end : end + 2] == _END
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
        seen = {_decoded(first + probe + _END) for probe in _PROBES}
        return len(seen) == 1 and _decoded(first + _LAST_PROBE + _END) in seen

    def is_whole(self, *, detailed: bool = False) -> bool:
        """Return whether every block of every scan is in the file; True for what Pillow does not decode.

        Data that follow the last block of a scan do not change an image. If the image differs by what follows, blocks
        are missing. Where the last block is known to be `detailed`, the only interval of an only scan is whole.
        """
        data, scans = self.getvalue(), self._scans
        positions = dict(_segments(data))
        frame = _frame_header(positions)
        if _has_lost_data(data, positions.get(_SCAN, -1), frame):
            return False
        if frame is None or data[frame + 1] not in _PROBED or data[frame + 4] != 8:
            return True
        if not scans or not all(_has_all_restarts(data, frame, scan) for scan in scans):
            return False
        if data[frame + 1] == _PROGRESSIVE and not _has_all_bits(data, frame, scans):
            return False
        if detailed and len(scans) == 1 and not scans[0].interval:
            return True
        try:
            seen = [_decoded(_probed(data, scans, probe)) for probe in _PROBES]
        except OSError:
            return False
        return seen[0] == seen[1]


def unusual_coding(data: bytes) -> str | None:
    """Return the name of a coding that few programs read: 12 bits, lossless, arithmetic, JPEG-LS; None for others."""
    for marker, position in _segments(data):
        if marker in _UNUSUAL:
            return _UNUSUAL[marker]
        if marker in (*_BASELINE_OR_EXTENDED, _PROGRESSIVE):
            return None if data[position + 4] == 8 else f"JPEG of {data[position + 4]} bits"
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker and the position of each segment up to the first scan's header."""
    position = 2
    while position + 5 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        yield marker, position
        if marker == _SCAN:
            return
        position += 2 if marker in _STANDALONE else 2 + max(_length(data, position + 2), 2)


def coded_size(data: bytes) -> tuple[int, int]:
    """Return how many columns and rows the frame header of a JPEG announces; 0 and 0 without one."""
    frame = _frame_header(dict(_segments(data)))
    return (_length(data, frame + 7), _length(data, frame + 5)) if frame is not None else (0, 0)


def _frame_header(positions: dict[int, int]) -> int | None:
    """Return where the frame header lies among the positions of segments by marker, None without one."""
    return next((positions[kind] for kind in _FRAMES if kind in positions), None)


def _length(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 2], "big")


def has_end(data: bytes) -> bool:
    """Return whether the last marker is that of the end, trailing bytes aside."""
    end = data.rfind(_END)
    return end >= 0 and data.find(b"\xff\xda", end) < 0


def with_end(data: bytes) -> bytes:
    """Return the file with an end marker, in place of zeros at its end."""
    return data if has_end(data) else data.rstrip(b"\0") + _END


def _has_lost_data(data: bytes, start: int, frame: int | None) -> bool:
    """Return whether zeros stand in place of scan data, with the positions of the first scan and the frame header.

    A flat image may be coded in zeros, of a bit or two for each block or, in a lossless JPEG, for each pixel.
    """
    if start < 0 or frame is None or frame + 10 > len(data):
        return False
    height, width, components = struct.unpack_from(">HHB", data, frame + 5)
    units = width * height if data[frame + 1] in _LOSSLESS else -(-width // 8) * -(-height // 8)
    end = data.rfind(_END) if has_end(data) else len(data)
    return has_lost_bytes(data[start:end], most=max(64, units * components * 2 // 8))


@dataclass(frozen=True, slots=True)
class _Scan:
    """One scan, as its header describes it."""

    components: bytes
    first: int
    last: int
    high: int
    low: int
    """Coefficients that it codes, and the bits of them that are known before it and unknown behind it."""
    interval: int
    """Units between two restart markers, 0 for no marker."""
    begin: int
    end: int
    """Where its coded data lie."""


def _scans(data: bytes) -> Iterator[_Scan]:
    """Yield each scan of the first image in the file."""
    position, interval = 2, 0
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker == _END[1]:
            return
        elif marker in _STANDALONE:
            position += 2
        else:
            length = max(_length(data, position + 2), 2)
            segment = data[position + 4 : position + 2 + length]
            position += 2 + length
            if marker == _INTERVAL:
                interval = int.from_bytes(segment[:2], "big")
            elif marker == _SCAN and len(segment) >= 6:
                following = _AFTER_SCAN.search(data, position)
                end = following.start() if following else len(data)
                first, last, bits = segment[-3:]
                yield _Scan(segment[1:-3:2], first, min(last, 63), bits >> 4, bits & 15, interval, position, end)
                position = end


def _has_all_restarts(data: bytes, frame: int, scan: _Scan) -> bool:
    """Return whether a scan has the restart markers that its size and interval take, in their order."""
    if not scan.interval:
        return True
    found = [marker[-1] & 7 for marker in _RESTART.findall(data, scan.begin, scan.end)]
    height, width, count = struct.unpack_from(">HHB", data, frame + 5)
    described = [data[frame + 10 + 3 * index : frame + 13 + 3 * index] for index in range(count)]
    factors = {component[0]: divmod(component[1], 16) for component in described if len(component) == 3}
    across, down = (8 * max(factor[axis] for factor in factors.values()) for axis in (0, 1))
    if len(scan.components) == 1 and scan.components[0] in factors:
        # A scan of one component has units of one block, and only those that the component needs.
        own = factors[scan.components[0]]
        across, down = across // max(own[0], 1), down // max(own[1], 1)
    units: int = -(-width // across) * -(-height // down)
    needed = -(-units // scan.interval) - 1
    # Some writers put a marker behind the last interval too.
    return len(found) in (needed, needed + 1) and found == [index % 8 for index in range(len(found))]


def _has_all_bits(data: bytes, frame: int, scans: list[_Scan]) -> bool:
    """Return whether progressive scans code all bits of all coefficients, each scan those before the next."""
    left = {data[frame + 10 + 3 * index]: [0] * 64 for index in range(data[frame + 9])}
    begun = {name: [False] * 64 for name in left}
    for scan in scans:
        for name in scan.components:
            for at in range(scan.first, scan.last + 1):
                if name not in left or scan.high != left[name][at] or begun[name][at] != bool(scan.high):
                    return False
                left[name][at], begun[name][at] = scan.low, True
    return all(map(all, begun.values())) and not any(map(any, left.values()))


def _probed(data: bytes, scans: list[_Scan], probe: bytes) -> bytes:
    """Return the file with a probe behind each interval and each scan."""
    parts, at = [], 0
    for scan in scans:
        *intervals, last = _RESTART.split(data[scan.begin : scan.end])
        parts.append(data[at : scan.begin])
        parts += [part if index % 2 else part + probe[:_SHORT] for index, part in enumerate(intervals)]
        parts.append((last if scan.end < len(data) else last.rstrip(b"\0")).rstrip(b"\xff") + probe)
        at = scan.end
    return b"".join(parts) + _END


def with_probe(data: bytes) -> bytes:
    """Return the stream with entropy-coded data before its end, which change no image that is whole."""
    return _without_end(data) + _PROBES[1] + _END


def with_other_ends(data: bytes) -> Iterator[bytes]:
    """Yield the stream with other entropy-coded data in place of its last, which change every image that needs them."""
    kept = _without_end(data).rstrip(b"\0\xff")[:-_LAST_OF_MANY].rstrip(b"\xff")
    for probe in (*_PROBES, _LAST_PROBE):
        yield kept + probe + _END


def _without_end(data: bytes) -> bytes:
    """Return the data up to the end marker, or to the zeros that a file without one ends in."""
    body = data[: data.rfind(_END)] if has_end(data) else data.rstrip(b"\0")
    # Fill bytes before a marker (T.81, B.1.1.2) would make a marker of what is put behind them.
    return body.rstrip(b"\xff")


def _decoded(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if not image.info.get("progressive"):
            # A scale of 1/8 decodes every block and spares the transform; of a progressive file it skips scans.
            image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
        return image.tobytes()
