"""Define the answer of `/admin/checkpoint`; /docs explains each field."""

from medmoe.client.answers.base import Message


class LoadedCheckpoint(Message):
    checkpoint: str
    """Name of its directory in the service's directory of checkpoints."""
    state: str
    """loading, ready, restarting, retiring or failed."""
    reason: str | None
    previous: bool
    """Whether a rollback returns to it."""
    model: str | None
    pinned_model: str | None
    """Model name that only these weights answer to."""
    weights_sha256: str | None
    adapter_sha256: str | None
    dtype: str | None
    requests: int
    """Requests that it is answering."""


class FailedQuestion(Message):
    index: int
    code: str


class Comparison(Message):
    """How far the answers of the loaded checkpoint differ from those of the one that was active."""

    checkpoint: str
    against: str
    questions: int
    compared: int
    agreement: float | None
    """Share of equal answers."""
    mean_probability_difference: float | None
    changed_abstentions: int
    different: tuple[int, ...]
    """Indices of the questions with different answers."""
    failed: tuple[FailedQuestion, ...]

    @property
    def is_complete(self) -> bool:
        """Return whether every question has been asked."""
        return self.compared + len(self.failed) == self.questions


class CheckpointStatus(Message):
    active: LoadedCheckpoint
    standby: LoadedCheckpoint | None
    comparison: Comparison | None
    available: tuple[str, ...]

    @property
    def is_settled(self) -> bool:
        """Return whether nothing is being loaded or compared any more."""
        if self.standby is None:
            return True
        compared = self.comparison is None or self.comparison.is_complete or self.standby.state != "ready"
        return self.standby.state != "loading" and compared
