"""Define the root of the errors that this project raises.

MedMoEError
├── ConfigError       config.json is missing, malformed, or asks for something this version cannot build
├── CheckpointError   the weights or tokenizer beside config.json are not what it promises
├── PromptError       a text cannot become a prompt (empty, or longer than the model's context)
└── ImageError        pixels that cannot become the model's input (no size, unsupported mode)

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
