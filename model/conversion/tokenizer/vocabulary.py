"""Complete the checkpoint's tokenizer with the special tokens that this project needs, and their ids.

Upstream marks the image by -200, outside every vocabulary. Here it is one more special token, whose id is the first
after the vocabulary: the embedding and the output head have no row for it, so that it is never an answer.
"""

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer

from medmoe.model.conversion.options import Options
from medmoe.model.conversion.report import Report
from medmoe.model.conversion.tokenizer.foreign import check_text, guarded
from medmoe.model.conversion.tokenizer.source import TokenizerSource
from medmoe.model.conversion.upstream.config import UpstreamConfig
from medmoe.model.conversion.upstream.text_backbone import Backbone
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.terminal_safe import listed, terminal_safe

IMAGE_TOKEN = "<image>"  # noqa: S105 - no password
# What upstream's train.py makes the padding (and unknown) token; one that is absent is added only for Phi.
_PAD_TOKENS = {"phi": "<|extra_0|>", "stablelm": "<|reg0|>", "llama": "<unk>"}
_EOS_TOKENS = {"phi": "<|endoftext|>", "stablelm": "<|endoftext|>", "llama": "</s>"}

_PADDING_ROWS = 1024
_PADDING_SHARE = 50
# Vicuna-v1's sentence, part of every prompt that these checkpoints were trained with (conversation.py). Upstream
# encodes everything before the image in one piece, and everything after it in another.
SYSTEM_MESSAGE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
USER = "USER: "
PROMPT_BEFORE = f"{SYSTEM_MESSAGE} {USER}"
PROMPT_SEPARATOR, PROMPT_ASSISTANT = "\n", " ASSISTANT:"
PROMPT_AFTER = f"{PROMPT_SEPARATOR}What is shown?{PROMPT_ASSISTANT}"


@dataclass(frozen=True)
class Vocabulary:
    """Hold a tokenizer for an embedding of `size` rows; the image token has the id `size`, one beyond the last row."""

    tokenizer: Tokenizer
    size: int
    bos: int | None
    eos: int
    pad: int

    def text_fields(self) -> dict[str, object]:
        """Return the fields of TextConfig."""
        ids = {"bos_token_id": self.bos, "eos_token_id": self.eos, "pad_token_id": self.pad}
        return {"vocab_size": self.size, **ids}


def build_vocabulary(
    source: TokenizerSource, backbone: Backbone, config: UpstreamConfig, options: Options, report: Report, *, rows: int
) -> Vocabulary:
    """Complete the tokenizer for an embedding of `rows` rows. Raises ConfigError, CheckpointError."""
    with guarded("the tokenizer cannot be used"):
        return _build(source, backbone, config, options, report, rows=rows)


def _build(
    source: TokenizerSource, backbone: Backbone, config: UpstreamConfig, options: Options, report: Report, *, rows: int
) -> Vocabulary:
    tokenizer = source.tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if tokenizer.token_to_id(IMAGE_TOKEN) is not None:
        raise ConfigError(f"the tokenizer already has {IMAGE_TOKEN}, which upstream never trains a row for")
    check_text(tokenizer, PROMPT_BEFORE)
    check_text(tokenizer, PROMPT_AFTER)
    bos = _bos(tokenizer)
    eos_token = source.roles.get("eos_token", _EOS_TOKENS[backbone])
    eos_token = eos_token if options.eos_token is None else options.eos_token
    pad_token = _PAD_TOKENS[backbone] if options.pad_token is None else options.pad_token
    for token, option in ((eos_token, "--eos-token"), (pad_token, "--pad-token")):
        if token == IMAGE_TOKEN:
            raise ConfigError(f"{IMAGE_TOKEN} stands for the image; name another token with {option}")
    specials = {eos_token, pad_token, *source.roles.values(), *source.others}
    if letters := sorted(token for token in specials if token.isalpha() or (len(token) == 1 and token.isprintable())):
        raise CheckpointError(f"declared special, yet part of ordinary text: {listed(letters)}")
    if backbone == "phi" and tokenizer.token_to_id(pad_token) is None:
        report.notes.append(f"padding token {pad_token} added, as upstream's training does")
        _mark_special(tokenizer, pad_token)
    eos = _id(tokenizer, eos_token, option="--eos-token")
    pad = _id(tokenizer, pad_token, option="--pad-token")
    for token in sorted(specials):
        if tokenizer.token_to_id(token) is not None:
            _mark_special(tokenizer, token)
    for role, id_ in (("eos_token_id", eos), ("pad_token_id", pad), ("bos_token_id", bos)):
        if role in config and config.integer(role) != id_ and (role != "bos_token_id" or bos is not None):
            report.notes.append(f"config.json says {role} {config.integer(role)}; the tokenizer's {id_} is used")
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    if size > rows:
        raise CheckpointError(f"the tokenizer has ids up to {size - 1}, the embedding only {rows} rows")
    _check_cut(rows - size, rows=rows, allowed=options.cut_rows)
    _mark_special(tokenizer, IMAGE_TOKEN)
    if tokenizer.token_to_id(IMAGE_TOKEN) != size:
        raise CheckpointError(f"the tokenizer's ids have holes below {size}, so that {IMAGE_TOKEN} cannot follow them")
    report.source["tokenizer"] = source.form
    return Vocabulary(tokenizer, size, bos, eos, pad)


def _check_cut(cut: int, *, rows: int, allowed: bool) -> None:
    """Raise CheckpointError when more rows would be cut than padding to a round number explains (Phi-2: 904)."""
    if not allowed and cut > max(_PADDING_ROWS, rows // _PADDING_SHARE):
        raise CheckpointError(
            f"the embedding has {rows} rows, {cut} more than the tokenizer has tokens, which padding does not explain: "
            "are its files complete? --cut-rows cuts them nevertheless"
        )


def _bos(tokenizer: Tokenizer) -> int | None:
    """Return the id that the tokenizer puts in front of a text; None for Phi and StableLM. Upstream keeps it.

    Raises ConfigError when it adds anything else.
    """
    text = "a picture"
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    full = tokenizer.encode(text, add_special_tokens=True).ids
    if full == plain:
        return None
    if full[1:] != plain:
        raise ConfigError("the tokenizer puts more around a text than one token in front, which is not supported")
    return int(full[0])


def _mark_special(tokenizer: Tokenizer, token: str) -> None:
    """Make a token special, so that a question that spells it stays text."""
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])


def _id(tokenizer: Tokenizer, token: str, *, option: str) -> int:
    id_: int | None = tokenizer.token_to_id(token)
    if id_ is None:
        raise ConfigError(f"the tokenizer has no {terminal_safe(repr(token))}; name another with {option}")
    return id_
