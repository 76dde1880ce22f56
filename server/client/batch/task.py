"""One line of a batch: a picture, and what is asked about it."""

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
"""What may be said of a request besides its picture and its question or labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    path: Path
    """Where the picture lies."""
    image: str
    """As the input names it."""
    id: str | None = None
    question: str | None = None
    """Of a classification: instead of the checkpoint's own."""
    labels: tuple[str, ...] | None = None
    """None: a question, and no classification."""
    options: Mapping[str, Any] = field(default_factory=dict)
    repeat: int = 0
    """How many equal lines stand before this one."""

    @property
    def key(self) -> str:
        """The same for the same line in every run, and different for whatever would be answered differently."""
        asked = [self.image, self.id, self.question, self.labels, dict(sorted(self.options.items())), self.repeat]
        # Its first letter keeps spreadsheets from taking one for a number.
        return "q" + hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

    @property
    def ask_options(self) -> AskOptions:
        return cast(AskOptions, dict(self.options))

    @property
    def classify_options(self) -> ClassifyOptions:
        options = {name: value for name, value in self.options.items() if name != "mode"}
        return cast(ClassifyOptions, options | {"question": self.question})

    @property
    def mode(self) -> Mode:
        return cast(Mode, self.options.get("mode") or "likelihood")
