"""Schedules, ladders and sizes against the tables that were computed by hand."""

import pytest

from medmoe.model.config import TextConfig
from medmoe.model.lora.adapter_config import LayerExperts
from medmoe.model.lora.layout import BlockShape, backbone_blocks
from medmoe.model.lora.schedule import anchor_count, expert_counts, rank_ladder, scheduled_layers


@pytest.mark.parametrize(
    ("num_layers", "experts", "total_rank"), [(24, 122, 2008), (28, 144, 2368), (32, 160, 2640), (36, 182, 3000)]
)
def test_the_paper_schedule_at_every_depth_in_use(num_layers: int, experts: int, total_rank: int) -> None:
    layers = scheduled_layers(num_layers, anchor_mode="replay")
    assert len(layers) == num_layers
    assert sum(layer.n_experts for layer in layers) == experts
    assert sum(layer.total_rank for layer in layers) == total_rank


def test_the_paper_schedule_has_its_steps_where_the_paper_says() -> None:
    assert expert_counts(32) == (2,) * 10 + (4,) * 9 + (8,) * 13


@pytest.mark.parametrize(
    ("n_experts", "ranks"),
    [
        (2, (8, 32)),
        (3, (8, 32, 16)),
        (4, (8, 32, 16, 8)),
        (6, (8, 32, 32, 16, 16, 8)),
        (8, (8, 8, 32, 32, 16, 16, 8, 8)),
    ],
)
def test_the_ladder_of_anchors_and_specialists(n_experts: int, ranks: tuple[int, ...]) -> None:
    anchors = anchor_count(n_experts)
    assert (8,) * anchors + rank_ladder(n_experts - anchors) == ranks


def test_null_anchors_have_no_rank_and_every_other_expert_is_scaled_by_two() -> None:
    layers = scheduled_layers(32, anchor_mode="null")
    for layer in layers:
        assert layer.ranks[: layer.n_anchor] == (0,) * layer.n_anchor
        assert set(layer.scales[layer.n_anchor :]) == {2.0}
    saved = 1 - sum(layer.total_rank for layer in layers) / 2640
    assert saved == pytest.approx(0.14, abs=0.005)


def test_the_halved_ladder_halves_the_adapter() -> None:
    layers = scheduled_layers(32, anchor_mode="replay", ladder=(16, 8, 4), anchor_rank=4)
    assert parameter_counts(layers, backbone_blocks(LLAMA_3_8B)[1:])[0] == pytest.approx(73e6, rel=0.005)


def shape(model_type: str, width: int, inner: int, depth: int, heads: int, kv: int) -> TextConfig:
    return TextConfig.model_validate(
        {
            "model_type": model_type,
            "vocab_size": 1024,
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "num_key_value_heads": kv,
            "max_position_embeddings": 2048,
            "partial_rotary_factor": {"llama": 1.0, "phi": 0.4, "stablelm": 0.25}[model_type],
            "eos_token_id": 2,
            "pad_token_id": 0,
        }
    )


def parameter_counts(layers: tuple[LayerExperts, ...], blocks: tuple[BlockShape, ...]) -> tuple[int, int]:
    """Numbers of low-rank and of router weights, with one router for each block."""
    low_rank = router = 0
    for layer in layers:
        for block in blocks:
            low_rank += layer.total_rank * sum(linear.in_features + linear.out_features for linear in block.linears)
            router += layer.n_experts * block.width if layer.n_experts > 1 else 0
    return low_rank, router


LLAMA_3_8B = shape("llama", 4096, 14336, 32, 32, 8)


@pytest.mark.parametrize(
    ("text", "low_rank", "router", "with_attention"),
    [
        (LLAMA_3_8B, 146.0, 0.66, 216.3),
        (shape("phi", 2560, 10240, 32, 32, 32), 67.6, 0.41, 121.7),
        (shape("stablelm", 2048, 5632, 24, 32, 32), 46.3, 0.25, 79.2),
    ],
    ids=["Llama-3-8B", "Phi-2", "StableLM-2-1.6B"],
)
def test_the_sizes_in_millions(text: TextConfig, low_rank: float, router: float, with_attention: float) -> None:
    layers = scheduled_layers(text.num_hidden_layers, anchor_mode="replay")
    blocks = backbone_blocks(text)
    counted = parameter_counts(layers, blocks[1:])
    assert round(counted[0] / 1e6, 1) == low_rank
    assert round(counted[1] / 1e6, 2) == router
    assert round(parameter_counts(layers, blocks)[0] / 1e6, 1) == with_attention
