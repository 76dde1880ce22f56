"""Define the requests and responses of `/admin/checkpoint`."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from medmoe.model.files.calibration_binding import Dtype
from medmoe.server.schemas.base import ApiModel

MAX_QUESTIONS = 500
"""Most questions of a comparison."""
EntryName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class LoadCheckpoint(ApiModel):
    """`POST /admin/checkpoint`: load a checkpoint beside the active one."""

    name: EntryName = Field(examples=["2026-12"])
    """Name of a directory in MEDMOE_CHECKPOINTS_DIR."""
    questions: EntryName | tuple[dict[str, Any], ...] | None = Field(default=None, examples=["questions.jsonl"])
    """Questions that both checkpoints are asked once the second is ready: the name of a JSON Lines file in
    MEDMOE_CHECKPOINTS_DIR, or a list. Each is the JSON body of `/v1/vqa`, or with `labels` of `/v1/classify`."""
    activate: bool = False
    """Activate the checkpoint as soon as it is ready and compared."""
    min_agreement: float | None = Field(default=None, ge=0, le=1)
    """With `activate` and `questions`: activate only if both checkpoints give equal answers to this share of the
    questions. One that fails for either counts as different."""

    @model_validator(mode="after")
    def _agreement_is_measured(self) -> Self:
        if self.min_agreement is not None and not (self.activate and self.questions):
            raise ValueError("min_agreement goes with activate and questions")
        return self


class FailedQuestion(ApiModel):
    """A question that a checkpoint did not answer."""

    index: int
    """From 0."""
    code: str
    """Error code of the refusal."""


class Comparison(ApiModel):
    """How far the answers of two checkpoints differ. It holds no content."""

    checkpoint: str
    """The one that was loaded."""
    against: str
    """The one that was active."""
    questions: int
    compared: int
    """Questions that both checkpoints have answered so far."""
    agreement: float | None
    """Share of equal answers: the same text, the same best label, or in mode multi_label the same labels."""
    mean_probability_difference: float | None
    """Mean absolute difference of the confidence, or of the labels' probabilities."""
    changed_abstentions: int
    """Questions that one checkpoint abstains from and the other does not."""
    different: tuple[int, ...]
    """Indices of the questions with different answers."""
    failed: tuple[FailedQuestion, ...]


class LoadedCheckpoint(ApiModel):
    """A checkpoint and the engine that runs it."""

    checkpoint: str
    """Name of its directory."""
    state: Literal["loading", "ready", "restarting", "retiring", "failed"]
    reason: str | None
    """Why it failed."""
    previous: bool
    """Whether it was active before the last activation, so that a rollback returns to it."""
    model: str | None
    """Name that requests may give as `model`; null until it is read."""
    pinned_model: str | None
    """Name that only these weights answer to."""
    weights_sha256: str | None
    adapter_sha256: str | None
    dtype: Dtype | None
    requests: int
    """Requests that it is answering."""


class CheckpointStatus(ApiModel):
    """The served checkpoints."""

    active: LoadedCheckpoint
    standby: LoadedCheckpoint | None
    """The checkpoint beside the active one, null without one."""
    comparison: Comparison | None
    """Comparison of the checkpoint that was loaded last."""
    available: tuple[str, ...]
    """Names of the checkpoints in MEDMOE_CHECKPOINTS_DIR."""
