"""Make the prompts of `/v1/classify`, by mode, with the answers to score after each; check the limits on labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from medmoe.model.errors import PromptError
from medmoe.model.prompt import LETTERS
from medmoe.server.engine.scoring.label_scorer import Path, ScoringRequest
from medmoe.server.errors import InvalidField
from medmoe.server.inference.context import InferenceContext
from medmoe.server.schemas.classify import NO, YES, ClassifyFields


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelPrompts:
    """Hold the requests to score, and in mode choice the order of the labels in each."""

    requests: tuple[ScoringRequest, ...]
    orders: tuple[tuple[int, ...], ...] = ()
    """Mode choice: for each request, the index of the label that each letter stands for."""


def make_label_prompts(context: InferenceContext, fields: ClassifyFields) -> LabelPrompts:
    """Return the requests for `fields`, within the deployment's limits and the model's context.

    Raises InvalidField, PromptError.
    """
    _check_labels(context, fields)
    _check_mode(context, fields)
    prompts = {"likelihood": _likelihood, "choice": _choice, "multi_label": _multi_label}[fields.mode](context, fields)
    needed, limit = sum(request.steps for request in prompts.requests), context.settings.max_label_steps
    if needed > limit:
        raise InvalidField(
            f"the labels take {needed} engine steps, over {limit} (MEDMOE_MAX_LABEL_STEPS)", param="labels"
        )
    excess = max(
        max(map(len, request.paths)) - context.checkpoint.room(request.prompt_ids) for request in prompts.requests
    )
    if excess > 0:
        raise PromptError(f"the question, the image and the longest label are {excess} tokens over the model's context")
    return prompts


def _check_labels(context: InferenceContext, fields: ClassifyFields) -> None:
    settings = context.settings
    if len(fields.labels) > settings.max_labels:
        raise InvalidField(f"more than {settings.max_labels} labels (MEDMOE_MAX_LABELS)", param="labels")
    for index, label in enumerate(fields.labels):
        if len(label) > settings.max_label_chars:
            raise InvalidField(
                f"a label is longer than {settings.max_label_chars} characters (MEDMOE_MAX_LABEL_CHARS)",
                param=f"labels.{index}",
            )
    if fields.question is not None:
        context.check_question(fields.question)


def _check_mode(context: InferenceContext, fields: ClassifyFields) -> None:
    mode, limit = fields.mode, context.settings.max_permutations
    if mode != "multi_label" and len(fields.labels) < 2:
        raise InvalidField(
            "one label leaves nothing to choose from: repeat the field for each label, or send a JSON list; mode "
            "multi_label takes a single label",
            param="labels",
        )
    if mode == "multi_label" and fields.question is not None:
        raise InvalidField(
            "mode multi_label has its own question about each label; for another wording ask a predicate of "
            "/v1/decisions",
            param="question",
        )
    if mode == "choice" and len(fields.labels) > len(LETTERS):
        raise InvalidField(f"mode choice has letters for {len(LETTERS)} labels", param="labels")
    if fields.length_normalized and mode != "likelihood":
        raise InvalidField("only mode likelihood compares labels of different length", param="length_normalized")
    if fields.contextual_calibration and mode != "likelihood":
        raise InvalidField("only mode likelihood is calibrated contextually", param="contextual_calibration")
    if fields.alpha > 0:
        _check_alpha(context, fields)
    if fields.permutations is not None and mode != "choice":
        raise InvalidField("only mode choice puts the labels in an order", param="permutations")
    if fields.permutations is not None and fields.permutations > limit:
        raise InvalidField(f"more than {limit} permutations (MEDMOE_MAX_PERMUTATIONS)", param="permutations")


def _check_alpha(context: InferenceContext, fields: ClassifyFields) -> None:
    changed = fields.length_normalized or fields.contextual_calibration
    if fields.mode != "likelihood" or fields.question is not None or changed:
        raise InvalidField(
            "prediction sets hold for mode likelihood with the checkpoint's own question, neither length-normalized "
            "nor contextually calibrated",
            param="alpha",
        )
    if context.checkpoint.prediction_sets(fields.labels, context.engine.dtype) is None:
        raise InvalidField(
            "the checkpoint has no prediction sets for these labels in this number format; medmoe calibrate "
            "--conformal makes them",
            param="alpha",
        )


def _likelihood(context: InferenceContext, fields: ClassifyFields) -> LabelPrompts:
    question = fields.question or context.checkpoint.prompt.classification(fields.labels)
    paths = tuple(tuple(context.checkpoint.prompt.answer(label)) for label in fields.labels)
    if len(set(paths)) != len(paths):
        raise InvalidField("labels must be distinct for the model", param="labels")
    return LabelPrompts(requests=(_scoring_request(context, question, paths),))


def _choice(context: InferenceContext, fields: ClassifyFields) -> LabelPrompts:
    letters = tuple(tuple(context.checkpoint.prompt.letter(index)) for index in range(len(fields.labels)))
    if len(set(letters)) != len(letters):
        raise InvalidField("this checkpoint's tokenizer cannot tell the letters of the options apart", param="mode")
    orders = rotations(fields.labels, at_most=fields.permutations or context.settings.max_permutations)
    questions = [
        context.checkpoint.prompt.choice([fields.labels[index] for index in order], question=fields.question)
        for order in orders
    ]
    return LabelPrompts(
        requests=tuple(_scoring_request(context, question, letters) for question in questions), orders=orders
    )


def _multi_label(context: InferenceContext, fields: ClassifyFields) -> LabelPrompts:
    paths = tuple(dict.fromkeys(tuple(context.checkpoint.prompt.answer(word)) for word in (*YES, *NO)))
    if len(paths) != len(YES) + len(NO):
        raise InvalidField("this checkpoint's tokenizer cannot tell yes and no apart", param="mode")
    return LabelPrompts(
        requests=tuple(
            _scoring_request(context, context.checkpoint.prompt.presence(label), paths) for label in fields.labels
        )
    )


def rotations(labels: Sequence[str], *, at_most: int) -> tuple[tuple[int, ...], ...]:
    """Return rotations of the labels' sorted order, as indices, evenly spaced where not all are allowed.

    All of them together put every label once in every place. The order of `labels` has no influence.
    """
    ordered = sorted(range(len(labels)), key=labels.__getitem__)
    count = min(len(ordered), at_most)
    starts = (turn * len(ordered) // count for turn in range(count))
    return tuple((*ordered[start:], *ordered[:start]) for start in starts)


def _scoring_request(context: InferenceContext, question: str, paths: tuple[Path, ...]) -> ScoringRequest:
    return ScoringRequest(prompt_ids=tuple(context.checkpoint.prompt.question(question)), paths=paths)
