"""Define a task of a batch: an image and what is asked about it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from medmoe.client.answers.classify import Mode
from medmoe.client.options import AskOptions, ClassifyOptions

ASK_FIELDS = frozenset(AskOptions.__optional_keys__)
CLASSIFY_FIELDS = frozenset(ClassifyOptions.__optional_keys__ | {"mode"})
FIELDS = ASK_FIELDS | CLASSIFY_FIELDS
"""Optional fields of a request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Describe one request of a batch."""

    path: Path
    """Path of the image file."""
    image: str
    """Image name in the input."""
    id: str | None = None
    question: str | None = None
    """Question; in a classification it replaces the checkpoint's own."""
    labels: tuple[str, ...] | None = None
    """Labels of a classification; None for a question."""
    options: Mapping[str, Any] = field(default_factory=dict)
    repeat: int = 0
    """Number of equal lines before this one."""

    @property
    def key(self) -> str:
        """Return an identifier that is the same in every run and differs for every different request."""
        asked = [self.image, self.id, self.question, self.labels, dict(sorted(self.options.items())), self.repeat]
        # The letter keeps spreadsheets from reading it as a number.
        return "q" + hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

    @property
    def ask_options(self) -> AskOptions:
        """Return the options of a question."""
        return cast(AskOptions, dict(self.options))

    @property
    def classify_options(self) -> ClassifyOptions:
        """Return the options of a classification."""
        options = {name: value for name, value in self.options.items() if name != "mode"}
        return cast(ClassifyOptions, options | {"question": self.question})

    @property
    def mode(self) -> Mode:
        """Return the mode of a classification."""
        return cast(Mode, self.options.get("mode") or "likelihood")
