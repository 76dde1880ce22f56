"""One image in several encodings, from pydicom's own test files, is rendered alike."""

import pytest

from tests.support.images.dicom_twins import TWINS, difference


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("reference", "twin", "most"),
    [(reference, twin, most) for reference, twins in TWINS.items() for twin, most in twins.items()],
)
def test_a_twin_is_rendered_as_its_reference(reference: str, twin: str, most: int) -> None:
    assert difference(reference, twin) <= most
