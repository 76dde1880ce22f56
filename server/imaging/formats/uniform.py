"""Refuse images in which nothing is to be seen."""

from PIL import Image

from medmoe.model.image_formats.uniform import is_uniform
from medmoe.server.errors import UniformImage


def require_contrast(image: Image.Image) -> None:
    """Raise UniformImage where nearly all pixels of an RGB image have one shade."""
    if is_uniform(image):
        raise UniformImage()
