"""Serve /admin/checkpoint: load a checkpoint beside the active one, activate it, roll back, unload it."""

from fastapi import APIRouter, Depends, Request

from medmoe.server.engine.deployment.rollout_errors import CheckpointNotFound, InsufficientMemory, StandbyConflict
from medmoe.server.errors import Draining, InvalidField, UnsupportedContentType
from medmoe.server.http.json_body import read_json_object
from medmoe.server.http.request_body import validated
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.refusals import BODY, MAY_NOT_ADMINISTER, NOT_READY, missing, refusals
from medmoe.server.openapi.requests import EXAMPLE_IMAGE, Named, accepts_json
from medmoe.server.openapi.responses import Responses, examples
from medmoe.server.rollout.rollout import Rollout
from medmoe.server.rollout.schema import CheckpointStatus, LoadCheckpoint
from medmoe.server.routes.dependencies import may_administer


async def _require_allowed(request: Request) -> None:
    """Raise RolloutDisabled where the deployment changes no checkpoint."""
    Rollout.of(request).require_allowed()


router = APIRouter(tags=["operations"], dependencies=[Depends(may_administer), Depends(_require_allowed)])

PATH = "/admin/checkpoint"
_EXAMPLES: Named = {
    "question_file": {"name": "2026-12", "questions": "questions.jsonl"},
    "questions": {
        "name": "2026-12",
        "questions": [
            {"image": EXAMPLE_IMAGE, "question": "What modality is used to take this image?"},
            {"image": EXAMPLE_IMAGE, "labels": ["CT", "MRI", "X-ray"]},
        ],
        "activate": True,
        "min_agreement": 0.95,
    },
}
_ACTIVE = {
    "checkpoint": "medmoe-tiny",
    "state": "ready",
    "reason": None,
    "previous": False,
    "model": "medmoe-tiny",
    "pinned_model": "medmoe-tiny@5d2c7f0b9a41",
    "weights_sha256": "5d2c7f0b9a41" + 52 * "0",
    "adapter_sha256": None,
    "dtype": "float32",
    "requests": 3,
}
_STANDBY = _ACTIVE | {
    "checkpoint": "2026-12",
    "pinned_model": "medmoe-tiny@e3b0c44298fc",
    "weights_sha256": "e3b0c44298fc" + 52 * "0",
    "requests": 0,
}
_COMPARISON = {
    "checkpoint": "2026-12",
    "against": "medmoe-tiny",
    "questions": 50,
    "compared": 50,
    "agreement": 0.96,
    "mean_probability_difference": 0.012,
    "changed_abstentions": 1,
    "different": [7, 31],
    "failed": [],
}
_STATUS = {"active": _ACTIVE, "standby": _STANDBY, "comparison": _COMPARISON, "available": ["2026-12"]}
_CONFLICT = StandbyConflict("the checkpoint is loading, not ready")


def _answer(status: int = 200) -> Responses:
    return examples({"compared": _STATUS}, status=status)


@router.get(PATH, responses=_answer() | refusals(*MAY_NOT_ADMINISTER))
async def status(request: Request) -> CheckpointStatus:
    """Return the active checkpoint, the one beside it, and how far their answers differ."""
    return Rollout.of(request).status()


@router.post(
    PATH,
    status_code=202,
    response_model=CheckpointStatus,
    responses=_answer(202)
    | refusals(
        missing("name"),
        *BODY,
        UnsupportedContentType("send application/json"),
        *MAY_NOT_ADMINISTER,
        CheckpointNotFound(param="name"),
        StandbyConflict("a checkpoint is ready beside the active one; DELETE /admin/checkpoint retires it"),
        InsufficientMemory.on_host(needed=5 * 2**30, weights=3 * 2**30, free=4 * 2**30),
        *NOT_READY,
        descriptions={404: "MEDMOE_CHECKPOINTS_DIR holds no such checkpoint or file", 415: "Not JSON"},
    ),
    openapi_extra=accepts_json(LoadCheckpoint, examples=_EXAMPLES),
)
async def load(request: Request) -> CheckpointStatus:
    """Begin to load a checkpoint of MEDMOE_CHECKPOINTS_DIR in a second engine; the status tells when it is ready."""
    rollout = Rollout.of(request)
    await rollout.load(await _receive(request), RequestRecord.of(request.scope))
    return rollout.status()


@router.post(f"{PATH}/activate", responses=_answer() | refusals(*MAY_NOT_ADMINISTER, _CONFLICT, Draining()))
async def activate(request: Request) -> CheckpointStatus:
    """Send new requests to the loaded checkpoint; requests that have begun end on the one before, which stands by."""
    rollout = Rollout.of(request)
    rollout.activate(RequestRecord.of(request.scope))
    return rollout.status()


@router.post(f"{PATH}/rollback", responses=_answer() | refusals(*MAY_NOT_ADMINISTER, _CONFLICT, Draining()))
async def rollback(request: Request) -> CheckpointStatus:
    """Send new requests to the checkpoint that was active before, while it still stands by."""
    rollout = Rollout.of(request)
    rollout.rollback(RequestRecord.of(request.scope))
    return rollout.status()


@router.delete(PATH, responses=_answer() | refusals(*MAY_NOT_ADMINISTER, _CONFLICT))
async def retire(request: Request) -> CheckpointStatus:
    """Retire the checkpoint that stands by, or end its loading; its engine is closed once its requests have ended."""
    rollout = Rollout.of(request)
    await rollout.retire(RequestRecord.of(request.scope))
    return rollout.status()


async def _receive(request: Request) -> LoadCheckpoint:
    """Parse the body. Raises MalformedBody, InvalidField, UnsupportedContentType, BodyTooLarge, ClientDisconnected."""
    document = await read_json_object(request, known=LoadCheckpoint.model_fields.keys())
    if not isinstance(document.get("questions", ""), str | list | None):
        raise InvalidField("send a list, or the name of a file", param="questions")
    return validated(document, LoadCheckpoint)
