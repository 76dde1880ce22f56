"""JPEG files of which scans, restart intervals or the last blocks are missing."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit

from medmoe.server.errors import UnreadableImage, UnsupportedImage
from tests.support.images.dicom_elements import file, fragments
from tests.support.images.hostile_images import encoded
from tests.unit.server.conftest import Read

WIDTH, HEIGHT = 101, 93
NOISE = np.random.default_rng(2).integers(-12, 13, (HEIGHT, WIDTH, 1))
PLANE = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))
IMAGE = Image.fromarray(
    (np.stack([PLANE + 30, 2 * PLANE // 3, 220 - PLANE], axis=-1) + NOISE).clip(0, 255).astype("u1")
)
KINDS = {"grey": IMAGE.convert("L"), "colours": IMAGE}
Fault = Callable[[bytes, list[int], int], bytes]
END = b"\xff\xd9"
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
SCAN = re.compile(rb"\xff\xda")
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")


def written(kind: str, *, progressive: bool = False, restarts: int = 0, subsampling: int = 2) -> bytes:
    options = {"restart_marker_blocks": restarts} if restarts else {}
    subsampled = {"subsampling": subsampling} if kind == "colours" else {}
    return encoded(KINDS[kind], "JPEG", quality=95, progressive=progressive, **options, **subsampled)


def refused(read: Read, data: bytes) -> None:
    with pytest.raises(UnreadableImage, match="damaged"):
        read(data)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("restarts", [0, 1, 3, 8])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kind", list(KINDS))
def test_whole_files_are_read(read: Read, kind: str, progressive: bool, restarts: int, subsampling: int) -> None:
    assert not read(written(kind, progressive=progressive, restarts=restarts, subsampling=subsampling)).rendering.steps


@pytest.mark.parametrize("kept", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("restarts", [0, 3])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_file_whose_end_is_missing_is_refused(
    read: Read, kind: str, progressive: bool, restarts: int, kept: float
) -> None:
    data = written(kind, progressive=progressive, restarts=restarts)
    refused(read, data[: int(len(data) * kept)] + END)


def without_marker(data: bytes, marks: list[int], at: int) -> bytes:
    return data[: marks[at]] + data[marks[at] + 2 :]


def without_interval(data: bytes, marks: list[int], at: int) -> bytes:
    return data[: marks[at]] + data[marks[at + 1] :]


def without_eight(data: bytes, marks: list[int], at: int) -> bytes:
    return data[: marks[at]] + data[marks[at + 8] :]


def twice(data: bytes, marks: list[int], at: int) -> bytes:
    return data[: marks[at + 1]] + data[marks[at] :]


def of_another_number(data: bytes, marks: list[int], at: int) -> bytes:
    return data[: marks[at] + 1] + bytes([0xD0 + (data[marks[at] + 1] + 3) % 8]) + data[marks[at] + 2 :]


def without_data(data: bytes, marks: list[int], at: int) -> bytes:
    return data[: marks[at] + 2] + data[marks[at + 1] :]


@pytest.mark.parametrize(
    "fault", [without_marker, without_interval, without_eight, twice, of_another_number, without_data]
)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_fault_of_restart_intervals_is_refused_alone_and_in_dicom(
    read: Read, kind: str, progressive: bool, fault: Fault
) -> None:
    data = written(kind, progressive=progressive, restarts=2)
    marks = [found.start() for found in RESTART.finditer(data)]
    broken = fault(data, marks, 3)
    refused(read, broken)
    colour = "YBR_FULL_422" if kind == "colours" else "MONOCHROME2"
    refused(read, file(fragments(broken), syntax=JPEGBaseline8Bit, shape=(HEIGHT, WIDTH), bits=8, colour=colour))


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_progressive_file_without_one_of_its_scans_is_refused(read: Read, kind: str) -> None:
    data = written(kind, progressive=True)
    starts = [found.start() for found in SCAN.finditer(data)]
    for start, following in zip(starts, [*starts[1:], len(data) - len(END)], strict=True):
        refused(read, data[:start] + data[following:])


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_scan_that_is_cut_within_a_progressive_file_is_refused(read: Read, kind: str) -> None:
    data = written(kind, progressive=True)
    starts = [found.start() for found in SCAN.finditer(data)]
    for start in starts:
        marker = next(found.start() for found in MARKER.finditer(data, start + 2))
        # The tables of the next scan stay.
        refused(read, data[: (start + marker) // 2].rstrip(b"\xff") + data[marker:])


@pytest.mark.parametrize(
    ("frame", "named"), [(0xC9, "arithmetic"), (0xCA, "arithmetic"), (0xC3, "lossless"), (0xC5, "hierarchical")]
)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_coding_that_is_not_read_is_named(read: Read, progressive: bool, frame: int, named: str) -> None:
    data = bytearray(written("colours", progressive=progressive))
    at = max(data.find(b"\xff\xc0\0\x11"), data.find(b"\xff\xc2\0\x11"))
    data[at + 1] = frame
    with pytest.raises(UnsupportedImage, match=named):
        read(bytes(data))


def test_each_image_of_a_multi_picture_file_is_whole_for_itself(read: Read) -> None:
    negative = Image.fromarray(255 - np.asarray(IMAGE))
    data = encoded(IMAGE, "MPO", save_all=True, append_images=[negative], quality=95)
    second = data.rindex(b"\xff\xd8\xff")
    cut = data[: (second + len(data)) // 2] + END
    lost = data[: second // 2] + bytes(second - second // 2) + data[second:]
    for frame, whole, broken in ((0, cut, lost), (1, lost, cut)):
        assert read(whole, frame=frame).pixels == read(data, frame=frame).pixels
        with pytest.raises(UnreadableImage, match="damaged"):
            read(broken, frame=frame)
