"""Compute the rows and columns of a block's linears on one tensor-parallel rank, as vLLM splits them."""

from dataclasses import dataclass

from medmoe.model.config import TextConfig
from medmoe.model.lora.layout import BlockShape


@dataclass(frozen=True, kw_only=True, slots=True)
class TPShard:
    """The part of rank `rank` of `ranks`. When key and value heads are fewer than ranks, neighbours share them."""

    text: TextConfig
    rank: int
    ranks: int

    def slices(self, block: BlockShape) -> tuple[dict[str, slice], slice]:
        """Return the rows of each entry linear's output, and the columns of the exit linear's input."""
        if block.name == "mlp":
            part = _even(self.text.intermediate_size, self.rank, self.ranks)
            return {linear.name: part for linear in block.entry}, part
        text = self.text
        heads = _even(text.num_attention_heads, self.rank, self.ranks)
        kv_ranks = min(self.ranks, text.num_key_value_heads)
        kv = _even(text.num_key_value_heads, self.rank * kv_ranks // self.ranks, kv_ranks)
        queries, keys = (slice(part.start * text.head_dim, part.stop * text.head_dim) for part in (heads, kv))
        return {linear.name: queries if linear.name == "q_proj" else keys for linear in block.entry}, queries


def _even(total: int, rank: int, ranks: int) -> slice:
    size = total // ranks
    return slice(rank * size, (rank + 1) * size)
