"""Define the fields and objects that the inference routes share."""

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from medmoe.model.files.calibration_binding import Dtype
from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.images import ImageFields, Rendering

Modality = Annotated[str, StringConstraints(min_length=1, max_length=64)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
MAX_LABEL_CHARS = 512
"""No deployment allows longer labels."""
_INVISIBLE = ("Cc", "Cf")
"""Unicode categories of control and format characters, zero-width spaces among them."""
_BEGINNING = 64
"""Characters of which nearly every text shows one."""
_MOST_MARKS = 30
_JOINER = "\u034f"
"""COMBINING GRAPHEME JOINER, which no reader sees."""


def visible(text: str) -> str:
    """Return what a reader sees of `text`: composed characters (NFC) without control and format characters."""
    if text.isascii() and text.isprintable():
        return text.strip()
    composed = unicodedata.normalize("NFC", _stream_safe(text))
    return "".join(char for char in composed if not _is_unseen(char) or char.isspace()).strip()


def is_blank(text: str) -> bool:
    """Return whether there is nothing in `text` that a reader sees."""
    return all(map(_is_unseen, text[:_BEGINNING])) and all(map(_is_unseen, set(text)))


def _is_unseen(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in _INVISIBLE


def _stream_safe(text: str) -> str:
    """Return `text` in Stream-Safe Text Format (UAX #15): ordering a longer run of marks takes quadratic time."""
    safe: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks > _MOST_MARKS:
            safe.append(_JOINER)
            marks = 1
        safe.append(char)
    return "".join(safe)


def _not_blank(text: str) -> str:
    if is_blank(text):
        raise ValueError("the text is blank")
    return text


Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_not_blank)]
"""Text with something to see in it."""
Label = Words
"""Its length is limited by the deployment alone."""
Question = Words
ImageText = Annotated[
    str,
    Field(
        description="The image as base64 or as a base64 data URL: PNG, JPEG, WebP, TIFF, BMP, DICOM; where the "
        "deployment names hosts (MEDMOE_IMAGE_URL_HOSTS), its https URL."
    ),
]


SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
DicomUID = Annotated[str, StringConstraints(max_length=64, pattern=r"^[0-9]+(\.[0-9]+)+$")]
"""A unique identifier of PS3.5 section 9.1, or one with leading zeros, as some devices write it.

Nothing in it needs encoding in a URL.
"""


class SeriesReference(ApiModel):
    """A series in a DICOMweb source of the deployment (MEDMOE_DICOMWEB_SOURCES)."""

    source: SourceName
    """As `GET /v1/sources` names it."""
    study: DicomUID
    """Study Instance UID."""
    series: DicomUID
    """Series Instance UID."""


class InstanceReference(SeriesReference):
    """An image in a DICOMweb source of the deployment (MEDMOE_DICOMWEB_SOURCES)."""

    instance: DicomUID
    """SOP Instance UID."""


SentSeries = str | tuple[bytes, ...] | SeriesReference
"""The files of a series: base64 of one or of an archive, the bytes of several, or a reference to a source."""
SentImage = str | bytes | InstanceReference
"""The image of a request: base64 text or a URL, the bytes of a file, or a reference to a source."""


class ReportFields(ImageFields):
    """What a request wants beside its answer: a report on it, as DICOM SR (Comprehensive SR, TID 1500)."""

    include_report: bool = False
    """Add the report to the response, as base64; for DICOM images of a study. `Accept: application/dicom` sends the
    report alone, `Accept: application/fhir+json` a DiagnosticReport."""
    store: SourceName | None = Field(default=None, examples=["pacs"])
    """Store the report in this source; for images of a source."""


class StoredReport(ApiModel):
    """Where the report lies; repeating the request stores no second one."""

    source: str
    study: str
    series: str
    instance: str


class Timings(ApiModel):
    """Seconds."""

    fetch: float
    """Seconds to fetch the image by its URL or from its source; 0 when it was sent."""
    image: float
    queue: float
    engine: float
    """Of a series the sum over its slices, which are answered beside one another: it can exceed the total."""
    total: float


class Provenance(ApiModel):
    """What is needed to reproduce the answer."""

    image_sha256: str
    """Digest of the bytes as they were sent or fetched."""
    width: int
    height: int
    rendering: Rendering
    mode: Literal["pad", "crop"]
    resized_to: tuple[int, int]
    weights_sha256: str | None
    """SHA-256 of model.safetensors, or of the lines of `sha256sum` for its index and shards; null when the engine runs
    without weights."""
    adapter_sha256: str | None
    """Digest of adapter_model.safetensors; null when the checkpoint has no adapters."""
    dtype: Dtype | None
    """Number format that the engine computed in; null when the engine runs without weights."""


class UnlikeTraining(ApiModel):
    """How unlike the images that the model was trained on this image is, by the features of the vision tower."""

    score: float
    """Grows with the distance to the most similar training images."""
    threshold: float
    """Few images of the kinds that the model was trained on score higher; the checkpoint chose it on such images."""
    flagged: bool
    """The score is over the threshold: nothing that was measured of this model holds for the image, and no probability
    about it is called calibrated."""


class LayerRouting(ApiModel):
    """Tokens of this request by expert index, in one MoE layer."""

    layer: int
    image: tuple[int, ...]
    question: tuple[int, ...]
    """Every prompt token that is not the image's, the template's words included."""
    answer: tuple[int, ...]


class Routing(ApiModel):
    expert_domains: tuple[str, ...]
    layers: tuple[LayerRouting, ...]
