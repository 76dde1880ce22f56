"""Define the failures of an audit trail that is read or opened."""

from medmoe.model.errors import MedMoEError


class AuditError(MedMoEError):
    """The audit trail is not as the service wrote it; the message names the file and the line."""

    @classmethod
    def at(cls, segment: str, line: int, reason: str) -> "AuditError":
        """Return the error of one line of a segment, counted from 1."""
        return cls(f"{segment}, line {line}: {reason}")
