"""Frames in encapsulated pixel data, whatever its offset tables, delimiters and frame count say."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from medmoe.server.errors import InvalidField, UnreadableImage
from tests.support.images.dicom_elements import element, file, fragments, run_length
from tests.support.images.hostile_images import encoded
from tests.unit.server.conftest import Read

SIDE = 32
RAMP = np.tile(np.arange(SIDE, dtype=np.uint8) * 8, (SIDE, 1))
FRAMES = [RAMP, np.ascontiguousarray(RAMP[:, ::-1]), 255 - RAMP]


def encode(values: np.ndarray, syntax: str) -> bytes:
    if syntax == RLELossless:
        return run_length([values.tobytes()])
    if syntax == JPEGBaseline8Bit:
        return encoded(Image.fromarray(values), "JPEG", quality=100)
    return encoded(Image.fromarray(values), "JPEG2000", no_jp2=True)


def halves(data: bytes) -> list[bytes]:
    middle = len(data) // 4 * 2
    return [data[:middle], data[middle:]]


def offsets(*data: bytes) -> list[int]:
    return [sum(8 + len(each) + len(each) % 2 for each in data[:index]) for index in range(len(data))]


def dicom(value: bytes, syntax: str, *, frames: str | None = None, **options: Any) -> bytes:
    count = {0x00280008: ("IS", frames)} if frames is not None else {}
    return file(value, count, syntax=syntax, shape=(SIDE, SIDE), bits=8, **options)


def shows(read: Read, data: bytes, expected: np.ndarray, **fields: Any) -> tuple[str, ...]:
    decoded = read(data, config={"size": SIDE}, **fields)
    assert np.abs(np.asarray(decoded.image)[..., 0].astype(int) - expected).max() <= 3
    return decoded.rendering.steps


@pytest.fixture(params=[JPEGBaseline8Bit, JPEG2000Lossless, RLELossless], ids=["JPEG", "JPEG 2000", "RLE"])
def syntax(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("frames", [None, "1", "0"])
@pytest.mark.parametrize("end", [True, False], ids=["delimiter", "no delimiter"])
@pytest.mark.parametrize("table", [(), (0,), (77,), (0, 100, 200)], ids=str)
def test_one_frame_in_any_fragments(read: Read, syntax: str, table: list[int], end: bool, frames: str | None) -> None:
    data = encode(RAMP, syntax)
    for parts in ([data], halves(data)):
        steps = shows(read, dicom(fragments(*parts, table=table, end=end), syntax, frames=frames), RAMP)
        assert ("delimiter_added" in steps, "frame_count" in steps) == (not end, frames == "0")


@pytest.mark.parametrize(
    "damage",
    [None, lambda table: [], lambda table: [0] * 3, lambda table: table[:2], lambda table: table[::-1],
     lambda table: [at + 8 for at in table], lambda table: [at + 500 for at in table]],
    ids=["right", "empty", "zeros", "short", "reversed", "off by a header", "absolute"],
)  # fmt: skip
@pytest.mark.parametrize("split", [False, True], ids=["whole", "halves"])
def test_each_of_three_frames_by_any_offset_table(read: Read, syntax: str, split: bool, damage: Any) -> None:
    parts = [halves(encode(frame, syntax)) if split else [encode(frame, syntax)] for frame in FRAMES]
    every = [part for frame in parts for part in frame]
    table = offsets(*every)[:: len(parts[0])]
    data = dicom(fragments(*every, table=damage(table) if damage else table), syntax, frames="3")
    for number, expected in enumerate(FRAMES):
        assert "frame_count" not in shows(read, data, expected, frame=number)


@pytest.mark.parametrize(("declared", "reachable"), [(None, 3), ("0", 3), ("1", 1), ("2", 2)])
def test_another_number_of_frames_than_declared(read: Read, syntax: str, declared: str | None, reachable: int) -> None:
    data = dicom(fragments(*(encode(frame, syntax) for frame in FRAMES)), syntax, frames=declared)
    for number, expected in enumerate(FRAMES[:reachable]):
        assert "frame_count" in shows(read, data, expected, frame=number)
    if reachable < 3:
        with pytest.raises(InvalidField, match=f"has {reachable}"):
            read(data, frame=reachable)


def test_fewer_frames_than_declared_say_so(read: Read, syntax: str) -> None:
    data = dicom(fragments(*(encode(frame, syntax) for frame in FRAMES)), syntax, frames="4")
    with pytest.raises(UnreadableImage, match="declares 4 frames and the file holds 3"):
        read(data)


@pytest.mark.parametrize("listed", [False, True], ids=["no table", "table of fragments"])
def test_fragments_that_are_counted_as_frames_say_so(read: Read, syntax: str, listed: bool) -> None:
    parts = [*halves(encode(FRAMES[0], syntax)), *(encode(frame, syntax) for frame in FRAMES[1:])]
    data = dicom(fragments(*parts, table=offsets(*parts) if listed else []), syntax, frames="4")
    for frame in range(4):
        with pytest.raises(UnreadableImage, match="declares 4 frames and the file holds 3"):
            read(data, frame=frame)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_fragment_says_so(read: Read, syntax: str, kept: float) -> None:
    data = encode(RAMP, syntax)
    whole = dicom(fragments(data, end=False), syntax)
    with pytest.raises(UnreadableImage, match="truncated"):
        read(whole[: len(whole) - int(len(data) * (1 - kept))])


def test_elements_behind_the_frames_are_no_frame(read: Read, syntax: str) -> None:
    value = fragments(encode(RAMP, syntax)) + element(0xFFFCFFFC, "OB", bytes(10))
    assert shows(read, dicom(value, syntax), RAMP) == ()


@pytest.mark.parametrize("declared", [None, "0", "1", "3"])
def test_uncompressed_frames_are_counted_by_length(read: Read, declared: str | None) -> None:
    count = {0x00280008: ("IS", declared)} if declared is not None else {}
    data = file(np.stack(FRAMES), count, shape=(SIDE, SIDE), bits=8)
    for number, expected in enumerate(FRAMES[: 1 if declared == "1" else 3]):
        steps = shows(read, data, expected, frame=number)
        assert ("frame_count" in steps) == (declared in (None, "0", "1"))
