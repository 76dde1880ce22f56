"""Score the labels of one image: from validated fields to the response of `/v1/classify`."""

import secrets
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from medmoe.server.admission.deadline import Deadline
from medmoe.server.engine.scoring.label_scorer import LabelScore, LabelScorer
from medmoe.server.inference.classify_response import classify_response
from medmoe.server.inference.confidence import compare_with_training
from medmoe.server.inference.context import InferenceContext
from medmoe.server.inference.label_prompts import LabelPrompts, make_label_prompts
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.classify import (
    AnyClassification,
    ClassifyFields,
    ClassifyResponse,
)
from medmoe.server.schemas.inference import Routing, SentImage
from medmoe.server.schemas.views.explain import ExplainFields

ROUTE = "classify"


async def classify_image(
    context: InferenceContext,
    fields: ClassifyFields,
    *,
    image: SentImage,
    deadline: Deadline,
    record: RequestRecord,
) -> AnyClassification:
    """Return the probabilities of the labels for `image`. Cancelling it aborts the scoring.

    Raises InvalidField, PromptError, Overloaded, DeadlineExceeded, the image errors and the engine errors.
    """
    asked = (plan_classification(context, fields),)
    (response,) = await classify_several(context, asked, image=image, deadline=deadline, record=record, route=ROUTE)
    record.note_answer(
        calibrated=isinstance(response, ClassifyResponse) and response.calibration is not None,
        abstained=response.abstained,
    )
    return response


def plan_classification(context: InferenceContext, fields: ClassifyFields) -> tuple[ClassifyFields, LabelPrompts]:
    """Return what `classify_several` takes, whatever the image. Raises InvalidField, PromptError."""
    context.router_stats.require_modality(fields.modality)
    return fields, make_label_prompts(context, fields)


async def classify_several(
    context: InferenceContext,
    asked: Sequence[tuple[ClassifyFields, LabelPrompts]],
    *,
    image: SentImage,
    deadline: Deadline,
    record: RequestRecord,
    route: str,
) -> tuple[AnyClassification, ...]:
    """Hold a slot, and return what `classify_in_slot` returns. Raises what it raises, Overloaded."""
    async with context.admission.slot(deadline=deadline, record=record):
        return await classify_in_slot(context, asked, image=image, deadline=deadline, record=record, route=route)


async def classify_in_slot(
    context: InferenceContext,
    asked: Sequence[tuple[ClassifyFields, LabelPrompts]],
    *,
    image: SentImage,
    deadline: Deadline,
    record: RequestRecord,
    route: str,
) -> tuple[AnyClassification, ...]:
    """Return one response for each of `asked`, all about one image, which is decoded once and scored at once.

    The engine reads the image with the first prompt and finds it in its cache for the others. All of `asked` have the
    same options for the image and the router statistics. `route` names the request in the engine and in the router
    statistics. Raises DeadlineExceeded, the image errors and the engine errors.
    """
    shared = asked[0][0]
    request_id = f"{route}-{secrets.token_hex(16)}"
    decoded = await context.images.read(image, shared, deadline=deadline, record=record)
    with record.stage("engine"), context.readiness.watch():
        async with deadline.guard():
            scorer = LabelScorer(context.engine, hold=lambda: context.label_steps.slot(request_id))
            scores = await scorer.score(
                [request for _, prompts in asked for request in prompts.requests],
                image=decoded.array,
                image_id=decoded.image_id,
                cache_salt=record.cache_salt,
                request_id=request_id,
            )
            content_free = [
                await context.content_free.mean(
                    prompts.requests[0], scorer=scorer, request_id=request_id, cache_salt=record.cache_salt
                )
                if fields.contextual_calibration
                else None
                for fields, prompts in asked
            ]
    count_tokens(record, scores)
    unlike_training = compare_with_training(scores[0].root.unlike_training, context.checkpoint.training_reference)
    record.note_unlike_training(unlike_training)
    routing = count_routing(context, scores, shared, route=route)
    remaining = iter(scores)
    return tuple(
        classify_response(
            context,
            fields,
            request_id=request_id,
            prompts=prompts,
            scores=tuple(islice(remaining, len(prompts.requests))),
            content_free=free,
            decoded=decoded,
            timings=record.timings(),
            routing=routing,
            unlike_training=unlike_training,
        )
        for (fields, prompts), free in zip(asked, content_free, strict=True)
    )


def count_tokens(record: RequestRecord, scores: Sequence[LabelScore]) -> None:
    """Count each prompt once: the later steps of its trie read it from the prefix cache."""
    roots = [score.root for score in scores]
    record.count_tokens(
        prompt=sum(root.num_prompt_tokens for root in roots),
        completion=0,
        cached=sum(root.num_cached_tokens for root in roots),
    )


def count_routing(
    context: InferenceContext, scores: Sequence[LabelScore], fields: ClassifyFields | ExplainFields, *, route: str
) -> Routing | None:
    """Add the experts of the request's tokens to the statistics; return them where the request asks for them.

    Each token counts once, although every step of a trie carries its whole prompt and every prompt carries the image.
    """
    counts = []
    counted: dict[int, Any] = {}
    for score in scores:
        nodes = (score.root.routed_experts, *(branch.routed_experts for branch in score.branches))
        routed = [rows for rows in nodes if rows is not None]
        if len(routed) < len(nodes):
            return None
        prompt_ids, prompt_tokens = score.request.prompt_ids, score.root.num_prompt_tokens
        shared = _add_prefix(prompt_ids, counted) if len(scores) > 1 else 0
        counts.append(
            context.router_stats.count(
                np.concatenate(routed),
                prompt_ids=prompt_ids,
                prompt_tokens=prompt_tokens,
                first_row=context.checkpoint.prompt.expanded_length(prompt_ids[:shared]),
            )
        )
    total: np.ndarray = np.sum(counts, axis=0)
    context.router_stats.add(total, route=route, modality=fields.modality)
    return context.router_stats.request_report(total) if fields.include_routing else None


def _add_prefix(token_ids: Sequence[int], trie: dict[int, Any]) -> int:
    """Add `token_ids` to `trie`; return how many of their first tokens it already held."""
    shared = 0
    for token in token_ids:
        shared += token in trie
        trie = trie.setdefault(token, {})
    return shared
