"""Slices in order, and each kind of series that is no volume."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from highdicom.spatial import get_volume_positions

from medmoe.server.imaging.image import InstanceUIDs
from medmoe.server.imaging.series.errors import (
    DuplicateSlices,
    MissingSlices,
    MixedOrientation,
    MixedSeries,
    NotAVolume,
    SeriesError,
    TiltedGantry,
)
from medmoe.server.imaging.series.geometry import FileGeometry, SliceGeometry, Vector
from medmoe.server.imaging.series.volume import arrange

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
OBLIQUE = ((0.8, 0.0, -0.6), (0.0, 1.0, 0.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
TURNED = ((0.96, 0.28, 0.0), (-0.28, 0.96, 0.0))


def file(
    index: int, position: Vector | None = None, axes: tuple[Vector, Vector] = AXIAL, **changes: object
) -> FileGeometry:
    placed = SliceGeometry(position=position, rows=axes[0] if position else None, columns=axes[1] if position else None)
    whole = FileGeometry(
        uids=InstanceUIDs(study="1.2", series="1.3", instance=f"1.4.{index + 1}"),
        sop_class="1.2.840.10008.5.1.4.1.1.2",
        frame_of_reference="1.5",
        modality="CT",
        height=64,
        width=64,
        number=index + 1,
        multi_frame=False,
        slices=(placed,),
    )
    return whole.model_copy(update=changes)


def uids(**changes: str) -> InstanceUIDs:
    return InstanceUIDs(**({"study": "1.2", "series": "1.3", "instance": "1.8"} | changes))


def last(files: list[FileGeometry], **changes: object) -> list[FileGeometry]:
    """The last file changed."""
    return [*files[:-1], files[-1].model_copy(update=changes)]


def stack(count: int = 8, *, spacing: float = 2.5, axes: tuple[Vector, Vector] = AXIAL) -> list[FileGeometry]:
    normal = np.cross(*axes)
    places = [
        tuple(float(part) for part in np.array([-80.0, -90.0, 30.0]) + index * spacing * normal)
        for index in range(count)
    ]
    return [file(index, place, axes) for index, place in enumerate(places)]  # type: ignore[arg-type]


def moved(one: FileGeometry, *by: float) -> FileGeometry:
    (place,) = one.slices
    assert place.position is not None
    changed = tuple(part + step for part, step in zip(place.position, by, strict=True))
    return one.model_copy(update={"slices": (place.model_copy(update={"position": changed}),)})


@pytest.mark.parametrize("axes", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_shuffled_slices_come_in_the_order_of_their_places_and_not_of_their_numbers(
    axes: tuple[Vector, Vector],
) -> None:
    files = [one.model_copy(update={"number": 100 - index}) for index, one in enumerate(stack(axes=axes))]
    random.Random(5).shuffle(files)
    volume = arrange(files)
    assert [files[one.file].uids.instance for one in volume.slices] == [f"1.4.{index}" for index in range(1, 9)]
    assert [one.position for one in volume.slices] == [2.5 * index for index in range(8)]
    assert (volume.ordered_by, volume.spacing, volume.is_irregular) == ("position", 2.5, False)
    # highdicom as the oracle.
    spacing, places = get_volume_positions(
        [one.slices[0].position for one in files],
        [*axes[0], *axes[1]],  # type: ignore[misc]
    )
    assert spacing == pytest.approx(2.5)
    assert places is not None
    ours = {one.file: index for index, one in enumerate(volume.slices)}
    found = [ours[index] for index in range(8)]
    assert found in (places, [7 - place for place in places])


def test_positions_that_a_file_has_rounded_are_even() -> None:
    assert arrange([moved(one, 0, 0, round(0.04 * (-1) ** index, 2)) for index, one in enumerate(stack(spacing=0.625))])


REFUSED: dict[str, tuple[Callable[[list[FileGeometry]], Sequence[FileGeometry]], type[SeriesError]]] = {
    "one slice": (lambda files: files[:1], NotAVolume),
    "one missing": (lambda files: files[:3] + files[4:], MissingSlices),
    "several missing": (lambda files: files[:2] + files[5:], MissingSlices),
    "a file twice": (lambda files: [*files, files[3]], DuplicateSlices),
    "nearly one place": (lambda files: [*files, moved(files[3], 0, 0, 0.02)], DuplicateSlices),
    "another phase": (lambda files: [*files, *files], DuplicateSlices),
    "tilted": (lambda files: [moved(one, 0, 0.5 * index, 0) for index, one in enumerate(files)], TiltedGantry),
    "one displaced": (lambda files: [*files[:-1], moved(files[-1], 3, 0, 0)], TiltedGantry),
    "a localizer": (lambda files: [*files, file(20, (0.0, 0.0, 200.0), SAGITTAL)], MixedOrientation),
    "one turned": (lambda files: [*files[:-1], file(7, (-80.0, -90.0, 47.5), TURNED)], MixedOrientation),
    "another series": (lambda files: last(files, uids=uids(series="1.9")), MixedSeries),
    "another study": (lambda files: last(files, uids=uids(study="1.7")), MixedSeries),
    "another frame of reference": (lambda files: last(files, frame_of_reference="1.6"), MixedSeries),
    "another modality": (lambda files: last(files, modality="PT"), MixedSeries),
    "another patient": (lambda files: last([last(files, patient="a")[-1], *files[:-1]], patient="b"), MixedSeries),
    "another width": (lambda files: last(files, width=32), MixedSeries),
    "another height": (lambda files: last(files, height=32), MixedSeries),
    "one without a position": (lambda files: [*files, file(8)], NotAVolume),
    "one without an orientation": (
        lambda files: last(files, slices=(SliceGeometry(position=(0.0, 0.0, 0.0), rows=None, columns=None),)),
        NotAVolume,
    ),
    "radiographs": (lambda files: [file(index, modality="DX") for index in range(4)], NotAVolume),
    "neither positions nor numbers": (lambda files: [file(index, number=None) for index in range(4)], NotAVolume),
    "a number twice": (lambda files: [file(index, number=index // 2) for index in range(4)], DuplicateSlices),
    "a number missing": (lambda files: [file(index, number=index * (index + 1)) for index in range(4)], MissingSlices),
    "a film": (lambda files: [file(0, multi_frame=True, slices=4 * file(0).slices)], NotAVolume),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_volume_is_refused_by_its_cause(name: str) -> None:
    spoil, error = REFUSED[name]
    with pytest.raises(SeriesError) as refused:
        arrange(spoil(stack()))
    assert type(refused.value) is error
    if error in (MissingSlices, TiltedGantry):
        volume = arrange(spoil(stack()), allow_irregular=True)
        assert volume.is_irregular
    else:
        with pytest.raises(error):
            arrange(spoil(stack()), allow_irregular=True)


def test_slices_without_positions_are_ordered_by_number() -> None:
    # As large as a DICOM file can hold.
    last_number = 2**31 - 1
    files = [file(index, number=last_number - index) for index in (3, 0, 2, 1)]
    volume = arrange(files)
    assert [last_number - files[one.file].number for one in volume.slices] == [3, 2, 1, 0]  # type: ignore[operator]
    assert (volume.ordered_by, volume.spacing, volume.slices[0].position) == ("instance_number", None, None)


@pytest.mark.parametrize(
    ("total", "count", "found"),
    [(64, 16, tuple(range(2, 64, 4))), (8, 3, (1, 4, 6)), (5, 16, (0, 1, 2, 3, 4)), (9, 1, (4,)), (2, 2, (0, 1))],
)
def test_slices_are_evenly_sampled(total: int, count: int, found: tuple[int, ...]) -> None:
    assert arrange(stack(total)).sample(count) == found
