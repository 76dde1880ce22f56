"""From what a client sent to the picture the model sees, with every limit held before decoding.

Apart from the model room's ImageProcessor, which trusts its input: here nothing is trusted, not the declared media
type, not the header, not Pillow's own error texts. Synchronous; callers run it on a worker thread.
"""

import binascii
import hashlib
import io
import re
import warnings
from dataclasses import dataclass

from PIL import Image

from medmoe.model.errors import ImageError
from medmoe.model.image_processor import ImageProcessor
from medmoe.server.errors import ImageTooLarge, MalformedImage, UnreadableImage, UnsupportedImage

# Pillow only warns between its limit and twice its limit; nobody reads a warning.
warnings.simplefilter("error", Image.DecompressionBombWarning)

_DATA_URL = re.compile(r"data:[\w.+/-]*;base64,", re.ASCII)
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"BM", "BMP"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLimits:
    """Checked on the header, before any pixel is decoded."""

    max_pixels: int
    min_side: int
    max_aspect_ratio: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A decoded picture and where it came from."""

    image: Image.Image
    """RGB, of the model's size."""
    image_id: str
    """SHA-256 hex of size and pixels of `image`. The size is in it so that pictures of other shapes never collide."""
    sha256: str
    """SHA-256 hex of the bytes as they were sent."""
    width: int
    height: int


class ImageReader:
    """Reads one picture for one checkpoint."""

    def __init__(self, processor: ImageProcessor, *, limits: ImageLimits) -> None:
        self._processor = processor
        self._limits = limits

    def read(self, sent: str | bytes) -> Picture:
        """Decode base64 text or file bytes and bring the picture to the model's size; the first frame counts.

        Raises MalformedImage, UnsupportedImage, ImageTooLarge, UnreadableImage, or the model room's ImageError.
        """
        data = _from_text(sent) if isinstance(sent, str) else sent
        kind = _sniff(data)
        try:
            with Image.open(io.BytesIO(data), formats=[kind]) as opened:
                width, height = opened.size
                self._check(width, height)
                opened.load()
                image = self._processor.resize(opened)
        except (UnreadableImage, ImageTooLarge, ImageError):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise self._too_large() from error
        except Exception as error:
            # Pillow's format plugins raise anything from SyntaxError to struct.error on damaged files.
            raise UnreadableImage("the picture is damaged or truncated") from error
        identity = hashlib.sha256(f"{image.width}x{image.height}:".encode())
        identity.update(image.tobytes())
        return Picture(
            image=image,
            image_id=identity.hexdigest(),
            sha256=hashlib.sha256(data).hexdigest(),
            width=width,
            height=height,
        )

    def _check(self, width: int, height: int) -> None:
        limits = self._limits
        # Padding makes a square of the longer side: that, and not the picture, is what memory must hold.
        if max(width, height) ** 2 > limits.max_pixels:
            raise self._too_large()
        if min(width, height) < limits.min_side:
            raise UnreadableImage(f"the picture's shorter side is under {limits.min_side} pixels")
        if max(width, height) > limits.max_aspect_ratio * min(width, height):
            raise UnreadableImage(f"the picture is more than {limits.max_aspect_ratio:g} times as long as wide")

    def _too_large(self) -> ImageTooLarge:
        return ImageTooLarge(
            f"the picture's longer side, squared, is over {self._limits.max_pixels} pixels (MEDMOE_MAX_IMAGE_PIXELS)"
        )


def _from_text(text: str) -> bytes:
    if text.startswith(("http:", "https:")):
        raise MalformedImage("image addresses are not fetched; send the picture itself as base64")
    prefix = _DATA_URL.match(text)
    encoded = text[prefix.end() :] if prefix else text
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:
        raise MalformedImage("the image is not base64 (standard alphabet, padded, without line breaks)") from error


def _sniff(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    raise UnsupportedImage("the image is none of PNG, JPEG, WebP, TIFF, BMP")
