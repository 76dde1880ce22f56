"""Draw images of kinds that are no medical images: noise, plain colours, gradients, screenshots and landscapes."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Colour = tuple[int, int, int]
_TEXT = (
    "file edit view insert name date total invoice user order status open report hospital lab result patient price "
    "search settings help cancel save error login message value level code run build test main class return import the "
    "of and to in is for on with as by"
)
_WORDS = tuple(_TEXT.split())
_WHITE: Colour = (255, 255, 255)


def draw(kind: str, seed: int) -> Image.Image:
    """Return an RGB image of one of `KINDS`; equal seeds give equal images."""
    return KINDS[kind](np.random.default_rng([list(KINDS).index(kind), seed]))


def _noise(rng: np.random.Generator) -> Image.Image:
    side, grain = int(rng.integers(96, 480)), int(rng.choice([1, 1, 2, 4, 8]))
    shape = (max(side // grain, 4), max(side // grain, 4), int(rng.choice([1, 3])))
    match int(rng.integers(3)):
        case 0:
            values = rng.integers(0, 256, shape).astype(float)
        case 1:
            values = rng.normal(rng.uniform(60, 200), rng.uniform(15, 80), shape)
        case _:
            values = (rng.random(shape) < rng.uniform(0.2, 0.8)) * 255.0
    return _image(values).resize((side, side), Image.Resampling.BICUBIC)


def _plain(rng: np.random.Generator) -> Image.Image:
    side = int(rng.integers(64, 480))
    values = np.zeros((side, side, 3)) + _shade(rng)
    return _image(values + rng.normal(0, 2, (side, side, 1)) if rng.random() < 0.5 else values)


def _gradient(rng: np.random.Generator) -> Image.Image:
    side, angle = int(rng.integers(64, 480)), rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    linear = rng.random() < 0.6
    place = x * np.cos(angle) + y * np.sin(angle) if linear else np.hypot(x - rng.random(), y - rng.random())
    share = ((place - place.min()) / np.ptp(place))[..., None]
    return _image((1 - share) * _shade(rng) + share * _shade(rng))


def _screenshot(rng: np.random.Generator) -> Image.Image:
    width, height = [(640, 480), (800, 600), (512, 512), (480, 800), (900, 506)][rng.integers(5)]
    dark = rng.random() < 0.35
    ground, ink = _colour(rng, 15, 50) if dark else _colour(rng, 225, 256), (230,) * 3 if dark else (25,) * 3
    accent = _colour(rng, 30, 226)
    image = Image.new("RGB", (width, height), ground)
    page = ImageDraw.Draw(image)
    page.rectangle((0, 0, width, int(rng.integers(24, 50))), fill=accent)
    page.text((10, 6), _words(rng, 3, 7), fill=_WHITE, font=ImageFont.load_default(14))
    left, y = (int(rng.integers(90, 180)) if rng.random() < 0.6 else 0), 60
    for line in range(int(rng.integers(4, 12)) if left else 0):
        page.text((10, 60 + 26 * line), _words(rng, 1, 2), fill=ink, font=ImageFont.load_default(13))
    while y < height - 20:
        match int(rng.integers(5)):
            case 0 | 1:
                size = int(rng.integers(10, 18))
                for _ in range(int(rng.integers(2, 8))):
                    page.text((left + 16, y), _words(rng, 3, 14), fill=ink, font=ImageFont.load_default(size))
                    y += size + 5
            case 2:
                y = _table(rng, page, place=(left + 16, y), width=width - left - 40, ink=ink)
            case 3:
                for x in range(left + 16, left + 16 + 120 * int(rng.integers(1, 4)), 120):
                    page.rounded_rectangle((x, y, x + 100, y + 30), 6, fill=accent)
                    page.text((x + 20, y + 8), _words(rng, 1, 2), fill=_WHITE, font=ImageFont.load_default(13))
                y += 34
            case _:
                bars, tall = int(rng.integers(5, 12)), int(rng.integers(60, 140))
                step = (width - left - 60) // bars
                for x in range(left + 20, left + 20 + bars * step, step):
                    page.rectangle((x, y + tall * rng.uniform(0, 0.9), x + step * 2 // 3, y + tall), fill=accent)
                y += tall
        y += int(rng.integers(8, 24))
    return image


def _table(
    rng: np.random.Generator, page: ImageDraw.ImageDraw, *, place: tuple[int, int], width: int, ink: tuple[int, ...]
) -> int:
    """Draw a table with its top left corner at `place`; return the y of its lower edge."""
    left, y = place
    columns = int(rng.integers(3, 6))
    step = width // columns
    for _ in range(int(rng.integers(3, 8))):
        for x in range(left, left + columns * step, step):
            page.rectangle((x, y, x + step, y + 22), outline=(150, 150, 150))
            text = _words(rng, 1, 2) if x == left else f"{rng.uniform(0, 999):.1f}"
            page.text((x + 4, y + 4), text, fill=ink, font=ImageFont.load_default(12))
        y += 22
    return y


def _landscape(rng: np.random.Generator) -> Image.Image:
    side = 384
    sky = rng.uniform([60, 110, 170], [170, 200, 255]) if rng.random() < 0.7 else rng.uniform(50, 255, 3)
    down = np.linspace(0, 1, side)[:, None, None]
    values = sky * (0.7 + 0.3 * down) + np.zeros((side, side, 3))
    clouds = np.clip((_clouds(rng, side, fall=0.55) - 0.5) * 2 * rng.uniform(0.2, 1), 0, 1)[..., None]
    values, horizon = values + (255 - values) * clouds, rng.uniform(0.3, 0.6)
    for _ in range(int(rng.integers(1, 4))):
        across = np.linspace(0, 1, side)
        ridge = horizon + 0.12 * np.interp(across, np.linspace(0, 1, 12), rng.standard_normal(12))
        ground = rng.uniform([20, 50, 20], [140, 150, 90]) if rng.random() < 0.75 else rng.uniform(70, 210, 3)
        texture = 0.55 + 0.9 * _clouds(rng, side, fall=0.8)[..., None]
        values = np.where((across[:, None] > ridge)[..., None], ground * texture, values)
        horizon += rng.uniform(0.1, 0.2)
    image = _image(values)
    page = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 5))):
        _house(rng, page, side)
    for _ in range(int(rng.integers(0, 8))):
        _tree(rng, page, side)
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), dtype=float)
    return _image(soft + rng.normal(0, 4, soft.shape))


def _house(rng: np.random.Generator, page: ImageDraw.ImageDraw, side: int) -> None:
    x, y = int(rng.integers(0, side - 60)), int(rng.uniform(0.55, 0.95) * side)
    wide, tall, wall = int(rng.integers(30, 110)), int(rng.integers(30, 130)), _colour(rng, 60, 230)
    page.rectangle((x, y - tall, x + wide, y), fill=wall)
    roof = (wall[0] // 2, wall[1] // 2, wall[2] // 2)
    page.polygon([(x - 6, y - tall), (x + wide + 6, y - tall), (x + wide // 2, y - tall - wide // 2)], fill=roof)
    for left in (x + wide // 8, x + wide * 5 // 8):
        for top in (y - tall * 7 // 8, y - tall * 3 // 8):
            page.rectangle((left, top, left + wide // 5, top + tall // 5), fill=(240, 230, 170))


def _tree(rng: np.random.Generator, page: ImageDraw.ImageDraw, side: int) -> None:
    x, y, size = int(rng.integers(0, side)), int(rng.uniform(0.6, 1) * side), int(rng.integers(12, 40))
    page.rectangle((x - 3, y - 2 * size, x + 3, y), fill=(80, 55, 30))
    leaf = size // 4 + 2
    for _ in range(30):
        left, top = rng.normal((x - leaf, y - 2 * size - leaf), size / 2)
        green = int(rng.integers(60, 150))
        page.ellipse((left, top, left + 2 * leaf, top + 2 * leaf), fill=(green // 2, green, green // 3))


def _clouds(rng: np.random.Generator, side: int, *, fall: float) -> np.ndarray:
    """Return noise of six sizes between 0 and 1; each finer one is `fall` times as strong."""
    total = np.zeros((side, side))
    for octave in range(6):
        grid = Image.fromarray(rng.standard_normal((2 ** (octave + 1),) * 2).astype(np.float32))
        total += fall**octave * np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC))
    found: np.ndarray = (total - total.min()) / np.ptp(total)
    return found


def _shade(rng: np.random.Generator) -> np.ndarray:
    """Return a colour, sometimes grey."""
    return np.repeat(rng.uniform(0, 255), 3) if rng.random() < 0.4 else rng.uniform(0, 255, 3)


def _colour(rng: np.random.Generator, low: int, high: int) -> Colour:
    red, green, blue = (int(value) for value in rng.integers(low, high, 3))
    return red, green, blue


def _words(rng: np.random.Generator, least: int, most: int) -> str:
    return " ".join(rng.choice(_WORDS, int(rng.integers(least, most))))


def _image(values: np.ndarray) -> Image.Image:
    shown = np.broadcast_to(np.clip(values, 0, 255), (*values.shape[:2], 3))
    return Image.fromarray(shown.astype(np.uint8))


KINDS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "noise": _noise,
    "plain colour": _plain,
    "gradient": _gradient,
    "screenshot": _screenshot,
    "landscape": _landscape,
}
