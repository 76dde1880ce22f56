"""Read the files of a series, or name one that the service fetches."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from medmoe.client.errors import InvalidInput
from medmoe.client.images.folder import files_below
from medmoe.client.images.image import DIRECTORY_FILE, Image, Source
from medmoe.model.image_formats.signature import DICOM_SUFFIXES, HEAD, is_dicom


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A series in a source of the service; `Client.series` lists those of a study."""

    source: str
    study: str = field(repr=False)
    """Study Instance UID."""
    series: str = field(repr=False)
    """Series Instance UID."""


SeriesSource: TypeAlias = Series | Source | Sequence[Source]
"""A folder, a ZIP archive, a multi-frame file, several files, or the name of a series in a source."""


def series_files(source: SeriesSource) -> Series | tuple[Image, ...]:
    """Read the files of a series. Raises InvalidInput if they cannot be read, TypeError if `source` names none."""
    if isinstance(source, Series):
        return source
    if isinstance(source, str | os.PathLike) and Path(source).is_dir():
        return tuple(map(Image.of, dicom_files(Path(source))))
    if isinstance(source, list | tuple):
        if not source:
            raise InvalidInput("the series has no files")
        return tuple(map(Image.of, source))
    return (Image.of(source),)  # type: ignore[arg-type]


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files in a folder and those below it, by name. Raises InvalidInput where there are none.

    A damaged file with the suffix of one counts, so that the service refuses the series: without it a slice is missing.
    """
    try:
        found = [path for path in sorted(files_below(folder)) if _is_dicom(path)]
    except OSError as error:
        raise InvalidInput(f"{error.filename} cannot be read: {error.strerror}") from error
    if not found:
        raise InvalidInput(f"{folder} holds no DICOM file")
    return found


def _is_dicom(path: Path) -> bool:
    if path.name.upper() == DIRECTORY_FILE:
        return False
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    with path.open("rb") as file:
        return is_dicom(file.read(HEAD))
