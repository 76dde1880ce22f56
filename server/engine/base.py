"""Define the protocol of an engine, its requests and its outputs.

Routes, classifier and statistics import this module alone. vllm_engine.py and fake_engine.py implement it.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from medmoe.model.files.calibration_binding import Dtype
from medmoe.server.errors import EngineDeadError, EngineError, GenerationError

__all__ = [
    "Engine",
    "Branch",
    "BranchScore",
    "EngineDeadError",
    "EngineError",
    "GenerationChunk",
    "GenerationError",
    "GenerationRequest",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """Tokens that may follow a prompt, and the tokens whose log-probability after them is asked for."""

    path: tuple[int, ...]
    logprob_token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchScore:
    """Result of the engine at the last token of a branch."""

    token_logprobs: Mapping[int, float]
    """For each of the branch's `logprob_token_ids`."""
    routed_experts: np.ndarray | None
    """[1, layers, top_k] expert indices of the last token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """One prompt with one image, ready for the engine."""

    request_id: str
    prompt_ids: tuple[int, ...]
    """As `Prompt.question` gives them: one image token stands for the image."""
    image: np.ndarray
    """uint8 [height, width, 3], RGB, already of the model's size (`ImageProcessor.resize`)."""
    image_id: str
    """SHA-256 hex of the resized pixels and their size; keys the engine's caches."""
    cache_salt: str | None = None
    """Only requests with the same salt share what is cached; never a client's choice."""
    max_tokens: int
    temperature: float = 0.0
    """0 is greedy."""
    seed: int | None = None
    logprob_token_ids: tuple[int, ...] = ()
    """Ask for the exact log-probabilities of these tokens at the first generated position."""
    stop: tuple[str, ...] = ()
    """Strings that end the generation; the text ends before the first of them. White space before the answer is no part
    of what is searched."""
    top_logprobs: int = 0
    """Ask for so many of the most likely tokens at each generated position, 20 at most."""
    whole: bool = False
    """Nothing is read before the answer is complete: the engine may return it as one chunk, which costs less."""
    branches: tuple[Branch, ...] = ()
    """Score these too, where `Engine.scores_branches` says so."""

    @property
    def image_key(self) -> str:
        """Return the image's key in the engine's caches: a hash of the pixels, which no client can choose."""
        return f"{self.cache_salt or ''}{self.image_id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationChunk:
    """Tokens generated since the previous chunk; the last chunk also carries the request's totals."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Log-probability (natural, whole vocabulary) of each of `token_ids` under the model."""
    finish_reason: Literal["stop", "length"] | None = None
    """Set on the last chunk, None on every other."""
    stopped: bool = False
    """One of the request's `stop` strings ended the text, not the model; last chunk only."""
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    """For each of `token_ids` the most likely tokens and their log-probabilities, the most likely first; empty where
    the request asks for none."""
    num_prompt_tokens: int = 0
    """Prompt length with the image expanded; last chunk only."""
    num_cached_tokens: int = 0
    """Prompt tokens that came from the engine's prefix cache; last chunk only."""
    token_logprobs: Mapping[int, float] = field(default_factory=dict)
    """For each of the request's `logprob_token_ids`; last chunk only."""
    unlike_training: float | None = None
    """Score of how unlike the training images the image is; last chunk only, None without a reference."""
    routed_experts: np.ndarray | None = None
    """[prompt + generated - 1, layers, top_k] expert indices, zeros at dense layers; last chunk only."""
    branches: tuple[BranchScore, ...] = ()
    """One for each of the request's branches, or none where the engine could not; last chunk only."""


class Engine(Protocol):
    """Generates tokens for prompts with images. One per process; its methods are called on the event loop."""

    @property
    def dtype(self) -> Dtype | None:
        """Return the number format that the engine computes in; None without weights."""

    async def start(self) -> None:
        """Load the model; return when requests can be generated. Raises EngineError."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Yield chunks until one has a `finish_reason`. Closing or cancelling the generator aborts the request.

        Raises GenerationError when this request failed and the engine lives on, EngineDeadError when it does not.
        """

    def scores_branches(self, request: GenerationRequest) -> bool:
        """Return whether the request's branches are better scored with it than by a request each."""

    async def check_health(self) -> None:
        """Raise EngineDeadError when no request can succeed any more."""

    async def ping(self) -> None:
        """Return when every process of the engine has answered; wait as long as one of them hangs.

        Raises EngineDeadError.
        """

    async def kill(self) -> None:
        """Kill the engine's processes, hanging ones too; running generations raise EngineDeadError."""

    async def close(self) -> None:
        """Free the model. Safe to call twice, and when `start` never finished."""

    def metrics(self) -> bytes:
        """Return the engine's own Prometheus series in text exposition format; may be empty."""
