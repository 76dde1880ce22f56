"""Check the size limits that hold for every format."""

from medmoe.server.errors import ImageTooLarge, UnreadableImage
from medmoe.server.imaging.config import ImageLimits


def too_large(limits: ImageLimits) -> ImageTooLarge:
    return ImageTooLarge.over(limits.max_pixels)


def check_size(width: int, height: int, limits: ImageLimits) -> None:
    """Raises ImageTooLarge, UnreadableImage."""
    # Padding makes a square of the longer side: that, and not the image, is what memory must hold.
    if max(width, height) ** 2 > limits.max_pixels:
        raise too_large(limits)
    if min(width, height) < limits.min_side:
        raise UnreadableImage(f"the image's shorter side is under {limits.min_side} pixels")
    if max(width, height) > limits.max_aspect_ratio * min(width, height):
        raise UnreadableImage(f"the image is more than {limits.max_aspect_ratio:g} times as long as wide")


def check_frames(frames: int, limits: ImageLimits) -> None:
    """Raises ImageTooLarge, UnreadableImage."""
    if frames < 1:
        raise UnreadableImage("the image has no frame")
    if frames > limits.max_frames:
        raise ImageTooLarge(f"the image has over {limits.max_frames} frames (MEDMOE_MAX_IMAGE_FRAMES)")
