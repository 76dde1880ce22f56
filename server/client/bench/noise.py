"""Pictures that no cache of a service knows before they come round again, or come from another run of the same seed."""

import io

import numpy as np
from PIL import Image

from medmoe.client.images.image import Picture

_SIDE = 256


def noise(count: int, *, seed: int) -> tuple[Picture, ...]:
    """So many grey squares of noise, others for another seed."""
    random = np.random.default_rng(seed)
    return tuple(_picture(random.integers(0, 255, (_SIDE, _SIDE), dtype=np.uint8)) for _ in range(count))


def _picture(pixels: np.ndarray) -> Picture:
    file = io.BytesIO()
    # Noise does not compress, and trying would take the client time.
    Image.fromarray(pixels).save(file, format="PNG", compress_level=0)
    return Picture(file.getvalue())
