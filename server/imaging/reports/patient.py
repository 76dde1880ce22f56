"""Carry the patient and the study of an image over to its report."""

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medmoe.server.errors import UnreadableImage
from medmoe.server.imaging.formats.dicom.attributes import get, uid
from medmoe.server.imaging.reports.values import age_value, date_value, first_value, long_string, sex_value, time_value

_IDENTITY = (
    "PatientName", "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "StudyID", "AccessionNumber",
)  # fmt: skip
"""Kept as the image has them, whatever their form: another text would name another patient, or another order."""
_DESCRIPTION = {
    "PatientBirthDate": date_value,
    "PatientSex": sex_value,
    "PatientAge": age_value,
    "StudyDate": date_value,
    "StudyTime": time_value,
    "StudyDescription": long_string,
    "ReferringPhysicianName": first_value,
}
"""Made valid, or left empty."""
_OPTIONAL = ("IssuerOfPatientID", "PatientAge", "StudyDescription")
"""Left out where they are empty."""
KEYWORDS = (*_IDENTITY, *_DESCRIPTION)


def patient_and_study(source: Dataset) -> Dataset:
    """Return the attributes of the patient and study modules that a report of the study repeats, in Unicode.

    Raises UnreadableImage where the patient's ID cannot be read.
    """
    carried = Dataset()
    carried.SpecificCharacterSet = "ISO_IR 192"
    for keyword in KEYWORDS:
        form = _DESCRIPTION.get(keyword, str)
        text = form(_text(source, keyword))
        if text or keyword not in _OPTIONAL:
            setattr(carried, keyword, text)
    _require_readable(_text(source, "PatientID"), is_declared=bool(uid(source, "SpecificCharacterSet")))
    return carried


def _text(source: Dataset, keyword: str) -> str:
    """Return the text of an attribute, all its values with backslashes between them, as the file has it."""
    value = get(source, keyword)
    if value is None:
        return ""
    texts = value if isinstance(value, MultiValue) else [value]
    return "\\".join("" if one is None else str(one) for one in texts).strip(" \0")


def _require_readable(patient_id: str, *, is_declared: bool) -> None:
    if "\N{REPLACEMENT CHARACTER}" in patient_id or not (is_declared or patient_id.isascii()):
        raise UnreadableImage(
            "the patient's ID in the DICOM file is not text of the character set that the file names, "
            "so a report might be filed under another patient"
        )
