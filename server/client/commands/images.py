"""Define the options of a request about an image, and read the image."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.errors import InvalidInput
from medmoe.client.images.image import Image
from medmoe.model.image_formats.signature import is_dicom, raster_format

_FILE_HELP = "PNG, JPEG, WebP, TIFF, BMP or DICOM file; - reads standard input."
FileArgument = Annotated[str, typer.Argument(metavar="IMAGE", help=_FILE_HELP)]
ImageArgument = Annotated[
    str | None, typer.Argument(metavar="IMAGE", help=f"{_FILE_HELP} With --source, no file is given.")
]
SourceOption = Annotated[
    str | None, typer.Option(help="DICOMweb source of the service that holds the image; see `medmoe query`.")
]
StudyOption = Annotated[str | None, typer.Option(help="Study Instance UID.")]
SeriesOption = Annotated[str | None, typer.Option(help="Series Instance UID.")]
InstanceOption = Annotated[str | None, typer.Option(help="SOP Instance UID.")]
ReportFileOption = Annotated[
    Path | None, typer.Option("--sr", help="Write the answer as DICOM structured report; for DICOM images.")
]
StoreOption = Annotated[str | None, typer.Option(help="Store the report in this source, which holds the image.")]
WindowOption = Annotated[
    str | None,
    typer.Option(
        help="VOI window of a grey DICOM image: centre/width, full, file (its own), for CT lung, bone, ...; or three "
        "with commas for red, green and blue."
    ),
]
FrameOption = Annotated[int | None, typer.Option(min=0, help="Frame of a DICOM file, TIFF or animation, from 0.")]
PixelsOnlyOption = Annotated[
    bool,
    typer.Option(
        "--pixels-only",
        help="Send no metadata: DICOM without attributes that displaying it does not need, other files as PNG of "
        "one frame.",
    ),
]

MinConfidenceOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Confidence below which an answer is marked as abstained.")
]
MinLabelMassOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Probability of all labels together below which an answer is marked as abstained."),
]
AllowUnlikeTrainingOption = Annotated[
    bool,
    typer.Option(
        "--allow-unlike-training", help="Do not mark answers about images unlike the training images as abstained."
    ),
]
AllowUniformOption = Annotated[
    bool, typer.Option("--allow-uniform", help="Also ask about an image that comes out as one shade.")
]
ModalityOption = Annotated[
    str | None, typer.Option(help="Modality for the router's statistics; the model does not see it.")
]
MaxTokensOption = Annotated[int | None, typer.Option(min=1, help="Maximum length of an answer in tokens.")]
RoutingOption = Annotated[bool, typer.Option("--routing", help="With --json: add the experts of the tokens.")]


def read_image(name: str, *, pixels_only: bool, frame: int | None = None) -> Image:
    """Read a file, or standard input if `name` is `-`. Raises InvalidInput."""
    return prepared(_standard_input() if name == "-" else Image.of(name), pixels_only=pixels_only, frame=frame)


def _standard_input() -> Image:
    try:
        # None where the caller has closed it.
        data = b"" if sys.stdin is None else sys.stdin.buffer.read()
    except OSError as error:
        raise InvalidInput(f"standard input cannot be read: {error.strerror}") from error
    if not data:
        raise InvalidInput("standard input is empty; send the content of an image file to it")
    return Image(data)


def require_png(file: Path) -> None:
    """Raise typer.BadParameter for a file with the suffix of another format than PNG."""
    if file.suffix.lower() != ".png":
        raise typer.BadParameter(f"{file} would be a PNG; name a file that ends in .png")


def require_other_file(output: Path, *inputs: str | Path) -> None:
    """Raise typer.BadParameter for an output that would replace an input."""
    for name in inputs:
        try:
            is_same = output.samefile(name)
        except (OSError, ValueError):
            # One of them does not exist; whoever reads or writes it names its error.
            continue
        if is_same:
            raise typer.BadParameter(f"{output} is what is asked about, and would be lost; write to another file")


def write_base64(file: Path, text: str) -> None:
    """Write what base64, or a data URL, holds. Raises InvalidInput."""
    try:
        file.write_bytes(Image.from_base64(text).data)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}") from error


def prepared(image: Image, *, pixels_only: bool, frame: object = None) -> Image:
    """Return the image as it is, or with `pixels_only` without metadata: a file that is not DICOM as PNG of `frame`.

    What is no frame's number is left to the service to refuse. A file of unknown format may be DICOM without a
    preamble, so it is treated as DICOM. Raises InvalidInput.
    """
    if not pixels_only:
        return image
    kind = raster_format(image.data)
    if is_dicom(image.data) or kind is None:
        # Imported here because pydicom is slow to import and not installed with the client alone.
        try:
            from medmoe.client.images.dicom import pixels_only as without_attributes
        except ModuleNotFoundError as error:
            raise typer.BadParameter("--pixels-only needs pydicom for DICOM files: pip install pydicom") from error

        return without_attributes(image)
    # Pillow is slow to import too.
    from medmoe.client.images.pixels import png_of_file

    chosen = frame if type(frame) is int and frame > 0 else 0
    return Image(png_of_file(image.data, kind, frame=chosen), is_chosen_frame=chosen > 0)
