"""Images in which nothing is to be seen are refused, unless the request allows them."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmoe.model.image_formats.uniform import is_uniform
from medmoe.server.errors import UniformImage
from tests.support.images.dicom_files import dicom, gradient
from tests.support.images.hostile_images import encoded
from tests.unit.server.conftest import Read


def gradient_image() -> Image.Image:
    return Image.radial_gradient("L").resize((40, 40))


def nearly() -> Image.Image:
    image = Image.new("L", (100, 100), 3)
    image.putpixel((4, 4), 255)
    return image


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (encoded(Image.new("RGB", (40, 40)), "PNG"), {}),
        (encoded(Image.new("L", (40, 40), 255), "JPEG"), {}),
        (encoded(nearly(), "PNG"), {}),
        (encoded(Image.new("L", (40, 40)), "TIFF", save_all=True, append_images=[gradient_image()]), {"frame": 0}),
        (encoded(gradient_image(), "TIFF", save_all=True, append_images=[Image.new("L", (40, 40))]), {"frame": 1}),
        (dicom(np.full((32, 32), 7, np.int16)), {}),
        (dicom(np.stack([gradient((32, 32)), np.full((32, 32), 7)]), NumberOfFrames=2), {"frame": 1}),
        (dicom(gradient((32, 32))), {"window": "90000/10"}),
    ],
    ids=["black", "white", "nearly", "first page", "second page", "DICOM", "frame", "window"],
)
def test_one_shade_is_refused_unless_it_is_allowed(read: Read, data: bytes, fields: dict[str, Any]) -> None:
    with pytest.raises(UniformImage, match="allow_uniform"):
        read(data, **fields)
    assert read(data, allow_uniform=True, **fields).image.size == (32, 32)


@pytest.mark.parametrize("height", [1, 5, 7, 8, 9, 16, 100, 333])
@pytest.mark.parametrize("others", [0, 1, 2, 3])
@pytest.mark.parametrize("edge", [0, 1])
def test_the_share_of_other_shades_decides_wherever_they_are(height: int, others: int, edge: int) -> None:
    width = 1500 // height
    pixels = np.full((height, width, 3), 100, np.uint8)
    pixels.reshape(-1, 3)[: width * height // 2] = 103
    row = pixels[-edge]
    row[:others, 1] = 104 + edge
    counts = np.bincount(pixels[..., 1].ravel(), minlength=260)
    most = max(counts[level : level + 4].sum() for level in range(256))
    assert is_uniform(Image.fromarray(pixels)) == (most >= 0.999 * width * height)
