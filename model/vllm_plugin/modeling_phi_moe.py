"""Implement the Phi decoder on vLLM's layers, with fused Med-MoE layers in `moe_layers`.

A Phi layer (arXiv 2309.05463) adds attention and FFN of one LayerNorm in parallel:

    n = LayerNorm(x)        y = x + Attention(n) + FFN(n)

Every linear has a bias, and each head rotates its first `partial_rotary_factor` dimensions only. LLaVA's output head
has no bias, unlike Phi-2's own. Shape letters: T tokens of all running requests, D hidden size, V vocabulary.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import ClassVar

import torch
from torch import nn
from transformers import PretrainedConfig
from vllm.compilation.decorators import support_torch_compile
from vllm.config import CacheConfig, VllmConfig
from vllm.distributed import get_pp_group
from vllm.model_executor.layers.activation import get_act_fn
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.linear import ColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.models.interfaces import SupportsPP
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    make_empty_intermediate_tensors_factory,
    make_layers,
    maybe_prefix,
)
from vllm.sequence import IntermediateTensors

from medmoe.model.config import TextConfig
from medmoe.model.vllm_plugin.layers.fused_moe import FusedMoE, replace_ffns
from medmoe.model.vllm_plugin.weight_names import EXPERT_OUTPUT_BIAS, PHI_NAMES


class PhiAttention(nn.Module):
    """Multi-head attention with partial rotary positions and biases; heads are split over tensor-parallel ranks."""

    def __init__(
        self, config: PretrainedConfig, cache: CacheConfig | None, quant: QuantizationConfig | None, *, prefix: str
    ) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        head_dim = width // heads
        self.qkv_proj = QKVParallelLinear(width, head_dim, heads, quant_config=quant, prefix=f"{prefix}.qkv_proj")
        self.dense = RowParallelLinear(width, width, quant_config=quant, prefix=f"{prefix}.dense")
        self.rotary_emb = get_rope(
            head_dim, max_position=config.max_position_embeddings, rope_parameters=config.rope_parameters
        )
        self.attn = Attention(
            self.qkv_proj.num_heads,
            head_dim,
            head_dim**-0.5,
            cache_config=cache,
            quant_config=quant,
            prefix=f"{prefix}.attn",
        )

    def forward(self, positions: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map positions [T] and hidden states [T, D] to [T, D]."""
        qkv, _ = self.qkv_proj(hidden_states)
        q, k, v = qkv.chunk(3, dim=-1)
        q, k = self.rotary_emb(positions, q, k)
        y_TD: torch.Tensor = self.dense(self.attn(q, k, v))[0]
        return y_TD


class PhiFFN(nn.Module):
    """Two linears with tanh GELU between them."""

    def __init__(self, config: PretrainedConfig, quant: QuantizationConfig | None, *, prefix: str) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.fc1 = ColumnParallelLinear(width, inner, quant_config=quant, prefix=f"{prefix}.fc1")
        self.fc2 = RowParallelLinear(inner, width, quant_config=quant, prefix=f"{prefix}.fc2")
        self.act = get_act_fn(config.hidden_act)

    def forward(self, x_TD: torch.Tensor) -> torch.Tensor:
        """Map [T, D] to [T, D]."""
        y_TD: torch.Tensor = self.fc2(self.act(self.fc1(x_TD)[0]))[0]
        return y_TD


class PhiLayer(nn.Module):
    """One parallel block."""

    def __init__(
        self, config: PretrainedConfig, cache: CacheConfig | None, quant: QuantizationConfig | None, *, prefix: str
    ) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = PhiAttention(config, cache, quant, prefix=f"{prefix}.self_attn")
        self.mlp: nn.Module = PhiFFN(config, quant, prefix=f"{prefix}.mlp")

    def forward(self, positions: torch.Tensor, x_TD: torch.Tensor) -> torch.Tensor:
        """Map positions [T] and hidden states [T, D] to [T, D]."""
        normed_TD = self.input_layernorm(x_TD)
        # The FFN comes second: a fused MoE layer may write its result over its input.
        attended_TD: torch.Tensor = self.self_attn(positions=positions, hidden_states=normed_TD)
        y_TD: torch.Tensor = attended_TD + self.mlp(normed_TD) + x_TD
        return y_TD


@support_torch_compile
class PhiModel(nn.Module):
    """Token embeddings, this pipeline stage's layers and the final LayerNorm."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        cache, quant = vllm_config.cache_config, vllm_config.quant_config
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.start_layer, self.end_layer, self.layers = make_layers(
            config.num_hidden_layers,
            lambda prefix: PhiLayer(config, cache, quant, prefix=prefix),
            prefix=f"{prefix}.layers",
        )
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.make_empty_intermediate_tensors = make_empty_intermediate_tensors_factory(
            ["hidden_states"], config.hidden_size
        )

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Map token ids [T] to embeddings [T, D]."""
        embedded_TD: torch.Tensor = self.embed_tokens(input_ids)
        return embedded_TD

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor | IntermediateTensors:
        """Map token ids [T] or embeddings [T, D], and positions [T], to hidden states [T, D] after the final LayerNorm.

        A pipeline stage takes the stage before it from `intermediate_tensors` and returns such for the next.
        """
        if not get_pp_group().is_first_rank:
            assert intermediate_tensors is not None
            x_TD = intermediate_tensors["hidden_states"]
        elif inputs_embeds is not None:
            x_TD = inputs_embeds
        else:
            assert input_ids is not None
            x_TD = self.embed_input_ids(input_ids)
        for layer in islice(self.layers, self.start_layer, self.end_layer):
            x_TD = layer(positions, x_TD)
        if not get_pp_group().is_last_rank:
            return IntermediateTensors({"hidden_states": x_TD})
        normed_TD: torch.Tensor = self.final_layernorm(x_TD)
        return normed_TD


class MedMoEPhiForCausalLM(nn.Module, SupportsPP):
    """Phi with fused Med-MoE layers and LLaVA's output head."""

    hf_to_vllm_mapper = PHI_NAMES
    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        self.config = config = vllm_config.model_config.hf_config
        self.model = PhiModel(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        self.lm_head = ParallelLMHead(
            config.vocab_size,
            config.hidden_size,
            quant_config=vllm_config.quant_config,
            prefix=maybe_prefix(prefix, "lm_head"),
        )
        self.logits_processor = LogitsProcessor(config.vocab_size)
        self.make_empty_intermediate_tensors = self.model.make_empty_intermediate_tensors
        text = TextConfig.model_validate(config.medmoe_text, strict=False)
        replace_ffns(self.model, text, prefix=maybe_prefix(prefix, "model"), new=FusedMoE)

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Map token ids [T] to embeddings [T, D]."""
        return self.model.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor | IntermediateTensors:
        """Return hidden states [T, D], as `PhiModel.forward` returns them."""
        states: torch.Tensor | IntermediateTensors = self.model(
            input_ids, positions, intermediate_tensors, inputs_embeds
        )
        return states

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Map hidden states [T, D] to logits [T, V]; None on ranks that do not sample."""
        logits: torch.Tensor | None = self.logits_processor(self.lm_head, hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load tensors by their names on disk and return the names of the parameters that were filled."""
        loaded: set[str] = AutoWeightsLoader(self).load_weights(
            self._biases_once(weights), mapper=self.hf_to_vllm_mapper
        )
        return loaded

    def _biases_once(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """Zero the experts' output biases on all tensor-parallel ranks but the first.

        vLLM gives every rank the whole bias, and then adds up the ranks' outputs.
        """
        not_first = any(layer.experts.moe_config.tp_rank for layer in self.modules() if isinstance(layer, FusedMoE))
        for name, tensor in weights:
            yield name, tensor * 0 if not_first and EXPERT_OUTPUT_BIAS.search(name) else tensor
