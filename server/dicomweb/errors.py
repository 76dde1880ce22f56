"""Define the failures of DICOMweb sources; medmoe.server.errors draws the whole tree."""

from typing import Self

from medmoe.server.errors import RequestError, ServerError


class SourceNotFound(RequestError):
    """The deployment has no DICOMweb source of this name."""

    default_message = "this service has no source of that name; GET /v1/sources lists them (MEDMOE_DICOMWEB_SOURCES)"


class InstanceNotFound(RequestError):
    """The source has no such study, series or instance."""

    default_message = "the source has no such study, series or instance"


class InstanceTooLarge(RequestError):
    """The instance has more bytes than the service reads."""

    @classmethod
    def over(cls, max_bytes: int) -> Self:
        """Return the error of an instance over `max_bytes`."""
        return cls(f"the instance is larger than {max_bytes} bytes (MEDMOE_MAX_BODY_BYTES)")


class SourceError(ServerError):
    """A DICOMweb source failed; the message says how and quotes neither the request nor the answer."""

    default_message = "the source failed"


class SourceUnavailable(SourceError):
    """The source cannot be reached, breaks off, or reports a failure of its own."""

    default_message = "the source cannot be reached, or breaks off"


class SourceTimeout(SourceError):
    """The source did not answer in time."""

    default_message = "the source did not answer in time (MEDMOE_DICOMWEB_SECONDS)"


class SourceRefused(SourceError):
    """The source refuses the service's credentials."""

    default_message = "the source refuses the service's credentials; its operator must correct them"


class InvalidSourceAnswer(SourceError):
    """The source answers with something else than DICOMweb defines."""

    default_message = "the source's answer is not what DICOMweb defines"


class WrongInstance(SourceError):
    """The source sent another instance than the one that was asked for."""

    default_message = "the source sent another instance than the one that was asked for"


class StoreFailed(SourceError):
    """The source does not take a report."""

    default_message = "the source did not store the report"
