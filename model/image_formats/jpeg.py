"""Tell whether a JPEG holds all its scan data: libjpeg fills what is missing with grey, silently."""

import io
import struct

from PIL import Image

from medmoe.model.image_formats.no_data import has_lost_bytes

_END = b"\xff\xd9"
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


def unusual_coding(data: bytes) -> str | None:
    """Return the name of a coding that few programs read: 12 bits, lossless, arithmetic, JPEG-LS; None for others."""
    position = 2
    while position + 5 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _UNUSUAL:
            return _UNUSUAL[marker]
        if marker in (*_BASELINE_OR_EXTENDED, _PROGRESSIVE):
            return None if data[position + 4] == 8 else f"JPEG of {data[position + 4]} bits"
        if marker == 0xDA:
            return None
        fill = marker == 0xFF
        position += 1 if fill else 2 if marker in _STANDALONE else 2 + max(_length(data, position + 2), 2)
    return None


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
    start = data.find(b"\xff\xda")
    frame = next((at for kind in _FRAMES if 0 <= (at := data.find(bytes([0xFF, kind]))) < start), -1)
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
    if has_lost_data(data):
        return False
    scans = _scans(data)
    if scans is None:
        return True
    if not scans:
        return False
    body = _without_end(data)
    seen = [_decoded(body + probe + _END) for probe in _PROBES]
    return seen[0] == seen[1]


def with_probe(data: bytes) -> bytes:
    """Return the stream with entropy-coded data before its end, which change no image that is whole."""
    return _without_end(data) + _PROBES[1] + _END


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
