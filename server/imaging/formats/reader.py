"""From what a client sent to the picture the model sees, with every limit held before decoding.

Runs in a child process (decoder_process.py): nothing is trusted here, not the declared media type, not the header, not
the words of Pillow's and pydicom's exceptions. Synchronous.
"""

import contextlib
import hashlib
import io
import warnings
from dataclasses import dataclass, replace

from PIL import Image

from medmoe.model.errors import ImageError
from medmoe.model.image_processor import ImageProcessor, convert
from medmoe.server.errors import ImageTooCostly, InvalidField, RequestError, UnreadableImage
from medmoe.server.imaging.config import FRAME_SIDE, DecoderConfig
from medmoe.server.imaging.formats.limits import check_frames, check_size, too_large
from medmoe.server.imaging.formats.sniff import from_text, sniff, webp_size
from medmoe.server.schemas.images import FileFormat, ImageFields, Rendering, View, Windowing
from medmoe.server.schemas.voi_window import parse

# Pillow only warns between its limit and twice its limit; nobody reads a warning.
warnings.simplefilter("error", Image.DecompressionBombWarning)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A picture and where it came from."""

    image: Image.Image
    """RGB, of the size that the view asks for."""
    sha256: str
    """Hex, of the bytes as they were sent."""
    width: int
    height: int
    rendering: Rendering
    windowing: Windowing | None = None
    """None where no window can be chosen: for colours, and for what is no DICOM."""


class ImageReader:
    """Reads one picture for one checkpoint."""

    def __init__(self, config: DecoderConfig) -> None:
        self._config = config
        self._processor = ImageProcessor(config.processor, size=config.size)

    def read(self, sent: str | bytes, fields: ImageFields, *, view: View = "model") -> Decoded:
        """Decode base64 text or file bytes, without `frame` the first one, and bring the picture to the view's size.

        That is the model's own, or for people at most FRAME_SIDE.

        Raises MalformedImage, UnsupportedImage, ImageTooLarge, UnreadableImage, BurnedInAnnotation, InvalidField,
        ImageTooCostly when memory ends, or the model room's ImageError.
        """
        data = from_text(sent) if isinstance(sent, str) else sent
        kind = sniff(data)
        try:
            decoded = self._dicom(data, fields) if kind == "DICOM" else self._ordinary(data, kind, fields)
            return replace(decoded, image=self._sized(decoded.image, view))
        except (RequestError, ImageError):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise too_large(self._config.limits) from error
        except Exception as error:
            if _out_of_memory(error):
                raise ImageTooCostly("decoding the picture takes more memory than the service grants") from error
            # Format plugins raise anything from SyntaxError to struct.error on damaged files.
            raise UnreadableImage("the picture is damaged or truncated") from error
        except BaseException as error:
            # How decoders written in Rust fail is no Exception, and has a name but no class to import.
            if type(error).__name__ != "PanicException":
                raise
            raise UnreadableImage("the picture is damaged or truncated") from error

    def _sized(self, image: Image.Image, view: View) -> Image.Image:
        if view == "model":
            return self._processor.fit(image)
        image.thumbnail((FRAME_SIDE, FRAME_SIDE))
        return image

    def _ordinary(self, data: bytes, kind: FileFormat, fields: ImageFields) -> Decoded:
        limits = self._config.limits
        if fields.window is not None:
            raise InvalidField("only DICOM pictures have a window", param="window")
        if kind == "WEBP" and (size := webp_size(data)):
            check_size(*size, limits)
        with Image.open(io.BytesIO(data), formats=[kind]) as opened:
            check_size(*opened.size, limits)
            frames = self._count_frames(opened, data, kind)
            frame = fields.frame or 0
            if frame >= frames:
                raise InvalidField(f"frames count from 0 and this picture has {frames}", param="frame")
            if frame:
                opened.seek(frame)
                check_size(*opened.size, limits)
            width, height = opened.size
            colour = opened.mode
            opened.load()
            image, steps = convert(opened)
        rendering = Rendering(format=kind, colour=colour, frame=frame, frames=frames, steps=steps, windows=())
        return Decoded(image=image, sha256=_sha256(data), width=width, height=height, rendering=rendering)

    def _count_frames(self, opened: Image.Image, data: bytes, kind: FileFormat) -> int:
        limits = self._config.limits
        frames: int = _count_pages(data, most=limits.max_frames) if kind == "TIFF" else getattr(opened, "n_frames", 1)
        check_frames(frames, limits)
        return frames

    def _dicom(self, data: bytes, fields: ImageFields) -> Decoded:
        # Here and not above: pydicom is needed for DICOM only, and importing it takes most of a second.
        from medmoe.server.imaging.formats.dicom_file import DicomFile
        from medmoe.server.imaging.formats.dicom_values import show

        config = self._config
        file = DicomFile(data, frame=fields.frame, limits=config.limits, burned_in=config.burned_in)
        shown = show(file, parse(fields.window) if fields.window is not None else ())
        image, steps = convert(shown.image)
        rendering = Rendering(
            format="DICOM",
            colour=file.colour,
            frame=file.frame,
            frames=file.frames,
            steps=shown.steps + steps,
            windows=shown.windows,
        )
        return Decoded(
            image=image,
            sha256=_sha256(data),
            width=file.width,
            height=file.height,
            rendering=rendering,
            windowing=shown.windowing,
        )


def _count_pages(data: bytes, *, most: int) -> int:
    """Pages of a TIFF, at most one more than `most`: each page's header must be read to find the next.

    On a handle of its own: damage behind the first page says nothing against that page.
    """
    pages = 1
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=["TIFF"]) as opened:
        while pages <= most:
            opened.seek(pages)
            pages += 1
    return pages


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _out_of_memory(error: BaseException | None) -> bool:
    """Also where a library has wrapped it."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False
