"""Define why a series is refused; medmoe.server.errors draws the whole tree."""

from typing import Self

from medmoe.server.errors import RequestError


class SeriesError(RequestError):
    """The images that were sent cannot be answered as one series."""

    default_message = "the images cannot be answered as one series"


class MixedSeries(SeriesError):
    """The images belong to several series, or differ in what the slices of one volume share."""

    default_message = "the images belong to several series; send one"


class MixedOrientation(SeriesError):
    """The slices are not parallel."""

    default_message = (
        "the slices are not parallel; leave out localizers, and send reconstructions of other planes as series of "
        "their own"
    )


class DuplicateSlices(SeriesError):
    """Several slices lie at one place."""

    default_message = "several slices lie at one place; send one image for each place"


class MissingSlices(SeriesError):
    """The slices are unevenly spaced."""

    default_message = "slices are missing; send all of them, or allow_irregular=true"


class TiltedGantry(SeriesError):
    """The slices are displaced against one another, as a tilted gantry leaves them."""

    default_message = (
        "the slices are displaced against one another, as a tilted gantry leaves them; send a reconstruction without "
        "tilt, or allow_irregular=true"
    )


class NotAVolume(SeriesError):
    """The images have no places in space, or there are fewer than two."""

    default_message = "the images have no places in space; ask about single ones with /v1/vqa or /v1/classify"


class SeriesTooLarge(SeriesError):
    """The series has more files, slices, bytes or pixels than the service reads."""

    @classmethod
    def over_files(cls, most: int) -> Self:
        """Return the error of a series with more than `most` files or slices."""
        return cls(f"the series has over {most} files or slices (MEDMOE_MAX_SERIES_FILES)")

    @classmethod
    def over_bytes(cls, most: int) -> Self:
        """Return the error of a series that has more than `most` bytes once unpacked."""
        return cls(f"the series is larger than {most} bytes (MEDMOE_MAX_SERIES_BYTES)")

    @classmethod
    def over_pixels(cls, most: int) -> Self:
        """Return the error of slices with more than `most` pixels together."""
        return cls(
            f"the slices to look at have over {most} pixels together (MEDMOE_MAX_SERIES_PIXELS); ask for fewer slices"
        )


class InvalidArchive(SeriesError):
    """The ZIP archive is damaged, encrypted, or holds no DICOM file."""

    default_message = "the archive is not a valid ZIP file"
