"""GET /v1/models: the one model this process serves, in OpenAI's shape."""

from fastapi import APIRouter, Depends, Request

from medmoe.server.authentication import authenticated
from medmoe.server.request_docs import REFUSALS
from medmoe.server.schemas import ModelInfo, ModelList
from medmoe.server.state import State

router = APIRouter(tags=["operations"])


@router.get("/v1/models", responses={401: REFUSALS[401]}, dependencies=[Depends(authenticated)])
async def models(request: Request) -> ModelList:
    """A list of one."""
    state = State.of(request)
    return ModelList(data=(ModelInfo(id=state.config.name, created=state.created, owned_by="medmoe"),))
