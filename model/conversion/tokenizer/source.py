"""Read the tokenizer of an upstream checkpoint, in any of its forms, as one tokenizers object.

No code of the checkpoint is run: a tokenizer class that exists only as remote code is rebuilt or refused.
"""

import json
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from medmoe.model.conversion.tokenizer.byte_ranks import RANKS_FILE, read_arcade
from medmoe.model.conversion.tokenizer.foreign import guarded, parse_tokenizer
from medmoe.model.conversion.weights.source_files import contained_file, read_contained, read_json
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.terminal_safe import terminal_safe
from medmoe.model.prompt import TOKENIZER_FILE

_BYTE_LEVEL_CLASSES = ("GPT2Tokenizer", "CodeGenTokenizer")
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_ID = re.compile(r"[0-9]{1,7}")
# Vocabularies converted from rank files may hold a few words that no merge makes.
_UNMADE_WORDS = 16
_UNMADE_SHARE = 200
# What of tokenizer_config.json decides a sentencepiece tokenizer; the rest of it may name other files.
_SENTENCEPIECE_SETTINGS = (*_ROLES, "added_tokens_decoder", "additional_special_tokens", "add_eos_token", "legacy")


@dataclass
class TokenizerSource:
    """Hold a tokenizer and the special tokens that its files declare, by role."""

    tokenizer: Tokenizer
    form: str
    roles: dict[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def read_tokenizer(directory: Path) -> TokenizerSource:
    """Return the tokenizer in `directory`.

    Raises CheckpointError for missing or malformed files, ConfigError for a form that is not supported.
    """
    settings = {name: read_json(directory, name) if (directory / name).exists() else {} for name in _SETTINGS}
    config = settings["tokenizer_config.json"]
    added = _added_tokens(config, settings["added_tokens.json"])
    declared = config | settings["special_tokens_map.json"]
    roles = {role: name for role in _ROLES if (name := _content(declared.get(role)))}
    others = declared.get("additional_special_tokens")
    others = [] if others is None else others
    if not isinstance(others, list) or not all(map(_content, others)):
        raise CheckpointError("additional_special_tokens is not a list of tokens")
    with guarded(f"the tokenizer of {directory} cannot be read"):
        form, tokenizer = _read(directory, config)
        _add(tokenizer, added)
    special = [token.content for token in added.values() if token.special]
    return TokenizerSource(tokenizer, form, roles, (*special, *(str(_content(other)) for other in others)))


def _read(directory: Path, config: dict[str, Any]) -> tuple[str, Tokenizer]:
    has = {path.name for path in directory.iterdir()}
    if TOKENIZER_FILE in has:
        return TOKENIZER_FILE, parse_tokenizer(read_contained(directory, TOKENIZER_FILE))
    if RANKS_FILE in has:
        return RANKS_FILE, read_arcade(contained_file(directory, RANKS_FILE))
    if {"vocab.json", "merges.txt"} <= has:
        return "vocab.json and merges.txt", _byte_level(directory, config)
    if "tokenizer.model" in has:
        return "tokenizer.model", _sentencepiece(directory, config)
    raise CheckpointError(
        f"{directory} has no tokenizer: neither {TOKENIZER_FILE}, nor vocab.json and merges.txt, nor {RANKS_FILE}, "
        "nor tokenizer.model"
    )


def _byte_level(directory: Path, config: dict[str, Any]) -> Tokenizer:
    """Return GPT-2's form, which Phi-2 (CodeGen) and Med-MoE's StableLM share."""
    name = config.get("tokenizer_class")
    if name is not None and str(name).removesuffix("Fast") not in _BYTE_LEVEL_CLASSES:
        raise ConfigError(
            f"tokenizer_config.json: a {terminal_safe(str(name))} with vocab.json and merges.txt is not supported; "
            f"save it as {TOKENIZER_FILE} first"
        )
    vocabulary = read_json(directory, "vocab.json")
    ids = vocabulary.values()
    if not all(type(id_) is int for id_ in ids) or sorted(ids) != list(range(len(vocabulary))):
        raise CheckpointError(f"{directory / 'vocab.json'} does not number its tokens from 0 without holes")
    merges = _merges(read_contained(directory, "merges.txt"))
    made = {left + right for left, right in merges}
    unmade = [word for word in vocabulary if len(word) > 1 and word not in made and not _named(word)]
    if len(unmade) > max(_UNMADE_WORDS, len(vocabulary) // _UNMADE_SHARE):
        raise CheckpointError(f"merges.txt never makes {len(unmade)} tokens of vocab.json: one of them is incomplete")
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=config.get("add_prefix_space") is True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merges(content: bytes) -> list[tuple[str, str]]:
    """Return the merges: one pair a line, highest rank first; a line with the format's version may come before them."""
    lines = [line.removesuffix("\r") for line in content.decode().removesuffix("\n").split("\n")]
    pairs = []
    for line in lines:
        if line and not line.startswith("#version"):
            left, right = line.split(" ")
            pairs.append((left, right))
    return pairs


def _named(word: str) -> bool:
    """Return whether a word looks like a special token, which no merge makes."""
    return word.startswith("<") and word.endswith(">")


def _sentencepiece(directory: Path, config: dict[str, Any]) -> Tokenizer:
    """Convert by transformers' own conversion of Llama's tokenizer, from copies of its files alone.

    Llama's slow tokenizer, which upstream uses, puts <s> in front unless it is told not to.
    """
    # Here and not above: only this form needs transformers.
    from transformers import LlamaTokenizer

    settings = {name: config[name] for name in _SENTENCEPIECE_SETTINGS if name in config}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "tokenizer.model").write_bytes(read_contained(directory, "tokenizer.model"))
        (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **settings}))
        for name in _SETTINGS[1:]:
            if (directory / name).exists():
                (place / name).write_bytes(read_contained(directory, name))
        found = LlamaTokenizer.from_pretrained(
            place,
            local_files_only=True,
            trust_remote_code=False,
            add_bos_token=config.get("add_bos_token") is not False,
        )
    return Tokenizer.from_str(found.backend_tokenizer.to_str())


def _added_tokens(config: dict[str, Any], added: dict[str, Any]) -> dict[int, AddedToken]:
    """Return the tokens beside the vocabulary by their id, from the two files into which slow tokenizers write them."""
    decoder = config.get("added_tokens_decoder")
    decoder = {} if decoder is None else decoder
    if not isinstance(decoder, dict):
        raise CheckpointError("tokenizer_config.json: added_tokens_decoder is not an object")
    tokens: dict[int, AddedToken] = {}
    for name, id_ in added.items():
        if type(id_) is not int or _content(name) is None:
            raise CheckpointError("added_tokens.json does not map tokens to ids")
        _claim(tokens, id_, AddedToken(name, normalized=False, special=False))
    for key, entry in decoder.items():
        content = _content(entry)
        if content is None or not isinstance(entry, dict) or not _ID.fullmatch(key):
            raise CheckpointError("tokenizer_config.json: added_tokens_decoder does not map ids to tokens")
        flags = {flag: entry.get(flag) is True for flag in ("lstrip", "rstrip", "single_word", "special")}
        _claim(tokens, int(key), AddedToken(content, normalized=False, **flags))
    return dict(sorted(tokens.items()))


def _claim(tokens: dict[int, AddedToken], id_: int, token: AddedToken) -> None:
    """Claim a token's id: a later file may repeat the token with its flags, not replace it."""
    if id_ in tokens and tokens[id_].content != token.content:
        both = f"{terminal_safe(repr(tokens[id_].content))} and {terminal_safe(repr(token.content))}"
        raise CheckpointError(f"the added tokens {both} claim one id, {id_}")
    tokens[id_] = token


def _add(tokenizer: Tokenizer, tokens: dict[int, AddedToken]) -> None:
    """Add each token under its own id. Raises CheckpointError where that cannot be."""
    for id_, token in tokens.items():
        if tokenizer.token_to_id(token.content) is None:
            (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
        if (got := tokenizer.token_to_id(token.content)) != id_:
            raise CheckpointError(
                f"the added token {terminal_safe(repr(token.content))} claims the id {id_}, where {got} is next"
            )


def _content(token: object) -> str | None:
    """Return the text of a token that is a string or an object around one; None for anything else.

    Raises CheckpointError for half a surrogate pair.
    """
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str) or not content:
        return None
    if any("\ud800" <= character <= "\udfff" for character in content):
        raise CheckpointError(f"a token is not valid Unicode: {terminal_safe(content)}")
    return content
