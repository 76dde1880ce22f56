"""Parse the JSON files of a checkpoint strictly, as pydantic models. Torch-free.

Every field is checked, an unknown or missing key is an error that names it, and no value of the file is repeated in a
message.
"""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.bounded_read import read_bounded


class StrictSection(BaseModel):
    """A JSON object inside a strict file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class StrictFile(StrictSection):
    """A JSON file of a checkpoint directory."""

    FILE: ClassVar[str]
    """File name in the checkpoint's directory."""
    KIND: ClassVar[str]
    """Noun with an article, which ends the message "config.json is not ..."."""

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse the file's text. Raises ConfigError naming every offending key, never its value."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}"
                for item in error.errors(include_input=False, include_url=False)
            )
            raise ConfigError(f"{cls.FILE} is not {cls.KIND}: {problems}") from error

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Parse the file in `directory`. Raises ConfigError when it is missing or malformed."""
        path = directory / cls.FILE
        try:
            return cls.from_json(read_bounded(path))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except CheckpointError as error:
            raise ConfigError(str(error)) from error

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"
