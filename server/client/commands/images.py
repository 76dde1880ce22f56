"""A picture as a command line names it."""

import sys
from typing import Annotated

import typer

from medmoe.client.images.image import HEAD, Picture, is_dicom, is_ordinary

ImageArgument = Annotated[
    str, typer.Argument(metavar="IMAGE", help="PNG, JPEG, WebP, TIFF, BMP or DICOM file; - is standard input.")
]
Window = Annotated[
    str | None,
    typer.Option(
        help="Of a grey DICOM picture: centre/width, full, for CT lung, bone, ...; or three with commas for red, green "
        "and blue."
    ),
]
Frame = Annotated[int | None, typer.Option(min=0, help="Of a DICOM file, TIFF or animation, from 0.")]
PixelsOnly = Annotated[
    bool, typer.Option("--pixels-only", help="Send nothing of a DICOM file but what shows its picture.")
]

MinConfidence = Annotated[float | None, typer.Option(min=0, max=1, help="Mark what is less sure as abstained.")]
Modality = Annotated[str | None, typer.Option(help="Of the picture; for the router's statistics alone.")]
Routing = Annotated[bool, typer.Option("--routing", help="With --json: where the tokens went.")]


def picture(name: str, *, pixels_only: bool) -> Picture:
    """Raises InvalidInput."""
    return prepared(Picture(sys.stdin.buffer.read()) if name == "-" else Picture.of(name), pixels_only=pixels_only)


def prepared(found: Picture, *, pixels_only: bool) -> Picture:
    """As it is, or if it is a DICOM file without its tags. Raises InvalidInput.

    What is of no known kind may be a DICOM file without its preamble: it is not sent as it is either.
    """
    head = found.data[:HEAD]
    if pixels_only and (is_dicom(head) or not is_ordinary(head)):
        # Here and not above: pydicom takes a while, and most pictures need none of it.
        from medmoe.client.images.dicom import pixels_only as without_tags

        return without_tags(found)
    return found
