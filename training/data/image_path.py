"""From the image name in a record to a file, without letting a record point outside its folder."""

from pathlib import Path, PurePosixPath

from medmoe.training.data.errors import SampleError


def image_path(name: str, *, directory: Path) -> Path:
    """Absolute path of `name` below `directory`.

    The check is on the name alone: a symbolic link below the folder is its owner's own doing and may lead anywhere.
    Raises SampleError when the name is absolute or climbs out with `..`, or when no such file exists.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name:
        raise SampleError("image path leaves the dataset's folder")
    path = directory.absolute() / relative
    try:
        present = path.is_file()
    except (OSError, ValueError):  # a name too long, or one with a NUL, which some Pythons refuse to stat
        present = False
    if not present:
        raise SampleError("image file is missing")
    return path
