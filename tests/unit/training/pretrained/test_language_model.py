"""Language models that come with weights: transformers directories of every family, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PhiForCausalLM, StableLmForCausalLM

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.language_model import hf_text_config
from medmoe.model.medmoe import MedMoE
from medmoe.training.pretrained.language_model import load_pretrained_language_model
from medmoe.training.stage_transition import dense
from tests.support.checkpoints.tiny import tiny_config

FAMILIES = {"llama": LlamaForCausalLM, "phi": PhiForCausalLM, "stablelm": StableLmForCausalLM}


def architecture(family: str = "llama", **text: Any) -> MedMoEConfig:
    """Every family as it is published: the image after the vocabulary, no token in front of a prompt."""
    return dense(tiny_config(model_type=family, out_of_vocabulary=True, bos_token_id=None, **text))


def byte_tokenizer(*, size: int = 512, special: tuple[str, ...] = ("<pad>", "<s>", "</s>", "<unused>")) -> Tokenizer:
    """Every byte is a token; words that no text holds fill the vocabulary."""
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += [f"\u2400{number}" for number in range(len(words), size)]
    tokenizer = Tokenizer(models.BPE({word: id_ for id_, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer


def write_directory(
    directory: Path,
    config: MedMoEConfig,
    *,
    rows: int = 0,
    max_shard_size: str = "1GB",
    tokenizer: Tokenizer | None = None,
) -> Path:
    """As transformers saves such a model; `rows` more than the vocabulary pad its embedding."""
    text = config.text_config
    torch.manual_seed(0)
    theirs = hf_text_config(text.model_copy(update={"vocab_size": text.vocab_size + rows}))
    FAMILIES[text.model_type](theirs).save_pretrained(directory, max_shard_size=max_shard_size)
    (tokenizer or byte_tokenizer()).save(str(directory / "tokenizer.json"))
    settings = {"eos_token": "</s>", "pad_token": "<pad>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def change(directory: Path, tensors: dict[str, torch.Tensor | None]) -> None:
    path = directory / "model.safetensors"
    found = load_file(path) | {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file({name: value for name, value in found.items() if tensors.get(name, value) is not None}, path)


@pytest.mark.parametrize("max_shard_size", ["1GB", "100KB"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_is_filled_with_exactly_its_weights(family: str, max_shard_size: str, tmp_path: Path) -> None:
    config = architecture(family)
    write_directory(tmp_path, config, rows=16, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == "100KB")
    model = MedMoE(config).eval()
    tokenizer, origin = load_pretrained_language_model(model, tmp_path)
    reference = FAMILIES[family].from_pretrained(tmp_path).eval()
    assert tokenizer.token_to_id("<image>") == config.image_token_id == 512
    assert "SHA-256" in origin
    ids = torch.tensor([[4, 300, 17, 5]])
    with torch.no_grad():
        hidden = model.language_model.model(ids).last_hidden_state
        logits, wanted = model.language_model.lm_head(hidden), reference(ids).logits[..., :512]
    if family == "phi":
        wanted = wanted - reference.lm_head.bias[:512]
    torch.testing.assert_close(logits, wanted)


def test_phis_output_bias_is_discarded_as_upstream_does(tmp_path: Path) -> None:
    config = architecture("phi")
    write_directory(tmp_path, config)
    change(tmp_path, {"lm_head.bias": torch.full((512,), 7.0)})
    model = MedMoE(config)
    load_pretrained_language_model(model, tmp_path)
    assert model.language_model.lm_head.bias is None


@pytest.mark.parametrize("family", ["llama", "stablelm"])
def test_a_bias_that_nobody_discards_is_unknown(family: str, tmp_path: Path) -> None:
    write_directory(tmp_path, architecture(family))
    change(tmp_path, {"lm_head.bias": torch.zeros(512)})
    with pytest.raises(CheckpointError, match=r"unknown: lm_head\.bias"):
        load_pretrained_language_model(MedMoE(architecture(family)), tmp_path)


def test_missing_unknown_and_misshapen_tensors_are_named_together(tmp_path: Path) -> None:
    write_directory(tmp_path, architecture("stablelm"))
    change(
        tmp_path,
        {
            "model.layers.1.mlp.up_proj.weight": None,
            "model.layers.0.mlp.router.weight": torch.zeros(2, 2),
            "model.layers.2.mlp.down_proj.weight": torch.zeros(64, 64),
        },
    )
    with pytest.raises(CheckpointError) as error:
        load_pretrained_language_model(MedMoE(architecture("stablelm")), tmp_path)
    assert "missing: model.layers.1.mlp.up_proj.weight" in str(error.value)
    assert "unknown: model.layers.0.mlp.router.weight" in str(error.value)
    assert "model.layers.2.mlp.down_proj.weight is (64, 64), expected (64, 128)" in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        {"num_attention_heads": 4, "num_key_value_heads": 4},
        {"rope_theta": 5000.0},
        {"norm_eps": 1e-6},
        {"partial_rotary_factor": 0.5},
        {"max_position_embeddings": 1024},
    ],
)
def test_a_model_that_shapes_alone_cannot_tell_from_the_recipes_is_refused(
    text: dict[str, Any], tmp_path: Path
) -> None:
    """Each would load without a word, and compute something else."""
    write_directory(tmp_path, architecture("stablelm"))
    with pytest.raises(ConfigError, match=next(iter(text))):
        load_pretrained_language_model(MedMoE(architecture("stablelm", **text)), tmp_path)


def test_a_shorter_context_than_the_models_is_a_choice(tmp_path: Path) -> None:
    write_directory(tmp_path, architecture())
    load_pretrained_language_model(MedMoE(architecture(max_position_embeddings=256)), tmp_path)


def test_a_tied_head_that_is_not_the_embedding_is_refused(tmp_path: Path) -> None:
    write_directory(tmp_path, architecture())
    change(tmp_path, {"lm_head.weight": torch.zeros(512, 64)})
    with pytest.raises(CheckpointError, match="lm_head"):
        load_pretrained_language_model(MedMoE(architecture()), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "qwen2"}, "'qwen2' is not supported"),
        ({"model_type": "llama\x1b[2J"}, r"\\x1b"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "scaled rotary"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_size": 10**30}, "hidden_size"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_a_configuration_we_would_compute_differently_is_refused(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_directory(tmp_path, architecture())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(ConfigError, match=message):
        load_pretrained_language_model(MedMoE(architecture()), tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    write_directory(tmp_path, architecture())
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors alone"):
        load_pretrained_language_model(MedMoE(architecture()), tmp_path)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    write_directory(tmp_path, architecture())
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="whole safetensors"):
        load_pretrained_language_model(MedMoE(architecture()), tmp_path)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        load_pretrained_language_model(MedMoE(architecture()), tmp_path / "nowhere")


@pytest.mark.parametrize("out_of_vocabulary", [True, False])
def test_a_tokenizer_of_another_size_is_refused(out_of_vocabulary: bool, tmp_path: Path) -> None:
    config = dense(tiny_config(out_of_vocabulary=out_of_vocabulary, bos_token_id=None))
    write_directory(tmp_path, config, tokenizer=byte_tokenizer(size=500))
    with pytest.raises(ConfigError, match=r"vocab_size 512 \(it has 500\)"):
        load_pretrained_language_model(MedMoE(config), tmp_path)


def test_an_image_token_of_the_vocabulary_must_be_a_special_one(tmp_path: Path) -> None:
    config = dense(tiny_config(bos_token_id=None)).model_copy(update={"image_token_id": 100})
    write_directory(tmp_path, config)
    with pytest.raises(ConfigError, match="no special token is image_token_id 100"):
        load_pretrained_language_model(MedMoE(config), tmp_path)


def test_an_unused_token_becomes_the_image_without_a_new_row(tmp_path: Path) -> None:
    config = dense(tiny_config(bos_token_id=None))
    write_directory(tmp_path, config)
    tokenizer, _ = load_pretrained_language_model(MedMoE(config), tmp_path)
    assert tokenizer.id_to_token(config.image_token_id) == "<unused>"
    assert tokenizer.get_vocab_size() == 512


def test_phis_missing_padding_is_added_as_upstream_does(tmp_path: Path) -> None:
    config = dense(
        tiny_config(model_type="phi", out_of_vocabulary=True, bos_token_id=None, eos_token_id=2, pad_token_id=511)
    )
    write_directory(tmp_path, config, tokenizer=byte_tokenizer(size=511))
    tokenizer, _ = load_pretrained_language_model(MedMoE(config), tmp_path)
    assert tokenizer.id_to_token(511) == "<|extra_0|>"
    assert tokenizer.id_to_token(512) == "<image>"
