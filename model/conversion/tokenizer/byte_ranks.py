"""Convert Arcade100k, StableLM-2's tokenizer of byte strings and ranks, to a tokenizers BPE.

Stability's own class for it is remote code; the file and these constants hold everything that it does.
"""

import base64
import binascii
import unicodedata
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from medmoe.model.errors import CheckpointError
from medmoe.model.files.bounded_read import read_bounded

RANKS_FILE = "arcade100k.tiktoken"
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CODE = (
    "gh_stars filename issue_start issue_comment issue_closed jupyter_start jupyter_text jupyter_code jupyter_output"
)
_CODE += " empty_output commit_before commit_msg commit_after reponame"
_SPECIAL_TOKENS = (
    "<|endoftext|>",
    *(f"<|fim_{part}|>" for part in ("prefix", "middle", "suffix", "pad")),
    *(f"<{name}>" for name in _CODE.split()),
    "<|endofprompt|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|pause|>",
    *(f"<|reg{index}|>" for index in range(8)),
    "<|extra0|>",
)


def read_arcade(path: Path) -> Tokenizer:
    """Return the tokenizer of a rank file. Raises CheckpointError when the file is not one."""
    vocabulary, merges = _vocabulary(_read_ranks(path))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # One id between the ranks and the first special token is unused (100256).
    names = (f"<|unused_{len(vocabulary)}|>", *_SPECIAL_TOKENS)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    return tokenizer


def _read_ranks(path: Path) -> dict[bytes, int]:
    try:
        pairs = [line.split() for line in read_bounded(path).splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except (OSError, ValueError, binascii.Error) as error:
        raise CheckpointError(f"{path} is not a file of base64 tokens and ranks") from error
    if sorted(ranks.values()) != list(range(len(ranks))) or not ranks.keys() >= {bytes([b]) for b in range(256)}:
        raise CheckpointError(f"{path} does not number its tokens from 0 without holes, or lacks single bytes")
    return ranks


def _vocabulary(ranks: dict[bytes, int]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary in the byte-level alphabet, and the one merge that makes each token, in rank order."""
    letters = _byte_letters()
    spelled = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            parts = _parts(token, ranks)
            # A token that no merge makes is still found whole, as its class looks words up before it merges.
            if len(parts) == 2:
                merges.append((spelled[parts[0]], spelled[parts[1]]))
    return {spelled[token]: rank for token, rank in ranks.items()}, merges


def _parts(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """Return what merging makes of `token` by pairs of lower rank than its own."""
    limit = ranks[token]
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 1:
        pairs = [(ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1)]
        rank, place = min(pairs)
        if rank >= limit:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _byte_letters() -> list[str]:
    """Return the letter that byte-level BPE writes for each byte: itself where it prints, else one from U+0100 on."""
    letters, next_letter = [], 256
    for byte in range(256):
        character = chr(byte)
        if unicodedata.category(character)[0] in "LNPS" and byte != 0xAD:
            letters.append(character)
        else:
            letters.append(chr(next_letter))
            next_letter += 1
    return letters
