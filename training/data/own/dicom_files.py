"""Recognise DICOM files, which are rendered before training."""

from pathlib import Path

from medmoe.model.image_formats import signature

RENDER = "DICOM: `medmoe render FOLDER RENDERED` writes such a folder as PNG"


def has_dicom_suffix(name: str) -> bool:
    """Return whether a file's name ends as those of DICOM files do."""
    return name.lower().endswith(signature.DICOM_SUFFIXES)


def is_dicom(file: Path) -> bool:
    """Return whether a file is DICOM by its name or by its first bytes; False where it cannot be read."""
    if has_dicom_suffix(file.name):
        return True
    try:
        with file.open("rb") as opened:
            return signature.is_dicom(opened.read(signature.HEAD))
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return False
