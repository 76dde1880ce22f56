"""Adapters on whole models of every backbone: what they leave alone, what they add, in both forms."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.model.lora.adapted_block import AdaptedBlock
from medmoe.model.lora.adapter_config import AdapterConfig
from medmoe.model.lora.attach import TrainableAdapters, attach_served, attach_trainable
from medmoe.model.medmoe import MedMoE
from tests.support.checkpoints.tiny import tiny_config, tiny_model
from tests.support.checkpoints.tiny_lora import random_tensors, tiny_adapter
from tests.support.lora_oracle import oracle_delta, oracle_gates

BACKBONES = ("llama", "phi", "stablelm")
SCOPES = ("block", "module")


def base_model(model_type: str) -> MedMoE:
    return tiny_model(model_type=model_type, moe_layers=())


def batch(config: MedMoEConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(4, 400, (2, 12))
    ids[:, :4] = config.image_token_id
    return ids, torch.ones_like(ids), torch.randn(2, 16, 32)


def states(model: MedMoE) -> torch.Tensor:
    with torch.no_grad():
        return model.hidden_states(*batch(model.config))


def trainable(model_type: str, **options: Any) -> tuple[MedMoE, TrainableAdapters, AdapterConfig]:
    model = base_model(model_type)
    config = tiny_adapter(model.config, **options)
    return model, attach_trainable(model, config, dropout=0.0, expert_dropout=0.0), config


@pytest.mark.parametrize("model_type", BACKBONES)
@pytest.mark.parametrize("scope", SCOPES)
def test_fresh_adapters_change_not_a_bit(model_type: str, scope: str) -> None:
    expected = states(base_model(model_type))
    model, _, _ = trainable(model_type, router_scope=scope)
    assert torch.equal(states(model), expected)
    assert torch.equal(states(model.train()), expected)


@pytest.mark.parametrize("model_type", BACKBONES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("mode", ["null", "replay"])
def test_the_trained_and_the_served_form_agree(model_type: str, scope: str, mode: str) -> None:
    model, adapters, config = trainable(model_type, router_scope=scope, anchor_mode=mode)
    tensors = random_tensors(config, model.config)
    adapters.fill(tensors)
    assert {name: value.tolist() for name, value in adapters.tensors().items()} == {
        name: value.tolist() for name, value in tensors.items()
    }
    served = base_model(model_type)
    attach_served(served, config, tensors)
    expected = states(model)
    assert not torch.allclose(expected, states(base_model(model_type)), atol=1e-2)
    torch.testing.assert_close(states(served), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", BACKBONES)
def test_an_adapted_ffn_is_the_papers_equation_on_its_normed_input(model_type: str) -> None:
    model, adapters, config = trainable(model_type, attention=False)
    tensors = random_tensors(config, model.config)
    adapters.fill(tensors)
    block = model.language_model.model.layers[2].mlp
    assert isinstance(block, AdaptedBlock)
    x = torch.randn(5, block.adapter.routers["block"].weight.shape[1])
    gates = oracle_gates(x, tensors["layers.2.mlp.router.weight"], float(tensors["layers.2.mlp.router.log_tau"]))

    def adapted(name: str, value: torch.Tensor) -> torch.Tensor:
        layer = config.layers[2]
        a, b = (tensors[f"layers.2.{name}.lora_{part}"] for part in "AB")
        base = getattr(block.block, name).linear
        return base(value) + oracle_delta(value, gates, a, b, ranks=layer.ranks, alphas=layer.alphas)

    if model_type == "phi":
        expected = adapted("fc2", torch.nn.functional.gelu(adapted("fc1", x), approximate="tanh"))
    else:
        inner = torch.nn.functional.silu(adapted("gate_proj", x)) * adapted("up_proj", x)
        expected = adapted("down_proj", inner)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", BACKBONES)
@pytest.mark.parametrize("form", ["trained", "served"])
def test_an_anchor_that_takes_all_the_gate_gives_exactly_the_base(model_type: str, form: str) -> None:
    """With a null anchor; its router row is so large that the other gates are zero in float32."""
    model, adapters, config = trainable(model_type, anchor_mode="null", attention=False)
    tensors = random_tensors(config, model.config)
    x = torch.randn(5, model.config.text_config.hidden_size)
    x[:, 0] = 1.0
    for name in tensors:
        if name.endswith("router.weight"):
            tensors[name][:] = 0
            tensors[name][: config.layers[int(name.split(".")[1])].n_anchor, 0] = 1e4
    expected = [layer.mlp(x) for layer in base_model(model_type).language_model.model.layers]
    if form == "served":
        model = base_model(model_type)
        attach_served(model, config, tensors)
    else:
        adapters.fill(tensors)
    for layer, wanted in zip(model.language_model.model.layers, expected, strict=True):
        assert torch.equal(layer.mlp(x), wanted)


@pytest.mark.parametrize("scope", SCOPES)
def test_only_adapters_and_routers_are_trainable(scope: str) -> None:
    model, _, _ = trainable("llama", attention=False, router_scope=scope)
    mlp = "language_model.model.layers.{}.mlp.adapter"
    routers = ("gate_proj", "up_proj", "down_proj") if scope == "module" else ("block",)
    expected = {
        f"{mlp.format(layer)}.experts.{linear}.{group}.{part}"
        for layer in range(3)
        for linear in ("gate_proj", "up_proj", "down_proj")
        for group in ("anchors", "specialists")
        for part in "AB"
    } | {
        f"{mlp.format(layer)}.routers.{router}.{part}"
        for layer in range(3)
        for router in routers
        for part in ("weight", "log_tau")
    }
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == expected


def test_routers_learn_as_soon_as_b_is_not_zero() -> None:
    model, adapters, config = trainable("llama")
    model.hidden_states(*batch(model.config)).square().sum().backward()
    assert all(not state.router.weight.grad.any() for state in adapters.routers().values())
    adapters.fill(random_tensors(config, model.config))
    model.hidden_states(*batch(model.config)).square().sum().backward()
    assert all(state.router.weight.grad.abs().sum() > 0 for state in adapters.routers().values())
    assert all(state.router.log_tau.grad.abs().sum() > 0 for state in adapters.routers().values())


@pytest.mark.parametrize("model_type", BACKBONES)
def test_a_medical_batch_leaves_the_anchors_of_the_whole_model_without_gradient(model_type: str) -> None:
    model, adapters, config = trainable(model_type, anchor_mode="replay")
    adapters.fill(random_tensors(config, model.config))
    with adapters.tagged(torch.zeros(2, 12, dtype=torch.bool)):
        model.hidden_states(*batch(model.config)).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    anchors = [grad for name, grad in gradients.items() if ".anchors." in name]
    assert anchors
    assert all(grad is not None and not grad.any() for grad in anchors)
    assert all(grad.abs().sum() > 0 for name, grad in gradients.items() if ".anchors." not in name)


def test_switched_off_adapters_leave_the_base_bit_for_bit() -> None:
    expected = states(base_model("llama"))
    model, adapters, config = trainable("llama")
    adapters.fill(random_tensors(config, model.config))
    with adapters.off():
        assert torch.equal(states(model), expected)
    assert not torch.allclose(states(model), expected, atol=1e-2)


@pytest.mark.parametrize("model_type", BACKBONES)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_prefill_in_chunks_equals_one_shot(model_type: str, scope: str) -> None:
    """Gates depend on a token's own hidden state alone, so a cache may be filled in any portions."""
    model = base_model(model_type)
    config = tiny_adapter(model.config, router_scope=scope)
    attach_served(model, config, random_tensors(config, model.config))
    ids = torch.randint(4, 400, (1, 13))
    decoder = model.language_model.model
    with torch.no_grad():
        whole = decoder(input_ids=ids, use_cache=False).last_hidden_state
        cache = DynamicCache(config=model.language_model.config)
        parts = [
            decoder(input_ids=chunk, past_key_values=cache, use_cache=True).last_hidden_state
            for chunk in ids.split([5, 1, 6, 1], dim=1)
        ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", BACKBONES)
def test_generation_with_a_cache_equals_repeated_full_forwards(model_type: str) -> None:
    model = base_model(model_type)
    config = tiny_adapter(model.config)
    attach_served(model, config, random_tensors(config, model.config))
    prompt = [1, *[3] * 4, *range(50, 56)]
    features = torch.randn(1, 16, 32)
    expected: list[int] = []
    with torch.no_grad():
        for _ in range(5):
            ids = torch.tensor([prompt + expected])
            hidden = model.hidden_states(ids, torch.ones_like(ids), features)
            expected.append(int(model.language_model.lm_head(hidden[0, -1]).argmax()))
    assert model.generate([prompt], features, max_tokens=5) == [expected]


@pytest.mark.parametrize("form", ["trained", "served"])
def test_an_adapted_block_compiles_whole(form: str) -> None:
    model, adapters, config = trainable("llama")
    tensors = random_tensors(config, model.config)
    adapters.fill(tensors)
    if form == "served":
        model = base_model("llama")
        attach_served(model, config, tensors)
    ffn = model.language_model.model.layers[1].mlp
    ffn(torch.randn(1, 4, 64))
    torch._dynamo.reset()
    compiled = torch.compile(ffn, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        for tokens in (5, 9, 33):
            x = torch.randn(1, tokens, 64)
            torch.testing.assert_close(compiled(x), ffn(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_modules": ("gate_proj", "up_proj")}, "not the whole block"),
        ({"target_modules": ("fc1", "fc2")}, "a llama layer has no linear fc1, fc2"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    model = base_model("llama")
    with pytest.raises(ConfigError, match=message):
        attach_trainable(model, tiny_adapter(model.config, **change))


def test_an_adapter_of_another_depth_is_refused() -> None:
    model = base_model("llama")
    config = tiny_adapter(model.config)
    with pytest.raises(ConfigError, match="the adapter has 2 layers, the base model 3"):
        attach_trainable(model, config.model_copy(update={"layers": config.layers[:2]}))


def test_a_base_with_moe_layers_is_refused() -> None:
    model = MedMoE(tiny_config())
    with pytest.raises(ConfigError, match="dense base"):
        attach_trainable(model, tiny_adapter(model.config))
