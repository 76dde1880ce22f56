"""Read upstream's config.json field by field."""

import math
import sys
from pathlib import Path
from typing import Any

from medmoe.model.config import CONFIG_FILE
from medmoe.model.conversion.weights.source_files import read_json
from medmoe.model.errors import CheckpointError, ConfigError

MAX_SIZE = 2**20
MAX_LAYERS = 1024
_DIGITS = 20
_MAX_FLOAT = sys.float_info.max


class UpstreamConfig:
    """Hold a JSON object and the name that messages give it. A null field counts as absent, as it does upstream."""

    def __init__(self, fields: dict[str, Any], *, name: str) -> None:
        self._fields = fields
        self.name = name

    @classmethod
    def from_directory(cls, directory: Path) -> "UpstreamConfig":
        """Read config.json. Raises ConfigError when it is missing, not JSON, or not an object."""
        try:
            return cls(read_json(directory, CONFIG_FILE), name=CONFIG_FILE)
        except CheckpointError as error:
            raise ConfigError(str(error)) from error

    def __contains__(self, field: str) -> bool:
        return self._fields.get(field) is not None

    def section(self, field: str) -> "UpstreamConfig":
        """Return an object inside the object; empty when absent."""
        return UpstreamConfig(self._typed(field, dict) or {}, name=f"{self.name}: {field}")

    def text(self, field: str) -> str | None:
        value: str | None = self._typed(field, str)
        return value

    def flag(self, field: str) -> bool:
        """Return a boolean; False when absent."""
        return bool(self._typed(field, bool))

    def integer(self, field: str) -> int | None:
        value = self._fields.get(field)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ConfigError(f"{self.name}: {field} is not an integer")
        if value is not None and abs(value) >= 10**_DIGITS:
            raise ConfigError(f"{self.name}: {field} has more than {_DIGITS} digits")
        return value

    def integers(self, field: str) -> list[int] | None:
        """Return a list of integers; a bare integer is a list of one."""
        value = self._fields.get(field)
        value = [value] if isinstance(value, int) else value
        if value is None:
            return None
        if not isinstance(value, list) or not all(
            isinstance(v, int) and not isinstance(v, bool) and abs(v) < 10**_DIGITS for v in value
        ):
            raise ConfigError(f"{self.name}: {field} is not a list of integers")
        return value

    def number(self, *fields: str, below: float = math.inf) -> float:
        """Return the first of `fields` that is there: different versions name the same thing differently."""
        for field in fields:
            value = self._fields.get(field)
            if value is None:
                continue
            # Comparing never overflows, however long an integer is; NaN compares as false.
            if not isinstance(value, int | float) or isinstance(value, bool) or not -_MAX_FLOAT <= value <= _MAX_FLOAT:
                raise ConfigError(f"{self.name}: {field} is not a finite number")
            if value >= below:
                raise ConfigError(f"{self.name}: {field} is {float(value):g}, which is not below {below:g}")
            return float(value)
        raise ConfigError(f"{self.name} does not say {' or '.join(fields)}, and it is not guessed")

    def required(self, field: str) -> int:
        """Return an integer that must be there."""
        value = self.integer(field)
        if value is None:
            raise ConfigError(f"{self.name} does not say {field}, and it is not guessed")
        return value

    def size(self, field: str, *, most: int = MAX_SIZE) -> int:
        """Return a number of something, from 1 to `most`, that must be there."""
        value = self.required(field)
        if not 1 <= value <= most:
            raise ConfigError(f"{self.name}: {field} is {value}, which is not between 1 and {most}")
        return value

    def refuse(self, *fields: str, why: str) -> None:
        """Raise ConfigError when one of `fields` is set to anything but null, false, 0 or empty."""
        for field in fields:
            if self._fields.get(field):
                raise ConfigError(f"{self.name}: {field} is set, and {why}")

    def _typed(self, field: str, kind: type) -> Any:
        value = self._fields.get(field)
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"{self.name}: {field} is a {type(value).__name__}, not a {kind.__name__}")
        return value
