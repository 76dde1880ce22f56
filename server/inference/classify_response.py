"""Build the response of `/v1/classify` from the scores of the labels, by mode."""

from collections.abc import Sequence
from typing import Any

from medmoe.model.files.calibration import LabelCalibration, Temperature
from medmoe.model.files.prediction_sets import PredictionSets
from medmoe.server.engine.scoring.label_scorer import LabelScore
from medmoe.server.imaging.image import DecodedImage
from medmoe.server.inference.confidence import abstains, confidence_threshold, is_flagged
from medmoe.server.inference.context import InferenceContext
from medmoe.server.inference.label_probabilities import Classification, agreement, by_choice, by_likelihood, by_presence
from medmoe.server.inference.label_prompts import LabelPrompts
from medmoe.server.schemas.classify import (
    YES,
    AnyClassification,
    CalibrationNote,
    ChoiceProvenance,
    ChoiceResponse,
    ClassifyFields,
    ClassifyProvenance,
    ClassifyResponse,
    LabelPresence,
    LabelProbability,
    LikelihoodProvenance,
    MultiLabelResponse,
    PredictionSet,
)
from medmoe.server.schemas.inference import Routing, Timings, UnlikeTraining


def classify_response(
    context: InferenceContext,
    fields: ClassifyFields,
    *,
    request_id: str,
    prompts: LabelPrompts,
    scores: Sequence[LabelScore],
    content_free: Sequence[float] | None,
    decoded: DecodedImage,
    timings: Timings,
    routing: Routing | None,
    unlike_training: UnlikeTraining | None,
) -> AnyClassification:
    """Return the response of the request's mode. Raises GenerationError when no likelihood is finite."""
    checkpoint = context.checkpoint
    common = {
        "id": request_id,
        "model": checkpoint.config.name,
        "timings": timings,
        "routing": routing,
        "unlike_training": unlike_training,
    }
    provenance = checkpoint.provenance(decoded, dtype=context.engine.dtype)
    provenance["min_confidence"] = confidence_threshold(fields.min_confidence, context.settings)
    provenance["min_label_mass"] = (
        context.settings.min_label_mass if fields.min_label_mass is None else fields.min_label_mass
    )
    provenance["allow_unlike_training"] = fields.allow_unlike_training
    response: AnyClassification
    match fields.mode:
        case "likelihood":
            response = _likelihood(
                context, fields, scores[0], content_free=content_free, common=common, provenance=provenance
            )
        case "choice":
            response = _choice(fields, scores, prompts, common=common, provenance=provenance)
        case "multi_label":
            response = _multi_label(fields, scores, common=common, provenance=provenance)
    if is_flagged(unlike_training) and not fields.allow_unlike_training:
        return response.model_copy(update={"abstained": True})
    return response


def _likelihood(
    context: InferenceContext,
    fields: ClassifyFields,
    score: LabelScore,
    *,
    content_free: Sequence[float] | None,
    common: dict[str, Any],
    provenance: dict[str, Any],
) -> ClassifyResponse:
    lengths = [len(path) for path in score.request.paths] if fields.length_normalized else None
    result = by_likelihood(score.log_likelihoods, lengths=lengths, content_free=content_free)
    chosen: PredictionSet | None = None
    fit: LabelCalibration | None = None
    # Both were fitted to images like the training images.
    if not is_flagged(common["unlike_training"]):
        checkpoint, dtype = context.checkpoint, context.engine.dtype
        if fields.alpha > 0 and (sets := checkpoint.prediction_sets(fields.labels, dtype)) is not None:
            chosen = _prediction_set(fields, result, sets)
        # The calibration was fitted with the checkpoint's own question and the likelihoods as they are.
        if not (fields.question is not None or fields.length_normalized or fields.contextual_calibration):
            fit = checkpoint.label_calibration(fields.labels, dtype)
    if fit is not None:
        result = result.calibrated(fit)
    shared = _one_label(fields, result, provenance=provenance)
    if chosen is not None and len(chosen.labels) == len(fields.labels):
        shared["abstained"] = True
    return ClassifyResponse(
        **common,
        **shared,
        prediction_set=chosen,
        calibration=None if fit is None else _note(fit),
        provenance=LikelihoodProvenance(
            **provenance,
            length_normalized=fields.length_normalized,
            contextual_calibration=fields.contextual_calibration,
        ),
    )


def _choice(
    fields: ClassifyFields,
    scores: Sequence[LabelScore],
    prompts: LabelPrompts,
    *,
    common: dict[str, Any],
    provenance: dict[str, Any],
) -> ChoiceResponse:
    rotations = []
    for score, order in zip(scores, prompts.orders, strict=True):
        by_label = dict(zip(order, score.log_likelihoods, strict=True))
        rotations.append([by_label[index] for index in range(len(fields.labels))])
    result = by_choice(rotations)
    return ChoiceResponse(
        **common,
        **_one_label(fields, result, provenance=provenance),
        permutations=len(rotations),
        agreement=agreement(rotations, best=result.best),
        provenance=ChoiceProvenance(**provenance, permutations=len(rotations)),
    )


def _prediction_set(fields: ClassifyFields, result: Classification, sets: PredictionSets) -> PredictionSet:
    """Return the set by the model's own probabilities, before any calibration."""
    alpha = fields.alpha
    shares = dict(zip(fields.labels, result.probabilities, strict=True))
    return PredictionSet(
        labels=sets.prediction_set(shares, alpha=alpha),
        alpha=alpha,
        kind=sets.thresholds(alpha=alpha).kind,
        n=sets.fitted_on.n,
        datasets=sets.fitted_on.datasets,
        split=sets.fitted_on.split,
    )


def _one_label(fields: ClassifyFields, result: Classification, *, provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that the modes likelihood and choice share."""
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
        "abstained": abstains(result.probabilities[result.best], threshold=provenance["min_confidence"])
        or result.label_mass < provenance["min_label_mass"],
    }


def _multi_label(
    fields: ClassifyFields, scores: Sequence[LabelScore], *, common: dict[str, Any], provenance: dict[str, Any]
) -> MultiLabelResponse:
    presences = []
    for label, score in zip(fields.labels, scores, strict=True):
        result = by_presence(score.log_likelihoods[: len(YES)], score.log_likelihoods[len(YES) :])
        presences.append(
            LabelPresence(
                label=label,
                present=result.probability >= 0.5,
                probability=result.probability,
                label_mass=result.label_mass,
                entropy=result.entropy,
                margin=result.margin,
                abstained=abstains(result.confidence, threshold=provenance["min_confidence"])
                or result.label_mass < provenance["min_label_mass"],
            )
        )
    return MultiLabelResponse(
        **common,
        labels=tuple(presence.label for presence in presences if presence.present),
        probabilities=tuple(presences),
        abstained=any(presence.abstained for presence in presences),
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
