"""Augmented views stay close to the image, and come out the same every time."""

import math
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from medmoe.training.augmentation import _border_colour, _geometry, augment


def scan(width: int = 96, height: int = 64, *, mark: tuple[int, int] = (70, 20)) -> Image.Image:
    """A grey body on black with one bright mark on its right."""
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 8, height // 8, width * 7 // 8, height * 7 // 8), fill=90)
    draw.ellipse((mark[0] - 4, mark[1] - 4, mark[0] + 4, mark[1] + 4), fill=200)
    return image.convert("RGB")


def test_view_0_is_the_image_itself() -> None:
    image = scan()
    assert augment(image, digest="a", view=0) is image


def test_a_view_is_drawn_by_digest_and_number_alone() -> None:
    def pixels(digest: str, view: int) -> bytes:
        return augment(scan(), digest=digest, view=view).tobytes()

    assert pixels("a", 1) == pixels("a", 1)
    assert len({pixels(digest, view) for digest in "ab" for view in range(4)}) == 7  # view 0 is the same for both


def test_grey_stays_grey() -> None:
    for view in range(1, 9):
        red, green, blue = np.moveaxis(np.asarray(augment(scan(), digest="a", view=view)), -1, 0)
        assert (red == green).all()
        assert (red == blue).all()


def test_right_stays_right_and_shifts_stay_small() -> None:
    for view in range(1, 33):
        image = np.asarray(augment(scan(), digest="a", view=view).convert("L"))
        row, column = np.unravel_index(image.argmax(), image.shape)
        assert abs(column / image.shape[1] - 70 / 96) < 0.16
        assert abs(row / image.shape[0] - 20 / 64) < 0.16


def test_crop_keeps_most_of_the_area_and_nearly_the_aspect() -> None:
    for view in range(1, 17):
        width, height = augment(Image.new("RGB", (960, 640)), digest="a", view=view).size
        assert 0.83 <= width * height / (960 * 640) <= 1
        assert 1 / 1.1 < width / height / 1.5 < 1.1


def test_one_interpolation_does_what_rotating_and_then_cropping_do() -> None:
    image = Image.radial_gradient("L").resize((240, 160)).convert("RGB")
    for view in range(1, 9):
        drawn = random.Random(f"a/{view}")
        area, stretch = drawn.uniform(0.85, 1), math.exp(drawn.uniform(-1, 1) * math.log(1.05))
        wide = min(240, round(240 * math.sqrt(area * stretch)))
        high = min(160, round(160 * math.sqrt(area / stretch)))
        left = (240 - wide) / 2 * (1 + drawn.uniform(-1, 1))
        top = (160 - high) / 2 * (1 + drawn.uniform(-1, 1))
        angle = drawn.uniform(-10, 10)
        centre = (left + wide / 2, top + high / 2)
        turned = image.rotate(-angle, Image.Resampling.BICUBIC, center=centre, fillcolor=_border_colour(image))
        box = (left, top, left + wide, top + high)
        expected = turned.transform((wide, high), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
        found = _geometry(image, random.Random(f"a/{view}"))
        assert found.size == expected.size
        assert np.abs(np.asarray(found, dtype=float) - np.asarray(expected, dtype=float)).mean() < 1


def test_corners_get_the_colour_of_the_border() -> None:
    image = Image.new("RGB", (64, 64), (240, 200, 220))
    view = np.asarray(augment(image, digest="a", view=1))
    assert np.ptp(view, axis=(0, 1)).max() == 0


def test_view_has_about_the_brightness_of_the_image() -> None:
    means = [np.asarray(augment(scan(), digest="a", view=view)).mean() for view in range(1, 33)]
    image = np.asarray(scan()).mean()
    assert min(means) > 0.5 * image
    assert max(means) < 1.7 * image
    assert np.std(means) > 0.05 * image


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (28, 28)])
def test_small_images_have_views_too(size: tuple[int, int]) -> None:
    view = augment(Image.new("RGB", size), digest="a", view=3)
    assert view.size <= size


def test_other_modes_and_negative_views_are_refused() -> None:
    with pytest.raises(ValueError, match="mode L"):
        augment(Image.new("L", (4, 4)), digest="a", view=1)
    with pytest.raises(ValueError, match="view -1"):
        augment(Image.new("RGB", (4, 4)), digest="a", view=-1)
