"""POST /v1/classify: how likely the model finds each of the caller's labels."""

import uuid

import numpy as np
from fastapi import APIRouter, Depends, Request

from medmoe.model.calibration import LabelCalibration, Temperature
from medmoe.model.errors import PromptError
from medmoe.server.authentication import within_rate
from medmoe.server.classifier import Classification, Path, steps
from medmoe.server.disconnect import abandon_on_disconnect
from medmoe.server.errors import InvalidField
from medmoe.server.request_body import receive
from medmoe.server.request_docs import REFUSALS, accepts
from medmoe.server.request_record import RequestRecord
from medmoe.server.schemas import (
    CalibrationNote,
    ClassifyFields,
    ClassifyRequest,
    ClassifyResponse,
    LabelProbability,
    Routing,
)
from medmoe.server.state import State

router = APIRouter(tags=["inference"])

ROUTE = "classify"
_EXAMPLE = {"labels": ["normal", "pleural effusion", "pneumothorax"]}


@router.post(
    "/v1/classify",
    response_model=ClassifyResponse,
    responses=REFUSALS,
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts(ClassifyRequest, ClassifyFields, example=_EXAMPLE),
)
async def classify(request: Request) -> ClassifyResponse:
    """Exact label probabilities under the model. Research software, not a medical device."""
    state, record = State.of(request), RequestRecord.of(request.scope)
    state.readiness.require()
    state.admission.refuse_when_full()
    async with state.deadline(None).guard():
        received = await receive(request, ClassifyFields, as_json=ClassifyRequest)
    fields = received.fields
    deadline = state.deadline(fields.timeout_ms)
    prompt_ids, paths = _plan(state, fields)
    request_id = f"{ROUTE}-{uuid.uuid4().hex}"
    async with (
        abandon_on_disconnect(request.receive),
        state.admission.slot(deadline=deadline, record=record),
    ):
        picture = await state.read_image(received.image, fields, deadline=deadline, record=record)
        with record.stage("engine"), state.readiness.watch():
            async with deadline.guard():
                result = await state.classifier.classify(
                    paths,
                    prompt_ids=prompt_ids,
                    image=picture.image,
                    image_id=picture.image_id,
                    cache_salt=record.cache_salt,
                    request_id=request_id,
                )
    routing = _count_routing(state, result, prompt_ids=prompt_ids)
    # Fitted with the checkpoint's own question: what another one does to the probabilities, nobody has measured.
    fit = state.calibration.classification if state.calibration and fields.question is None else None
    if fit is not None:
        result = result.through(fit)
    return ClassifyResponse(
        id=request_id,
        model=state.config.name,
        label=fields.labels[result.best],
        probabilities=tuple(
            LabelProbability(label=label, probability=probability, log_likelihood=log_likelihood)
            for label, probability, log_likelihood in zip(
                fields.labels, result.probabilities, result.log_likelihoods, strict=True
            )
        ),
        label_mass=result.label_mass,
        entropy=result.entropy,
        margin=result.margin,
        calibration=None if fit is None else _note(fit),
        timings=record.timings(),
        provenance=state.provenance(picture),
        routing=routing if fields.include_routing else None,
    )


def _plan(state: State, fields: ClassifyFields) -> tuple[Path, tuple[Path, ...]]:
    """Prompt ids and the labels' tokens, within this deployment's limits and the model's context."""
    settings = state.settings
    if len(fields.labels) > settings.max_labels:
        raise InvalidField(f"more than {settings.max_labels} labels (MEDMOE_MAX_LABELS)", param="labels")
    for index, label in enumerate(fields.labels):
        if len(label) > settings.max_label_chars:
            raise InvalidField(f"a label is longer than {settings.max_label_chars} characters", param=f"labels.{index}")
    if fields.question is not None and len(fields.question) > settings.max_question_chars:
        raise InvalidField(f"the question is longer than {settings.max_question_chars} characters", param="question")
    question = fields.question or state.prompt.classification(fields.labels)
    prompt_ids = tuple(state.prompt.question(question))
    paths = state.classifier.paths(fields.labels)
    if (needed := steps(paths)) > settings.max_label_steps:
        raise InvalidField(
            f"the labels take {needed} engine steps, over {settings.max_label_steps} (MEDMOE_MAX_LABEL_STEPS)",
            param="labels",
        )
    length = len(state.prompt.expand(prompt_ids)) + max(map(len, paths))
    excess = length - state.config.text_config.max_position_embeddings
    if excess > 0:
        raise PromptError(f"the question, the image and the longest label are {excess} tokens over the model's context")
    return prompt_ids, paths


def _note(fit: LabelCalibration) -> CalibrationNote:
    return CalibrationNote(
        method=fit.map.method,
        temperature=fit.map.temperature if isinstance(fit.map, Temperature) else None,
        datasets=fit.fitted_on.datasets,
        split=fit.fitted_on.split,
        fitted_on=fit.fitted_on.n,
        held_out=fit.held_out.n,
        ece_before=fit.held_out.ece_before,
        ece_after=fit.held_out.ece_after,
    )


def _count_routing(state: State, result: Classification, *, prompt_ids: Path) -> Routing | None:
    """Count each token once, although every step of the trie carried the whole prompt again."""
    prompt_tokens = result.steps[0][1].num_prompt_tokens
    counts = []
    for prefix, chunk in result.steps:
        if chunk.routed_experts is None:
            return None
        # A step's last row is the token that leads to it; the rows before belong to its ancestors.
        first_row = prompt_tokens + len(prefix) - 1 if prefix else 0
        counts.append(
            state.router_stats.count(
                chunk.routed_experts, prompt_ids=prompt_ids, prompt_tokens=prompt_tokens, first_row=first_row
            )
        )
    total: np.ndarray = np.sum(counts, axis=0)
    state.router_stats.add(total, route=ROUTE)
    return state.router_stats.request_report(total)
