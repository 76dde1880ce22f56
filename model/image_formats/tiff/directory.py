"""Parse the directories of a TIFF or BigTIFF in either byte order (TIFF 6.0, section 2)."""

import struct
from dataclasses import dataclass, field

from PIL.ExifTags import Base as Tag

_TYPES = {1: "B", 3: "H", 4: "I", 5: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RATIONAL = 5
"""Two integers, numerator and denominator."""
_MOST_VALUES = 2**20
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
"""Samples of a pixel by photometric interpretation."""
_SUBSAMPLED = 6


class _Number:
    """A property of a page: the first value of a tag."""

    def __init__(self, tag: int, default: int) -> None:
        self._tag, self._default = tag, default

    def __get__(self, page: "TiffDirectory", _: type) -> int:
        return page.first(self._tag, self._default)


@dataclass(frozen=True, kw_only=True, slots=True)
class TiffDirectory:
    """The tags of one page that say how its samples are stored."""

    big_endian: bool
    big: bool
    """Whether the file is a BigTIFF."""
    tags: dict[int, tuple[int, ...]] = field(repr=False)
    compression = _Number(Tag.Compression, 1)
    samples = _Number(Tag.SamplesPerPixel, 1)
    predictor = _Number(Tag.Predictor, 1)
    fill_order = _Number(Tag.FillOrder, 1)
    fax_options = _Number(Tag.T4Options, 0)
    orientation = _Number(Tag.Orientation, 1)
    photometric = _Number(Tag.PhotometricInterpretation, -1)
    """The photometric interpretation, -1 where the page does not say it."""

    def first(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        return (self.tags.get(tag) or (default,))[0]

    def _common(self, tag: int) -> int:
        """Return the value that all samples have, 1 where the page does not say it; 0 where samples differ."""
        found = set(self.tags.get(tag, (1,)))
        return found.pop() if len(found) == 1 else 0

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height."""
        return self.first(Tag.ImageWidth, 0), self.first(Tag.ImageLength, 0)

    @property
    def bits(self) -> int:
        """Return the bits of a sample; 0 where samples differ."""
        return self._common(Tag.BitsPerSample)

    @property
    def sample_format(self) -> int:
        """Return 1 for unsigned, 2 signed, 3 floating point, 4 undefined; 0 where samples differ."""
        return self._common(Tag.SampleFormat)

    @property
    def has_plain_inks(self) -> bool:
        """Return whether four inks are cyan, magenta, yellow and black, 0 for none of an ink."""
        dots = self.tags.get(Tag.DotRange, ())
        return self.first(Tag.InkSet, 1) == 1 and all(
            low <= high for low, high in zip(dots[::2], dots[1::2], strict=False)
        )

    def row_bytes(self, width: int) -> tuple[int, int]:
        """Return the bytes of a row of pixels, uncompressed, or of a few rows with their chroma, and how many."""
        if self.photometric == _SUBSAMPLED and not self.separate_planes:
            wide, high = (max(factor, 1) for factor in self.tags.get(Tag.YCbCrSubSampling, (2, 2)))
            return -(-width // wide) * (wide * high + 2) * self.bits // 8, high
        return (width * self.bits * self.plane_samples + 7) // 8, 1

    @property
    def resolutions(self) -> tuple[float, ...]:
        """Return the pixels a unit across and down; empty where the page does not say both."""
        stated = [self.tags.get(tag, ()) for tag in (Tag.XResolution, Tag.YResolution)]
        if not all(len(each) == 2 and all(each) for each in stated):
            return ()
        return tuple(each[0] / each[1] for each in stated)

    @property
    def extra_samples(self) -> tuple[int, ...]:
        """Return what each sample beyond the colours is: 0 none, 1 associated alpha, 2 alpha."""
        return self.tags.get(Tag.ExtraSamples, ())

    @property
    def has_unknown_samples(self) -> bool:
        """Return whether a pixel has samples that are neither colours nor alpha."""
        with_alpha = self.extra_samples[:1] in ((1,), (2,))
        return self.samples > _COLOURS.get(self.photometric, self.samples) + with_alpha

    @property
    def palette(self) -> tuple[int, ...]:
        """Return all reds, all greens, all blues, of 16 bits each; empty without a palette."""
        return self.tags.get(Tag.ColorMap, ())

    @property
    def icc_profile(self) -> bytes:
        """Return the ICC profile; empty without one."""
        return bytes(self.tags.get(Tag.InterColorProfile, ()))

    @property
    def separate_planes(self) -> bool:
        return self.first(Tag.PlanarConfiguration, 1) == 2 and self.samples > 1

    @property
    def planes(self) -> int:
        return self.samples if self.separate_planes else 1

    @property
    def plane_samples(self) -> int:
        """Return the samples of a pixel in one plane."""
        return self.samples // self.planes

    @property
    def tile(self) -> tuple[int, int] | None:
        """Return width and height of a tile, None for strips."""
        if Tag.TileOffsets not in self.tags:
            return None
        return self.first(Tag.TileWidth, 0), self.first(Tag.TileLength, 0)

    @property
    def rows_per_strip(self) -> int:
        return min(self.first(Tag.RowsPerStrip, self.size[1]), max(self.size[1], 1))

    @property
    def parts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return offsets and byte counts of strips or tiles."""
        names = (Tag.StripOffsets, Tag.StripByteCounts) if self.tile is None else (Tag.TileOffsets, Tag.TileByteCounts)
        return self.tags.get(names[0], ()), self.tags.get(names[1], ())


def read_directories(data: bytes, *, most: int) -> list[TiffDirectory]:
    """Return the directories in the order of the file, at most `most`.

    Raises ValueError or struct.error where the first is damaged; damage behind it ends the list.
    """
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    found: list[TiffDirectory] = []
    seen: set[int] = set()
    while at and at not in seen and len(found) < most:
        seen.add(at)
        try:
            tags, at = _directory(data, at, order, big)
        except (struct.error, ValueError):
            if not found:
                raise
            break
        found.append(TiffDirectory(big_endian=order == ">", big=big, tags=tags))
    return found


def _directory(data: bytes, at: int, order: str, big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the integer tags of a directory, and the offset of the next."""
    count_format, entry, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
    (count,) = struct.unpack_from(order + count_format, data, at)
    start = at + struct.calcsize(order + count_format)
    inline = struct.calcsize(order + pointer)
    tags: dict[int, tuple[int, ...]] = {}
    for index in range(count):
        position = start + index * entry
        tag, kind = struct.unpack_from(f"{order}HH", data, position)
        (values,) = struct.unpack_from(order + pointer, data, position + 4)
        if kind not in _TYPES or values > _MOST_VALUES:
            continue
        layout = f"{order}{values * (2 if kind == _RATIONAL else 1)}{_TYPES[kind]}"
        where = position + 4 + inline
        if struct.calcsize(layout) > inline:
            (where,) = struct.unpack_from(order + pointer, data, where)
        tags[tag] = struct.unpack_from(layout, data, where)
    (following,) = struct.unpack_from(order + pointer, data, start + count * entry)
    return tags, following
