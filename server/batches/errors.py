"""Define the failures of stored files and batches; medmoe.server.errors draws the whole tree."""

from typing import Self

from medmoe.server.errors import RequestError, ServerError


class BatchesDisabled(ServerError):
    """The deployment has no directory for files and batches."""

    default_message = "this service keeps no files and runs no batches; its operator sets MEDMOE_BATCH_DIR for them"


class FileNotFound(RequestError):
    """The caller has no such file."""

    default_message = "there is no such file; it may have been deleted, or have expired"


class BatchNotFound(RequestError):
    """The caller has no such batch."""

    default_message = "there is no such batch; it may have expired"


class FileInUse(RequestError):
    """A batch that has not ended reads the file."""

    default_message = "a batch that has not ended reads this file; cancel the batch first"


class RangeNotSatisfiable(RequestError):
    """The range of bytes holds none of the file's."""

    default_message = "the file holds no byte of this range; Content-Range tells its size"

    def __init__(self, message: str | None = None, *, size: int = 0) -> None:
        """Pass the `size` of the file."""
        super().__init__(message)
        self.size = size


class BatchEnded(RequestError):
    """The batch has ended, or is about to."""

    default_message = "the batch has ended and cannot be cancelled"


class StorageLimit(RequestError):
    """The caller's files would take more room than one caller may use, or the caller has as many as it may have."""

    @classmethod
    def over(cls, max_bytes: int) -> Self:
        """Return the error of a caller with over `max_bytes`."""
        return cls(
            f"your files would take more than {max_bytes} bytes (MEDMOE_BATCH_MAX_STORED_BYTES); delete some first",
            param="file",
        )

    @classmethod
    def of_files(cls, most: int) -> Self:
        """Return the error of a caller with `most` files."""
        return cls(f"you have {most} files, as many as one caller may have; delete some first", param="file")

    @classmethod
    def of_batches(cls, most: int) -> Self:
        """Return the error of a caller with `most` batches."""
        return cls(
            f"you have {most} batches, as many as one caller may have; they are deleted some time after their end "
            "(MEDMOE_BATCH_RETENTION_DAYS)"
        )


class StorageUnavailable(ServerError):
    """The directory of files and batches cannot be written."""


class StorageFull(StorageUnavailable):
    """The disk of files and batches is full."""
