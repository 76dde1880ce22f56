"""The arithmetic of floors, against counting one by one."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medmoe.model.config import MedMoEConfig
from medmoe.model.medmoe import MedMoE
from tests.benchmarks.gpu.floor import counted_experts, distinct_experts, prefill_flops, step_bytes, token_cache_bytes
from tests.benchmarks.gpu.shapes import shape_config
from tests.support.checkpoints.tiny import tiny_config

SHAPES = [*(shape_config(name, tiny=True) for name in ("stablelm", "phi")), tiny_config(), tiny_config(residual=True)]
IDS = ["stablelm", "phi", "llama, tied", "residual"]


@pytest.mark.parametrize(("experts", "top_k", "tokens"), [(4, 1, 1), (4, 1, 3), (4, 2, 3), (3, 2, 4), (4, 4, 2)])
def test_expected_experts_are_the_mean_over_everything_that_can_happen(experts: int, top_k: int, tokens: int) -> None:
    choices = list(combinations(range(experts), top_k))
    hits = [len({expert for token in drawn for expert in token}) for drawn in product(choices, repeat=tokens)]
    assert distinct_experts(experts, top_k, tokens) == pytest.approx(sum(hits) / len(hits))


def test_a_large_batch_hits_all_experts_and_one_token_its_own() -> None:
    assert distinct_experts(4, 1, 1) == 1
    assert distinct_experts(4, 2, 1) == 2
    assert distinct_experts(4, 1, 256) == pytest.approx(4)


def read_by_hand(model: MedMoE, *, expected_hits: float, itemsize: int) -> float:
    """Bytes of the weights that a step reads, module by module."""
    total = 0.0
    for layer in model.language_model.model.layers:
        for name, child in layer.named_children():
            if name != "mlp" or not hasattr(child, "experts"):
                total += size(child) * itemsize
                continue
            total += size(child.gate) * 4
            total += size(child.experts[0]) * itemsize * expected_hits
            total += size(child.shared_expert) * itemsize
            if child.coefficient is not None:
                total += size(child.coefficient) * 4
    norm = getattr(model.language_model.model, "norm", None) or model.language_model.model.final_layernorm
    return total + (size(norm) + size(model.language_model.lm_head)) * itemsize


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("config", SHAPES, ids=IDS)
@pytest.mark.parametrize("batch", [1, 8])
def test_the_bytes_of_a_step_are_those_of_the_modules_it_passes_through(config: MedMoEConfig, batch: int) -> None:
    found = step_bytes(config, batch=batch, context=50.5, itemsize=2)
    hits = 4 * (1 - 0.75**batch)
    assert found.dense + found.shared + found.experts == pytest.approx(
        read_by_hand(MedMoE(config), expected_hits=hits, itemsize=2)
    )
    text = config.text_config
    # Keys and values of each layer, head, dimension.
    token = sum(2 for _ in range(text.num_hidden_layers * text.num_key_value_heads * text.head_dim)) * 2
    assert token_cache_bytes(text, itemsize=2) == token
    assert found.cache == batch * 50.5 * token
    assert found.total == found.dense + found.shared + found.experts + found.cache


def test_the_floor_is_bytes_over_bandwidth() -> None:
    found = step_bytes(SHAPES[0], batch=8, context=10, itemsize=4)
    assert found.seconds(1e9) == pytest.approx(found.total / 1e9)
    assert found.seconds(2e9) == pytest.approx(found.seconds(1e9) / 2)


@pytest.mark.parametrize("config", SHAPES, ids=IDS)
def test_the_products_of_a_prompt_are_what_torch_counts(config: MedMoEConfig) -> None:
    model, tokens = MedMoE(config).eval(), 24
    text = config.text_config
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        embedded = torch.randn(1, tokens, text.hidden_size)
        hidden = model.language_model.model(inputs_embeds=embedded).last_hidden_state
        model.language_model.lm_head(hidden[:, -1])
    products = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    matrices = sum(count for op, count in products.items() if op in ("aten.mm", "aten.addmm"))
    # Each query with each key that is not after it, and as many values; torch counts the whole square, or not at all.
    attention = sum(2 * 2 * text.head_dim * key for key in range(tokens)) * text.num_attention_heads
    attention *= text.num_hidden_layers
    found = prefill_flops(config, tokens=tokens)
    assert found == pytest.approx(matrices + attention, rel=0.03)


def test_experts_are_counted_by_step_and_layer() -> None:
    routed = np.random.default_rng(0).integers(0, 4, (3, 5, 2, 2))
    hits = [
        len({int(expert) for sequence in range(3) for expert in routed[sequence, step, layer]})
        for step in range(5)
        for layer in range(2)
    ]
    assert counted_experts(routed, num_experts=4) == pytest.approx(sum(hits) / len(hits))


def test_the_shapes_are_the_published_sizes() -> None:
    for name, layers, hidden in (("stablelm", 24, 2048), ("phi", 32, 2560)):
        text = shape_config(name, tiny=False).text_config
        assert (text.num_hidden_layers, text.hidden_size, len(text.moe_layers)) == (layers, hidden, layers // 2)
        assert (text.num_experts, text.num_experts_per_tok, text.shared_expert) == (4, 1, True)
