"""GET /v1/models and /v1/models/{model}: the one model this process serves, in OpenAI's shape."""

from fastapi import APIRouter, Depends, Request

from medmoe.server.authentication import authenticated
from medmoe.server.errors import UnknownModel
from medmoe.server.request_docs import REFUSALS, UNKNOWN_MODEL
from medmoe.server.schemas import ModelInfo, ModelList
from medmoe.server.state import State

router = APIRouter(tags=["operations"])


@router.get("/v1/models", responses={401: REFUSALS[401]}, dependencies=[Depends(authenticated)])
async def models(request: Request) -> ModelList:
    """A list of one."""
    return ModelList(data=(_served(State.of(request)),))


@router.get(
    "/v1/models/{model}", responses={401: REFUSALS[401], **UNKNOWN_MODEL}, dependencies=[Depends(authenticated)]
)
async def model(request: Request, model: str) -> ModelInfo:
    """The one, if it is the one. Raises UnknownModel."""
    served = _served(State.of(request))
    if model != served.id:
        raise UnknownModel(param="model")
    return served


def _served(state: State) -> ModelInfo:
    return ModelInfo(id=state.config.name, created=state.created, owned_by="medmoe")
