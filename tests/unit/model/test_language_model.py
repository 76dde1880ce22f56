"""Somebody else's decoders with our FFNs: each family keeps its own form."""

import pytest
import torch
from torch import nn

from medmoe.model.config import TextConfig
from medmoe.model.errors import ConfigError
from medmoe.model.language_model import build_language_model, upcycle
from medmoe.model.moe import MoE
from tests.support.checkpoints.tiny import tiny_config

FAMILIES = ["llama", "phi", "stablelm"]


def logits(model: nn.Module, hidden: int) -> torch.Tensor:
    torch.manual_seed(1)
    return model(inputs_embeds=torch.randn(1, 7, hidden)).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_moe_layers_ffns_are_replaced(family: str) -> None:
    model = build_language_model(tiny_config(model_type=family).text_config)
    assert [isinstance(layer.mlp, MoE) for layer in model.model.layers] == [True, False, True]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shared_expert_alone_is_the_dense_model(family: str) -> None:
    """With experts that say nothing, the meta expert carries the dense decoder: nothing else was changed."""
    torch.manual_seed(0)
    config = tiny_config(model_type=family).text_config
    model = build_language_model(config).eval()
    dense = build_language_model(config.model_copy(update={"moe_layers": ()})).eval()
    dense.load_state_dict(
        {
            name.replace(".shared_expert", ""): value
            for name, value in model.state_dict().items()
            if ".experts." not in name and ".gate." not in name
        }
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".experts." in name:
                parameter.zero_()
        torch.testing.assert_close(logits(model, config.hidden_size), logits(dense, config.hidden_size))


@pytest.mark.parametrize(("family", "rotated"), [("llama", 32), ("phi", 32), ("stablelm", 8)])
def test_each_family_rotates_its_own_share_of_a_head(family: str, rotated: int) -> None:
    model = build_language_model(tiny_config(model_type=family).text_config)
    assert model.model.rotary_emb.inv_freq.shape == (rotated // 2,)


def test_phi_is_llavas_phi() -> None:
    """Parallel block, biased tanh-GELU experts, and an output head without the bias that Phi-2 itself has."""
    model = build_language_model(tiny_config(model_type="phi").text_config)
    names = dict(model.named_parameters())
    assert "lm_head.bias" not in names
    assert not any("post_attention_layernorm" in name for name in names)
    assert {"model.layers.0.mlp.experts.3.fc1.bias", "model.layers.0.mlp.shared_expert.fc2.bias"} <= names.keys()
    expert = model.model.layers[0].mlp.experts[0]
    x = torch.randn(3, 160)
    expected = expert.fc2(nn.functional.gelu(expert.fc1(x), approximate="tanh"))
    torch.testing.assert_close(expert(x), expected)


def test_stablelm_has_biased_queries_and_no_other_bias() -> None:
    model = build_language_model(tiny_config(model_type="stablelm").text_config)
    biased = {
        name.split(".", 3)[3] for name, _ in model.named_parameters() if name.endswith("bias") and "layers." in name
    }
    assert biased == {
        "self_attn.q_proj.bias",
        "self_attn.k_proj.bias",
        "self_attn.v_proj.bias",
        "input_layernorm.bias",
        "post_attention_layernorm.bias",
        "mlp.gate.bias",
    }


def dense_and_upcycled(config: TextConfig, **how: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a dense model before, and of `config`'s MoE made of it; the gate decides something."""
    torch.manual_seed(0)
    model = build_language_model(config.model_copy(update={"moe_layers": ()})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.1) if "mlp" in name else None
        before = logits(model, config.hidden_size)
        upcycle(model, config, **how)
        for layer in config.moe_layers:
            model.model.layers[layer].mlp.gate.weight.normal_()
        return before, logits(model, config.hidden_size)


@pytest.mark.parametrize(
    "form",
    [{}, {"num_experts_per_tok": 2, "renormalize": True}],
    ids=["top-1", "top-2"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_function_preserving_upcycling_answers_as_before(family: str, form: dict[str, object]) -> None:
    config = tiny_config(model_type=family, **form).text_config
    before, after = dense_and_upcycled(config, function_preserving=True)
    assert torch.equal(before, after)
    before, faithful = dense_and_upcycled(config)
    assert (before - faithful).abs().max() > 1e-2


@pytest.mark.parametrize("top_k", [1, 2])
def test_without_a_meta_expert_copies_preserve_the_function(top_k: int) -> None:
    config = tiny_config(shared_expert=False, renormalize=True, num_experts_per_tok=top_k).text_config
    before, after = dense_and_upcycled(config, function_preserving=True)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("form", "reason"),
    [({"residual": True}, "1 \\+ c"), ({"shared_expert": False}, "sum to one")],
    ids=["residual", "plain gates alone"],
)
def test_where_no_start_preserves_the_function_it_says_so(form: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        dense_and_upcycled(tiny_config(**form).text_config, function_preserving=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_that_start_silent_do_learn(family: str) -> None:
    torch.manual_seed(0)
    config = tiny_config(model_type=family).text_config
    model = build_language_model(config.model_copy(update={"moe_layers": ()}))
    upcycle(model, config, function_preserving=True)
    moe = model.model.layers[0].mlp
    nn.init.normal_(moe.gate.weight)
    inputs, labels = torch.randn(1, 20, config.hidden_size), torch.randint(4, 512, (1, 20))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        model(inputs_embeds=inputs, labels=labels).loss.backward()
        optimizer.step()
    moved = [all(parameter.grad.any() for parameter in expert.parameters()) for expert in moe.experts]
    assert sum(moved) > 1
    assert moe.gate.weight.grad.any()


@pytest.mark.parametrize("training", [True, False])
def test_upcycling_keeps_the_mode(training: bool) -> None:
    config = tiny_config().text_config
    model = build_language_model(config.model_copy(update={"moe_layers": ()})).train(training)
    upcycle(model, config)
    assert {module.training for module in model.modules()} == {training}
