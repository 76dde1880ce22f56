"""The root of every error this project raises on purpose.

MedMoEError
├── ConfigError       config.json is missing, malformed, or asks for something this version cannot build
├── CheckpointError   the weights or tokenizer beside config.json are not what it promises
├── PromptError       a text cannot become a prompt (empty, or longer than the model's context)
└── ImageError        pixels that cannot become the model's input (no size, unsupported mode)

Messages say what happened, which value, and what to do; they never quote a user's text or pixels.
HTTP meaning is given to these classes in one place only: medmoe.server.errors.
"""


class MedMoEError(Exception):
    """Anything that went wrong in a way the caller can understand and act on."""


class ConfigError(MedMoEError):
    """config.json is missing, malformed, or asks for something this version cannot build."""


class CheckpointError(MedMoEError):
    """A file of the checkpoint directory is missing, unreadable, or does not fit config.json."""


class PromptError(MedMoEError):
    """A text cannot become a prompt: it is empty or longer than the model's context."""


class ImageError(MedMoEError):
    """An image cannot become the model's input: it has no area or a mode without a defined conversion."""
