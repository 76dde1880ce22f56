"""Compose the frames of an animated PNG (PNG third edition, 11.3.6)."""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from medmoe.model.errors import DamagedImageError, ImageFormatError
from medmoe.model.image_formats.png.chunks import Chunk, join_chunks, new_chunk, split_chunks
from medmoe.model.image_formats.png.pixels import excess_bytes

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
    kinds = [chunk.kind for chunk in split_chunks(data) if chunk.kind in (b"acTL", b"fcTL", b"IDAT")]
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
    header, *pixels = split_chunks(file.getvalue())
    return join_chunks([header, *_described(data), *pixels])


def _frames(data: bytes) -> Iterator[_Frame]:
    """Yield each frame, the image that the animation leaves out first."""
    header, control = b"", b""
    coded: list[bytes] = []
    for chunk in [*split_chunks(data), new_chunk(b"fcTL", b"")]:
        if chunk.kind == b"IHDR":
            header = chunk.data
        elif chunk.kind == b"IDAT":
            coded.append(chunk.data)
        elif chunk.kind == b"fdAT":
            coded.append(chunk.data[4:])
        elif chunk.kind == b"fcTL":
            if coded:
                yield _frame(data, header, control, b"".join(coded))
            control, coded = chunk.data, []


def _frame(data: bytes, header: bytes, control: bytes, coded: bytes) -> _Frame:
    canvas: tuple[int, int] = struct.unpack_from(">II", header)
    width, height, left, top = struct.unpack_from(">4I", control, 4) if control else (*canvas, 0, 0)
    disposal, blend = control[24:26] if control else (_PREVIOUS, 0)
    if not width or not height or left + width > canvas[0] or top + height > canvas[1]:
        raise DamagedImageError("the image is damaged: a frame of the PNG lies outside it")
    head = new_chunk(b"IHDR", struct.pack(">II", width, height) + header[8:])
    parts = [head, *_described(data, colours=True), new_chunk(b"IDAT", coded), new_chunk(b"IEND", b"")]
    return _Frame((left, top, left + width, top + height), disposal, blend, join_chunks(parts))


def _described(data: bytes, *, colours: bool = False) -> list[Chunk]:
    """Return the chunks that hold no pixels, and the colours of these, with right checksums."""
    kept = (b"PLTE", b"tRNS") if colours else ()
    chunks = (chunk for chunk in split_chunks(data) if chunk.kind in kept or chunk.kind not in _OF_PIXELS)
    return [new_chunk(chunk.kind, chunk.data) for chunk in chunks]
