"""Define the root of the errors that this project raises.

MedMoEError
├── ConfigError       config.json is missing, malformed, or asks for something this version cannot build
├── CheckpointError   the weights or tokenizer beside config.json are not what it promises
├── PromptError       a text cannot become a prompt (empty, or longer than the model's context)
└── ImageError        pixels that cannot become the model's input (no size, unsupported mode)
    ├── DamagedImageError   the file is damaged or truncated
    ├── ImageFormatError    samples or a compression that are not read
    └── ImageFrameError     the file has no such frame

Messages say what happened, which value, and what to do; they never quote a user's text or pixels.
medmoe.server.http.error_table maps these classes to HTTP statuses.
"""


class MedMoEError(Exception):
    """The base class of all errors that the caller can understand and act on."""


class ConfigError(MedMoEError):
    """config.json is missing, malformed, or asks for something this version cannot build."""


class CheckpointError(MedMoEError):
    """A file of the checkpoint directory is missing, unreadable, or does not fit config.json."""


class PromptError(MedMoEError):
    """A text cannot become a prompt: it is empty or longer than the model's context."""


class ImageError(MedMoEError):
    """An image cannot become the model's input: it has no area or a mode without a defined conversion."""


class DamagedImageError(ImageError):
    """An image file is damaged or truncated."""

    def __init__(self, message: str = "the image is damaged or truncated") -> None:
        super().__init__(message)


class ImageFormatError(ImageError):
    """An image file holds samples or a compression that are not read; the message names a way to convert it."""


class ImageFrameError(ImageError):
    """An image file has no frame of the number that is asked for."""
