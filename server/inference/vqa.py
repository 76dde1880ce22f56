"""Answer one question about one image: from validated fields to pieces of text and the final response."""

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, field

from medmoe.model.errors import PromptError
from medmoe.model.prompt import History
from medmoe.server.admission.deadline import Deadline
from medmoe.server.engine.base import GenerationChunk, GenerationError, GenerationRequest
from medmoe.server.errors import InvalidField
from medmoe.server.imaging.image import DecodedImage
from medmoe.server.inference.confidence import (
    abstains,
    answer_confidence,
    compare_with_training,
    confidence_threshold,
    is_flagged,
)
from medmoe.server.inference.context import InferenceContext
from medmoe.server.inference.token_logprobs import TokenLogprobs
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.inference import Routing, SentImage
from medmoe.server.schemas.vqa import SampledProvenance, Usage, VQAFields, VQAResponse

ROUTE = "vqa"


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerPlan:
    """Prompt and length of an answer, before its image is read."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    """Most tokens to generate after the prompt."""
    is_first: bool
    """Whether nothing was said before the question."""


@dataclass(slots=True)
class _Generation:
    """Text and tokens that the engine has generated so far."""

    text: str = ""
    sent_chars: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def add(self, chunk: GenerationChunk) -> str:
        """Add `chunk`; return the text to send now. White space is held back: an answer does not end with any."""
        self.text += chunk.text
        self.token_ids.extend(chunk.token_ids)
        self.logprobs.extend(chunk.logprobs)
        answer = self.answer
        delta = answer[self.sent_chars :]
        self.sent_chars = len(answer)
        return delta

    @property
    def answer(self) -> str:
        """Return the text without outer white space."""
        return self.text.strip()


def answer(
    context: InferenceContext,
    fields: VQAFields,
    *,
    image: SentImage,
    deadline: Deadline,
    record: RequestRecord,
    route: str = ROUTE,
    stop: Sequence[str] = (),
    tokens: TokenLogprobs | None = None,
    history: History | None = None,
) -> AsyncGenerator[str | VQAResponse, None]:
    """Return what `answer_in_slot` returns, holding a slot; `history` is what was said before the question.

    Raises InvalidField, PromptError; its iteration Overloaded, and what `answer_in_slot` raises.
    """
    return answer_in_slot(
        context,
        fields,
        plan_answer(context, fields, history),
        image=image,
        deadline=deadline,
        record=record,
        route=route,
        stop=stop,
        tokens=tokens,
        slot=context.admission.slot(deadline=deadline, record=record),
    )


async def answer_in_slot(
    context: InferenceContext,
    fields: VQAFields,
    plan: AnswerPlan,
    *,
    image: SentImage,
    deadline: Deadline,
    record: RequestRecord,
    route: str,
    stop: Sequence[str] = (),
    tokens: TokenLogprobs | None = None,
    slot: AbstractAsyncContextManager[None] | None = None,
) -> AsyncGenerator[str | VQAResponse, None]:
    """Yield the answer's text piece by piece, then the response. Closing the iterator aborts the generation.

    `plan` is what `plan_answer` returns for `fields`, whatever the image. `route` names the request in the engine and
    in the router statistics. The answer ends before the first of the strings in `stop`. `tokens` collects the answer's
    tokens. `slot` is held for as long as the answer takes; without it the caller holds one. Raises DeadlineExceeded,
    the image errors and the engine errors.
    """
    async with slot or nullcontext():
        seed = fields.seed
        if fields.temperature > 0 and seed is None:
            seed = secrets.randbelow(2**31)
        decoded = await context.images.read(image, fields, deadline=deadline, record=record)
        request = GenerationRequest(
            request_id=f"{route}-{secrets.token_hex(16)}",
            prompt_ids=plan.prompt_ids,
            image=decoded.array,
            image_id=decoded.image_id,
            cache_salt=record.cache_salt,
            max_tokens=plan.max_tokens,
            temperature=fields.temperature,
            seed=seed,
            stop=tuple(stop),
            top_logprobs=tokens.top if tokens else 0,
            # The service finds the stop strings, in the text so far.
            whole=not fields.stream and not stop,
        )
        generated = _Generation()
        last: GenerationChunk | None = None
        with record.stage("engine"), context.readiness.watch():
            async with aclosing(context.engine.generate(request)) as chunks:
                while (chunk := await _next(chunks, deadline)) is not None:
                    last = chunk
                    delta = generated.add(chunk)
                    if tokens:
                        tokens.add(chunk, answer=generated.answer)
                    if delta:
                        yield delta
        if last is None:
            raise GenerationError("the engine returned nothing")
        record.count_tokens(
            prompt=last.num_prompt_tokens, completion=len(generated.token_ids), cached=last.num_cached_tokens
        )
        yield _response(
            context,
            fields,
            request=request,
            generated=generated,
            last=last,
            decoded=decoded,
            record=record,
            route=route,
            is_first=plan.is_first,
        )


async def whole_answer(pieces: AsyncGenerator[str | VQAResponse, None]) -> VQAResponse:
    """Return the response that ends the pieces of an answer. Raises what they raise."""
    async with aclosing(pieces):
        return [piece async for piece in pieces if isinstance(piece, VQAResponse)][-1]


def plan_answer(context: InferenceContext, fields: VQAFields, history: History | None = None) -> AnswerPlan:
    """Return the plan of the answer to `fields`. Raises InvalidField, PromptError."""
    settings, prompt = context.settings, context.checkpoint.prompt
    context.router_stats.require_modality(fields.modality)
    context.check_question(fields.question)
    if fields.max_tokens is not None and fields.max_tokens > settings.max_tokens:
        raise InvalidField(f"more than {settings.max_tokens} tokens (MEDMOE_MAX_TOKENS)", param="max_tokens")
    prompt_ids = tuple(
        prompt.question(fields.question) if history is None else prompt.conversation(fields.question, history)
    )
    room = context.checkpoint.room(prompt_ids)
    max_tokens = (
        fields.max_tokens
        if fields.max_tokens is not None
        else min(settings.default_max_tokens, settings.max_tokens, max(room, 1))
    )
    if max_tokens > room:
        texts = "question" if history is None else "conversation"
        raise PromptError(
            f"the {texts}, the image and max_tokens together are {max_tokens - room} tokens over the model's context"
        )
    return AnswerPlan(prompt_ids=prompt_ids, max_tokens=max_tokens, is_first=history is None)


async def _next(chunks: AsyncGenerator[GenerationChunk, None], deadline: Deadline) -> GenerationChunk | None:
    """Return the engine's next chunk, None after the last. A timeout must not span a yield: it guards each chunk."""
    async with deadline.guard():
        return await anext(chunks, None)


def _response(
    context: InferenceContext,
    fields: VQAFields,
    *,
    request: GenerationRequest,
    generated: _Generation,
    last: GenerationChunk,
    decoded: DecodedImage,
    record: RequestRecord,
    route: str,
    is_first: bool,
) -> VQAResponse:
    if last.finish_reason is None:
        raise GenerationError("the engine stopped without a reason")
    checkpoint = context.checkpoint
    unlike_training = compare_with_training(last.unlike_training, checkpoint.training_reference)
    flagged = is_flagged(unlike_training)
    record.note_unlike_training(unlike_training)
    confidence = answer_confidence(
        generated.logprobs,
        # The calibration was fitted to questions that nothing was said before.
        calibration=None if flagged or not is_first else checkpoint.answer_calibration(context.engine.dtype),
        greedy=fields.temperature == 0,
        complete=last.finish_reason == "stop" and not last.stopped,
    )
    threshold = confidence_threshold(fields.min_confidence, context.settings)
    abstained = abstains(confidence.value if confidence else None, threshold=threshold) or (
        flagged and not fields.allow_unlike_training
    )
    record.note_answer(calibrated=confidence is not None and confidence.calibrated, abstained=abstained)
    return VQAResponse(
        id=request.request_id,
        model=checkpoint.config.name,
        answer=generated.answer,
        finish_reason=last.finish_reason,
        confidence=confidence,
        abstained=abstained,
        unlike_training=unlike_training,
        usage=Usage(
            prompt_tokens=last.num_prompt_tokens,
            image_tokens=checkpoint.config.num_image_tokens,
            completion_tokens=len(generated.token_ids),
            cached_tokens=last.num_cached_tokens,
        ),
        timings=record.timings(),
        provenance=SampledProvenance(
            **checkpoint.provenance(decoded, dtype=context.engine.dtype),
            temperature=fields.temperature,
            seed=request.seed,
            max_tokens=request.max_tokens,
            min_confidence=threshold,
            allow_unlike_training=fields.allow_unlike_training,
        ),
        routing=_routing(context, fields, request=request, last=last, route=route),
    )


def _routing(
    context: InferenceContext, fields: VQAFields, *, request: GenerationRequest, last: GenerationChunk, route: str
) -> Routing | None:
    """Count the request's routing; return its report where the request asks for one."""
    if last.routed_experts is None:
        return None
    stats = context.router_stats
    counts = stats.count(last.routed_experts, prompt_ids=request.prompt_ids, prompt_tokens=last.num_prompt_tokens)
    stats.add(counts, route=route, modality=fields.modality)
    return stats.request_report(counts) if fields.include_routing else None
