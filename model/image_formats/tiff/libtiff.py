"""Decompress strips and tiles of a TIFF with libtiff, through Pillow, whatever their samples are."""

import io
import itertools
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image
from PIL.ExifTags import Base as Tag

Tags = dict[int, tuple[int, ...]]
_HEAD = 8
_BLACK_IS_ZERO = 1
_OFFSETS = (Tag.StripOffsets, Tag.TileOffsets)
REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]
"""Each byte with its bits in the other order."""
_ALARM_LOCK = threading.RLock()


@contextmanager
def any_size() -> Iterator[None]:
    """Let Pillow open pages of any size; the page asked for is checked against the caller's limits."""
    # The limit is Pillow's global one, and training decodes in threads.
    with _ALARM_LOCK:
        alarm = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = alarm


def grey_tags(width: int, height: int, *, bits: int, compression: int) -> Tags:
    """Return the tags of a page of grey samples, without those of its strips or tiles."""
    return {
        Tag.ImageWidth: (width,),
        Tag.ImageLength: (height,),
        Tag.BitsPerSample: (bits,),
        Tag.Compression: (compression,),
        Tag.PhotometricInterpretation: (_BLACK_IS_ZERO,),
        Tag.SamplesPerPixel: (1,),
    }


def decoded(data: bytes, tags: Tags) -> np.ndarray:
    """Return the pixels of a file read by other `tags` than its own. Raises what Pillow raises on damaged data."""
    with any_size(), Image.open(io.BytesIO(_rewritten(data, tags)), formats=["TIFF"]) as opened:
        return np.asarray(opened)


def decoded_strip(coded: bytes, tags: Tags) -> np.ndarray:
    """Return the pixels of one strip, a page with these `tags`. Raises what Pillow raises on damaged data."""
    return decoded_strips([coded], tags, *tags[Tag.ImageLength])


def decoded_strips(coded: Sequence[bytes], tags: Tags, rows: int) -> np.ndarray:
    """Return the pixels of strips of `rows` each, a page with these `tags`. Raises what Pillow raises likewise."""
    counts = tuple(map(len, coded))
    offsets = tuple(itertools.accumulate(counts[:-1], initial=_HEAD))
    strips = {Tag.StripOffsets: offsets, Tag.RowsPerStrip: (rows,), Tag.StripByteCounts: counts}
    return decoded(bytes(_HEAD) + b"".join(coded), tags | strips)


def _rewritten(data: bytes, tags: Tags) -> bytes:
    """Return the file with one directory of LONG `tags`, little endian, in place of its own.

    The directory goes before the data: behind them it would be read as what a truncated file lacks.
    """
    at = _HEAD + 2 + 12 * len(tags) + 4
    moved = at - _HEAD + sum(4 * len(held) for held in tags.values() if len(held) > 1)
    entries, values = b"", b""
    for tag in sorted(tags):
        held = tuple(offset + moved for offset in tags[tag]) if tag in _OFFSETS else tags[tag]
        packed = struct.pack(f"<{len(held)}I", *held)
        if len(packed) > 4:
            entries += struct.pack("<HHII", tag, 4, len(held), at + len(values))
            values += packed
        else:
            entries += struct.pack("<HHI", tag, 4, len(held)) + packed
    head = b"II*\0" + struct.pack("<I", _HEAD)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return head + directory + values + data[_HEAD:]
