"""Describe the checkpoint beside the active one, from the request to load it until it is retired."""

import asyncio
from dataclasses import dataclass
from typing import Literal

from medmoe.server.admission.readiness import Phase
from medmoe.server.models.served_model import ServedModel
from medmoe.server.rollout.schema import LoadedCheckpoint

StandbyState = Literal["loading", "ready", "restarting", "retiring", "failed"]
_STATES: dict[Phase, StandbyState] = {
    Phase.STARTING: "loading",
    Phase.READY: "ready",
    Phase.RESTARTING: "restarting",
    Phase.DRAINING: "retiring",
    Phase.FAILED: "failed",
}


@dataclass(kw_only=True, slots=True, eq=False)
class Standby:
    """A checkpoint that is loading, ready, retiring or failed."""

    checkpoint: str
    """Name of its directory."""
    model: ServedModel | None = None
    """None until its config is read."""
    loading: asyncio.Task[None] | None = None
    """Loads it and compares it with the active one."""
    retiring: asyncio.Task[None] | None = None
    failure: str | None = None
    previous: bool = False
    """Whether it was active before the last activation."""

    @property
    def state(self) -> StandbyState:
        """Return what the standby is doing."""
        if self.retiring is not None:
            return "retiring"
        if self.failure is not None:
            return "failed"
        return "loading" if self.model is None else _STATES[self.model.readiness.phase]

    def describe(self) -> LoadedCheckpoint:
        """Return its description for operators."""
        found = _described(self.checkpoint, self.model, state=self.state)
        reason = (self.model.failure if self.model is not None else None) or self.failure
        return found.model_copy(update={"reason": reason, "previous": self.previous})


def describe_active(model: ServedModel) -> LoadedCheckpoint:
    """Return the description of the active model."""
    return _described(model.directory.name, model, state=_STATES[model.readiness.phase])


def _described(checkpoint: str, model: ServedModel | None, *, state: StandbyState) -> LoadedCheckpoint:
    return LoadedCheckpoint(
        checkpoint=checkpoint,
        state=state,
        reason=None,
        previous=False,
        model=model.name if model else None,
        pinned_model=model.pinned_name if model and model.is_offered else None,
        weights_sha256=model.checkpoint.weights_sha256 if model else None,
        adapter_sha256=model.checkpoint.adapter_sha256 if model else None,
        dtype=model.engine.dtype if model else None,
        requests=model.requests if model else 0,
    )
