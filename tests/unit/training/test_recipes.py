"""Recipes: that each can be built, and which parameters each one moves, by name and by number."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.model.medmoe import MedMoE
from medmoe.training.__main__ import app
from medmoe.training.config import RunConfig
from medmoe.training.lora.config import LoRARunConfig
from medmoe.training.pretrained.initialize import check_base, check_sources
from medmoe.training.recipes.baselines import dense_sft, moe, moe_learned_router, moe_without_meta
from medmoe.training.recipes.catalogue import RECIPES
from medmoe.training.recipes.published import phi_2, stablelm_1_6b
from medmoe.training.recipes.small import small
from medmoe.training.recipes.tiny import tiny
from medmoe.training.recipes.trainable import (
    ADAPTERS,
    EXPERTS,
    FFNS,
    GATES,
    LANGUAGE_MODEL,
    PROJECTOR,
    MoETuningMode,
    moe_trainable,
)
from medmoe.training.stage_transition import set_trainable
from tests.support.checkpoints.tiny import tiny_config

SIZES = ("tiny", "small", "stablelm-1.6b", "phi-2")
KINDS = ("", "-dense-sft", "-moe", "-moe-without-meta", "-moe-learned-router", "-lora-r16", "-med-moe-lora")
FFN = {
    "llama": ("gate_proj.weight", "up_proj.weight", "down_proj.weight"),
    "stablelm": ("gate_proj.weight", "up_proj.weight", "down_proj.weight"),
    "phi": ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"),
}


def on_meta(config: MedMoEConfig) -> MedMoE:
    with torch.device("meta"):
        return MedMoE(config)


def test_every_size_has_every_kind_of_recipe() -> None:
    wanted = {size + kind for size in SIZES for kind in KINDS} | {"stablelm-1.6b-upstream", "phi-2-upstream"}
    assert wanted <= set(RECIPES)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_complete_and_is_written_down_whole(name: str) -> None:
    config = RECIPES[name].build()
    assert config == RECIPES[name].build()
    written = json.loads(config.to_json())
    assert written["name"] == config.name
    if isinstance(config, LoRARunConfig):
        assert written["layers"][0]["ranks"] == list(config.layers[0].ranks)
        assert config.stage.trainable == (ADAPTERS,)
    else:
        assert MedMoEConfig.from_json(json.dumps(written["architecture"])) == config.architecture
        assert written["moe_tuning"]["data"][0]["bad_records"] in ("refuse", "leave_out")


def test_no_two_recipes_write_a_checkpoint_of_the_same_name() -> None:
    names = [recipe.build().name for recipe in RECIPES.values()]
    assert len(set(names)) == len(names)


def test_adapters_fit_the_depth_of_their_size() -> None:
    for size in SIZES:
        run = RECIPES[size].build()
        assert isinstance(run, RunConfig)
        depth = run.architecture.text_config.num_hidden_layers
        for kind in ("-lora-r16", "-med-moe-lora"):
            adapter = RECIPES[size + kind].build()
            assert isinstance(adapter, LoRARunConfig)
            assert len(adapter.layers) == depth
            assert adapter.modality_labels == run.domains
        plain = RECIPES[f"{size}-lora-r16"].build()
        assert isinstance(plain, LoRARunConfig)
        assert {layer.ranks for layer in plain.layers} == {(16,)}


@pytest.mark.parametrize("size", SIZES)
def test_stage_three_of_every_baseline_can_start_from_the_sizes_own_second(size: str) -> None:
    run = RECIPES[size].build()
    assert isinstance(run, RunConfig)
    second = run.architecture.model_copy(
        update={"text_config": run.architecture.text_config.model_copy(update={"moe_layers": ()}), "dtype": "float32"}
    )
    for baseline in (dense_sft, moe, moe_without_meta, moe_learned_router):
        other = baseline(run)
        check_base(other.architecture, second)
        # Equal budget, equal data, equal questions.
        for field in ("data", "epochs", "learning_rate", "batch_size", "weight_decay", "pack"):
            assert getattr(other.moe_tuning, field) == getattr(run.moe_tuning, field)
        assert other.domains == run.domains
        assert other.seed == run.seed


def test_the_baselines_differ_from_the_paper_in_what_they_are_named_for() -> None:
    paper = tiny().architecture.text_config
    assert (paper.num_experts_per_tok, paper.shared_expert, paper.renormalize, paper.gate_bias) == (
        1,
        True,
        False,
        True,
    )
    llava = moe(tiny())
    text = llava.architecture.text_config
    assert (text.num_experts_per_tok, text.shared_expert, text.renormalize, text.gate_bias) == (2, False, True, False)
    assert (llava.routing, llava.moe_tuning.balance_loss, llava.router) == ("learned", 0.01, None)
    learned = moe_learned_router(tiny())
    assert learned.architecture.text_config == paper
    assert (learned.routing, learned.moe_tuning.balance_loss) == ("learned", 0.01)
    without = moe_without_meta(tiny())
    assert without.architecture.text_config == paper.model_copy(update={"shared_expert": False})
    assert (without.routing, without.router) == ("domain", tiny().router)
    assert dense_sft(tiny()).architecture.text_config.moe_layers == ()


@pytest.mark.parametrize("run", [stablelm_1_6b(), phi_2()], ids=lambda run: str(run.name))
def test_the_published_sizes_have_the_published_hyperparameters(run: RunConfig) -> None:
    stages = (run.alignment, run.instruction_tuning, run.moe_tuning)
    assert [stage.learning_rate for stage in stages] == [1e-3, 2e-5, 2e-5]
    assert [stage.epochs for stage in stages] == [1, 3, 9]
    assert {(stage.warmup_ratio, stage.weight_decay, stage.max_grad_norm) for stage in stages} == {(0.03, 0.0, 1.0)}
    assert {(stage.pack, stage.dropout) for stage in stages} == {(1, 0.0)}
    assert [stage.group_by_length for stage in stages] == [False, True, False]
    assert [stage.trainable for stage in stages] == [(PROJECTOR,), (PROJECTOR, LANGUAGE_MODEL), (EXPERTS,)]
    assert run.router is not None
    assert (run.router.learning_rate, run.router.epochs, run.router.batch_size) == (1e-3, 10, 32)
    text = run.architecture.text_config
    assert text.moe_layers == tuple(range(0, text.num_hidden_layers, 2))
    assert (text.num_experts, text.num_experts_per_tok, text.residual) == (4, 1, False)
    assert run.architecture.num_image_tokens == 576
    assert not run.function_preserving


@pytest.mark.parametrize("mode", ["paper", "upstream"])
@pytest.mark.parametrize("family", sorted(FFN))
def test_stage_three_moves_exactly_these_parameters(family: str, mode: MoETuningMode) -> None:
    model = on_meta(tiny_config(model_type=family))
    experts = {
        f"language_model.model.layers.{layer}.mlp.{part}.{tensor}"
        for layer in (0, 2)
        for part in ("shared_expert", *(f"experts.{expert}" for expert in range(4)))
        for tensor in FFN[family]
    }
    beside = {f"language_model.model.layers.1.mlp.{tensor}" for tensor in FFN[family]}
    beside |= {f"projector.linear_{layer}.{tensor}" for layer in (1, 2) for tensor in ("weight", "bias")}
    assert set(set_trainable(model, moe_trainable(mode))) == experts | (beside if mode == "upstream" else set())


@pytest.mark.parametrize("family", sorted(FFN))
def test_learned_gates_move_beside_the_experts_and_nothing_else(family: str) -> None:
    run = replace(small(), architecture=tiny_config(model_type=family))
    model = on_meta(tiny_config(model_type=family))
    chosen = set(set_trainable(model, moe_learned_router(run).moe_tuning.trainable))
    gates = {
        f"language_model.model.layers.{layer}.mlp.gate.{tensor}" for layer in (0, 2) for tensor in ("weight", "bias")
    }
    assert chosen - set(set_trainable(model, (EXPERTS,))) == gates
    assert set(set_trainable(model, (GATES,))) == gates


@pytest.mark.parametrize("family", sorted(FFN))
def test_the_dense_baseline_moves_the_ffn_of_every_layer(family: str) -> None:
    run = dense_sft(replace(small(), architecture=tiny_config(model_type=family)))
    chosen = set(set_trainable(on_meta(run.architecture), run.moe_tuning.trainable))
    assert chosen == {
        f"language_model.model.layers.{layer}.mlp.{tensor}" for layer in range(3) for tensor in FFN[family]
    }


@pytest.mark.parametrize("size", [stablelm_1_6b, phi_2])
def test_baselines_train_what_their_size_trains_beside_the_experts(size: Callable[[MoETuningMode], RunConfig]) -> None:
    for mode in ("paper", "upstream"):
        run = size(mode)
        beside = (PROJECTOR,) if mode == "upstream" else ()
        assert moe(run).moe_tuning.trainable == (*moe_trainable(mode), GATES)
        assert moe_without_meta(run).moe_tuning.trainable == moe_trainable(mode)
        assert dense_sft(run).moe_tuning.trainable == (FFNS, *beside)


def test_upstreams_optimizer_held_as_many_parameters_as_ours_will() -> None:
    """The partition sizes that a training log of StableLM-2 shows: experts apart, biases of the projector apart."""
    config = stablelm_1_6b("upstream")
    model = on_meta(config.architecture)
    sizes = {name: model.get_parameter(name).numel() for name in set_trainable(model, config.moe_tuning.trainable)}
    experts = sum(size for name, size in sizes.items() if ".experts." in name)
    biases = sum(size for name, size in sizes.items() if re.match(r"projector\..*bias", name))
    assert experts == 12 * 4 * 34_603_008
    assert biases == 4_096
    assert sum(sizes.values()) - experts - biases == 836_763_648


def test_phi_has_experts_of_the_published_size() -> None:
    config = phi_2()
    model = on_meta(config.architecture)
    sizes = {name: model.get_parameter(name).numel() for name in set_trainable(model, config.moe_tuning.trainable)}
    assert sum(sizes.values()) == 16 * 5 * 52_441_600


def test_small_has_fifteen_layers_of_four_experts_and_the_meta_expert() -> None:
    config = small()
    model = on_meta(config.architecture)
    sizes = {name: model.get_parameter(name).numel() for name in set_trainable(model, config.moe_tuning.trainable)}
    assert sum(sizes.values()) == 15 * 5 * 2_654_208


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"router": None}, "router is trained exactly where"),
        ({"routing": "learned"}, "router is trained exactly where"),
        ({"routing": "learned", "router": None}, "expert_domains would name"),
        ({"moe_tuning": replace(tiny().moe_tuning, balance_loss=0.01)}, "needs gates that learn"),
    ],
)
def test_a_run_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny(), **changes)  # type: ignore[arg-type]


def test_the_command_line_lists_every_recipe_with_a_line_about_it() -> None:
    result = CliRunner().invoke(app, ["--list"])
    assert result.exit_code == 0
    # What a group of recipes needs is indented below it.
    lines = [line.split(maxsplit=1) for line in result.output.splitlines() if not line.startswith(" ")]
    assert max(map(len, result.output.splitlines())) <= 120
    assert [name for name, _ in lines] == list(RECIPES)
    assert all(about for _, about in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "--list names them"),
        (["tiny"], "starts from --tower"),
        (["tiny-lora-r16", "--tower", "w"], "starts from --base"),
        (["tiny-moe", "--base", "b", "--tower", "w"], "leave out --tower"),
    ],
)
def test_weights_that_do_not_fit_the_recipe_are_a_usage_error(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, [*arguments, "--data", "d", "--output", "o"])
    assert result.exit_code == 2
    assert message in " ".join(re.sub(r"[^\w\s,.:'-]", " ", result.output).split())


def test_a_missing_language_model_is_named_before_anything_is_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["small", "--tower", "w", "--data", "d", "--output", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "starts from a pretrained language model" in result.output
    assert not (tmp_path / "run").exists()


def test_a_language_model_that_nothing_is_made_of_is_refused() -> None:
    scratch = replace(small(), tokenizer_size=4096)
    with pytest.raises(ConfigError, match="from scratch"):
        check_sources(scratch, language_model=Path("l"), base=None)
    with pytest.raises(ConfigError, match="give one of the two"):
        check_sources(small(), language_model=Path("l"), base=Path("b"))
