"""Find the file of an image name in a record, and refuse one outside the record's folder."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from medmoe.model.image_formats.signature import RASTER_SUFFIXES
from medmoe.training.data.errors import DatasetError, SampleError

_FAMILIES = ((".jpg", ".jpeg"), (".tif", ".tiff"), (".png",), (".bmp",), (".webp",))
"""Spellings of an ending that releases and their copies mix, in capitals too."""


def image_path(name: str, *, directory: Path) -> Path:
    """Return the absolute path of `name` below `directory`.

    The check is on the name alone: a symbolic link below the folder is its owner's own doing and may lead anywhere.
    Raises SampleError when the name is absolute or climbs out with `..`, when no such file exists, or when only the
    ending is spelt otherwise and several files fit.
    """
    relative = _relative(name)
    path = directory.absolute() / relative
    if _is_file(path):
        return path
    found = [other for spelt in _respelt(relative) if _is_file(other := directory.absolute() / spelt)]
    if not found:
        raise SampleError("image file is missing")
    if len(found) > 1:
        raise SampleError("image name fits several files")
    return found[0]


def find_image(name: str, *, directories: Sequence[Path]) -> Path:
    """Return the one file that `name` means below `directories`; its ending may be missing, as in PathVQA and ROCO.

    For folders unpacked from an untrusted archive: stricter than `image_path`, a symbolic link must stay below the
    directory that it is found in (the directory itself may be a link).
    Raises SampleError as `image_path` does, and when the name fits several files or is a link that leads away.
    """
    relative = _relative(name)
    endings = ("",) if relative.suffix.lower() in RASTER_SUFFIXES else ("", *RASTER_SUFFIXES)
    candidates = [
        (directory.absolute(), directory.absolute() / f"{relative}{ending}")
        for directory in directories
        for ending in endings
    ]
    found = {path: directory for directory, path in candidates if _is_file(path)}
    if not found:
        respelt = _respelt(relative)
        paths = {directory.absolute() / path: directory.absolute() for directory in directories for path in respelt}
        found = {path: directory for path, directory in paths.items() if _is_file(path)}
    if not found:
        raise SampleError("image file is missing")
    if len(found) > 1:
        raise SampleError("image name fits several files")
    ((path, directory),) = found.items()
    if not path.resolve().is_relative_to(directory.resolve()):
        raise SampleError("image is a link that leaves the dataset's folder; put the file itself there")
    return path


def image_folder(directory: Path, *, names: Sequence[str]) -> Path:
    """Return the one of `names` that lies in `directory`, whatever its capitals, blanks, underscores and hyphens.

    Raises DatasetError when there is none, or more than one.
    """
    wanted = {comparable(name) for name in names}
    found = [path for path in _entries(directory) if path.is_dir() and comparable(path.name) in wanted]
    if len(found) != 1:
        problem = "several image folders" if found else "no image folder"
        raise DatasetError(f"{directory} has {problem}: wanted exactly one of {', '.join(names)}")
    return found[0]


def comparable(name: str) -> str:
    """Return a name in lower case with letters, digits and dots alone, by which spellings of it are compared."""
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter == ".")


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _respelt(relative: PurePosixPath) -> list[PurePosixPath]:
    """Return the name with each other spelling of its ending, or of any image's ending where it has none."""
    if not relative.name:
        return []
    family = next((family for family in _FAMILIES if relative.suffix.lower() in family), None)
    if family is not None:
        return [relative.with_suffix(spelt) for ending in family for spelt in (ending, ending.upper())]
    return [relative.with_name(relative.name + ending.upper()) for ending in RASTER_SUFFIXES]


def _relative(name: str) -> PurePosixPath:
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or PureWindowsPath(name).drive or ".." in relative.parts:
        raise SampleError("image path leaves the dataset's folder")
    return relative


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or one with a NUL, which some Pythons refuse to stat
        return False
