"""Check what a DICOM file says of text that is burned into its image."""

from pydicom.dataset import Dataset

from medmoe.server.errors import BurnedInAnnotation
from medmoe.server.imaging.formats.dicom.attributes import code, get
from medmoe.server.schemas.images import BurnedIn

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_OFTEN_ANNOTATED = frozenset({"US", "IVUS", "ES", "XC", "GM", "OT", "DOC", "SC"})
"""Modalities whose devices write into the image."""


def check_annotation(dataset: Dataset, policy: BurnedIn) -> None:
    """Raise BurnedInAnnotation where the policy refuses what the file says, or does not say, of such text."""
    if policy == "accept":
        return
    marked = code(dataset, "BurnedInAnnotation")
    # The label of a slide names the patient.
    labelled = code(dataset, "SpecimenLabelInImage") == "YES" or code(dataset, "ImageType", index=2) == "LABEL"
    if marked == "YES" or (labelled and marked != "NO"):
        raise BurnedInAnnotation()
    suspect = (
        str(get(dataset, "SOPClassUID") or "").startswith(_SECONDARY_CAPTURE)
        or code(dataset, "Modality") in _OFTEN_ANNOTATED
    )
    if policy == "refuse_unless_clear" and suspect and marked != "NO":
        raise BurnedInAnnotation(
            "images of this kind are taken only when the DICOM file says that no text is burned in "
            "(MEDMOE_DICOM_BURNED_IN)"
        )
