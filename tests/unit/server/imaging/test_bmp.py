"""BMP files of every header, bit field, colour table and colour space."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from medmoe.model.colour_profile import SRGB_PRIMARIES, SRGB_WHITE, plain_profile
from medmoe.server.errors import UnreadableImage, UnsupportedImage
from tests.unit.server.conftest import Read

SIDE = 32
RAMP = np.linspace(0, 255, SIDE * SIDE).round().astype(np.uint8).reshape(SIDE, SIDE)
COLOURS = np.stack([RAMP, 255 - RAMP, RAMP.T], axis=-1)
ALPHA = np.full((SIDE, SIDE), 255, np.uint8)
ALPHA[:8] = 0
INDEXED = (1, 2, 4, 8)
INFO, WITH_ALPHA, V4, V5 = 40, 56, 108, 124
EMBEDDED, LINKED = b"DEBM", b"KNIL"


def bmp(
    bits: int, pixels: bytes, *, size: int = INFO, table: bytes = b"", masks: tuple[int, ...] = (), used: int = 0,
    compression: int = 0, space: bytes = b"BGRs", end_points: int = 0, profile: bytes = b"",
) -> bytes:  # fmt: skip
    """Return a file of SIDE rows, from the lowest on, and columns."""
    packed = struct.pack(f"<{len(masks)}I", *masks)
    info = struct.pack("<IiiHHIIiiII", size, SIDE, SIDE, 1, bits, compression, len(pixels), 0, 0, used, 0)
    if size > INFO:
        info = (info + packed).ljust(WITH_ALPHA, b"\0")
        packed = b""
    if size >= V4:
        info += space + struct.pack("<9I", *[end_points] * 9) + bytes(12)
    start = 14 + size + len(packed) + len(table)
    if size == V5:
        info += struct.pack("<IIII", 4, start - 14 + len(pixels), len(profile), 0)
    body = info + packed + table + pixels + profile
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, start) + body


def shown(read: Read, data: bytes) -> np.ndarray:
    return np.asarray(read(data, config={"size": SIDE}).image, int)


def by_fields(masks: tuple[int, ...], bits: int) -> tuple[bytes, np.ndarray]:
    """Return pixels, and the colours that are left of COLOURS."""
    found = np.zeros((SIDE, SIDE), np.uint64)
    shades = []
    for channel, mask in zip([*np.moveaxis(COLOURS, -1, 0), ALPHA], masks, strict=False):
        most = mask // (mask & -mask) if mask else 1
        levels = np.rint(channel * (most / 255)).astype(np.uint64)
        found |= levels * np.uint64(mask & -mask)
        shades.append(levels * (255 / most) if mask else np.zeros(channel.shape))
    expected = np.stack(shades[:3], axis=-1)
    if len(masks) > 3:
        expected = expected * (shades[3][..., None] / 255)
    return found[::-1].astype(f"<u{bits // 8}").tobytes(), expected


@pytest.mark.parametrize("size", [INFO, WITH_ALPHA, V4, V5])
@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0x7C00, 0x3E0, 0x1F)), (16, (0xF00, 0xF0, 0xF)), (16, (0x1F, 0x7E0, 0xF800)), (16, (0xE0, 0x1C, 0x3)),
        (16, (0x7C00, 0x3E0, 0x1F, 0x8000)), (16, (0xF00, 0xF0, 0xF, 0xF000)), (16, (0xFF00, 0xF0, 0xF)),
        (32, (0xFF, 0xFF00, 0xFF0000)), (32, (0x3FF00000, 0xFFC00, 0x3FF)), (32, (0xFFE00000, 0x1FFC00, 0x3FF)),
        (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)), (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
    ],
    ids=lambda value: "-".join(map(hex, value)) if isinstance(value, tuple) else str(value),
)  # fmt: skip
def test_bit_fields(read: Read, bits: int, masks: tuple[int, ...], size: int) -> None:
    pixels, expected = by_fields(masks, bits)
    compression = 6 if size == INFO and len(masks) == 4 else 3
    data = bmp(bits, pixels, size=size, masks=masks, compression=compression)
    assert np.abs(shown(read, data) - expected).max() <= 1


def test_an_announced_alpha_that_is_0_everywhere_is_none(read: Read) -> None:
    masks = (0xFF0000, 0xFF00, 0xFF)
    pixels, expected = by_fields(masks, 32)
    assert (shown(read, bmp(32, pixels, size=V5, masks=(*masks, 0xFF000000), compression=3)) == expected).all()


def by_index(indices: np.ndarray, bits: int) -> bytes:
    spread = (indices[::-1, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(spread.reshape(SIDE, -1).astype(np.uint8), axis=1).tobytes()


def entries(colours: np.ndarray) -> bytes:
    return b"".join(bytes(map(int, colour[::-1])) + b"\0" for colour in colours)


@pytest.mark.parametrize("count", [2, 3, 256])
@pytest.mark.parametrize("bits", INDEXED)
@pytest.mark.parametrize("kind", ["black and white", "dark", "grey", "colours"])
def test_colour_tables_of_all_entries_and_of_fewer(read: Read, kind: str, bits: int, count: int) -> None:
    count = min(count, 2**bits)
    steps = np.arange(count)
    colours = {
        "black and white": np.repeat(np.where(steps == 1, 255, steps)[:, None], 3, axis=1),
        "dark": np.repeat(steps[:, None] * 3, 3, axis=1), "grey": np.repeat(steps[:, None] * 255 // 15, 3, axis=1),
        "colours": np.stack([steps * 15, 255 - steps * 15, steps * 7], axis=-1),
    }[kind] % 256  # fmt: skip
    indices = RAMP.astype(int) * count // 256
    data = bmp(bits, by_index(indices, bits), table=entries(colours), used=count)
    found = read(data, config={"size": SIDE}, allow_uniform=True)
    assert (np.asarray(found.image, int) == colours[indices]).all()


@pytest.mark.parametrize("bits", INDEXED[1:])
def test_an_index_without_a_colour_is_damage(read: Read, bits: int) -> None:
    indices = RAMP.astype(int) >> (8 - bits)
    colours = np.full((2**bits - 1, 3), 90)
    with pytest.raises(UnreadableImage, match="colour table lacks"):
        read(bmp(bits, by_index(indices, bits), table=entries(colours), used=len(colours)))


PLAIN = np.ascontiguousarray(COLOURS[::-1, :, ::-1]).tobytes()


def test_a_profile_in_the_file_is_followed(read: Read) -> None:
    linear = plain_profile(1.0, white=SRGB_WHITE, primaries=SRGB_PRIMARIES) or b""
    found = read(bmp(24, PLAIN, size=V5, space=EMBEDDED, profile=linear), config={"size": SIDE})
    share = COLOURS / 255
    expected = 255 * np.where(share <= 0.0031308, share * 12.92, 1.055 * np.maximum(share, 1e-9) ** (1 / 2.4) - 0.055)
    assert np.abs(np.asarray(found.image, int) - expected).max() <= 3
    assert found.rendering.steps == ("icc_profile",)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"size": V4}, ()), ({"size": V5}, ()), ({"size": V4, "space": bytes(4)}, ()),
        ({"size": V4, "space": bytes(4), "end_points": 2**29}, ("icc_profile_ignored",)),
        ({"size": V5, "space": LINKED, "profile": b"c:\\profile.icc\0\0"}, ("icc_profile_ignored",)),
    ],
    ids=["sRGB", "sRGB of V5", "no end points", "end points", "a linked profile"],
)  # fmt: skip
def test_a_colour_space_that_is_not_followed_is_named(
    read: Read, options: dict[str, int | bytes], steps: tuple[str, ...]
) -> None:
    found = read(bmp(24, PLAIN, **options), config={"size": SIDE})  # type: ignore[arg-type]
    assert (np.asarray(found.image) == COLOURS).all()
    assert found.rendering.steps == steps


@pytest.mark.parametrize(("bits", "compression"), [(1, 3), (32, 3), (24, 4), (0, 4), (0, 5), (8, 2), (4, 1), (64, 0)])
def test_a_layout_that_is_not_read_is_named(read: Read, bits: int, compression: int) -> None:
    with pytest.raises(UnsupportedImage, match="BMP pixels"):
        read(bmp(bits, PLAIN, compression=compression, size=64, masks=(0xFF0000, 0xFF00, 0xFF)))


def test_pixels_do_not_begin_within_the_headers(read: Read) -> None:
    data = bytearray(bmp(24, COLOURS[::-1, :, ::-1].tobytes()))
    data[10:14] = struct.pack("<I", 14 + INFO - 4)
    with pytest.raises(UnreadableImage, match="within its headers"):
        read(bytes(data))


def test_a_file_that_ends_before_its_last_pixel_is_damaged(read: Read) -> None:
    file = io.BytesIO()
    odd = COLOURS[:30, :30]
    Image.fromarray(odd).save(file, "BMP")
    # The last row ends with two bytes of padding.
    assert (np.asarray(read(file.getvalue()[:-2], config={"size": 30}).image) == odd).all()
    for data in (file.getvalue()[:-3], bmp(24, PLAIN)[:-1]):
        with pytest.raises(UnreadableImage, match="rows of the BMP are missing"):
            read(data)
