"""What `/v1/classify` asks the model, by mode: from labels to prompts and to the answers that are scored after them.

Apart from the route so that every limit on labels is held in one place, before a slot is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from medmoe.model.errors import PromptError
from medmoe.model.prompt import LETTERS
from medmoe.server.engine.label_scorer import Path, ScoringRequest
from medmoe.server.errors import InvalidField
from medmoe.server.inference.context import InferenceContext
from medmoe.server.schemas.vqa import ClassifyFields

YES = ("yes", "Yes")
"""Data sets write both; a model that learnt from them divides itself between the two."""
NO = ("no", "No")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelPrompts:
    """What to ask, and for the mode choice how its answers belong to the labels."""

    requests: tuple[ScoringRequest, ...]
    orders: tuple[tuple[int, ...], ...] = ()
    """For each request of the mode choice: which label (its index in the request) each letter stands for."""


def make_label_prompts(context: InferenceContext, fields: ClassifyFields) -> LabelPrompts:
    """The requests for `fields`, within this deployment's limits and the model's context.

    Raises InvalidField, PromptError.
    """
    _check_labels(context, fields)
    _check_mode(context, fields)
    found = {"likelihood": _likelihood, "choice": _choice, "multi_label": _multi_label}[fields.mode](context, fields)
    needed, limit = sum(request.steps for request in found.requests), context.settings.max_label_steps
    if needed > limit:
        raise InvalidField(
            f"the labels take {needed} engine steps, over {limit} (MEDMOE_MAX_LABEL_STEPS)", param="labels"
        )
    longest = max(
        len(context.checkpoint.prompt.expand(request.prompt_ids)) + max(map(len, request.paths))
        for request in found.requests
    )
    if (excess := longest - context.checkpoint.config.text_config.max_position_embeddings) > 0:
        raise PromptError(f"the question, the image and the longest label are {excess} tokens over the model's context")
    return found


def _check_labels(context: InferenceContext, fields: ClassifyFields) -> None:
    settings = context.settings
    if len(fields.labels) > settings.max_labels:
        raise InvalidField(f"more than {settings.max_labels} labels (MEDMOE_MAX_LABELS)", param="labels")
    for index, label in enumerate(fields.labels):
        if len(label) > settings.max_label_chars:
            raise InvalidField(f"a label is longer than {settings.max_label_chars} characters", param=f"labels.{index}")
    if fields.question is not None and len(fields.question) > settings.max_question_chars:
        raise InvalidField(f"the question is longer than {settings.max_question_chars} characters", param="question")


def _check_mode(context: InferenceContext, fields: ClassifyFields) -> None:
    mode, limit = fields.mode, context.settings.max_permutations
    if mode != "multi_label" and len(fields.labels) < 2:
        raise InvalidField("one label leaves nothing to choose from; mode multi_label takes it", param="labels")
    if mode == "multi_label" and fields.question is not None:
        raise InvalidField(
            "mode multi_label has its own question about each label; for another wording ask with mode likelihood and "
            "the labels yes and no",
            param="question",
        )
    if mode == "choice" and len(fields.labels) > len(LETTERS):
        raise InvalidField(f"mode choice has letters for {len(LETTERS)} labels", param="labels")
    if fields.length_normalized and mode != "likelihood":
        raise InvalidField("only mode likelihood compares labels of different length", param="length_normalized")
    if fields.permutations is not None and mode != "choice":
        raise InvalidField("only mode choice puts the labels in an order", param="permutations")
    if fields.permutations is not None and fields.permutations > limit:
        raise InvalidField(f"more than {limit} permutations (MEDMOE_MAX_PERMUTATIONS)", param="permutations")


def _likelihood(context: InferenceContext, fields: ClassifyFields) -> LabelPrompts:
    question = fields.question or context.checkpoint.prompt.classification(fields.labels)
    paths = tuple(tuple(context.checkpoint.prompt.answer(label)) for label in fields.labels)
    if len(set(paths)) != len(paths):
        raise InvalidField("labels must be distinct for the model", param="labels")
    return LabelPrompts(requests=(_request(context, question, paths),))


def _choice(context: InferenceContext, fields: ClassifyFields) -> LabelPrompts:
    letters = tuple(tuple(context.checkpoint.prompt.letter(index)) for index in range(len(fields.labels)))
    if len(set(letters)) != len(letters):
        raise InvalidField("this checkpoint's tokenizer cannot tell the letters of the options apart", param="mode")
    orders = rotations(fields.labels, at_most=fields.permutations or context.settings.max_permutations)
    questions = [
        context.checkpoint.prompt.choice([fields.labels[index] for index in order], question=fields.question)
        for order in orders
    ]
    return LabelPrompts(requests=tuple(_request(context, question, letters) for question in questions), orders=orders)


def _multi_label(context: InferenceContext, fields: ClassifyFields) -> LabelPrompts:
    paths = tuple(dict.fromkeys(tuple(context.checkpoint.prompt.answer(word)) for word in (*YES, *NO)))
    if len(paths) != len(YES) + len(NO):
        raise InvalidField("this checkpoint's tokenizer cannot tell yes and no apart", param="mode")
    return LabelPrompts(
        requests=tuple(_request(context, context.checkpoint.prompt.presence(label), paths) for label in fields.labels)
    )


def rotations(labels: Sequence[str], *, at_most: int) -> tuple[tuple[int, ...], ...]:
    """Orders of the labels, as indices: rotations of their sorted order, evenly spaced where not all are allowed.

    All of them together put every label once in every place. The order in which the labels came has no influence.
    """
    ordered = sorted(range(len(labels)), key=labels.__getitem__)
    count = min(len(ordered), at_most)
    starts = (turn * len(ordered) // count for turn in range(count))
    return tuple((*ordered[start:], *ordered[:start]) for start in starts)


def _request(context: InferenceContext, question: str, paths: tuple[Path, ...]) -> ScoringRequest:
    return ScoringRequest(prompt_ids=tuple(context.checkpoint.prompt.question(question)), paths=paths)
