"""The answer to a question, and what it shares with a classification; the service's /docs say what each field means.

Words that a newer service may add to (formats, steps, reasons) are plain strings here.
"""

from dataclasses import dataclass

from medmoe.client.answers.base import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """The next piece of an answer that is still being generated."""

    text: str


class Confidence(Message):
    value: float
    calibrated: bool


class Usage(Message):
    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    cached_tokens: int


class Timings(Message):
    """Seconds."""

    fetch: float
    image: float
    queue: float
    engine: float
    total: float


class AppliedWindow(Message):
    source: str
    centre: float | None = None
    width: float | None = None
    function: str | None = None


class Rendering(Message):
    """How the file became the picture that the model saw."""

    format: str
    colour: str
    frame: int
    frames: int
    steps: tuple[str, ...]
    windows: tuple[AppliedWindow, ...]


class Provenance(Message):
    """What is needed to get the same answer again."""

    image_sha256: str
    """Of the bytes as they were sent."""
    width: int
    height: int
    rendering: Rendering
    mode: str
    resized_to: tuple[int, int]
    weights_sha256: str | None
    adapter_sha256: str | None
    dtype: str | None
    min_confidence: float | None


class SampledProvenance(Provenance):
    temperature: float
    seed: int | None
    max_tokens: int


class LayerRouting(Message):
    """Tokens of one request by expert index, in one MoE layer."""

    layer: int
    image: tuple[int, ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]


class Routing(Message):
    expert_domains: tuple[str, ...]
    layers: tuple[LayerRouting, ...]


class VqaAnswer(Message):
    """What `/v1/vqa` answers."""

    id: str
    model: str
    answer: str
    finish_reason: str
    """stop, or length for an answer that was cut."""
    confidence: Confidence | None
    abstained: bool
    """Less sure than `min_confidence`: the answer should not be relied on."""
    usage: Usage
    timings: Timings
    provenance: SampledProvenance
    routing: Routing | None = None
