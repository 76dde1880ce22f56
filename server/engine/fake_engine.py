"""Generate answers from hashes: deterministic, instant, without weights (MEDMOE_ENGINE=fake).

The distribution of the next token depends only on the image and the tokens so far, and sums to one over the vocabulary.
Everything that the server computes from probabilities can be checked against it exactly.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import replace

import numpy as np

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import BranchScore, EngineDeadError, GenerationChunk, GenerationRequest
from medmoe.server.engine.completion import text_before_stop

_ANSWERS = (
    "yes",
    "no",
    "no acute finding",
    "left lower lobe",
    "right pleural effusion",
    "a small nodule",
    "axial CT",
    "chest radiograph",
)
_PULL = 9.0
"""Added to the score of the token that continues an answer; unit-normal noise alone would babble."""


class FakeEngine:
    """Implement Engine; counters and switches are for tests."""

    def __init__(self, config: MedMoEConfig, prompt: Prompt) -> None:
        self._config = config
        self._prompt = prompt
        self._answers = tuple(tuple(prompt.answer(text)) for text in _ANSWERS)
        self.delay = 0.0
        """Seconds before each token."""
        self.fail_next: Exception | None = None
        """Exception that the next generation raises, once."""
        self.dead = False
        self.unlike_training: float | None = None
        """Score of every image; None is a score of each image's own between 0 and 1."""
        self.takes_branches = False
        self.started = 0
        self.finished = 0
        self.aborted = 0
        self.last_request: GenerationRequest | None = None

    async def start(self) -> None:
        await self.check_health()

    async def check_health(self) -> None:
        if self.dead:
            raise EngineDeadError("the fake engine was declared dead")

    async def ping(self) -> None:
        await self.check_health()

    async def kill(self) -> None:
        self.dead = True

    async def close(self) -> None:
        return None

    @property
    def dtype(self) -> None:
        """See Engine.dtype."""

    def metrics(self) -> bytes:
        return b""

    def log_probabilities(self, image_id: str, ids: Sequence[int]) -> np.ndarray:
        """Return the distribution of the token after `ids`: [vocab_size] float64, natural logarithm."""
        rng = _rng(image_id, ids)
        scores = rng.standard_normal(self._config.text_config.vocab_size)
        scores[self._continuation(tuple(ids), rng)] += _PULL
        shifted = scores - scores.max()
        result: np.ndarray = shifted - np.log(np.exp(shifted).sum())
        return result

    def scores_branches(self, request: GenerationRequest) -> bool:
        """See Engine.scores_branches."""
        return self.takes_branches

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        self.started += 1
        self.last_request = request
        completed = False
        try:
            await self.check_health()
            if self.fail_next is not None:
                failure, self.fail_next = self.fail_next, None
                raise failure
            async for chunk in self._tokens(request):
                completed = chunk.finish_reason is not None
                self.finished += completed
                yield chunk
        finally:
            self.aborted += not completed

    async def _tokens(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk]:
        eos = self._config.text_config.eos_token_id
        generated: list[int] = []
        text = ""
        wanted: dict[int, float] = {}
        while True:
            # Also without a delay: other requests must get their turn, and cancellation its chance.
            await asyncio.sleep(self.delay)
            logprobs = self.log_probabilities(request.image_id, (*request.prompt_ids, *generated))
            if not generated:
                wanted = {token: float(logprobs[token]) for token in request.logprob_token_ids}
            token = self._choose(logprobs, request=request, generated=generated)
            generated.append(token)
            ended = token == eos or len(generated) == request.max_tokens
            longer, stopped = text_before_stop(self._prompt.decode(generated), request.stop, ended=ended)
            added, text = longer[len(text) :], longer
            chunk = GenerationChunk(
                text=added,
                token_ids=(token,),
                logprobs=(float(logprobs[token]),),
                top_logprobs=_most_likely(logprobs, request.top_logprobs),
            )
            if not (ended or stopped):
                yield chunk
                continue
            expanded = self._prompt.expand(request.prompt_ids)
            yield replace(
                chunk,
                finish_reason="stop" if stopped or token == eos else "length",
                stopped=stopped,
                num_prompt_tokens=len(expanded),
                token_logprobs=wanted,
                unlike_training=self._score(request.image_id),
                routed_experts=self._route(request.image_id, (*expanded, *generated[:-1])),
                branches=tuple(self._branches(request)),
            )
            return

    def _branches(self, request: GenerationRequest) -> Iterator[BranchScore]:
        for branch in request.branches:
            ids = (*request.prompt_ids, *branch.path)
            logprobs = self.log_probabilities(request.image_id, ids)
            yield BranchScore(
                token_logprobs={token: float(logprobs[token]) for token in branch.logprob_token_ids},
                routed_experts=self._route(request.image_id, self._prompt.expand(ids))[-1:],
            )

    def _score(self, image_id: str) -> float:
        return self.unlike_training if self.unlike_training is not None else float(_rng(image_id, ()).random())

    def _choose(self, logprobs: np.ndarray, *, request: GenerationRequest, generated: Sequence[int]) -> int:
        if request.temperature == 0:
            return int(logprobs.argmax())
        # Gumbel-max: adding this noise and taking the maximum samples from the softmax.
        noise = _rng(f"seed {request.seed}", generated).gumbel(size=len(logprobs))
        return int((logprobs / request.temperature + noise).argmax())

    def _continuation(self, ids: tuple[int, ...], rng: np.random.Generator) -> int:
        """Return the next token of an answer that the end of `ids` has begun, or the first of any answer."""
        for length in range(max(map(len, self._answers)) - 1, -1, -1):
            begun = ids[len(ids) - length :]
            fitting = [answer[length] for answer in self._answers if len(answer) > length and answer[:length] == begun]
            if fitting:
                return int(fitting[rng.integers(len(fitting))])
        raise AssertionError("every answer begins with nothing")

    def _route(self, image_id: str, ids: Sequence[int]) -> np.ndarray:
        text = self._config.text_config
        routed = np.zeros((len(ids), text.num_hidden_layers, text.num_experts_per_tok), dtype=np.int16)
        layers = list(text.moe_layers)
        scores = _rng(f"route {image_id}", ids).random((len(ids), len(layers), text.num_experts))
        routed[:, layers, :] = scores.argsort(axis=-1)[:, :, : text.num_experts_per_tok]
        return routed


def _most_likely(logprobs: np.ndarray, count: int) -> tuple[tuple[tuple[int, float], ...], ...]:
    """Return the `count` most likely tokens of one position as a chunk has them."""
    ranked = np.argsort(-logprobs)[:count]
    return (tuple((int(token), float(logprobs[token])) for token in ranked),) if count else ()


def _rng(salt: str, ids: Sequence[int]) -> np.random.Generator:
    digest = hashlib.sha256(salt.encode() + b"|" + np.asarray(ids, dtype=np.int64).tobytes()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
