"""Define the errors about data.

DataError             anything about data that the caller can act on
├── DatasetError      a whole file or folder cannot be used (missing, not JSON): raised
└── SampleError       one record cannot become a sample: the readers report it and go on

Messages name files, lines, fields and ids, never the text of a question or an answer.
"""

from medmoe.model.errors import MedMoEError


class DataError(MedMoEError):
    """Data cannot be used, and the caller can act on it."""


class DatasetError(DataError):
    """A whole file or folder cannot be used: it is missing or not what its name promises."""


class SampleError(DataError):
    """One record cannot become a sample; readers collect these with their line numbers."""
