"""The Phi decoder in vLLM: vLLM's own, whose FFNs in `moe_layers` and whose output head we replace."""

from collections.abc import Iterable, Iterator

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.phi import PhiForCausalLM
from vllm.model_executor.models.utils import maybe_prefix

from medmoe.model.config import TextConfig
from medmoe.model.vllm_plugin.layers.fused_moe import FusedMoE, replace_ffns
from medmoe.model.vllm_plugin.weight_names import EXPERT_OUTPUT_BIAS, PHI_NAMES


class MedMoEPhiForCausalLM(PhiForCausalLM):
    """vLLM's PhiForCausalLM with fused Med-MoE layers and LLaVA's output head, which has no bias."""

    hf_to_vllm_mapper = PHI_NAMES

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.lm_head = ParallelLMHead(
            self.config.vocab_size,
            self.config.hidden_size,
            quant_config=self.quant_config,
            prefix=maybe_prefix(prefix, "lm_head"),
        )
        text = TextConfig.model_validate(self.config.medmoe_text, strict=False)
        replace_ffns(self.model, text, prefix=maybe_prefix(prefix, "model"), new=FusedMoE)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        loaded: set[str] = super().load_weights(self._biases_once(weights))
        return loaded

    def _biases_once(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """vLLM gives every tensor-parallel rank an expert's whole output bias, and then adds up the ranks' outputs."""
        not_first = any(layer.experts.moe_config.tp_rank for layer in self.modules() if isinstance(layer, FusedMoE))
        for name, tensor in weights:
            yield name, tensor * 0 if not_first and EXPERT_OUTPUT_BIAS.search(name) else tensor
