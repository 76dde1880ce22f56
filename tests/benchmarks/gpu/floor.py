"""Compute the least time of a step: the bytes that decoding must read, the products that a prompt must multiply.

Not counted is what need not pass through memory: activations, the logits, the rows of the embedding that are looked up.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medmoe.model.checkpoint.io import expected_shapes
from medmoe.model.config import MedMoEConfig, TextConfig

_GATE_BYTES = 4
"""The engine keeps gates in float32, whatever the checkpoint is stored in."""
_DECODER = "language_model."
_EMBEDDING, _HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBytes:
    """Bytes that one decoding step reads."""

    dense: float
    """Attention, norms, dense FFNs, gates, output head."""
    shared: float
    """Meta experts."""
    experts: float
    """Of the routed experts, those that are hit."""
    cache: float
    """Keys and values."""

    @property
    def total(self) -> float:
        return self.dense + self.shared + self.experts + self.cache

    def seconds(self, bandwidth: float) -> float:
        """At `bandwidth` bytes a second."""
        return self.total / bandwidth


def distinct_experts(num_experts: int, top_k: int, tokens: int) -> float:
    """How many of a layer's experts `tokens` tokens hit, expected where every expert is as likely."""
    return num_experts * (1 - (1 - top_k / num_experts) ** tokens)


def step_bytes(config: MedMoEConfig, *, batch: int, context: float, itemsize: int) -> StepBytes:
    """Of a step that generates one token for each of `batch` sequences, `context` tokens long on average."""
    text = config.text_config
    numbers = _numbers(config)
    hit = distinct_experts(text.num_experts, text.num_experts_per_tok, batch) / text.num_experts
    return StepBytes(
        dense=numbers["dense"] * itemsize + numbers["gate"] * _GATE_BYTES,
        shared=numbers["shared"] * itemsize,
        experts=numbers["experts"] * itemsize * hit,
        cache=batch * context * token_cache_bytes(text, itemsize=itemsize),
    )


def token_cache_bytes(text: TextConfig, *, itemsize: int) -> int:
    """What the keys and values of one token take."""
    return 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * itemsize


def prefill_flops(config: MedMoEConfig, *, tokens: int) -> float:
    """Multiplications and additions of one prompt of `tokens` tokens through the decoder; the head sees its last one.

    Attention looks back only: half of the square.
    """
    text = config.text_config
    numbers = _numbers(config, matrices=True)
    head = text.vocab_size * text.hidden_size
    active = numbers["dense"] - head + numbers["gate"] + numbers["shared"]
    active += numbers["experts"] * text.num_experts_per_tok / text.num_experts
    attention = 2 * text.num_hidden_layers * text.hidden_size * tokens * tokens
    return 2.0 * active * tokens + 2.0 * head + attention


def counted_experts(routed: np.ndarray, *, num_experts: int) -> float:
    """Mean number of distinct experts that a step hit in a layer, from the choices [sequences, steps, layers, K]."""
    _, steps, layers, _ = routed.shape
    hit = np.zeros((steps, layers, num_experts), dtype=bool)
    step, layer = np.meshgrid(np.arange(steps), np.arange(layers), indexing="ij")
    for sequence in routed:
        hit[step[..., None], layer[..., None], sequence] = True
    return float(hit.sum(axis=-1).mean())


def _numbers(config: MedMoEConfig, *, matrices: bool = False) -> dict[str, int]:
    """How many numbers of each kind a step reads; with `matrices` only those that tokens are multiplied with."""
    shapes = expected_shapes(config)
    if config.text_config.tie_word_embeddings:
        # The head is the embedding, and is read whole.
        shapes = {**shapes, _HEAD: shapes[_EMBEDDING]}
    found = dict.fromkeys(("dense", "gate", "shared", "experts"), 0)
    for kind, shape in _kinds(shapes):
        if not matrices or len(shape) > 1:
            found[kind] += math.prod(shape)
    return found


def _kinds(shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, tuple[int, ...]]]:
    kinds = []
    for name, shape in shapes.items():
        if not name.startswith(_DECODER) or name == _EMBEDDING:
            continue
        if ".experts." in name:
            kind = "experts"
        elif ".shared_expert." in name:
            kind = "shared"
        else:
            kind = "gate" if ".gate." in name or ".coefficient." in name else "dense"
        kinds.append((kind, shape))
    return kinds
