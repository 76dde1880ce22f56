"""Read an engine's choices of kernels and run vLLM's fused experts, for the benchmark on a GPU."""

# ruff: noqa: TID251 - measuring the engine and its kernel
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medmoe.model.config import TextConfig

if TYPE_CHECKING:
    from vllm import LLM

KEYS = ("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "GROUP_SIZE_M", "num_warps", "num_stages")
"""What a tuned file says of one batch size."""

Configuration = Mapping[str, int]


def engine_facts(llm: "LLM") -> dict[str, Any]:
    """What it computes with: kernels, graphs, room for keys and values."""
    config = llm.llm_engine.vllm_config
    (chosen,) = llm.apply_model(_kernels)
    cache = config.cache_config
    return chosen | {
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "graphs": getattr(config.compilation_config.cudagraph_mode, "name", "?"),
        "largest_graph": getattr(config.compilation_config, "max_cudagraph_capture_size", None),
        "compilation": int(config.compilation_config.mode or 0),
        "cached_tokens": cache.num_gpu_blocks * cache.block_size,
        "batched_tokens": config.scheduler_config.max_num_batched_tokens,
    }


def _kernels(model: torch.nn.Module) -> dict[str, str]:
    modules = list(model.modules())
    methods = [module.quant_method for module in modules if hasattr(module, "w13_weight")]
    experts = {str(getattr(getattr(method, "unquantized_backend", method), "name", "?")) for method in methods}
    backends = {module.attn_backend for module in modules if hasattr(module, "attn_backend")}
    attention = {backend.get_name() for backend in backends}
    return {"experts": ", ".join(sorted(experts)), "attention": ", ".join(sorted(attention))}


class Experts:
    """One layer's routed experts on vLLM's fused Triton kernel, with random weights; as the plugin asks for them."""

    def __init__(self, text: TextConfig, *, device: str, dtype: torch.dtype) -> None:
        from vllm.model_executor.layers.fused_moe import MoEActivation
        from vllm.model_executor.layers.fused_moe.config import biased_moe_quant_config

        count, hidden, width = text.num_experts, text.hidden_size, text.intermediate_size
        gated = text.model_type != "phi"

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device=device, dtype=dtype) / shape[-1] ** 0.5

        self.text = text
        self._first = random(count, 2 * width if gated else width, hidden)
        self._second = random(count, hidden, width)
        self._biases = None if gated else biased_moe_quant_config(random(count, width), random(count, hidden))
        self._activation = MoEActivation.from_str("silu" if gated else "gelu_tanh_no_mul")

    def __call__(self, x: torch.Tensor, weights: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
        """[T, D] -> [T, D] for weights and int32 indices [T, K]."""
        from vllm.model_executor.layers.fused_moe import fused_experts

        y: torch.Tensor = fused_experts(
            x, self._first, self._second, weights, experts, activation=self._activation, quant_config=self._biases
        )
        return y

    def default(self, tokens: int) -> Configuration:
        """What vLLM takes for so many tokens, from a file of its own or by its rule."""
        from vllm.model_executor.layers.fused_moe.fused_moe import try_get_optimal_moe_config

        shapes = self._first.shape, self._second.shape
        taken = try_get_optimal_moe_config(*shapes, self.text.num_experts_per_tok, None, tokens)
        return {key: taken[key] for key in KEYS if key in taken}


@contextmanager
def configured(configuration: Configuration) -> Iterator[None]:
    """Inside, the kernel takes this configuration whatever the number of tokens."""
    from vllm.model_executor.layers.fused_moe import override_config

    failure: Exception | None = None
    with override_config(dict(configuration)):
        # vLLM puts back what was before only when nothing comes out of the block.
        try:
            yield
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure


def write_configurations(directory: Path, text: TextConfig, best: Mapping[int, Configuration]) -> Path:
    """Where vLLM looks with VLLM_TUNED_CONFIG_FOLDER=`directory`, for experts in 16 bit, whole on each rank."""
    from vllm.model_executor.layers.fused_moe.fused_moe import get_config_file_name

    directory.mkdir(parents=True, exist_ok=True)
    path = directory / get_config_file_name(text.num_experts, text.intermediate_size, None)
    path.write_text(file_text(best, triton=version("triton")))
    return path


def file_text(best: Mapping[int, Configuration], *, triton: str) -> str:
    """vLLM's format: for each number of tokens what the kernel is to be compiled with."""
    rows = {str(tokens): {key: best[tokens][key] for key in KEYS} for tokens in sorted(best)}
    return json.dumps({"triton_version": triton} | rows, indent=4) + "\n"
