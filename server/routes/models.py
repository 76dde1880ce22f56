"""GET /v1/models: the one model this process serves, in OpenAI's shape."""

from fastapi import APIRouter, Request

from medmoe.server.schemas import ModelInfo, ModelList
from medmoe.server.state import State

router = APIRouter(tags=["operations"])


@router.get("/v1/models")
async def models(request: Request) -> ModelList:
    """A list of one."""
    state = State.of(request)
    return ModelList(data=(ModelInfo(id=state.config.name, created=state.created, owned_by="medmoe"),))
