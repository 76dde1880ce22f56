"""The approximate exports are what they say: exact when gates do not depend on the token, and labelled."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from medmoe.model.lora.adapter_config import AdapterConfig
from medmoe.model.lora.attach import attach_served, attach_trainable
from medmoe.model.lora.peft_export import MeanGates, export_peft, static_products
from medmoe.model.medmoe import MedMoE
from tests.support.checkpoints.tiny import tiny_config
from tests.support.checkpoints.tiny_lora import random_tensors, tiny_adapter

BACKBONES = ("llama", "phi", "stablelm")


def base_model(model_type: str = "llama") -> MedMoE:
    torch.manual_seed(0)
    return MedMoE(tiny_config(model_type=model_type, moe_layers=())).eval()


def states(model: MedMoE) -> torch.Tensor:
    torch.manual_seed(1)
    ids = torch.randint(4, 400, (2, 12))
    ids[:, :4] = 3
    with torch.no_grad():
        return model.hidden_states(ids, torch.ones_like(ids), torch.randn(2, 16, 32))


@torch.no_grad()
def merge_static(
    model: MedMoE, config: AdapterConfig, tensors: Mapping[str, torch.Tensor], gates: Mapping[str, torch.Tensor]
) -> None:
    """Add the exported mixture to the weights of a dense model, in place."""
    for name, lora_a, lora_b in static_products(config, model.config, tensors, gates):
        weight = model.language_model.get_submodule(f"model.{name}").weight
        assert isinstance(weight, torch.Tensor)
        weight += (lora_b @ lora_a).to(weight)


@pytest.mark.parametrize("model_type", BACKBONES)
@pytest.mark.parametrize("scope", ["block", "module"])
def test_merged_weights_equal_the_adapter_when_its_gates_are_constant(model_type: str, scope: str) -> None:
    model = base_model(model_type)
    config = tiny_adapter(model.config, router_scope=scope)
    tensors = random_tensors(config, model.config)
    for name in tensors:
        if name.endswith("router.weight"):
            tensors[name].zero_()
    adapters = attach_trainable(model, config, dropout=0.0, expert_dropout=0.0)
    adapters.fill(tensors)
    expected = states(model)
    mean = MeanGates()
    mean.add(adapters, mask=torch.ones(2, 12, dtype=torch.bool))
    merged = base_model(model_type)
    merge_static(merged, config, tensors, mean.result())
    torch.testing.assert_close(states(merged), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(states(base_model(model_type)), expected, atol=1e-2)


def test_mean_gates_average_over_marked_tokens_of_all_batches() -> None:
    model = base_model()
    config = tiny_adapter(model.config, attention=False)
    adapters = attach_trainable(model, config)
    adapters.fill(random_tensors(config, model.config))
    model.eval()
    mean = MeanGates()
    with pytest.raises(ValueError, match="calibration batch"):
        mean.add(adapters, mask=torch.ones(2, 12, dtype=torch.bool))
    states(model)
    masks = torch.zeros(2, 12, dtype=torch.bool), torch.zeros(2, 12, dtype=torch.bool)
    masks[0][0, :3] = True
    masks[1][1, 4:] = True
    for mask in masks:
        mean.add(adapters, mask=mask)
    gates = adapters.routers()["layers.1.mlp.router"].gates
    assert gates is not None
    torch.testing.assert_close(mean.result()["layers.1.mlp.router"], gates[masks[0] | masks[1]].mean(0).detach())


def test_the_peft_adapter_is_one_ordinary_lora_and_says_that_it_is_approximate(tmp_path: Path) -> None:
    model = base_model()
    config = tiny_adapter(model.config)
    tensors = random_tensors(config, model.config)
    n = [layer.n_experts for layer in config.layers]
    gates = {
        f"layers.{layer}.{block}.router": torch.full((n[layer],), 1 / n[layer])
        for layer in range(3)
        for block in ("attn", "mlp")
    }
    export_peft(tmp_path / "peft", config, model.config, tensors, gates)
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in (tmp_path / "peft").iterdir())
    settings = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 16, 16)
    assert "APPROXIMATE" in (tmp_path / "peft" / "README.md").read_text()
    with safe_open(tmp_path / "peft" / "adapter_model.safetensors", framework="pt") as file:
        assert "APPROXIMATE" in file.metadata()["notice"]
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert len(stored) == 3 * 7 * 2
    assert {tensor.shape[0] for name, tensor in stored.items() if "lora_A" in name} == {16}
    merged = base_model()
    merge_static(merged, config, tensors, gates)
    for layer, linear in ((0, "mlp.up_proj"), (2, "self_attn.o_proj")):
        prefix = f"base_model.model.model.layers.{layer}.{linear}"
        product = stored[f"{prefix}.lora_B.weight"] @ stored[f"{prefix}.lora_A.weight"]
        name = f"model.layers.{layer}.{linear}"
        before, after = (m.language_model.get_submodule(name).weight for m in (base_model(), merged))
        torch.testing.assert_close(after - before, product, rtol=1e-4, atol=1e-5)


def test_an_export_never_overwrites(tmp_path: Path) -> None:
    model = base_model()
    config = tiny_adapter(model.config)
    (tmp_path / "something").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        export_peft(tmp_path, config, model.config, random_tensors(config, model.config), {})


def test_the_static_mixture_is_not_the_adapter_when_gates_do_depend_on_the_token() -> None:
    model = base_model()
    config = tiny_adapter(model.config)
    tensors = random_tensors(config, model.config)
    adapters = attach_trainable(model, config, dropout=0.0, expert_dropout=0.0)
    adapters.fill(tensors)
    states(model)
    mean = MeanGates()
    mean.add(adapters, mask=torch.ones(2, 12, dtype=torch.bool))
    merged, served = base_model(), base_model()
    merge_static(merged, config, tensors, mean.result())
    attach_served(served, config, tensors)
    assert not torch.allclose(states(merged), states(served), atol=1e-2)
