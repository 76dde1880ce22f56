"""Find the images of a folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from medmoe.client.errors import InvalidInput
from medmoe.client.images.image import DIRECTORY_FILE
from medmoe.model.image_formats.signature import DICOM_SUFFIXES, HEAD, RASTER_SUFFIXES, is_dicom, raster_format

_SHOWN = 5
_NO_DATA = frozenset(
    {
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "@eadir",
        "#recycle",
        "@recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)
"""Names, in lower case, under which operating systems and network storage keep thumbnails and deleted files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderImages:
    """Hold the images of a folder and those below it, by name, and a note about other files."""

    images: tuple[Path, ...]
    notes: tuple[str, ...]


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and those below it, linked ones too.

    Hidden files and folders are left out, and a link back to a folder above. Raises OSError for a folder that cannot
    be read.
    """
    for parent, names, files in os.walk(folder, followlinks=True, onerror=_raise):
        here = Path(parent).resolve()
        names[:] = [name for name in names if not is_hidden(name) and not here.is_relative_to((here / name).resolve())]
        yield from (path for path in (Path(parent, name) for name in files if not is_hidden(name)) if path.is_file())


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden by its name, or is no user's data but a system's."""
    return name.startswith(".") or name.lower() in _NO_DATA


def _raise(error: OSError) -> NoReturn:
    raise error


def find_images(folder: Path) -> FolderImages:
    """Find the images of a folder and those below it. Raises InvalidInput for a folder that cannot be read."""
    try:
        files = sorted(files_below(folder))
    except OSError as error:
        raise InvalidInput(f"{error.filename} cannot be read: {error.strerror}") from error
    images, others = list[Path](), list[str]()
    for path in files:
        if _is_image(path):
            images.append(path)
        else:
            others.append(path.relative_to(folder).as_posix())
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    notes = (f"left out, because not images: {', '.join(others[:_SHOWN])}{more}",) if others else ()
    return FolderImages(images=tuple(images), notes=notes)


def _is_image(path: Path) -> bool:
    """Check the suffix, and the first bytes because DICOM files often have none.

    An unreadable, empty or damaged file with an image's suffix counts as an image: the output then names its error.
    """
    if path.name.upper() == DIRECTORY_FILE:
        return False
    if path.suffix.lower() in RASTER_SUFFIXES + DICOM_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return True
    return raster_format(head) is not None or is_dicom(head)
