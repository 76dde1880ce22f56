"""Recognise DICOM files, which are rendered before training, and find the rendered ones."""

from pathlib import Path

RENDER = "DICOM: `medmoe render FOLDER RENDERED` writes such a folder as PNG"
_ENDINGS = (".dcm", ".dicom", ".ima")
_PREAMBLE = 128


def is_dicom(file: Path) -> bool:
    """Return whether a file is DICOM by its name or by its first bytes; False where it cannot be read."""
    if file.suffix.lower() in _ENDINGS:
        return True
    try:
        with file.open("rb") as opened:
            return opened.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return False


def rendered_name(name: str) -> str:
    """Return the name of the PNG that `medmoe render` writes of a DICOM file; any other name as it is."""
    path = Path(name)
    return str(path.with_suffix(".png")) if path.suffix.lower() in _ENDINGS else name
