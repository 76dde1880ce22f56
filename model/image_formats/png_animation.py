"""Compose the frames of an animated PNG (PNG third edition, 11.3.6)."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from medmoe.model.errors import DamagedImageError, ImageFormatError
from medmoe.model.image_formats.png import SIGNATURE, chunks, excess_bytes

_BACKGROUND, _PREVIOUS = 1, 2
"""What becomes of a frame's region before the next frame."""
_OVER = 1
_OF_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"fcTL", b"fdAT", b"acTL", b"IEND")


@dataclass(frozen=True, slots=True)
class _Frame:
    box: tuple[int, int, int, int]
    """Left, top, right and bottom in the canvas."""
    disposal: int
    blend: int
    pixels: bytes
    """A PNG of the frame's region alone."""


def frame_count(data: bytes) -> int:
    """Return the number of frames, the image that animations leave out among them; 1 without an animation."""
    kinds = [kind for kind, _ in chunks(data) if kind in (b"acTL", b"fcTL", b"IDAT")]
    if kinds[:1] != [b"acTL"]:
        return 1
    return max(kinds.count(b"fcTL") + (kinds[1:2] != [b"fcTL"]), 1)


def still(data: bytes, frame: int) -> bytes:
    """Return a PNG without animation that shows `frame`, not the first. Raises DamagedImageError, ImageFormatError.

    Pillow multiplies the transparency of frames that are laid over others.
    """
    width, height = struct.unpack_from(">II", data, 16)
    frames = list(_frames(data))[: frame + 1]
    last = frames[-1]
    if last.box == (0, 0, width, height) and last.blend != _OVER:
        return last.pixels
    if data[24] > 8:
        raise ImageFormatError("animated PNG of over 8 bits is read where a frame is whole; save the frame as PNG")
    canvas = Image.new("RGBA", (width, height))
    for index, each in enumerate(frames):
        if excess_bytes(each.pixels):
            raise DamagedImageError("the image is damaged: a frame of the PNG has not the size that it announces")
        with Image.open(io.BytesIO(each.pixels), formats=["PNG"]) as opened:
            shown = opened.convert("RGBA")
        before = canvas.crop(each.box)
        canvas.paste(Image.alpha_composite(before, shown) if each.blend == _OVER else shown, each.box)
        if index == frame:
            break
        if each.disposal == _BACKGROUND or (each.disposal == _PREVIOUS and not index):
            canvas.paste((0, 0, 0, 0), each.box)
        elif each.disposal == _PREVIOUS:
            canvas.paste(before, each.box)
    file = io.BytesIO()
    canvas.save(file, format="PNG", compress_level=1)
    (header, *pixels) = chunks(file.getvalue())
    return _png([header, *_described(data), *pixels])


def _frames(data: bytes) -> Iterator[_Frame]:
    """Yield each frame, the image that the animation leaves out first."""
    header, control = b"", b""
    coded: list[bytes] = []
    for kind, body in [*chunks(data), (b"fcTL", b"")]:
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            coded.append(body)
        elif kind == b"fdAT":
            coded.append(body[4:])
        elif kind == b"fcTL":
            if coded:
                yield _frame(data, header, control, b"".join(coded))
            control, coded = body, []


def _frame(data: bytes, header: bytes, control: bytes, coded: bytes) -> _Frame:
    canvas: tuple[int, int] = struct.unpack_from(">II", header)
    width, height, left, top = struct.unpack_from(">4I", control, 4) if control else (*canvas, 0, 0)
    disposal, blend = control[24:26] if control else (_PREVIOUS, 0)
    if not width or not height or left + width > canvas[0] or top + height > canvas[1]:
        raise DamagedImageError("the image is damaged: a frame of the PNG lies outside it")
    parts = [(b"IHDR", struct.pack(">II", width, height) + header[8:]), *_described(data, colours=True)]
    pixels = _png([*parts, (b"IDAT", coded), (b"IEND", b"")])
    return _Frame((left, top, left + width, top + height), disposal, blend, pixels)


def _described(data: bytes, *, colours: bool = False) -> list[tuple[bytes, bytes]]:
    """Return the chunks that hold no pixels, and the colours of these."""
    kept = (b"PLTE", b"tRNS") if colours else ()
    return [(kind, body) for kind, body in chunks(data) if kind in kept or kind not in _OF_PIXELS]


def _png(parts: list[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
