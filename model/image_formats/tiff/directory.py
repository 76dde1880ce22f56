"""Parse the directories of a TIFF or BigTIFF in either byte order (TIFF 6.0, section 2)."""

import struct
from dataclasses import dataclass, field

_TYPES = {1: "B", 3: "H", 4: "I", 5: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RATIONAL = 5
"""Two integers, numerator and denominator."""
_MOST_VALUES = 2**20
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
"""Samples of a pixel by photometric interpretation."""
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _PLANES = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_PALETTE, _PROFILE = 320, 34675
_FAX_OPTIONS, _INK_SET, _DOT_RANGE, _SUBSAMPLING = 292, 332, 336, 530
_SUBSAMPLED = 6
_RESOLUTIONS = (282, 283)
_PREDICTOR, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _FILL_ORDER, _ORIENTATION = 317, 338, 339, 266, 274


@dataclass(frozen=True, kw_only=True, slots=True)
class TiffDirectory:
    """The tags of one page that say how its samples are stored."""

    big_endian: bool
    big: bool
    """Whether the file is a BigTIFF."""
    tags: dict[int, tuple[int, ...]] = field(repr=False)

    def _first(self, tag: int, default: int) -> int:
        return (self.tags.get(tag) or (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height."""
        return self._first(_WIDTH, 0), self._first(_HEIGHT, 0)

    @property
    def bits(self) -> int:
        """Return the bits of a sample; 0 where samples differ."""
        found = set(self.tags.get(_BITS, (1,)))
        return found.pop() if len(found) == 1 else 0

    @property
    def compression(self) -> int:
        return self._first(_COMPRESSION, 1)

    @property
    def photometric(self) -> int:
        """Return the photometric interpretation, -1 where the page does not say it."""
        return self._first(_PHOTOMETRIC, -1)

    @property
    def samples(self) -> int:
        return self._first(_SAMPLES, 1)

    @property
    def sample_format(self) -> int:
        """Return 1 for unsigned, 2 signed, 3 floating point, 4 undefined; 0 where samples differ."""
        found = set(self.tags.get(_SAMPLE_FORMAT, (1,)))
        return found.pop() if len(found) == 1 else 0

    @property
    def predictor(self) -> int:
        return self._first(_PREDICTOR, 1)

    @property
    def fill_order(self) -> int:
        return self._first(_FILL_ORDER, 1)

    @property
    def fax_options(self) -> int:
        return self._first(_FAX_OPTIONS, 0)

    @property
    def has_plain_inks(self) -> bool:
        """Return whether four inks are cyan, magenta, yellow and black, 0 for none of an ink."""
        dots = self.tags.get(_DOT_RANGE, ())
        return self._first(_INK_SET, 1) == 1 and all(
            low <= high for low, high in zip(dots[::2], dots[1::2], strict=False)
        )

    def row_bytes(self, width: int) -> tuple[int, int]:
        """Return the bytes of a row of pixels, uncompressed, or of a few rows with their chroma, and how many."""
        if self.photometric == _SUBSAMPLED and not self.separate_planes:
            wide, high = (max(factor, 1) for factor in self.tags.get(_SUBSAMPLING, (2, 2)))
            return -(-width // wide) * (wide * high + 2) * self.bits // 8, high
        samples = 1 if self.separate_planes else self.samples
        return (width * self.bits * samples + 7) // 8, 1

    @property
    def orientation(self) -> int:
        return self._first(_ORIENTATION, 1)

    @property
    def resolutions(self) -> tuple[float, ...]:
        """Return the pixels a unit across and down; empty where the page does not say both."""
        stated = [self.tags.get(tag, ()) for tag in _RESOLUTIONS]
        if not all(len(each) == 2 and all(each) for each in stated):
            return ()
        return tuple(each[0] / each[1] for each in stated)

    @property
    def extra_samples(self) -> tuple[int, ...]:
        """Return what each sample beyond the colours is: 0 none, 1 associated alpha, 2 alpha."""
        return self.tags.get(_EXTRA_SAMPLES, ())

    @property
    def has_unknown_samples(self) -> bool:
        """Return whether a pixel has samples that are neither colours nor alpha."""
        with_alpha = self.extra_samples[:1] in ((1,), (2,))
        return self.samples > _COLOURS.get(self.photometric, self.samples) + with_alpha

    @property
    def palette(self) -> tuple[int, ...]:
        """Return all reds, all greens, all blues, of 16 bits each; empty without a palette."""
        return self.tags.get(_PALETTE, ())

    @property
    def icc_profile(self) -> bytes:
        """Return the ICC profile; empty without one."""
        return bytes(self.tags.get(_PROFILE, ()))

    @property
    def separate_planes(self) -> bool:
        return self._first(_PLANES, 1) == 2 and self.samples > 1

    @property
    def tile(self) -> tuple[int, int] | None:
        """Return width and height of a tile, None for strips."""
        if _TILE_OFFSETS not in self.tags:
            return None
        return self._first(_TILE_WIDTH, 0), self._first(_TILE_HEIGHT, 0)

    @property
    def rows_per_strip(self) -> int:
        return min(self._first(_ROWS_PER_STRIP, self.size[1]), max(self.size[1], 1))

    @property
    def parts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return offsets and byte counts of strips or tiles."""
        names = (_STRIP_OFFSETS, _STRIP_COUNTS) if self.tile is None else (_TILE_OFFSETS, _TILE_COUNTS)
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
