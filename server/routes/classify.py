"""POST /v1/classify: how likely the model finds each of the caller's labels."""

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, Request

from medmoe.model.files.calibration import LabelCalibration, Temperature
from medmoe.server.engine.label_scorer import LabelScore
from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.http.request_body import receive
from medmoe.server.inference.abstention import abstains, threshold
from medmoe.server.inference.label_probabilities import Classification, agreement, by_choice, by_likelihood, by_presence
from medmoe.server.inference.label_prompts import YES, LabelPrompts, make_label_prompts
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.answers import answers
from medmoe.server.openapi.refusals import NOT_A_FORM, PICTURE, QUESTION, missing, refusals
from medmoe.server.openapi.requests import Named, accepts
from medmoe.server.routes.dependencies import within_rate
from medmoe.server.schemas.classify import (
    AnyClassifyResponse,
    CalibrationNote,
    ChoiceProvenance,
    ChoiceResponse,
    ClassifyProvenance,
    ClassifyResponse,
    LabelPresence,
    LabelProbability,
    LikelihoodProvenance,
    MultiLabelResponse,
)
from medmoe.server.schemas.vqa import ClassifyFields, ClassifyRequest
from medmoe.server.state import State

router = APIRouter(tags=["inference"])

ROUTE = "classify"
_LABELS = ["CT", "MRI", "X-ray"]
_EXAMPLES: Named = {
    "likelihood": {"labels": _LABELS},
    "choice": {
        "labels": _LABELS,
        "mode": "choice",
        "permutations": 3,
        "question": "What modality is used to take this image?",
        "include_routing": True,
        "timeout_ms": 30_000,
        "min_confidence": 0.5,
        "modality": "CT",
    },
    "multi_label": {"labels": ["lung", "liver"], "mode": "multi_label"},
}


@router.post(
    "/v1/classify",
    response_model=AnyClassifyResponse,
    responses=answers("classify", *_EXAMPLES) | refusals(missing("labels"), *PICTURE, *NOT_A_FORM, *QUESTION),
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts(ClassifyRequest, ClassifyFields, examples=_EXAMPLES),
)
async def classify(request: Request) -> ClassifyResponse | ChoiceResponse | MultiLabelResponse:
    """Exact label probabilities under the model. Research software, not a medical device."""
    state, record = State.of(request), RequestRecord.of(request.scope)
    async with state.receiving():
        received = await receive(request, ClassifyFields, as_json=ClassifyRequest)
    fields = received.fields
    state.router_stats.modality(fields.modality)
    deadline = state.deadline(fields.timeout_ms)
    questions = make_label_prompts(state, fields)
    request_id = f"{ROUTE}-{uuid.uuid4().hex}"
    async with (
        abandon_on_disconnect(request.receive),
        state.admission.slot(deadline=deadline, record=record),
    ):
        decoded = await state.read_image(received.image, fields, deadline=deadline, record=record)
        with record.stage("engine"), state.readiness.watch():
            async with deadline.guard():
                scored = await state.classifier.score(
                    questions.inquiries,
                    image=decoded.image,
                    image_id=decoded.image_id,
                    cache_salt=record.cache_salt,
                    request_id=request_id,
                )
    _count_tokens(record, scored)
    counts = _count_routing(state, scored, modality=fields.modality)
    routing = state.router_stats.request_report(counts) if fields.include_routing and counts is not None else None
    common = {
        "id": request_id,
        "model": state.config.name,
        "timings": record.timings(),
        "routing": routing,
    }
    provenance = state.provenance(decoded).model_dump()
    provenance["min_confidence"] = threshold(fields.min_confidence, state.settings)
    match fields.mode:
        case "likelihood":
            return _likelihood(state, fields, scored[0], common=common, provenance=provenance)
        case "choice":
            return _choice(fields, scored, questions, common=common, provenance=provenance)
        case "multi_label":
            return _multi_label(fields, scored, common=common, provenance=provenance)


def _likelihood(
    state: State, fields: ClassifyFields, scored: LabelScore, *, common: dict[str, Any], provenance: dict[str, Any]
) -> ClassifyResponse:
    lengths = [len(path) for path in scored.inquiry.paths] if fields.length_normalized else None
    result = by_likelihood(scored.log_likelihoods, lengths=lengths)
    # Fitted with the checkpoint's own question and whole likelihoods: what anything else does to the probabilities,
    # nobody has measured.
    fitted = fields.question is None and not fields.length_normalized
    fit = state.calibration.classification if state.calibration and fitted else None
    if fit is not None:
        result = result.through(fit)
    return ClassifyResponse(
        **common,
        **_one_label(fields, result, min_confidence=provenance["min_confidence"]),
        calibration=None if fit is None else _note(fit),
        provenance=LikelihoodProvenance(**provenance, length_normalized=fields.length_normalized),
    )


def _choice(
    fields: ClassifyFields,
    scored: Sequence[LabelScore],
    questions: LabelPrompts,
    *,
    common: dict[str, Any],
    provenance: dict[str, Any],
) -> ChoiceResponse:
    rotations = []
    for one, order in zip(scored, questions.orders, strict=True):
        by_label = dict(zip(order, one.log_likelihoods, strict=True))
        rotations.append([by_label[index] for index in range(len(fields.labels))])
    result = by_choice(rotations)
    return ChoiceResponse(
        **common,
        **_one_label(fields, result, min_confidence=provenance["min_confidence"]),
        permutations=len(rotations),
        agreement=agreement(rotations, best=result.best),
        provenance=ChoiceProvenance(**provenance, permutations=len(rotations)),
    )


def _one_label(fields: ClassifyFields, result: Classification, *, min_confidence: float | None) -> dict[str, Any]:
    return {
        "label": fields.labels[result.best],
        "probabilities": tuple(
            LabelProbability(label=label, probability=probability, log_likelihood=log_likelihood)
            for label, probability, log_likelihood in zip(
                fields.labels, result.probabilities, result.log_likelihoods, strict=True
            )
        ),
        "label_mass": result.label_mass,
        "entropy": result.entropy,
        "margin": result.margin,
        "abstained": abstains(result.probabilities[result.best], under=min_confidence),
    }


def _multi_label(
    fields: ClassifyFields, scored: Sequence[LabelScore], *, common: dict[str, Any], provenance: dict[str, Any]
) -> MultiLabelResponse:
    found = []
    for label, one in zip(fields.labels, scored, strict=True):
        result = by_presence(one.log_likelihoods[: len(YES)], one.log_likelihoods[len(YES) :])
        found.append(
            LabelPresence(
                label=label,
                present=result.probability >= 0.5,
                probability=result.probability,
                label_mass=result.label_mass,
                entropy=result.entropy,
                margin=result.margin,
                abstained=abstains(result.confidence, under=provenance["min_confidence"]),
            )
        )
    return MultiLabelResponse(
        **common,
        labels=tuple(one.label for one in found if one.present),
        probabilities=tuple(found),
        abstained=any(one.abstained for one in found),
        provenance=ClassifyProvenance(**provenance),
    )


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


def _count_tokens(record: RequestRecord, scored: Sequence[LabelScore]) -> None:
    """Each prompt once: what its trie's later steps read again, they read from the cache."""
    roots = [one.steps[0][1] for one in scored]
    record.count_tokens(
        prompt=sum(root.num_prompt_tokens for root in roots),
        completion=0,
        cached=sum(root.num_cached_tokens for root in roots),
    )


def _count_routing(state: State, scored: Sequence[LabelScore], *, modality: str | None) -> np.ndarray | None:
    """Count each token once, although each step of a trie carried its whole prompt again, and each prompt the image."""
    counts = []
    seen: dict[int, Any] = {}
    for one in scored:
        routed = [chunk.routed_experts for _, chunk in one.steps if chunk.routed_experts is not None]
        if len(routed) < len(one.steps):
            return None
        prompt_ids, prompt_tokens = one.inquiry.prompt_ids, one.steps[0][1].num_prompt_tokens
        counts.append(
            state.router_stats.count(
                # A step's last row is the token that leads to it; the rows before belong to its ancestors.
                np.concatenate((routed[0], *(rows[-1:] for rows in routed[1:]))),
                prompt_ids=prompt_ids,
                prompt_tokens=prompt_tokens,
                first_row=len(state.prompt.expand(prompt_ids[: _known(prompt_ids, seen)])),
            )
        )
    total: np.ndarray = np.sum(counts, axis=0)
    state.router_stats.add(total, route=ROUTE, modality=modality)
    return total


def _known(ids: Sequence[int], tree: dict[int, Any]) -> int:
    """How many tokens at the beginning of `ids` are in `tree`, to which the rest is added."""
    known = 0
    for token in ids:
        known += token in tree
        tree = tree.setdefault(token, {})
    return known
