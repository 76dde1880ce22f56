"""What each stage may change, by name."""

import copy

import pytest
import torch

from medmoe.model.medmoe import MedMoE
from medmoe.model.moe import MoE
from medmoe.training.recipes.trainable import EXPERTS, LANGUAGE_MODEL, PROJECTOR
from medmoe.training.stage_transition import average_weights, dense, set_router, set_trainable, to_experts
from tests.support.checkpoints.tiny import tiny_config


def moe_model() -> MedMoE:
    config = tiny_config()
    model = MedMoE(dense(config))
    to_experts(model, config)
    return model


def test_before_stage_three_there_is_no_moe_layer() -> None:
    assert not [module for module in MedMoE(dense(tiny_config())).modules() if isinstance(module, MoE)]


def test_moe_tuning_trains_exactly_the_experts_and_the_meta_expert() -> None:
    model = moe_model()
    chosen = set_trainable(model, (EXPERTS,))
    projections = ("gate_proj", "up_proj", "down_proj")
    expected = {
        f"language_model.model.layers.{layer}.mlp.{part}.{projection}.weight"
        for layer in (0, 2)
        for part in ("shared_expert", *(f"experts.{expert}" for expert in range(4)))
        for projection in projections
    }
    assert set(chosen) == expected
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == expected


@pytest.mark.parametrize("patterns", [(PROJECTOR,), (PROJECTOR, LANGUAGE_MODEL), (EXPERTS,)])
def test_no_stage_ever_moves_the_vision_tower(patterns: tuple[str, ...]) -> None:
    model = moe_model()
    set_trainable(model, patterns)
    assert not any(parameter.requires_grad for parameter in model.vision_tower.parameters())


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="mm_projector"):
        set_trainable(moe_model(), (r"mm_projector\.",))


def test_experts_start_as_copies_of_the_trained_ffn_and_share_nothing() -> None:
    config = tiny_config()
    model = MedMoE(dense(config))
    ffn = model.language_model.model.layers[0].mlp
    to_experts(model, config)
    moe = model.language_model.model.layers[0].mlp
    assert moe.shared_expert is ffn
    storages = {expert.up_proj.weight.data_ptr() for expert in moe.experts} | {ffn.up_proj.weight.data_ptr()}
    assert len(storages) == 5
    for expert in moe.experts:
        torch.testing.assert_close(expert.up_proj.weight, ffn.up_proj.weight)


def test_one_router_becomes_every_layers_gate() -> None:
    model = moe_model()
    weight, bias = torch.randn(4, 64), torch.randn(4)
    set_router(model, weight=weight, bias=bias)
    gates = [module.gate for module in model.modules() if isinstance(module, MoE)]
    assert len(gates) == 2
    for gate in gates:
        assert torch.equal(gate.weight, weight)
        assert torch.equal(gate.bias, bias)


@pytest.mark.parametrize("seeds", [2, 3, 5, 7])
def test_the_mean_of_several_seeds_keeps_what_was_frozen_bit_for_bit(seeds: int) -> None:
    models = [moe_model()]
    models += [copy.deepcopy(models[0]) for _ in range(seeds - 1)]
    before = {name: value.clone() for name, value in models[0].state_dict().items()}
    with torch.no_grad():
        for number, model in enumerate(models):
            model.projector.linear_1.bias.fill_(number)
    mean = average_weights(models).state_dict()
    assert mean["projector.linear_1.bias"].unique().tolist() == [(seeds - 1) / 2]
    assert [name for name in mean if not torch.equal(mean[name], before[name])] == ["projector.linear_1.bias"]


def test_a_router_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 32\)"):
        set_router(moe_model(), weight=torch.zeros(4, 32), bias=torch.zeros(4))
