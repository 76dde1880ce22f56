"""The fields of a request besides its picture and its question or labels; None is as good as absent.

Written once, as keyword arguments of both clients; the service's /docs say what each of them means.
"""

from typing import TypedDict


class ImageOptions(TypedDict, total=False):
    window: str | None
    """Of a grey DICOM picture: `40/400`, `full`, `file`, for CT a name such as `lung`; or three of these."""
    frame: int | None
    """Of a DICOM file, a TIFF or an animation, from 0."""
    include_routing: bool | None
    """Add which experts the tokens went to."""
    timeout_ms: int | None
    """After which the service gives up; the client's own `timeout` is another, and covers its attempts too."""
    min_confidence: float | None
    """Under which an answer is marked as abstained."""
    modality: str | None
    """For the router's statistics alone."""


class AskOptions(ImageOptions, total=False):
    """Of a question."""

    max_tokens: int | None
    temperature: float | None
    seed: int | None


class ClassifyOptions(ImageOptions, total=False):
    """Of a classification."""

    question: str | None
    """Instead of the checkpoint's own."""
    length_normalized: bool | None
    """Mode likelihood."""
    permutations: int | None
    """Mode choice."""
