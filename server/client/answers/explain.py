"""Define the answer of `/v1/explain`; /docs explains each field."""

from medmoe.client.answers.base import Message
from medmoe.client.answers.vqa import ImageProvenance, Routing, Timings, UnlikeTraining


class Region(Message):
    """Part of the image that the map divides, in fractions of its width and height."""

    left: float
    top: float
    right: float
    bottom: float


class ExplainProvenance(ImageProvenance):
    """Record what reproduces the map."""

    grid: int
    patch: float
    """Side of the patch that covers the image around a cell, in cells."""
    fill: str


class Explanation(Message):
    """Answer of `/v1/explain`: what the model reacts to, not the outline of a finding."""

    id: str
    model: str
    answer: str
    """Answer or label whose likelihood was measured."""
    chosen_by: str
    """`request`, or `model` for one that it generated or found likeliest."""
    log_likelihood: float
    rows: int
    columns: int
    region: Region
    drops: tuple[tuple[float, ...], ...]
    """By row and column: how much the log-likelihood falls when the image around the cell is covered."""
    importance: tuple[tuple[float, ...], ...]
    """Likewise, the mean drop of the overlapping patches over the cell; the overlay shows it."""
    scale: float
    """Importance that the overlay shows in full colour."""
    engine_requests: int
    overlay: str | None
    """PNG as data URL, if it was asked for."""
    unlike_training: UnlikeTraining | None = None
    timings: Timings
    provenance: ExplainProvenance
    routing: Routing | None = None
