"""Time Phi's experts on CPU, at Phi-2's sizes: vLLM's gated kernel with a constant gate, and the alternatives.

    python -m tests.benchmarks.kernels.phi_experts

All three compute W2 gelu(W1 x + b1) + b2 for each token's experts, and are timed in turn within one run:

- served: the gated kernel, act(W1 x + b1) * (W3 x + b3) with W3 = 0, b3 = 1; the zeros are pages never written
- stored: the same with zeros that take memory like other weights
- grouped: tokens sorted by expert, then torch's grouped product per matrix

What counts is the ratio; a busy machine moves all alike.
"""

import time
from collections.abc import Callable

import torch
from torch.nn import functional as F
from vllm._custom_ops import cpu_fused_moe, cpu_prepack_moe_weight  # noqa: TID251 - the kernel itself is timed

from medmoe.model.vllm_plugin.cpu.ungated_experts_cpu import untouched_zeros

HIDDEN, WIDTH, EXPERTS = 2560, 10240, 4
THREADS = 2
SECONDS = 6.0


def grouped(
    x: torch.Tensor,
    weights: torch.Tensor,
    experts: torch.Tensor,
    first: tuple[torch.Tensor, torch.Tensor],
    second: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """[T, D] -> [T, D], without a loop over experts."""
    tokens, choices = experts.shape
    expert, order = experts.reshape(-1).sort(stable=True)
    ends = torch.searchsorted(expert, torch.arange(EXPERTS, dtype=expert.dtype), right=True).to(torch.int32)
    hidden = F.grouped_mm(x[order // choices], first[0].transpose(1, 2), offs=ends).add_(first[1][expert])
    hidden = F.gelu(hidden, approximate="tanh")
    out = F.grouped_mm(hidden, second[0].transpose(1, 2), offs=ends).add_(second[1][expert])
    back = torch.empty_like(out)
    back[order] = out
    return (back.view(tokens, choices, -1) * weights[..., None]).sum(dim=1)


def best_of(runs: dict[str, Callable[[], torch.Tensor]]) -> dict[str, float]:
    """Shortest time of each, in seconds."""
    best = dict.fromkeys(runs, float("inf"))
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    w1, b1 = torch.randn(EXPERTS, WIDTH, HIDDEN) / HIDDEN**0.5, torch.randn(EXPERTS, WIDTH)
    w2, b2 = torch.randn(EXPERTS, HIDDEN, WIDTH) / WIDTH**0.5, torch.randn(EXPERTS, HIDDEN)
    served = untouched_zeros((EXPERTS, 2 * WIDTH, HIDDEN), dtype=torch.float32)
    served[:, :WIDTH] = cpu_prepack_moe_weight(w1, "vec")
    stored = served.clone()
    bias, packed = torch.cat([b1, torch.ones_like(b1)], dim=1), cpu_prepack_moe_weight(w2, "vec")
    print(f"float32, {THREADS} threads, hidden {HIDDEN}, width {WIDTH}, {EXPERTS} experts; best of {SECONDS:.0f} s")
    print("tokens top_k  served ms  stored/served  grouped/served  largest difference")
    for top_k in (1, 2):
        for tokens in (1, 16, 600):
            x = torch.randn(tokens, HIDDEN)
            weights, experts = torch.randn(tokens, EXPERTS).softmax(-1).topk(top_k)
            experts = experts.to(torch.int32)

            def gated(w13, x=x, weights=weights, experts=experts):  # type: ignore[no-untyped-def]
                out = torch.empty_like(x)
                cpu_fused_moe(out, x, w13, packed, bias, b2, weights, experts, "gelu_tanh", "vec")
                return out

            runs: dict[str, Callable[[], torch.Tensor]] = {
                "served": lambda gated=gated: gated(served),
                "stored": lambda gated=gated: gated(stored),
                "grouped": lambda x=x, w=weights, e=experts: grouped(x, w, e, (w1, b1), (w2, b2)),
            }
            difference = float((runs["served"]() - runs["grouped"]()).abs().max())
            best = best_of(runs)
            print(
                f"{tokens:6} {top_k:5} {best['served'] * 1e3:10.1f} {best['stored'] / best['served']:14.2f}"
                f" {best['grouped'] / best['served']:15.2f} {difference:19.1e}"
            )


if __name__ == "__main__":
    main()
