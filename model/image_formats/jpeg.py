"""Tell whether a JPEG holds all its scan data, and no more: libjpeg fills what is missing with grey, silently."""

import io
import re
import struct
from collections.abc import Iterator

from PIL import Image

from medmoe.model.image_formats.no_data import has_lost_bytes

_END = b"\xff\xd9"
_SCAN = 0xDA
_BASELINE_OR_EXTENDED, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_LOSSLESS = (0xC3, 0xF7)
_FRAMES = (*_BASELINE_OR_EXTENDED, _PROGRESSIVE, *_LOSSLESS, 0xC9, 0xCA)
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_UNUSUAL = {
    0xC3: "lossless JPEG", 0xF7: "JPEG-LS", 0xC9: "arithmetic-coded JPEG", 0xCA: "arithmetic-coded JPEG",
    0xCB: "lossless JPEG", 0xC5: "hierarchical JPEG", 0xC6: "hierarchical JPEG", 0xC7: "hierarchical JPEG",
}  # fmt: skip
# Entropy-coded data of two kinds: a decoder that needs more data than there are reads them, to two images.
_PROBES = (b"\x00" * 512, b"\x5a\xa5\x3c\xc3" * 128)
_LAST_PROBE = b"\xe7\x81\x1b\xf9" * 128
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""A marker that ends entropy-coded data."""
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_INTERVAL = 0xDD
_LAST, _LAST_OF_MANY = 4, 8
"""Bytes without which the last block of a scan is not whole: of the only scan, of the first of several."""


class JpegFile(io.BytesIO):
    """A JPEG file for Pillow that notes whether its scan was needed to the end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        begun = dict(_segments(data)).get(_SCAN, len(data))
        following = _AFTER_SCAN.search(data, begun + 2 + _length(data, begun + 2))
        end = following.start() if following else len(data)
        self._single = following is None or following[0] == _END
        self._held = len(data[:end].rstrip(b"\0\xff")) - (_LAST if self._single else _LAST_OF_MANY)
        self._needed = self._held <= begun

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
        seen = {_decoded(first + probe + _END) for probe in _PROBES}
        return len(seen) == 1 and _decoded(first + _LAST_PROBE + _END) in seen


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
    positions = dict(_segments(data))
    frame = next((positions[kind] for kind in _FRAMES if kind in positions), None)
    return (_length(data, frame + 7), _length(data, frame + 5)) if frame is not None else (0, 0)


def _length(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 2], "big")


def has_end(data: bytes) -> bool:
    """Return whether the last marker is that of the end, trailing bytes aside."""
    return data.rfind(_END) > data.rfind(b"\xff\xda")


def with_end(data: bytes) -> bytes:
    """Return the file with an end marker, in place of zeros at its end."""
    return data if has_end(data) else data.rstrip(b"\0") + _END


def has_lost_data(data: bytes) -> bool:
    """Return whether zeros stand in place of scan data.

    A flat image may be coded in zeros, of a bit or two for each block or, in a lossless JPEG, for each pixel.
    """
    positions = dict(_segments(data))
    start = positions.get(_SCAN, -1)
    frame = next((positions[kind] for kind in _FRAMES if kind in positions), -1)
    if start < 0 or frame < 0 or frame + 10 > len(data):
        return False
    height, width, components = struct.unpack_from(">HHB", data, frame + 5)
    units = width * height if data[frame + 1] in _LOSSLESS else -(-width // 8) * -(-height // 8)
    end = data.rfind(_END) if has_end(data) else len(data)
    return has_lost_bytes(data[start:end], most=max(64, units * components * 2 // 8))


def is_whole(data: bytes) -> bool:
    """Return whether every block of every scan is in the file; True for what is no DCT-coded JPEG.

    Data that follow the last block do not change an image. If the image differs by what follows, blocks are missing.
    """
    if has_lost_data(data) or _lacks_restarts(data):
        return False
    scans = _scans(data)
    if scans is None:
        return True
    if not scans:
        return False
    body = _without_end(data)
    seen = [_decoded(body + probe + _END) for probe in _PROBES]
    return seen[0] == seen[1]


def _lacks_restarts(data: bytes) -> bool:
    """Return whether the first scan has fewer restart markers than its size and interval take."""
    at = dict(_segments(data))
    frame = at.get(0xC0) or at.get(0xC1) or at.get(_PROGRESSIVE)
    start = at.get(_SCAN, 0)
    interval = _length(data, at[_INTERVAL] + 4) if _INTERVAL in at else 0
    if not frame or not start or not interval:
        return False
    height, width, components = struct.unpack_from(">HHB", data, frame + 5)
    factors = [divmod(data[frame + 11 + 3 * index], 16) for index in range(components)]
    across, down = (8 * max(factor[axis] for factor in factors) for axis in (0, 1))
    if data[start + 4] == 1:
        # A scan of one component has units of one block, and only those that the component needs.
        names = [data[frame + 10 + 3 * index] for index in range(components)]
        own = factors[names.index(data[start + 5])] if data[start + 5] in names else factors[0]
        across, down = across // own[0], down // own[1]
    units: int = -(-width // across) * -(-height // down)
    begun = start + 2 + _length(data, start + 2)
    following = _AFTER_SCAN.search(data, begun)
    found = len(_RESTART.findall(data, begun, following.start() if following else len(data)))
    return found < -(-units // interval) - 1


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


def _scans(data: bytes) -> bool | None:
    """Return whether a progressive file has scans for all bits of all coefficients; None for what Pillow cannot probe.

    True for baseline files with a scan.
    """
    position, progressive, components = 2, False, b""
    left: dict[int, dict[int, int]] = {}
    scans = 0
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            # Entropy-coded data: the next marker ends them.
            following = data.find(b"\xff", position)
            if following < 0 or following + 1 >= len(data):
                break
            position = following if data[following + 1] not in (0, *range(0xD0, 0xD8)) else following + 2
            continue
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xD9:
            break
        if marker in _STANDALONE or marker == 0:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment = data[position + 4 : position + 2 + max(length, 2)]
        if marker in _BASELINE_OR_EXTENDED or marker == _PROGRESSIVE:
            progressive = marker == _PROGRESSIVE
            components = segment[6::3][: segment[5]] if len(segment) > 5 else b""
            if len(segment) > 5 and segment[0] != 8:
                return None
            left = {component: dict.fromkeys(range(64), 99) for component in components}
        elif (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            return None
        elif marker == 0xDA and len(segment) >= 4:
            scans += 1
            chosen, (first, last, bits) = segment[1:-3:2], segment[-3:]
            for component in chosen:
                for coefficient in range(first, min(last, 63) + 1):
                    if component in left:
                        left[component][coefficient] = bits & 0x0F
        position += 2 + max(length, 2)
    if not progressive:
        return scans > 0
    # The constant part of every component must be there to its last bit, and so must what any scan has begun.
    return scans > 0 and all(bits == 0 for component in left.values() for bits in component.values())
