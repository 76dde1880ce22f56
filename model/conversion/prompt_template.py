"""Choose the prompt template of a converted checkpoint. Upstream's conversation.py has it, and no file names it."""

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from medmoe.model.conversion.options import Template
from medmoe.model.conversion.report import Report
from medmoe.model.conversion.tokenizer.vocabulary import (
    PROMPT_ASSISTANT,
    PROMPT_BEFORE,
    PROMPT_SEPARATOR,
    SYSTEM_MESSAGE,
    USER,
)
from medmoe.model.errors import ConfigError
from medmoe.model.files.terminal_safe import terminal_safe

_ENDS: Mapping[str, str] = {
    "phi": "<|endoftext|>",
    "stablelm": "<|endoftext|>",
    "qwen": "<|endoftext|>",
    "openchat": "<|end_of_turn|>",
    "mistral": "</s>",
    "minicpm": "</s>",
}
"""What follows an answer; the templates differ in nothing else."""


def prompt_fields(template: Template | None, tokenizer: Tokenizer, report: Report, *, eos: int) -> dict[str, Any]:
    """Return the fields of PromptConfig; None assumes upstream's template and says so in the report.

    Raises ConfigError when the template ends an answer with another token than the tokenizer.
    """
    end = tokenizer.id_to_token(eos)
    if template is None:
        report.notes.append(
            "WARNING: the prompt template is assumed to be upstream's (system message, USER, ASSISTANT, and several "
            f"turns that end with {terminal_safe(str(end))}), since no file names it; --template states it"
        )
    elif template != "single_question" and end != _ENDS[template]:
        raise ConfigError(
            f"template {template} ends an answer with {_ENDS[template]}, this tokenizer with "
            f"{terminal_safe(str(end))}; name another with --template, or the token with --eos-token"
        )
    turns = None if template == "single_question" else {"user": USER, "system_message": SYSTEM_MESSAGE}
    return {
        "system": "",
        "user": PROMPT_BEFORE,
        "separator": PROMPT_SEPARATOR,
        "assistant": PROMPT_ASSISTANT,
        "turns": turns,
    }
