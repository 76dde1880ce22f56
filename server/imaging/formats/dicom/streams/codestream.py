"""Read what a compressed DICOM frame itself announces; the DICOM header may say something else."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from medmoe.model.image_formats.jpeg import segments as jpeg
from medmoe.model.image_formats.signature import JP2, JPEG, JPEG_2000

_CODING_STYLE, _START_OF_TILE, _END = b"\xff\x52", b"\xff\x90", b"\xff\xd9"
_START_OF_DATA = b"\xff\x93"
_OTHER_ENDS = (b"\x5a\xa5\x3c\xc3\x0f\x70\x5a\x25", b"\xe7\x81\x1b\x79\x7e\x18\xe7\x01", bytes(8), b"\x7f\x33" * 4)
"""Coded data of a JPEG 2000 stream, without a marker."""
_SIGNED = 0x80
_ADOBE = 12
"""Parameters of an Adobe segment, the last of which tells the colour transform; libjpeg takes no notice of fewer."""
_PALETTE = b"pclr"
_COLOUR_SPACE = b"colr\x01"
"""Box of a JP2 file whose colour space is one of a list; the number comes after two more bytes."""
_SYCC = 18
_CONVERTED = (((1, 1), (2, 1), (2, 1)), ((1, 1), (2, 2), (2, 2)))
"""Sampling across and down of components that OpenJPEG takes for YCbCr and converts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameHeader:
    """Size and samples of a code stream."""

    width: int
    height: int
    components: int
    precision: int
    """Bits a sample."""
    signed: bool = False
    is_rgb: bool = False
    """Whether the decoded components are RGB: a stream with a component transform that decoding undoes, a JPEG 2000
    frame that OpenJPEG takes for YCbCr and converts, a JPEG that says so."""
    is_marked: bool = False
    """Whether a JPEG itself tells its colours: JFIF or Adobe marker, components named R, G, B, subsampling."""
    obstacle: str | None = None
    """What decoding would show wrong."""

    @property
    def cell_bits(self) -> int:
        """Return the bits of the integer that holds a sample: 8, 16 or 32."""
        return 8 if self.precision <= 8 else 16 if self.precision <= 16 else 32


def frame_header(frame: bytes) -> FrameHeader | None:
    """Return the header of a JPEG, JPEG-LS or JPEG 2000 code stream, None where there is none."""
    start = _code_stream(frame)
    if frame.startswith(JPEG_2000, start):
        return _jpeg_2000(frame[start:], boxes=frame[:start])
    return _jpeg(frame) if frame.startswith(JPEG) else None


def has_coded_data(frame: bytes) -> bool:
    """Return whether a JPEG 2000 stream holds more than headers."""
    tile = frame.find(_START_OF_TILE, _code_stream(frame))
    data = frame.find(_START_OF_DATA, tile)
    return tile >= 0 and data >= 0 and len(frame[data + 2 :].rstrip(b"\0").removesuffix(_END)) > 1


def has_all_tiles(frame: bytes) -> bool:
    """Return whether a JPEG 2000 stream holds the tiles that its size takes, and no others (T.800 A.4.2)."""
    start = _code_stream(frame)
    right, bottom, _, _, wide, high, left, top = struct.unpack_from(">8I", frame, start + 8)
    if not wide or not high:
        return False
    count = -(-(right - left) // wide) * -(-(bottom - top) // high)
    return {tile for tile, _, _ in _tile_parts(frame)} == set(range(count))


def jpeg_2000_with_other_ends(frame: bytes) -> Iterator[bytes]:
    """Yield a JPEG 2000 stream with other data in place of its last, which change every image that needs them.

    A size that is not that of the coded data makes blocks of other sizes: noise, without a word.
    """
    parts = list(_tile_parts(frame))
    if not parts:
        return
    _, begin, end = parts[-1]
    data = frame.find(_START_OF_DATA, begin, end)
    for other in _OTHER_ENDS:
        if 0 <= data <= end - 2 * len(other):
            yield frame[: end - len(other)] + other + frame[end:]


def _tile_parts(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the number of the tile, and begin and end of each tile-part (T.800 A.4.2)."""
    position = frame.find(_START_OF_TILE, _code_stream(frame))
    while frame[position : position + 2] == _START_OF_TILE and position + 10 <= len(frame):
        tile, length = struct.unpack_from(">HI", frame, position + 4)
        end = frame.rfind(_END)
        if not length:
            yield tile, position, end if end > position else len(frame)
            return
        yield tile, position, min(position + max(length, 12), len(frame))
        position += max(length, 12)


def _code_stream(frame: bytes) -> int:
    """Return where the code stream begins: DICOM wants it alone, but whole JP2 files occur as frames (T.800 I.4)."""
    at = 0
    while frame.startswith(JP2) and at + 16 <= len(frame):
        length, kind, longer = struct.unpack_from(">I4sQ", frame, at)
        head = 16 if length == 1 else 8
        length = longer if length == 1 else length
        if kind == b"jp2c":
            return at + head
        if length < head:
            break
        at += length
    return 0


def _jpeg_2000(stream: bytes, *, boxes: bytes = b"") -> FrameHeader | None:
    """Return the header of a code stream, `boxes` being what a JP2 file holds before it."""
    if len(stream) < 45:
        return None
    right, bottom, left, top = (int.from_bytes(stream[at : at + 4], "big") for at in (8, 12, 16, 20))
    components = int.from_bytes(stream[40:42], "big")
    described = [stream[at : at + 3] for at in range(42, 42 + 3 * components, 3)]
    signed = bool(stream[42] & _SIGNED)
    obstacle = None
    if len({component[:1] for component in described}) > 1 or (signed and components > 1):
        obstacle = "JPEG 2000 components of different bits or with a sign"
    elif _PALETTE in boxes:
        obstacle = "a palette in the JPEG 2000 frame itself"
    style = stream.find(_CODING_STYLE, 42, 4096)
    transformed = style > 0 and stream[style + 8 : style + 9] == b"\x01"
    converted = tuple((*component[1:],) for component in described) in _CONVERTED
    space = boxes.find(_COLOUR_SPACE)
    return FrameHeader(
        width=right - left,
        height=bottom - top,
        components=components,
        precision=(stream[42] & 0x7F) + 1,
        signed=signed,
        is_rgb=transformed or converted or (space >= 0 and boxes[space + 10 : space + 11] == bytes([_SYCC])),
        obstacle=obstacle,
    )


def _jpeg(frame: bytes) -> FrameHeader | None:
    header = jpeg.frame_header(frame)
    if header is None:
        return None
    marked, transform, transformed = False, -1, False
    for marker, begin, end, _ in jpeg.segments(frame):
        if marker == header.marker:
            break
        name = frame[begin : begin + 5]
        is_adobe = marker == 0xEE and name == b"Adobe" and end - begin >= _ADOBE and begin + _ADOBE <= len(frame)
        marked |= (marker == 0xE0 and name == b"JFIF\0") or is_adobe
        if is_adobe:
            transform = frame[begin + _ADOBE - 1]
        # A colour transform of JPEG-LS (HP1 to HP3), which CharLS undoes.
        transformed |= marker == 0xE8 and name[:4] == b"mrfx" and name[4:] != b"\0"
    is_named = bytes(identifier for identifier, _, _ in header.components) == b"RGB"
    subsampled = len({tuple(sampling) for _, *sampling in header.components}) > 1
    return FrameHeader(
        precision=header.precision,
        height=header.height,
        width=header.width,
        components=len(header.components),
        is_rgb=is_named or transform == 0 or transformed,
        is_marked=marked or subsampled or is_named,
    )
