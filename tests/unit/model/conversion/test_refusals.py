"""What cannot be converted is refused in one sentence that names it, and leaves nothing behind."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medmoe.model.conversion.converter import convert
from medmoe.model.conversion.options import Options
from medmoe.model.errors import CheckpointError, ConfigError
from tests.support.checkpoints.tiny import save_tiny_checkpoint
from tests.support.checkpoints.upstream import TOWER_OPTIONS, Variant, edit_config, write_upstream, write_weights
from tests.support.images.damage import INDEX, WEIGHTS, Change, config, data, fifo, index, link, tensors, text, without

RESIDUAL = Variant(residual="both")
MOE = "model.layers.0.mlp.deepspeed_moe."
SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("originals")
    for files in ("safetensors", "sharded", "bin"):
        write_upstream(home / files, RESIDUAL, files=files)
    write_upstream(home / "llama", Variant(backbone="llama"))
    write_upstream(home / "stablelm", Variant(backbone="stablelm"))
    write_upstream(home / "dense", Variant(family="dense"))
    write_upstream(home / "moe_llava", Variant(family="moe_llava", top_k=2))
    return {path.name: path for path in home.iterdir()}


@pytest.fixture
def refuse(originals: dict[str, Path], tmp_path: Path) -> Callable[..., None]:
    """Damage a copy of a source, and expect the conversion to say `match` and leave no trace."""

    def run(
        change: Change, match: str, *, source: str = "safetensors", error: type = CheckpointError, **o: Any
    ) -> None:
        copy = tmp_path / "source"
        shutil.copytree(originals[source], copy, symlinks=True)
        change(copy)
        with pytest.raises(error, match=match):
            convert(copy, tmp_path / "target", Options(**TOWER_OPTIONS | o))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]

    return run


def linked_out(directory: Path) -> None:
    away = directory.parent / "source" / "deeper"
    away.mkdir()
    shutil.move(directory / WEIGHTS, away / WEIGHTS)
    (directory / WEIGHTS).symlink_to(away / WEIGHTS)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(Path(__file__).parent / "exploded"),)


NAN = torch.full((32,), float("nan"))
EXPERT = "model__layers__0__mlp__deepspeed_moe__experts__deepspeed_experts__"

TENSORS = [
    (tensors(model__final_layernorm__bias=None), r"missing: model\.final_layernorm\.bias"),
    (tensors(**{f"{EXPERT}1__fc1__bias": None}), r"missing: model\.layers\.0.*experts\.1\.fc1\.bias"),
    (tensors(model__layers__0__mlp__meta_moe__fc1__bias=None), r"missing: model\.layers\.0\.mlp\.meta_moe\.fc1\.bias"),
    (tensors(model__final_layernorm__bias=torch.zeros(3)), r"final_layernorm\.bias is \(3,\), expected \(32,\)"),
    (tensors(model__final_layernorm__bias=torch.zeros(32, dtype=torch.int64)), "not floating point: .*final_layernorm"),
    (tensors(model__final_layernorm__bias=NAN), "final_layernorm.bias holds values that are not finite"),
    (tensors(model__layers__1__mlp__fc3__bias=torch.zeros(3)), r"does not know: model\.layers\.1\.mlp\.fc3\.bias"),
    (tensors(model__video_tower__x=torch.zeros(3), mystery=torch.zeros(1)), "does not know: mystery"),
    (tensors(model__layers__0__mlp__mlp__fc1__bias=torch.zeros(48)), "values differ: model.layers.0.mlp.mlp.fc1.bias"),
    (tensors(**{f"{MOE}gate.wg.weight".replace(".", "__"): torch.zeros(2, 32)}), r"its gate has the shape \(2, 32\)"),
    (tensors(**{f"{MOE}gate.wg.weight".replace(".", "__"): None}), r"gate\.wg\.weight is missing"),
    (tensors(model__embed_tokens__weight=torch.zeros(3, 32)), "ids up to .* only 3 rows"),
    (tensors(model__embed_tokens__weight=torch.zeros(3)), "embed_tokens.weight is of shape"),
    (
        tensors(**{f"model.layers.{'9' * 5000}.x".replace(".", "__"): torch.zeros(1)}),
        r"does not know: model\.layers\.99",
    ),
    (tensors(**{f"{EXPERT}{'9' * 5000}__x": torch.zeros(1)}), r"does not know: .*deepspeed_experts\.99"),
    (tensors(**{"model__layers__\u0663__x": torch.zeros(1)}), "does not know: model"),
    (tensors(**{"x" * 10**6: torch.zeros(1)}), "characters more"),
    (tensors(**{f"{MOE}gate.wg.weight".replace(".", "__"): torch.zeros(10**11, 0)}), r"the shape \(100000000000, 0\)"),
    (without(".encoder.layers.1."), "vision tower lacks the blocks 1"),
    (without(".encoder.layers.2."), "vision tower has 3 blocks, the tensors hold 2"),
    (tensors(lm_head__weight=None), "lm_head.weight is missing, and config.json does not tie it"),
]
FILES = [
    ("safetensors", lambda d: (d / WEIGHTS).unlink(), "neither model.safetensors nor pytorch_model.bin"),
    ("safetensors", data(WEIGHTS, lambda b: b[:-100]), "not a whole safetensors file"),
    ("safetensors", data(WEIGHTS, lambda b: b""), "not a whole safetensors file"),
    ("safetensors", data(WEIGHTS, lambda b: (2**62).to_bytes(8, "little") + b[8:]), "not a whole safetensors file"),
    ("safetensors", link("LICENSE", "/etc/hostname"), "LICENSE is a link that leads out of the directory"),
    ("safetensors", link("README.md", "/etc/hostname"), "README.md is a link that leads out of the directory"),
    ("safetensors", link("vocab.json", "/etc/hostname"), "vocab.json is a link that leads out of the directory"),
    ("llama", link("tokenizer.json", "/dev/zero"), "tokenizer.json is no regular file"),
    ("safetensors", fifo("README.md"), "no regular file"),
    ("safetensors", fifo("merges.txt"), "no regular file"),
    ("safetensors", fifo("vocab.json"), "no regular file"),
    ("safetensors", fifo("tokenizer_config.json"), "no regular file"),
    ("safetensors", fifo("tokenizer.json"), "no regular file"),
    ("safetensors", fifo(WEIGHTS), "no regular file"),
    ("safetensors", text(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), "git-LFS pointer"),
    ("bin", text("pytorch_model.bin", "version https://git-lfs.github.com/spec/v1\n"), "git-LFS pointer"),
    ("safetensors", text("merges.txt", "version https://git-lfs.github.com/spec/v1\n"), "git-LFS pointer"),
    ("bin", lambda d: torch.save({"x": torch.empty(3, device="meta")}, d / "pytorch_model.bin"), "without its values"),
    ("sharded", index(lambda m: m.update({"lm_head.weight": f"{'x' * 5000}.safetensors"})), "not the name of a"),
    ("sharded", index(lambda m: m.update({"lm_head.weight": "x\0.safetensors"})), "not the name of a"),
    ("safetensors", linked_out, "a link that leads out of the directory"),
    ("safetensors", text(INDEX, "{}"), "holds both"),
    ("sharded", lambda d: (d / SHARD).unlink(), f"{SHARD} is missing"),
    ("sharded", lambda d: (d / INDEX).unlink(), "one of several shards"),
    ("sharded", text(INDEX, "[]"), "a JSON list, not an object"),
    ("sharded", text(INDEX, "{"), "is not JSON"),
    ("sharded", text(INDEX, "{}"), "has no weight_map"),
    ("sharded", index(lambda m: m.update({"x": SHARD})), "no shard holds: x"),
    ("sharded", index(lambda m: m.pop("lm_head.weight")), "does not name: lm_head.weight"),
    ("sharded", index(lambda m: m.update({"lm_head.weight": "../x.safetensors"})), "not the name of a"),
    ("sharded", index(lambda m: m.update({"lm_head.weight": "/x.safetensors"})), "not the name of a"),
    ("sharded", index(lambda m: m.update({"lm_head.weight": "training_args.bin"})), "not the name of a"),
    ("sharded", index(lambda m: m.update({"lm_head.weight": 3})), "not the name of a"),
    ("bin", data("pytorch_model.bin", lambda b: b[:-100]), "not a torch file"),
    ("bin", data("pytorch_model.bin", lambda b: b"garbage"), "not a torch file"),
    ("bin", lambda d: torch.save(["x"], d / "pytorch_model.bin"), "does not hold a mapping"),
    ("bin", lambda d: torch.save({"x": 3}, d / "pytorch_model.bin"), "holds x, which is not a dense tensor"),
    ("safetensors", lambda d: (d / "merges.txt").unlink(), "no tokenizer"),
    ("safetensors", text("vocab.json", '{"a": 7}'), "does not number its tokens"),
    ("safetensors", text("merges.txt", "x y z\n"), "cannot be read"),
    ("safetensors", text("tokenizer.json", "{}"), "cannot be read"),
    ("safetensors", text("arcade100k.tiktoken", "IQ== x"), "base64 tokens and ranks"),
    ("safetensors", text("added_tokens.json", '{"x": 9999}'), "claims the id 9999"),
]  # fmt: skip
CONFIGS = [
    ("safetensors", text("config.json", "{"), "is not JSON"),
    ("safetensors", text("config.json", "[1]"), "a JSON list"),
    ("safetensors", text("config.json", "[" * 100_000), "is not JSON"),
    ("safetensors", lambda d: (d / "config.json").unlink(), "is missing"),
    ("safetensors", fifo("config.json"), "no regular file"),
    ("safetensors", config(num_hidden_layers=10**9), "not between 1 and 1024"),
    ("safetensors", config(num_hidden_layers=10**30), "more than 20 digits"),
    ("safetensors", config(num_hidden_layers=10**9, moe__moe_layers_idx=None), "not between 1 and 1024"),
    ("safetensors", config(num_key_value_heads=0), "num_key_value_heads is 0"),
    ("safetensors", config(rope_theta=10**400), "rope_theta is not a finite number"),
    ("safetensors", config(layer_norm_eps=10**400), "layer_norm_eps is not a finite number"),
    ("safetensors", config(layer_norm_eps=1), "not below 1"),
    ("safetensors", config(moe__moe_layers_idx=list(range(10**5))), r"63, …\], the tensors into"),
    ("safetensors", config(moe__moe_mode="x"), "moe_mode 'x' is none of"),
    ("safetensors", config(moe__moe_enable=False), "moe_enable false, but the tensors hold experts"),
    ("safetensors", config(moe__moe_enable="yes"), "moe_enable is a str"),
    ("safetensors", config(image_aspect_ratio=""), "choose with --image-mode"),
    ("safetensors", config(model_type="moe_llava_qwen"), "Qwen checkpoints are not supported"),
    ("safetensors", config(model_type="moe_llava_minicpm"), "not supported; supported"),
    ("safetensors", config(model_type="phi"), "not supported; supported"),
    ("safetensors", config(model_type="moe_llava_stablelm"), "but the tensors are those of phi"),
    ("safetensors", config(hidden_size="32"), "hidden_size is not an integer"),
    ("safetensors", config(hidden_size=...), "does not say hidden_size"),
    ("safetensors", config(layer_norm_eps=...), "does not say layer_norm_eps"),
    ("safetensors", config(layer_norm_eps=float("nan")), "not a finite number"),
    ("safetensors", config(hidden_act="gelu"), "hidden_act is 'gelu'; phi is built with gelu_new"),
    ("safetensors", config(rope_scaling={"type": "linear", "factor": 2}), "rope_scaling is set"),
    ("safetensors", config(qk_layernorm=True), "qk_layernorm is set"),
    ("safetensors", config(num_hidden_layers=5), "says 5 layers, the tensors hold 4"),
    ("safetensors", config(head_dim=16), "head_dim 16"),
    ("safetensors", config(num_attention_heads=5), "does not divide"),
    ("safetensors", config(tie_word_embeddings=True), "does not tie"),
    ("safetensors", config(moe=...), "use --top-k"),
    ("safetensors", config(moe__top_k_experts=...), "use --top-k"),
    ("safetensors", config(moe__top_k_experts=3), "knows only 1 and 2"),
    ("safetensors", config(moe__top_k_experts=-1), "knows only 1 and 2"),
    ("safetensors", config(moe__num_experts=[4]), "says .4. experts a layer, the tensors hold 3"),
    ("safetensors", config(moe__num_experts="3"), "not a list of integers"),
    ("safetensors", config(moe__moe_layers_idx=[0, 1]), r"into layers \[0, 1\], the tensors into \[0, 2\]"),
    ("safetensors", config(moe__moe_layers_idx=None, moe__moe_mode="second_half"), r"\[2, 3\], the tensors into"),
    ("safetensors", config(moe__moe_layers_idx=None, moe__moe_mode="custom"), "says no layers"),
    ("safetensors", config(moe__use_residual=False), "use_residual False, but mlp.coefficient tensors are there"),
    ("safetensors", config(moe=[]), "moe is a list, not a dict"),
    ("safetensors", config(lora={"lora_enable": True}), "merge the adapter"),
    ("safetensors", config(image_projector_type="qformer"), "only mlp2x_gelu is supported"),
    ("safetensors", config(mm_use_im_patch_token=True), "mm_use_im_patch_token is set"),
    ("safetensors", config(mm_vision_select_feature="cls_patch"), "'cls_patch' is not supported"),
    ("safetensors", config(mm_vision_select_layer=-9), "selects nothing of 3 blocks"),
    ("safetensors", config(mm_vision_select_layer=...), "does not say mm_vision_select_layer"),
    ("safetensors", config(mm_hidden_size=17), "mm_hidden_size is 17, the tower's width 16"),
    ("safetensors", config(mm_image_tower="/x/clip-vit-large-patch14-336"), "but its tensors are a clip of 3 blocks"),
    ("safetensors", config(image_aspect_ratio="anyres"), "choose with --image-mode"),
    ("dense", config(moe={"moe_enable": True}), "no deepspeed_moe tensor is there"),
    ("moe_llava", config(moe__use_residual=True), "mlp.coefficient tensors are missing"),
    ("moe_llava", tensors(model__layers__0__mlp__coefficient__bias=torch.zeros(2)), "use_residual False"),
    ("stablelm", config(use_parallel_residual=True), "use_parallel_residual is set"),
    ("stablelm", config(qk_layernorm=True), "qk_layernorm is set"),
    ("stablelm", config(rope_pct=...), "does not say partial_rotary_factor or rope_pct"),
    ("llama", config(attention_bias=True), "attention_bias is set"),
    ("llama", config(mlp_bias=True), "mlp_bias is set"),
]  # fmt: skip


def test_what_is_converted_already_is_named(tmp_path: Path) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny")
    with pytest.raises(ConfigError, match="is converted already: serve it"):
        convert(checkpoint, tmp_path / "target", Options())
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(("change", "match"), TENSORS, ids=[match for _, match in TENSORS])
def test_a_wrong_tensor_is_named(refuse: Callable[..., None], change: Change, match: str) -> None:
    refuse(change, match)


@pytest.mark.parametrize(("source", "change", "match"), FILES, ids=[f"{s}-{m}" for s, _, m in FILES])
def test_a_wrong_file_is_named(refuse: Callable[..., None], source: str, change: Change, match: str) -> None:
    refuse(change, match, source=source)


@pytest.mark.parametrize(("source", "change", "match"), CONFIGS, ids=[f"{s}-{m}" for s, _, m in CONFIGS])
def test_a_wrong_config_is_named(refuse: Callable[..., None], source: str, change: Change, match: str) -> None:
    refuse(change, match, source=source, error=ConfigError)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(refuse: Callable[..., None]) -> None:
    refuse(lambda d: torch.save({"x": Bomb()}, d / "pytorch_model.bin"), "it was not executed", source="bin")
    assert not (Path(__file__).parent / "exploded").exists()


def test_a_bare_pickle_is_refused(refuse: Callable[..., None]) -> None:
    refuse(data("pytorch_model.bin", lambda b: pickle.dumps(Bomb())), "not a torch file", source="bin")


def test_residual_without_a_meta_expert_is_refused(refuse: Callable[..., None]) -> None:
    def change(directory: Path) -> None:
        tensors(model__layers__0__mlp__coefficient__bias=torch.zeros(2))(directory)
        edit_config(directory, moe__use_residual=True)

    refuse(change, "residual mixing without a meta expert", source="moe_llava", error=ConfigError)


def test_a_tower_of_no_known_name_is_not_guessed(refuse: Callable[..., None]) -> None:
    refuse(lambda d: None, "num_attention_heads.*cannot be read from its tensors", error=ConfigError, vision_heads=None)


def test_the_depth_of_an_unknown_tower_is_not_counted_from_what_is_left(refuse: Callable[..., None]) -> None:
    refuse(lambda d: None, "num_hidden_layers.*--vision-layers", error=ConfigError, vision_layers=None)


@pytest.mark.parametrize("option", [{"vision_eps": 1.0}, {"vision_heads": 0}, {"vision_image_size": 0}, {"name": ""}])
def test_an_option_that_means_nothing_is_refused(refuse: Callable[..., None], option: dict[str, Any]) -> None:
    refuse(lambda d: None, "eps|heads|pixels|name", error=ConfigError, **option)


def test_a_missing_tower_asks_for_one(refuse: Callable[..., None]) -> None:
    def change(directory: Path) -> None:
        found = {name: value for name, value in load_file(directory / WEIGHTS).items() if "image_tower" not in name}
        save_file(found, directory / WEIGHTS)

    refuse(change, "--vision-tower", error=ConfigError)


def test_a_duplicate_that_differs_is_named(refuse: Callable[..., None]) -> None:
    def change(directory: Path) -> None:
        other = load_file(directory / WEIGHTS)
        other["lm_head.weight"][0, 0] += 1
        write_weights(directory, other, files="bin")

    refuse(change, "differ in: lm_head.weight", verify=True)


def test_verify_needs_something_to_compare(refuse: Callable[..., None]) -> None:
    refuse(lambda d: None, "there are not both", verify=True)


def test_a_value_that_the_chosen_dtype_cannot_hold_is_refused(refuse: Callable[..., None]) -> None:
    refuse(tensors(model__final_layernorm__bias=torch.full((32,), 1e6)), "not finite in torch.float16", dtype="float16")


def test_an_unknown_special_token_is_refused(refuse: Callable[..., None]) -> None:
    refuse(lambda d: None, "no '<none>'; name another with --eos-token", error=ConfigError, eos_token="<none>")


def test_a_full_disk_is_known_before_anything_is_written(
    refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    refuse(lambda d: None, "GB are free")
