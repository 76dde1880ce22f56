"""Which part of an adapted linear each tensor-parallel rank holds. Needs no vLLM."""

import pytest

from medmoe.model.lora.layout import backbone_blocks
from medmoe.model.vllm_plugin.layers.tp_shard import TPShard
from tests.support.checkpoints.tiny import tiny_config

TEXT = tiny_config(
    hidden_size=128, num_attention_heads=4, num_key_value_heads=2, intermediate_size=144, moe_layers=()
).text_config
ATTENTION, FFN = backbone_blocks(TEXT)


def shares(ranks: int) -> list[TPShard]:
    return [TPShard(text=TEXT, rank=rank, ranks=ranks) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_together_the_ranks_hold_every_row_and_column_once(ranks: int) -> None:
    for block in (ATTENTION, FFN):
        parts = [share.slices(block) for share in shares(ranks)]
        for linear in block.entry:
            rows = [row for entry, _ in parts for row in range(linear.out_features)[entry[linear.name]]]
            assert rows == list(range(linear.out_features))
        assert [column for _, exit_ in parts for column in range(block.exit.in_features)[exit_]] == list(
            range(block.exit.in_features)
        )


def test_more_ranks_than_key_heads_share_them_between_neighbours() -> None:
    heads = [share.slices(ATTENTION)[0]["k_proj"] for share in shares(4)]
    assert heads == [slice(0, 32), slice(0, 32), slice(32, 64), slice(32, 64)]
    queries = [share.slices(ATTENTION)[0]["q_proj"] for share in shares(4)]
    assert queries == [slice(0, 32), slice(32, 64), slice(64, 96), slice(96, 128)]
