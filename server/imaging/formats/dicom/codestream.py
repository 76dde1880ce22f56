"""Read the image size that a compressed DICOM frame itself announces; the DICOM header may say another."""

from dataclasses import dataclass

_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_JP2 = b"\x00\x00\x00\x0cjP  "
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameHeader:
    width: int
    height: int
    components: int
    precision: int
    """Bits a sample."""


def frame_header(frame: bytes) -> FrameHeader | None:
    """Of a JPEG, JPEG-LS or JPEG 2000 codestream; None where there is none to be found."""
    if frame.startswith(_JP2):
        # Not what DICOM wants, but seen: a whole JP2 file as a frame.
        start = frame.find(_JPEG_2000)
        return _jpeg_2000(frame[start : start + 64]) if start >= 0 else None
    if frame.startswith(_JPEG_2000):
        return _jpeg_2000(frame[:64])
    return _jpeg(frame) if frame.startswith(_JPEG) else None


def _jpeg_2000(codestream: bytes) -> FrameHeader | None:
    if len(codestream) < 45:
        return None
    right, bottom, left, top = (int.from_bytes(codestream[at : at + 4], "big") for at in (8, 12, 16, 20))
    return FrameHeader(
        width=right - left,
        height=bottom - top,
        components=int.from_bytes(codestream[40:42], "big"),
        precision=(codestream[42] & 0x7F) + 1,
    )


def _jpeg(frame: bytes) -> FrameHeader | None:
    position = 2
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        elif marker in _START_OF_FRAME:
            return FrameHeader(
                precision=frame[position + 4],
                height=int.from_bytes(frame[position + 5 : position + 7], "big"),
                width=int.from_bytes(frame[position + 7 : position + 9], "big"),
                components=frame[position + 9],
            )
        else:
            position += 2 + max(int.from_bytes(frame[position + 2 : position + 4], "big"), 2)
    return None
