"""Time an MoE layer in training: grouped experts against the loop over experts, forward and backward, in one run.

    python -m tests.benchmarks.kernels.grouped_experts [--device cpu|cuda] [--threads N]

The same layer (4 experts, no meta expert: it would be the same work on both sides) with the same tokens in both modes,
timed in turn; what counts is the ratio of the medians. On CPU the process's own time is taken, so that another process
on the same core is not measured:

- loop: the layer in evaluation mode with gradients
- segments, products: the two forms of `model/grouped_experts.py`; a star marks the one that training takes here

The inputs need gradients, as under any layer that trains. On CUDA the dtype is bfloat16, on CPU float32. The last
column is the largest difference of an output or gradient from the loop's, as a share of that tensor's largest value.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from medmoe.model.grouped_experts import grouped_experts, grouped_products, segments, takes_grouped_products
from medmoe.model.language_model import build_language_model
from medmoe.model.moe import MoE
from tests.support.checkpoints.tiny import tiny_config

# Name, family, hidden size, width, tokens on CPU, tokens on CUDA.
SIZES = (
    ("tiny", "llama", 256, 512, 1000, 8192),
    ("SmolLM2-135M", "llama", 576, 1536, 1000, 8192),
    ("StableLM-2-1.6B", "stablelm", 2048, 5632, 256, 8192),
    ("Phi-2", "phi", 2560, 10240, 128, 8192),
)
ROUNDS = 15
SECONDS = 60.0
"""A size ends after so long, with the rounds it had (three at least)."""


def random_moe(family: str, hidden: int, width: int, *, top_k: int) -> MoE:
    shape = {"hidden_size": hidden, "intermediate_size": width, "num_attention_heads": 2, "num_hidden_layers": 1}
    if family != "llama":
        shape["num_key_value_heads"] = 2
    choice = {"num_experts_per_tok": top_k, "renormalize": top_k > 1, "shared_expert": False}
    config = tiny_config(model_type=family, moe_layers=(0,), **shape, **choice).text_config
    moe: MoE = build_language_model(config).model.layers[0].mlp
    nn.init.normal_(moe.gate.weight)
    return moe


def step(routed: Callable[..., torch.Tensor] | None, moe: MoE, x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Forward and backward; `routed` of nothing is the loop. Gradients of the step before are dropped."""
    moe.zero_grad()
    x.grad = None
    output: torch.Tensor = moe.eval()(x) if routed is None else routed(x, *moe.gate(x), moe.experts)
    output.backward(grad)
    if x.device.type == "cuda":
        torch.cuda.synchronize()
    return output.detach()


def tensors(output: torch.Tensor, moe: MoE, x: torch.Tensor) -> list[torch.Tensor]:
    parameters = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in moe.parameters()]
    return [output, x.grad.clone(), *parameters]  # type: ignore[union-attr]


def largest_difference(ours: list[torch.Tensor], loops: list[torch.Tensor]) -> float:
    pairs = zip(ours, loops, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    now = time.perf_counter if device.type == "cuda" else time.process_time
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {arguments.threads} thread(s)"
    print(f"torch {torch.__version__}, {where}, {dtype}; medians of at most {ROUNDS} rounds")
    print("size             top-k  tokens  loop ms  segments/loop  products/loop  rounds  largest difference")
    for name, family, hidden, width, few, many in SIZES:
        for top_k in (1, 2):
            torch.manual_seed(0)
            moe = random_moe(family, hidden, width, top_k=top_k).to(device, dtype)
            x = torch.randn(many if device.type == "cuda" else few, hidden, device=device, dtype=dtype)
            grad = torch.randn_like(x)
            x.requires_grad_()
            taken = "products" if takes_grouped_products(moe.experts, x) else "segments"
            runs = {
                "loop": partial(step, None),
                "segments": partial(step, partial(grouped_experts, form=segments)),
                "products": partial(step, partial(grouped_experts, form=grouped_products)),
            }
            # The first round of each warms up and is compared.
            results = {form: tensors(run(moe, x, grad), moe, x) for form, run in runs.items()}
            worst = max(largest_difference(results[form], results["loop"]) for form in ("segments", "products"))
            results.clear()
            times: dict[str, list[float]] = {form: [] for form in runs}
            end = time.perf_counter() + SECONDS
            while len(times["loop"]) < 3 or (len(times["loop"]) < ROUNDS and time.perf_counter() < end):
                for form, run in runs.items():
                    start = now()
                    run(moe, x, grad)
                    times[form].append(now() - start)
            median = {form: statistics.median(values) for form, values in times.items()}
            ratio = {
                form: f"{median[form] / median['loop']:.2f}{'*' if form == taken else ' '}"
                for form in ("segments", "products")
            }
            print(
                f"{name:16} {top_k:5} {len(x):7} {median['loop'] * 1e3:8.1f} {ratio['segments']:>14} "
                f"{ratio['products']:>14} {len(times['loop']):7} {worst:19.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
