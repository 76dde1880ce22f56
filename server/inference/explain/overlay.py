"""Draw a map over an image."""

import numpy as np
from PIL import Image

from medmoe.server.schemas.views.explain import Region

SUPPORTS, OPPOSES = (255, 120, 0), (0, 110, 255)
"""Orange and blue, which people with any colour vision tell apart."""
_MOST_OPAQUE = 0.75


def draw_layer(importance: np.ndarray, region: Region, *, size: tuple[int, int], scale: float) -> Image.Image:
    """Return `importance` [rows, columns] as an RGBA image of `size`, in which `scale` is the least transparent."""
    width, height = size
    left, right = round(region.left * width), round(region.right * width)
    top, bottom = round(region.top * height), round(region.bottom * height)
    shape = (max(1, right - left), max(1, bottom - top))
    strength = Image.fromarray((importance / scale).astype(np.float32)).resize(shape, Image.Resampling.BILINEAR)
    values = np.clip(np.asarray(strength), -1, 1)[..., None]
    colours = np.where(values >= 0, np.array(SUPPORTS), np.array(OPPOSES))
    pixels = np.concatenate((colours, np.abs(values) * 255 * _MOST_OPAQUE), axis=-1)
    layer = Image.new("RGBA", size)
    layer.paste(Image.fromarray(np.rint(pixels).astype(np.uint8)), (left, top))
    return layer


def over(image: Image.Image, layer: Image.Image) -> Image.Image:
    """Return `layer` over an RGB image of its size."""
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")
