"""Load and call untrusted tokenizers safely.

The tokenizers library trusts its files. A malformed one ends in a bare Exception or a Rust panic wherever it is first
used, and a few lines of replacement rules can multiply a sentence into gigabytes.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer

from medmoe.model.errors import CheckpointError, MedMoEError
from medmoe.model.files.terminal_safe import terminal_safe

_MAX_GROWTH = 16
"""How many times longer the rules of one part may make a text together; a published file's make it twice as long."""
_NORMALIZERS = {
    "Sequence", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "Strip", "StripAccents", "BertNormalizer",
    "ByteLevel", "Prepend", "Replace",
}  # fmt: skip


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn any exception inside the context into a CheckpointError that begins with `what`."""
    try:
        yield
    except (MedMoEError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a Rust panic is no Exception
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(f"{what}: {type(error).__name__} {terminal_safe(reason)}".rstrip()) from error


def parse_tokenizer(content: bytes) -> Tokenizer:
    """Return tokenizer.json. Raises CheckpointError for rules that could make a text grow without bound."""
    document = json.loads(content)
    _check_normalizers(document.get("normalizer"))
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        growth = 1.0
        for rule in _rules(document.get(part)):
            growth *= _growth(rule)
        if growth > _MAX_GROWTH:
            raise CheckpointError(f"tokenizer.json: the rules of its {part} multiply a text more than {_MAX_GROWTH}x")
    tokenizer: Tokenizer = Tokenizer.from_str(content.decode())
    return tokenizer


def check_text(tokenizer: Tokenizer, text: str) -> None:
    """Raise CheckpointError unless `text` comes back from its own ids: a vocabulary that cannot spell the prompt."""
    with guarded("the tokenizer cannot encode the prompt"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        back = tokenizer.decode(ids, skip_special_tokens=False)
    # Llama's form puts a space in front of a text, and some decoders leave it there.
    if not ids or back.strip() != text.strip():
        raise CheckpointError(
            f"the tokenizer does not know the prompt's own words: they come back as {terminal_safe(repr(back))}; "
            "its files are incomplete or another model's"
        )


def _rules(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every component of a normalizer or decoder, whatever it is nested in."""
    waiting = [part]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
        if isinstance(node, dict | list):
            waiting.extend(node.values() if isinstance(node, dict) else node)


def _check_normalizers(part: Any) -> None:
    for rule in _rules(part):
        if "type" in rule and rule["type"] not in _NORMALIZERS:
            raise CheckpointError(f"tokenizer.json: a normalizer {terminal_safe(repr(rule['type']))} is not supported")


def _growth(rule: dict[str, Any]) -> float:
    if rule.get("type") == "ByteLevel":
        return 2.0  # a letter beyond ASCII becomes one letter for each of its bytes
    content = rule.get("content") if rule.get("type") == "Replace" else rule.get("prepend")
    if not isinstance(content, str):
        return 1.0
    pattern = rule.get("pattern")
    matched = pattern.get("String") if isinstance(pattern, dict) else None
    if matched == "":
        raise CheckpointError("tokenizer.json: a Replace without a pattern matches everywhere")
    # A regular expression may match single characters; what is put in front counts once for every text, and texts are
    # as short as one character.
    return max(1.0, (len(content) + (rule.get("type") != "Replace")) / len(matched or "x"))
