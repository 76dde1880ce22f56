"""Make augmented views of a training image.

The geometry is that of a patient placed slightly otherwise, the photometry that of another window setting. There is no
flip, since left and right are asked about, and one grey curve serves all channels, since colour is a finding in
histology and grey must stay grey.
"""

import math
import random
from statistics import median_low

from PIL import Image, ImageFilter

AUGMENTATION = 1
"""Raised whenever the same view of the same image would come out otherwise: cached features name it."""

_ROTATION = 10.0  # degrees, either way
_AREA = (0.85, 1.0)  # of the image
_ASPECT = 1.05  # at most, either way
_PHOTOMETRY = (0.8, 1.2)  # factors of brightness and contrast
_GAMMA = 1.2  # at most, either way
_BLUR_SHARE, _BLUR = 0.25, (0.2, 0.8)  # how many views are blurred; pixels, in an image of _BLUR_SIDE
_BLUR_SIDE = 224


def augment(image: Image.Image, *, digest: str, view: int) -> Image.Image:
    """Return view `view` of an RGB image; view 0 is the image itself, untouched.

    The same digest and view give the same pixels on every machine with the same Pillow: a view is chosen by its
    number. The size is the crop's, at the image's own resolution. Raises ValueError for another mode or a
    negative view.
    """
    if view < 0 or image.mode != "RGB":
        raise ValueError(f"view {view} of an image in mode {image.mode}: views count from 0, of RGB images")
    if view == 0:
        return image
    rng = random.Random(f"{digest}/{view}")
    return _photometry(_geometry(image, rng), rng)


def _geometry(image: Image.Image, rng: random.Random) -> Image.Image:
    """Rotate and crop around a shifted centre, in one interpolation; corners get the border's colour."""
    width, height = image.size
    area = rng.uniform(*_AREA)
    stretch = math.exp(rng.uniform(-1, 1) * math.log(_ASPECT))
    wide = min(width, max(1, round(width * math.sqrt(area * stretch))))
    high = min(height, max(1, round(height * math.sqrt(area / stretch))))
    middle_x = width / 2 + rng.uniform(-1, 1) * (width - wide) / 2
    middle_y = height / 2 + rng.uniform(-1, 1) * (height - high) / 2
    angle = math.radians(rng.uniform(-_ROTATION, _ROTATION))
    cosine, sine = math.cos(angle), math.sin(angle)
    # Output (x, y) is looked up at (a x + b y + c, d x + e y + f): the crop's middle stays where it was drawn.
    coefficients = (
        cosine,
        sine,
        middle_x - cosine * wide / 2 - sine * high / 2,
        -sine,
        cosine,
        middle_y + sine * wide / 2 - cosine * high / 2,
    )
    return image.transform(
        (wide, high),
        Image.Transform.AFFINE,
        coefficients,
        resample=Image.Resampling.BICUBIC,
        fillcolor=_border_colour(image),
    )


def _photometry(image: Image.Image, rng: random.Random) -> Image.Image:
    """Apply gamma, contrast about the mean grey and brightness as one curve, then a slight blur to some views."""
    gamma = math.exp(rng.uniform(-1, 1) * math.log(_GAMMA))
    contrast, brightness = rng.uniform(*_PHOTOMETRY), rng.uniform(*_PHOTOMETRY)
    counts = image.convert("L").histogram()
    curve = [(value / 255) ** gamma for value in range(256)]
    mean = sum(count * value for count, value in zip(counts, curve, strict=True)) / sum(counts)
    levels = [min(255, max(0, round(255 * brightness * (mean + contrast * (value - mean))))) for value in curve]
    image = image.point(levels * 3)
    if rng.random() < _BLUR_SHARE:
        radius = rng.uniform(*_BLUR) * max(image.size) / _BLUR_SIDE
        image = image.filter(ImageFilter.GaussianBlur(radius))
    return image


def _border_colour(image: Image.Image) -> tuple[int, ...]:
    """Return the median pixel of the edge, channel by channel: black around a scan, pale around a tissue section."""
    width, height = image.size
    edges = [(0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height), (width - 1, 0, width, height)]
    pixels = b"".join(image.crop(edge).tobytes() for edge in edges)
    return tuple(median_low(pixels[channel::3]) for channel in range(3))
