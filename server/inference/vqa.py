"""One question, answered: from validated fields to pieces of text and the final response.

Apart from routes/vqa.py because the warm-up at start must run exactly this, and because streaming and not streaming
are the same generator read in two ways.
"""

import math
import secrets
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from medmoe.model.errors import PromptError
from medmoe.server.admission.slots import Deadline
from medmoe.server.engine.base import GenerationChunk, GenerationError, GenerationRequest, generation
from medmoe.server.errors import InvalidField
from medmoe.server.imaging.image import DecodedImage
from medmoe.server.inference.abstention import abstains, threshold
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.vqa import Confidence, Routing, SampledProvenance, Usage, VQAFields, VQAResponse
from medmoe.server.state import State

ROUTE = "vqa"


@dataclass(slots=True)
class _Generated:
    """What has come out of the engine so far."""

    raw: str = ""
    sent: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def add(self, chunk: GenerationChunk) -> str:
        """Take a chunk; return the text that is now certain, outer white space never being part of an answer."""
        self.raw += chunk.text
        self.token_ids.extend(chunk.token_ids)
        self.logprobs.extend(chunk.logprobs)
        certain = self.raw.strip()
        delta = certain[self.sent :]
        self.sent = len(certain)
        return delta


async def answer(
    state: State,
    fields: VQAFields,
    *,
    image: str | bytes,
    deadline: Deadline,
    record: RequestRecord,
    route: str = ROUTE,
) -> AsyncGenerator[str | VQAResponse, None]:
    """Yield the answer's text piece by piece, then the whole response. Closing the iterator aborts the generation.

    `route` is what the engine's request ids and the router statistics call it.
    Raises InvalidField, PromptError, Overloaded, DeadlineExceeded, the image errors and the engine errors.
    """
    prompt_ids, max_tokens = _plan(state, fields)
    seed = fields.seed
    if fields.temperature > 0 and seed is None:
        seed = secrets.randbelow(2**31)
    async with state.admission.slot(deadline=deadline, record=record):
        decoded = await state.read_image(image, fields, deadline=deadline, record=record)
        request = GenerationRequest(
            request_id=f"{route}-{uuid.uuid4().hex}",
            prompt_ids=prompt_ids,
            image=decoded.image,
            image_id=decoded.image_id,
            cache_salt=record.cache_salt,
            max_tokens=max_tokens,
            temperature=fields.temperature,
            seed=seed,
        )
        generated = _Generated()
        last: GenerationChunk | None = None
        with record.stage("engine"), state.readiness.watch():
            async with aclosing(_chunks(state, request, deadline=deadline)) as chunks:
                async for chunk in chunks:
                    last = chunk
                    if delta := generated.add(chunk):
                        yield delta
        if last is None:
            raise GenerationError("the engine returned nothing")
        record.count_tokens(
            prompt=last.num_prompt_tokens, completion=len(generated.token_ids), cached=last.num_cached_tokens
        )
        yield _response(
            state,
            fields,
            request=request,
            generated=generated,
            last=last,
            decoded=decoded,
            record=record,
            route=route,
        )


def _plan(state: State, fields: VQAFields) -> tuple[tuple[int, ...], int]:
    """Prompt ids, and how many tokens may follow them."""
    settings, text = state.settings, state.config.text_config
    state.router_stats.modality(fields.modality)
    if len(fields.question) > settings.max_question_chars:
        raise InvalidField(f"the question is longer than {settings.max_question_chars} characters", param="question")
    if fields.max_tokens is not None and fields.max_tokens > settings.max_tokens:
        raise InvalidField(f"max_tokens is over this service's {settings.max_tokens}", param="max_tokens")
    prompt_ids = tuple(state.prompt.question(fields.question))
    room = text.max_position_embeddings - len(state.prompt.expand(prompt_ids))
    wanted = (
        fields.max_tokens
        if fields.max_tokens is not None
        else min(settings.default_max_tokens, settings.max_tokens, max(room, 1))
    )
    if wanted > room:
        raise PromptError(
            f"the question, the image and max_tokens together are {wanted - room} tokens over the model's context"
        )
    return prompt_ids, wanted


async def _chunks(
    state: State, request: GenerationRequest, *, deadline: Deadline
) -> AsyncGenerator[GenerationChunk, None]:
    """The engine's chunks, each awaited under the deadline; a timeout must not span a yield."""
    async with generation(state.engine, request) as chunks:
        while True:
            async with deadline.guard():
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield chunk


def _response(
    state: State,
    fields: VQAFields,
    *,
    request: GenerationRequest,
    generated: _Generated,
    last: GenerationChunk,
    decoded: DecodedImage,
    record: RequestRecord,
    route: str,
) -> VQAResponse:
    if last.finish_reason is None:
        raise GenerationError("the engine stopped without a reason")
    confidence = _confidence(state, generated, greedy=fields.temperature == 0, whole=last.finish_reason == "stop")
    least = threshold(fields.min_confidence, state.settings)
    return VQAResponse(
        id=request.request_id,
        model=state.config.name,
        answer=generated.raw.strip(),
        finish_reason=last.finish_reason,
        confidence=confidence,
        abstained=abstains(confidence.value if confidence else None, under=least),
        usage=Usage(
            prompt_tokens=last.num_prompt_tokens,
            image_tokens=state.config.num_image_tokens,
            completion_tokens=len(generated.token_ids),
            cached_tokens=last.num_cached_tokens,
        ),
        timings=record.timings(),
        provenance=SampledProvenance(
            **state.provenance(decoded).model_dump(),
            temperature=fields.temperature,
            seed=request.seed,
            max_tokens=request.max_tokens,
            min_confidence=least,
        ),
        routing=_routing(state, fields, request=request, last=last, route=route),
    )


def _confidence(state: State, generated: _Generated, *, greedy: bool, whole: bool) -> Confidence | None:
    if not generated.logprobs:
        return None
    own = math.exp(math.fsum(generated.logprobs))
    answers = state.calibration.answers if state.calibration is not None else None
    if answers is None or not (greedy and whole):
        return Confidence(value=own, calibrated=False)
    return Confidence(value=answers.apply((min(own, 1.0),))[0], calibrated=True)


def _routing(
    state: State, fields: VQAFields, *, request: GenerationRequest, last: GenerationChunk, route: str
) -> Routing | None:
    if last.routed_experts is None:
        return None
    counts = state.router_stats.count(
        last.routed_experts, prompt_ids=request.prompt_ids, prompt_tokens=last.num_prompt_tokens
    )
    state.router_stats.add(counts, route=route, modality=fields.modality)
    return state.router_stats.request_report(counts) if fields.include_routing else None
