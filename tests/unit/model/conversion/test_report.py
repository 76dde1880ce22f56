"""Beside the weights lies an account of every source tensor, a model card, and no path of the author's machine."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.config import MedMoEConfig
from medmoe.model.conversion import converter
from medmoe.model.conversion.converter import convert
from medmoe.model.conversion.options import Options
from medmoe.model.conversion.report import Report
from medmoe.model.conversion.weights import source_files
from medmoe.model.errors import CheckpointError
from tests.support.checkpoints.upstream import (
    TOWER_OPTIONS,
    Variant,
    edit_config,
    upstream_tensors,
    write_upstream,
    write_weights,
)

PHI = Variant()
_TOWER = "model.image_tower.image_tower.vision_model."


def converted(source: Path, **options: Any) -> tuple[Report, Path]:
    target = source.parent / "target"
    return convert(source, target, Options(**TOWER_OPTIONS | options)), target


def test_every_source_tensor_is_accounted_for(tmp_path: Path) -> None:
    tensors = upstream_tensors(Variant(residual="both"))
    tensors["lm_head.bias"] = torch.zeros(len(tensors["lm_head.weight"]))
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    tensors[f"{_TOWER}embeddings.position_ids"] = torch.arange(17)[None]
    tensors["model.mm_projector.video_patch_proj.weight"] = torch.zeros(1)
    source = tmp_path / "source"
    write_upstream(source, Variant(residual="both"), tensors=tensors)
    report, target = converted(source)
    assert report.mapped.keys() | report.tied.keys() | report.dropped.keys() == tensors.keys()
    assert set(report.mapped.values()) == load_file(target / "model.safetensors").keys()
    assert json.loads((target / "conversion.json").read_text())["dropped"] == report.dropped
    reasons = {name: report.dropped[name] for name in ("lm_head.bias", f"{_TOWER}post_layernorm.bias")}
    assert "Phi" in reasons["lm_head.bias"]
    assert "mm_vision_select_layer" in reasons[f"{_TOWER}post_layernorm.bias"]
    assert f"{_TOWER}encoder.layers.2.mlp.fc1.bias" in report.dropped
    assert report.tied["model.layers.2.mlp.mlp.fc1.bias"] == "model.layers.2.mlp.meta_moe.fc1.bias"


def test_what_changes_nothing_is_said_to_be_ignored(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", PHI)
    (tmp_path / "source" / "training_args.bin").write_bytes(b"never opened")
    report, _ = converted(tmp_path / "source")
    assert report.ignored_fields["auto_map"] == "remote code is never run"
    assert "dropped" in report.ignored_fields["moe.capacity_factor"]
    assert "not opened" in report.ignored_files["training_args.bin"]


def test_rows_beyond_the_tokenizer_are_cut_and_reported(tmp_path: Path) -> None:
    tensors = write_upstream(tmp_path / "source", PHI)
    report, target = converted(tmp_path / "source")
    rows = MedMoEConfig.from_directory(target).text_config.vocab_size
    assert report.cut["lm_head.weight"] == f"{512 - rows} rows beyond the tokenizer"
    kept = load_file(target / "model.safetensors")["language_model.lm_head.weight"]
    assert torch.equal(kept, tensors["lm_head.weight"][:rows])


def test_an_embedding_cut_by_upstream_already_is_taken_whole(tmp_path: Path) -> None:
    tensors = write_upstream(tmp_path / "source", PHI)
    _, target = converted(tmp_path / "source")
    rows = MedMoEConfig.from_directory(target).text_config.vocab_size
    tensors |= {name: tensors[name][:rows].clone() for name in ("lm_head.weight", "model.embed_tokens.weight")}
    write_weights(tmp_path / "source", tensors, files="safetensors")
    report, _ = converted(tmp_path / "source", overwrite=True)
    assert not report.cut


@pytest.mark.parametrize("same", [True, False])
def test_equal_gates_are_recognised_as_a_frozen_router(tmp_path: Path, same: bool) -> None:
    tensors = upstream_tensors(PHI)
    if same:
        for part in ("weight", "bias"):
            gate = "model.layers.{}.mlp.deepspeed_moe.gate.wg." + part
            tensors[gate.format(2)] = tensors[gate.format(0)].clone()
    write_upstream(tmp_path / "source", PHI, tensors=tensors)
    report, _ = converted(tmp_path / "source")
    assert report.router["equal"] is same
    assert report.router["layers"] == 2


def test_a_float32_gate_stays_float32_among_16_bit_weights(tmp_path: Path) -> None:
    tensors = upstream_tensors(Variant(dtype=torch.bfloat16))
    for name in tensors:
        if ".gate.wg." in name:
            tensors[name] = tensors[name].float() + 1e-6
    write_upstream(tmp_path / "source", PHI, tensors=tensors)
    _, target = converted(tmp_path / "source")
    found = load_file(target / "model.safetensors")
    assert {value.dtype for name, value in found.items() if ".gate." in name} == {torch.float32}
    assert {value.dtype for name, value in found.items() if ".gate." not in name} == {torch.bfloat16}
    assert MedMoEConfig.from_directory(target).dtype == "bfloat16"
    gate = "model.layers.0.mlp.deepspeed_moe.gate.wg.weight"
    assert torch.equal(found["language_model.model.layers.0.mlp.gate.weight"], tensors[gate])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_can_be_chosen(tmp_path: Path, dtype: str) -> None:
    write_upstream(tmp_path / "source", Variant(dtype=torch.bfloat16))
    _, target = converted(tmp_path / "source", dtype=dtype)
    found = load_file(target / "model.safetensors")
    assert {str(value.dtype) for value in found.values()} == {f"torch.{dtype}"}


def test_no_path_of_the_author_reaches_the_output(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", PHI)
    edit_config(tmp_path / "source", _name_or_path="/data/someone/base", moe__router="/data/someone/router.pth")
    _, target = converted(tmp_path / "source")
    for path in target.iterdir():
        assert b"someone" not in path.read_bytes(), path.name


def test_the_card_names_the_digest_and_asks_for_an_unstated_licence(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", PHI)
    report, target = converted(tmp_path / "source")
    card = (target / "README.md").read_text()
    digest = hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest()
    assert report.sha256["model.safetensors"] == digest
    assert digest in card
    assert "unknown: ask the author" in card
    assert "not a medical device" in card


def test_a_stated_licence_is_carried_over(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", PHI)
    (tmp_path / "source" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# x\n")
    (tmp_path / "source" / "LICENSE").write_text("the text")
    _, target = converted(tmp_path / "source")
    assert re.search(r"licence of the weights: apache-2.0", (target / "README.md").read_text())
    assert (target / "LICENSE").read_text() == "the text"


def test_without_top_k_in_the_config_it_can_be_given(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", PHI)
    edit_config(tmp_path / "source", moe=...)
    _, target = converted(tmp_path / "source", top_k=2)
    text = MedMoEConfig.from_directory(target).text_config
    assert (text.num_experts_per_tok, text.renormalize) == (2, True)


def test_top_1_is_not_renormalised(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", PHI)
    _, target = converted(tmp_path / "source")
    assert MedMoEConfig.from_directory(target).text_config.renormalize is False


def test_without_a_model_type_the_tensors_decide(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", Variant(backbone="stablelm"))
    edit_config(tmp_path / "source", model_type=...)
    report, _ = converted(tmp_path / "source")
    assert report.source["backbone"] == "stablelm"


def test_tied_embeddings_are_stored_once(tmp_path: Path) -> None:
    variant = Variant(backbone="llama")
    tensors = upstream_tensors(variant)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    write_upstream(tmp_path / "source", variant, tensors=tensors)
    edit_config(tmp_path / "source", tie_word_embeddings=True)
    report, target = converted(tmp_path / "source")
    assert report.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert load_checkpoint(target).config.text_config.tie_word_embeddings


def test_a_sliding_window_bounds_the_context(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", Variant(backbone="llama"))
    edit_config(tmp_path / "source", sliding_window=128)
    report, target = converted(tmp_path / "source")
    assert MedMoEConfig.from_directory(target).text_config.max_position_embeddings == 128
    assert any("from 256 to 128" in note for note in report.notes)


@pytest.mark.parametrize(
    ("ratio", "asked", "mode"), [("pad", None, "pad"), ("square", None, "crop"), (None, "pad", "pad")]
)
def test_the_image_mode_follows_the_config_unless_asked(tmp_path: Path, ratio: str, asked: str, mode: str) -> None:
    write_upstream(tmp_path / "source", PHI)
    edit_config(tmp_path / "source", image_aspect_ratio=ratio)
    _, target = converted(tmp_path / "source", image_mode=asked)
    assert MedMoEConfig.from_directory(target).image_processor.mode == mode


def test_the_duplicate_bin_is_ignored_or_verified(tmp_path: Path) -> None:
    variant = Variant(residual="both")
    tensors = upstream_tensors(variant)
    kept = {name: value for name, value in tensors.items() if ".mlp.mlp." not in name}
    write_upstream(tmp_path / "source", variant, tensors=kept)
    write_weights(tmp_path / "source", tensors, files="bin")
    report, _ = converted(tmp_path / "source", verify=True)
    assert "same weights" in report.ignored_files["pytorch_model.bin"]
    assert any("hold the same values" in note for note in report.notes)


def test_a_duplicate_that_nobody_asked_about_is_not_read(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", PHI)
    (tmp_path / "source" / "pytorch_model.bin.index.json").write_text("junk")
    (tmp_path / "source" / "pytorch_model-00001-of-00002.bin").touch()
    report, _ = converted(tmp_path / "source")
    assert "same weights" in report.ignored_files["pytorch_model-00001-of-00002.bin"]


def test_a_file_name_that_is_no_utf_8_is_reported_all_the_same(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", PHI)
    Path(os.fsdecode(os.fsencode(tmp_path / "source") + b"/\xff\x1b.bin")).touch()
    report, target = converted(tmp_path / "source")
    stored = json.loads((target / "conversion.json").read_bytes())["ignored_files"]
    assert [name for name in stored if "\udcff" in name]
    assert all(line.isprintable() for line in report.summary())


def test_a_mode_that_upstream_left_at_its_default_is_only_noted(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", PHI)
    edit_config(tmp_path / "source", moe__moe_mode="second_half")
    report, target = converted(tmp_path / "source")
    assert MedMoEConfig.from_directory(target).text_config.moe_layers == (0, 2)
    assert any("moe_mode 'second_half'" in note for note in report.notes)


def test_links_into_a_hub_cache_are_followed(tmp_path: Path) -> None:
    source = tmp_path / "snapshots" / "abc"
    write_upstream(source, PHI)
    (tmp_path / "blobs").mkdir()
    (source / "model.safetensors").rename(tmp_path / "blobs" / "0123")
    (source / "model.safetensors").symlink_to("../../blobs/0123")
    converted(source)


def test_a_licence_that_cannot_be_read_is_known_before_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *, limit: int = 0) -> bytes:
        if path.name == "LICENSE":
            raise PermissionError(13, "Permission denied")
        return path.read_bytes()

    write_upstream(tmp_path / "source", PHI)
    (tmp_path / "source" / "LICENSE").write_text("the text")
    monkeypatch.setattr(source_files, "read_bounded", fail)
    monkeypatch.setattr(converter, "TensorSource", None)
    with pytest.raises(CheckpointError, match="LICENSE cannot be read: Permission denied"):
        converted(tmp_path / "source")
