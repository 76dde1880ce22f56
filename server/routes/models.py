"""GET /v1/models and /v1/models/{model}: the model that this process serves, in OpenAI's format."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from medmoe.server.errors import UnknownModel
from medmoe.server.openapi.answers import answers
from medmoe.server.openapi.refusals import NO_KEY, refusals
from medmoe.server.openapi.requests import named
from medmoe.server.routes.dependencies import authenticated
from medmoe.server.schemas.operations import ModelInfo, ModelList
from medmoe.server.state import State

router = APIRouter(tags=["operations"])

Name = Annotated[str, Path(openapi_examples=named({"bundled_checkpoint": "medmoe-tiny"}))]


@router.get(
    "/v1/models",
    responses=answers("models", "bundled_checkpoint") | refusals(*NO_KEY),
    dependencies=[Depends(authenticated)],
)
async def models(request: Request) -> ModelList:
    """List the served model."""
    return ModelList(data=(_served(State.of(request)),))


@router.get(
    "/v1/models/{model}",
    responses=answers("model", "bundled_checkpoint") | refusals(*NO_KEY, UnknownModel(param="model")),
    dependencies=[Depends(authenticated)],
)
async def model(request: Request, model: Name) -> ModelInfo:
    """Return the served model by its name. Raises UnknownModel."""
    served = _served(State.of(request))
    if model != served.id:
        raise UnknownModel(param="model")
    return served


def _served(state: State) -> ModelInfo:
    return ModelInfo(id=state.checkpoint.config.name, created=state.created, owned_by="medmoe")
