"""Order the slices of a series along their normal, and refuse what is no volume."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmoe.server.imaging.series.errors import (
    DuplicateSlices,
    MissingSlices,
    MixedOrientation,
    MixedSeries,
    NotAVolume,
    TiltedGantry,
)
from medmoe.server.imaging.series.geometry import FileGeometry, SliceGeometry
from medmoe.server.schemas.series import OrderedBy

_PARALLEL = 1e-3
"""Largest difference of the direction cosines of parallel slices: 0.06 degrees."""
_SAME_PLACE = 0.01
"""Distance of two slices at one place, in usual distances."""
_UNEVEN = 0.1
"""Largest difference of a distance from the usual one, in usual distances."""
_UNEVEN_ROUNDED = 0.3
"""The same where positions are rounded."""
_DISPLACED = 0.01
"""Largest displacement within the plane, in distances along the normal: 0.6 degrees."""
_ROUNDING = 0.1
"""Millimetres to which a file may round its position."""
_PROJECTIONS = frozenset({"CR", "DX", "MG", "RG", "RF", "XA", "US", "IVUS", "ES", "XC", "GM", "SM", "OP", "IO", "PX"})
"""Modalities whose images without positions are views or films, and no slices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedSlice:
    """A slice in its volume."""

    file: int
    """Index of its file among those that were arranged."""
    frame: int | None
    """None in a file of one frame."""
    position: float | None
    """Millimetres along the normal from the first slice; None for slices that are ordered by number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """The slices of a series in order."""

    slices: tuple[PlacedSlice, ...]
    ordered_by: OrderedBy
    spacing: float | None
    """Usual distance of two neighbours in millimetres."""
    is_irregular: bool
    """Whether slices are unevenly spaced, or displaced against one another."""

    def sample(self, count: int) -> tuple[int, ...]:
        """Return the indices of `count` slices, or of all where there are fewer: the middles of equal parts."""
        total = len(self.slices)
        taken = min(count, total)
        return tuple((2 * part + 1) * total // (2 * taken) for part in range(taken))


def arrange(files: Sequence[FileGeometry], *, allow_irregular: bool = False) -> Volume:
    """Return the volume of the slices in `files`.

    Raises MixedSeries, NotAVolume, MixedOrientation, DuplicateSlices, and unless `allow_irregular` MissingSlices and
    TiltedGantry.
    """
    _require_one_series(files)
    placed = [(index, frame, one) for index, file in enumerate(files) for frame, one in enumerate(file.slices)]
    if len(placed) < 2:
        raise NotAVolume("a series of one slice is no volume; ask with /v1/vqa or /v1/classify")
    have = [one.position is not None and one.rows is not None for _, _, one in placed]
    if not any(have):
        return _by_number(files, allow_irregular=allow_irregular)
    if not all(have):
        raise NotAVolume(f"{have.count(False)} of {len(have)} slices have no position; send the others")
    distances, displaced = _project([one for _, _, one in placed])
    order = np.argsort(distances, kind="stable")
    gaps = np.diff(distances[order])
    usual = float(np.median(gaps))
    if usual <= 0 or (gaps <= _SAME_PLACE * usual).any():
        count = int((gaps <= _SAME_PLACE * usual).sum())
        raise DuplicateSlices(
            f"{count} of {len(placed)} slices lie where another lies, as files sent twice do, and phases, echoes and "
            "diffusion weights; send one image for each place"
        )
    tolerance = max(_UNEVEN * usual, min(2 * _ROUNDING, _UNEVEN_ROUNDED * usual))
    uneven = int((np.abs(gaps - usual) > tolerance).sum())
    if not allow_irregular:
        if displaced:
            raise TiltedGantry()
        if uneven:
            raise MissingSlices(
                f"slices are missing or unevenly spaced: {uneven} of {len(gaps)} distances are not the usual "
                f"{usual:.3g} mm, the largest is {float(gaps.max()):.3g} mm; send all slices, or allow_irregular=true"
            )
    slices = (
        PlacedSlice(
            file=placed[index][0],
            frame=placed[index][1] if files[placed[index][0]].multi_frame else None,
            position=round(float(distances[index] - distances[order[0]]), 4),
        )
        for index in order
    )
    return Volume(
        slices=tuple(slices), ordered_by="position", spacing=round(usual, 4), is_irregular=bool(uneven or displaced)
    )


def _require_one_series(files: Sequence[FileGeometry]) -> None:
    """Raise MixedSeries where the files differ in what one series, or one volume, shares."""
    count = len({file.uids.series for file in files})
    if count > 1:
        raise MixedSeries(f"the images belong to {count} series; send one")
    shared = {
        "studies": len({file.uids.study for file in files}),
        # Anonymised archives may have given several patients the same UIDs.
        "patients": len({file.patient for file in files if file.patient}),
        "modalities": len({file.modality for file in files}),
        "frames of reference": len({file.frame_of_reference for file in files}),
        "image sizes": len({(file.height, file.width) for file in files}),
    }
    for name, different in shared.items():
        if different > 1:
            raise MixedSeries(f"the images of the series have {different} {name}; send those of one volume")


def _project(slices: Sequence[SliceGeometry]) -> tuple[np.ndarray, bool]:
    """Return each slice's distance along the common normal, and whether slices are displaced within their plane.

    Raises MixedOrientation.
    """
    # The caller has checked that all have positions.
    positions = np.array([one.position for one in slices], dtype=np.float64)
    axes = np.array([(one.rows, one.columns) for one in slices], dtype=np.float64)
    if (np.abs(axes - axes[0]) > _PARALLEL).any():
        raise MixedOrientation()
    rows, columns = axes[0]
    distances: np.ndarray = positions @ np.cross(rows, columns)
    in_plane = (positions - positions[0]) @ np.stack((rows, columns), axis=1)
    reach = np.abs(distances - distances[0])
    displaced = bool((np.linalg.norm(in_plane, axis=1) > np.maximum(_DISPLACED * reach, _ROUNDING)).any())
    return distances, displaced


def _by_number(files: Sequence[FileGeometry], *, allow_irregular: bool) -> Volume:
    """Order slices without positions by Instance Number. Raises NotAVolume, DuplicateSlices, MissingSlices."""
    if any(file.multi_frame for file in files):
        raise NotAVolume("the frames have no positions: a film and no volume; ask about one frame with /v1/vqa")
    if files[0].modality in _PROJECTIONS:
        raise NotAVolume()
    numbers = [file.number for file in files]
    if None in numbers:
        raise NotAVolume("the images have neither positions nor numbers; ask about single ones with /v1/vqa")
    known = np.array(numbers, dtype=np.int64)
    order = np.argsort(known, kind="stable")
    gaps = np.diff(known[order])
    if (gaps == 0).any():
        raise DuplicateSlices(f"image numbers repeat ({int((gaps == 0).sum())} times), and no image has a position")
    uneven = bool((gaps != gaps.min()).any())
    if uneven and not allow_irregular:
        raise MissingSlices("numbers of slices are missing; send all slices, or allow_irregular=true")
    slices = (PlacedSlice(file=int(index), frame=None, position=None) for index in order)
    return Volume(slices=tuple(slices), ordered_by="instance_number", spacing=None, is_irregular=uneven)
