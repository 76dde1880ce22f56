"""The tokenizer that ships with an upstream checkpoint, in whichever of its forms, as one tokenizers object.

No code of the checkpoint is run: a tokenizer class that exists only as remote code is rebuilt or refused.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from medmoe.model.conversion.byte_ranks import RANKS_FILE, read_arcade
from medmoe.model.conversion.source_files import read_json
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.prompt import TOKENIZER_FILE

_BYTE_LEVEL_CLASSES = ("GPT2Tokenizer", "CodeGenTokenizer")
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass
class TokenizerSource:
    """A tokenizer and the special tokens that its files declare, by role."""

    tokenizer: Tokenizer
    form: str
    roles: dict[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def read_tokenizer(directory: Path) -> TokenizerSource:
    """Raises CheckpointError for missing or malformed files, ConfigError for a form that is not supported."""
    settings = {
        name: read_json(directory / name) if (directory / name).exists() else {}
        for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    }
    config = settings["tokenizer_config.json"]
    form, tokenizer = _read(directory, config)
    added = _added_tokens(config, settings["added_tokens.json"])
    declared = config | settings["special_tokens_map.json"]
    roles = {role: name for role in _ROLES if (name := _content(declared.get(role)))}
    others = declared.get("additional_special_tokens") or ()
    _add(tokenizer, added)
    special = tuple(token.content for token in added.values() if token.special)
    return TokenizerSource(tokenizer, form, roles, (*special, *(name for other in others if (name := _content(other)))))


def _read(directory: Path, config: dict[str, Any]) -> tuple[str, Tokenizer]:
    has = {path.name for path in directory.iterdir()}
    try:
        if TOKENIZER_FILE in has:
            return TOKENIZER_FILE, Tokenizer.from_file(str(directory / TOKENIZER_FILE))
        if RANKS_FILE in has:
            return RANKS_FILE, read_arcade(directory / RANKS_FILE)
        if {"vocab.json", "merges.txt"} <= has:
            return "vocab.json and merges.txt", _byte_level(directory, config)
        if "tokenizer.model" in has:
            return "tokenizer.model", _sentencepiece(directory, config)
    except (CheckpointError, ConfigError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers raises bare Exception, and for some files a Rust panic
        raise CheckpointError(f"the tokenizer of {directory} cannot be read: {type(error).__name__}") from error
    raise CheckpointError(
        f"{directory} has no tokenizer: neither {TOKENIZER_FILE}, nor vocab.json and merges.txt, nor {RANKS_FILE}, "
        "nor tokenizer.model"
    )


def _byte_level(directory: Path, config: dict[str, Any]) -> Tokenizer:
    """GPT-2's form, which Phi-2 (CodeGen) and Med-MoE's StableLM share."""
    name = config.get("tokenizer_class")
    if name is not None and str(name).removesuffix("Fast") not in _BYTE_LEVEL_CLASSES:
        raise ConfigError(
            f"tokenizer_config.json: a {name} with vocab.json and merges.txt is not supported; "
            f"save it as {TOKENIZER_FILE} first"
        )
    vocabulary = read_json(directory / "vocab.json")
    ids = vocabulary.values()
    if not all(type(id_) is int for id_ in ids) or sorted(ids) != list(range(len(vocabulary))):
        raise CheckpointError(f"{directory / 'vocab.json'} does not number its tokens from 0 without holes")
    model = models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt"))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=config.get("add_prefix_space") is True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(directory: Path, config: dict[str, Any]) -> Tokenizer:
    """By transformers' own conversion of Llama's tokenizer, from this directory alone.

    Llama's slow tokenizer, which upstream uses, puts <s> in front unless it is told not to.
    """
    # Here and not above: only this form needs transformers.
    from transformers import LlamaTokenizer

    found = LlamaTokenizer.from_pretrained(
        directory,
        local_files_only=True,
        trust_remote_code=False,
        add_bos_token=config.get("add_bos_token") is not False,
    )
    return Tokenizer.from_str(found.backend_tokenizer.to_str())


def _added_tokens(config: dict[str, Any], added: dict[str, Any]) -> dict[int, AddedToken]:
    """Tokens beside the vocabulary by their id: what slow tokenizers write into one of two files."""
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise CheckpointError("tokenizer_config.json: added_tokens_decoder is not an object")
    tokens: dict[int, AddedToken] = {}
    for name, id_ in added.items():
        if type(id_) is not int:
            raise CheckpointError("added_tokens.json does not map tokens to ids")
        tokens[id_] = AddedToken(name, normalized=False, special=False)
    for key, entry in decoder.items():
        content = _content(entry)
        if content is None or not str(key).isdecimal():
            raise CheckpointError("tokenizer_config.json: added_tokens_decoder does not map ids to tokens")
        flags = {flag: entry.get(flag) is True for flag in ("lstrip", "rstrip", "single_word", "special")}
        tokens[int(key)] = AddedToken(content, normalized=False, **flags)
    return dict(sorted(tokens.items()))


def _add(tokenizer: Tokenizer, tokens: dict[int, AddedToken]) -> None:
    """Each under its own id. Raises CheckpointError where that cannot be."""
    for id_, token in tokens.items():
        if tokenizer.token_to_id(token.content) is None:
            (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
        if (got := tokenizer.token_to_id(token.content)) != id_:
            raise CheckpointError(f"the added token {token.content!r} claims the id {id_}, where {got} is next")


def _content(token: object) -> str | None:
    """A token is written as a string, or as an object around it."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None
