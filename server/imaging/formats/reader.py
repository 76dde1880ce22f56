"""Read the file that a client sent into the image that the model sees; check every limit before decoding.

Runs in a worker process. Nothing is trusted: not the declared media type, not the header, not the text of Pillow's and
pydicom's exceptions.
"""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from medmoe.model.errors import DamagedImageError, ImageError, ImageFormatError, ImageFrameError
from medmoe.model.image_formats.pixel_aspect import square_pixels
from medmoe.model.image_formats.raster import read_raster
from medmoe.model.image_formats.signature import RasterFormat
from medmoe.model.image_formats.uniform import is_uniform
from medmoe.model.image_processor import ImageProcessor, convert
from medmoe.server.errors import (
    ImageTooCostly,
    ImageTooLarge,
    InvalidField,
    RequestError,
    UniformImage,
    UnreadableImage,
    UnsupportedImage,
)
from medmoe.server.imaging.decoder_config import FRAME_SIDE, DecoderConfig
from medmoe.server.imaging.formats.sniff import from_text, sniff
from medmoe.server.imaging.image import DecodedImage, InstanceUIDs
from medmoe.server.schemas.images import ImageFields, Rendering, RenderingStep, View, Windowing
from medmoe.server.schemas.voi_window import parse

# Pillow only warns between its limit and twice its limit.
warnings.simplefilter("error", Image.DecompressionBombWarning)

_Shown = tuple[Image.Image, tuple[int, int], Rendering, Windowing | None, InstanceUIDs | None]
"""A frame in 8-bit RGB, its size in the file, and what DecodedImage says of it."""


class ImageReader:
    """Reads images for one checkpoint."""

    def __init__(self, config: DecoderConfig) -> None:
        self._config = config
        self._processor = ImageProcessor(config.processor, size=config.size)

    def read(self, sent: str | bytes, fields: ImageFields, *, view: View = "model") -> DecodedImage:
        """Decode base64 text or file bytes, by default the first frame, and resize the image for `view`.

        The sides are the model's, or for people at most FRAME_SIDE pixels.

        Raises MalformedImage, UnsupportedImage, ImageTooLarge, UnreadableImage, UniformImage, BurnedInAnnotation,
        InvalidField, ImageTooCostly when memory ends, or the model room's ImageError.
        """
        data = from_text(sent) if isinstance(sent, str) else sent
        kind = sniff(data)
        with self.typed_errors():
            found = self._dicom(data, fields) if kind == "DICOM" else self._raster(data, kind, fields)
            image, (width, height), rendering, windowing, uids = found
            if view == "model":
                image = self._processor.fit(image)
            else:
                image.thumbnail((FRAME_SIDE, FRAME_SIDE))
            return DecodedImage(
                sha256=hashlib.sha256(data).hexdigest(),
                width=width,
                height=height,
                rendering=rendering,
                windowing=windowing,
                uids=uids,
                size=image.size,
                pixels=image.tobytes(),
            )

    @contextmanager
    def typed_errors(self) -> Iterator[None]:
        """Turn whatever image libraries raise into UnreadableImage, ImageTooLarge or ImageTooCostly."""
        try:
            yield
        except DamagedImageError as error:
            raise UnreadableImage(str(error)) from error
        except ImageFormatError as error:
            raise UnsupportedImage(str(error)) from error
        except ImageFrameError as error:
            raise InvalidField(str(error), param="frame") from error
        except (RequestError, ImageError):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageTooLarge.over(self._config.limits.max_pixels) from error
        except Exception as error:
            if _out_of_memory(error):
                raise ImageTooCostly() from error
            # Format plugins raise anything from SyntaxError to struct.error on damaged files.
            raise UnreadableImage() from error
        except BaseException as error:
            # How decoders written in Rust fail is no Exception, and has a name but no class to import.
            if type(error).__name__ != "PanicException":
                raise
            raise UnreadableImage() from error

    def _raster(self, data: bytes, kind: RasterFormat, fields: ImageFields) -> _Shown:
        if fields.window is not None:
            raise InvalidField("only DICOM images have a window", param="window")
        read = read_raster(data, kind, frame=fields.frame or 0, limits=self._config.limits)
        if not fields.allow_uniform and is_uniform(read.image):
            raise UniformImage()
        rendering = Rendering(
            format=kind, colour=read.colour, frame=read.frame, frames=read.frames, steps=read.steps, windows=()
        )
        return read.image, read.size, rendering, None, None

    def _dicom(self, data: bytes, fields: ImageFields) -> _Shown:
        # Here and not above: pydicom is needed for DICOM only, and importing it takes most of a second.
        from medmoe.server.imaging.formats.dicom.attributes import instance_uids
        from medmoe.server.imaging.formats.dicom.file import DicomFile
        from medmoe.server.imaging.formats.dicom.rendering import show

        config = self._config
        file = DicomFile(data, frame=fields.frame, limits=config.limits, burned_in=config.burned_in)
        shown, rendering, windowing = show(file, parse(fields.window) if fields.window is not None else ())
        image, done = convert(shown)
        steps: list[RenderingStep] = [*rendering.steps, *done]
        if not fields.allow_uniform and is_uniform(image):
            raise UniformImage()
        if file.pixel_aspect != 1:
            image = square_pixels(image, file.pixel_aspect, config.limits)
            steps.append("pixel_aspect")
        rendering = rendering.model_copy(update={"steps": tuple(steps)})
        uids = instance_uids(file.dataset) if config.reads_uids else None
        return image, (file.width, file.height), rendering, windowing, uids


def _out_of_memory(error: BaseException | None) -> bool:
    """Return whether `error` is, or wraps, a MemoryError."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False
