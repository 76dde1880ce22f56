"""Determine the answer whose likelihood a map shows."""

import math
from contextlib import aclosing
from dataclasses import dataclass

from medmoe.model.errors import PromptError
from medmoe.server.engine.base import GenerationError, GenerationRequest
from medmoe.server.engine.scoring.label_scorer import Path
from medmoe.server.errors import InvalidField
from medmoe.server.imaging.image import DecodedImage
from medmoe.server.inference.classify import plan_classification
from medmoe.server.inference.context import InferenceContext
from medmoe.server.inference.vqa import plan_answer
from medmoe.server.schemas.classify import ClassifyFields
from medmoe.server.schemas.views.explain import ExplainFields
from medmoe.server.schemas.vqa import VQAFields


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Prompt and answers of a request, before its image is read."""

    prompt_ids: Path
    texts: tuple[str, ...]
    """Answers to choose from; empty where the model generates the answer."""
    paths: tuple[Path, ...]
    """Tokens of each answer."""
    chosen: int | None
    """Index of the answer to explain; None: the likeliest, or the generated one."""
    max_tokens: int = 0
    """Most tokens to generate, where the model says it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """An answer and its tokens."""

    text: str
    path: Path


def plan_target(context: InferenceContext, fields: ExplainFields) -> Plan:
    """Return the plan for `fields`. Raises InvalidField, PromptError."""
    if fields.labels is not None:
        asked = ClassifyFields(labels=fields.labels, question=fields.question, modality=fields.modality)
        _, prompts = plan_classification(context, asked)
        (request,) = prompts.requests
        chosen = None if fields.label is None else fields.labels.index(fields.label)
        return Plan(prompt_ids=request.prompt_ids, texts=fields.labels, paths=request.paths, chosen=chosen)
    assert fields.question is not None
    # One token more than the prompt has room at least; a longer answer is checked below.
    asked_for = fields.max_tokens if fields.answer is None else 1
    plan = plan_answer(context, VQAFields(question=fields.question, max_tokens=asked_for, modality=fields.modality))
    if fields.answer is None:
        return Plan(prompt_ids=plan.prompt_ids, texts=(), paths=(), chosen=None, max_tokens=plan.max_tokens)
    path = _answer_path(context, fields.answer, plan.prompt_ids)
    return Plan(prompt_ids=plan.prompt_ids, texts=(fields.answer,), paths=(path,), chosen=0)


def _answer_path(context: InferenceContext, answer: str, prompt_ids: Path) -> Path:
    """Return the tokens of an answer with its end. Raises InvalidField, PromptError."""
    checkpoint, limit = context.checkpoint, context.settings.max_label_chars
    if len(answer) > limit:
        raise InvalidField(f"the answer is longer than {limit} characters (MEDMOE_MAX_LABEL_CHARS)", param="answer")
    path = tuple(checkpoint.prompt.answer(answer))
    if (excess := len(path) - checkpoint.room(prompt_ids)) > 0:
        raise PromptError(f"the question, the image and the answer are {excess} tokens over the model's context")
    return path


async def generate_target(
    context: InferenceContext, plan: Plan, decoded: DecodedImage, *, request_id: str, cache_salt: str | None
) -> Target:
    """Return what the model says. Raises what the engine raises."""
    request = GenerationRequest(
        request_id=f"{request_id}-answer",
        prompt_ids=plan.prompt_ids,
        image=decoded.array,
        image_id=decoded.image_id,
        cache_salt=cache_salt,
        max_tokens=plan.max_tokens,
    )
    text = ""
    path: list[int] = []
    async with aclosing(context.engine.generate(request)) as chunks:
        async for chunk in chunks:
            text += chunk.text
            path += chunk.token_ids
    if not path or context.checkpoint.config.image_token_id in path:
        raise GenerationError("the engine returned nothing that can be scored")
    return Target(text=text.strip(), path=tuple(path))


def likeliest(log_likelihoods: tuple[float, ...]) -> int:
    """Return the index of the highest. Raises GenerationError when none is finite."""
    highest = max(log_likelihoods)
    if not math.isfinite(highest):
        raise GenerationError("the engine returned log-probabilities that are not finite")
    return log_likelihoods.index(highest)
