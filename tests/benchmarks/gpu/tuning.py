"""Find the fastest configuration of vLLM's fused Triton kernel for four experts of this size.

vLLM ships no file for E=4 and then takes a rule made for many small experts. The search goes along one dimension after
the other from that default, twice: a whole grid takes an hour, most of it compiling. A configuration counts only when
it computes what the default does.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from medmoe.model.config import TextConfig
from tests.benchmarks.gpu.ceilings import seconds
from tests.benchmarks.gpu.vllm import KEYS, Configuration, Experts, configured, write_configurations

TOKENS = (1, 8, 64, 256, 2048)
GRID: dict[str, tuple[int, ...]] = {
    "BLOCK_SIZE_N": (32, 64, 128, 256),
    "BLOCK_SIZE_K": (32, 64, 128, 256),
    "num_warps": (2, 4, 8),
    "num_stages": (2, 3, 4, 5),
    "BLOCK_SIZE_M": (16, 32, 64, 128),
    "GROUP_SIZE_M": (1, 8, 16, 32),
}
_ROUNDS = 2
_CALLS = 10
"""In one graph, each with other experts: one expert alone would stay in the GPU's cache."""
_TOLERANCE = 2e-2
"""Of the largest value, in bfloat16: sums are taken in another order."""


def neighbours(configuration: Configuration, dimension: str) -> list[Configuration]:
    """The same with every other value of `dimension`."""
    values = [value for value in GRID[dimension] if value != configuration[dimension]]
    return [{**configuration, dimension: value} for value in values]


def descend(
    start: Configuration, cost: Callable[[Configuration], float | None], *, more: Callable[[], bool]
) -> tuple[Configuration, float]:
    """The best found and its cost, while there is `more` time; a configuration without a cost does not work.

    Raises ValueError when `start` itself does not.
    """
    known: dict[tuple[int, ...], float | None] = {}

    def once(configuration: Configuration) -> float | None:
        key = tuple(configuration[name] for name in KEYS)
        if key not in known:
            known[key] = cost(configuration)
        return known[key]

    best, least = start, once(start)
    if least is None:
        raise ValueError(f"the default does not work: {dict(start)}")
    for _ in range(_ROUNDS):
        before = best
        for dimension in GRID:
            for configuration in neighbours(best, dimension):
                if not more():
                    return best, least
                found = once(configuration)
                if found is not None and found < least:
                    best, least = configuration, found
        if best == before:
            break
    return best, least


def measure(text: TextConfig, *, limit: float, write_to: Path | None, keep: Callable[[dict[str, Any]], None]) -> None:
    """Tells `keep` all that is known so far after each number of tokens; `limit` seconds are spread over them."""
    end = time.monotonic() + limit
    experts = Experts(text, device="cuda", dtype=torch.bfloat16)
    found: dict[str, Any] = {"experts": text.num_experts, "width": text.intermediate_size, "rows": []}
    best: dict[int, Configuration] = {}
    for index, tokens in enumerate(TOKENS):
        until = time.monotonic() + (end - time.monotonic()) / (len(TOKENS) - index)
        trial = _Trial(experts, tokens)
        default = experts.default(tokens)
        if trial(default) is None:
            raise RuntimeError(f"the default configuration fails: {trial.failures}")
        best[tokens], _ = descend(default, trial, more=lambda until=until: time.monotonic() < until)  # type: ignore[misc]
        # Once more, in turn: the search has kept the luckiest of many.
        pairs = [(trial.again(default), trial.again(best[tokens])) for _ in range(3)]
        row = {
            "tokens": tokens,
            "default": dict(default),
            "best": dict(best[tokens]),
            "default_seconds": min(pair[0] for pair in pairs),
            "best_seconds": min(pair[1] for pair in pairs),
            "tried": trial.tried,
            "failures": trial.failures,
        }
        if row["best_seconds"] >= row["default_seconds"]:
            best[tokens] = default
        found["rows"].append(row)
        keep(found)
    if write_to is not None:
        found["file"] = str(write_configurations(write_to, text, best))
        keep(found)


class _Trial:
    """The cost of a configuration for so many tokens: seconds of one layer's experts in a CUDA graph."""

    def __init__(self, experts: Experts, tokens: int) -> None:
        text = experts.text
        self._experts = experts
        self._x = torch.randn(tokens, text.hidden_size, device="cuda", dtype=torch.bfloat16)
        self._choices = list(_choices(text, tokens))
        self._wanted: torch.Tensor | None = None
        self.tried = 0
        self.failures: dict[str, int] = {}

    def __call__(self, configuration: Configuration) -> float | None:
        """None where the kernel does not compile, does not fit the GPU, or computes something else."""
        self.tried += 1
        try:
            with configured(configuration):
                y = self._experts(self._x, *self._choices[0])
                torch.cuda.synchronize()
        except Exception as error:  # Triton's own classes, which differ between its versions
            return self._failed(type(error).__name__)
        if self._wanted is None:
            self._wanted = y
        if float((y - self._wanted).abs().max()) > _TOLERANCE * float(self._wanted.abs().max()):
            return self._failed("other result")
        return self.again(configuration)

    def again(self, configuration: Configuration) -> float:
        """Its time, of a configuration that works."""
        graph = torch.cuda.CUDAGraph()
        with configured(configuration):
            for choice in self._choices:
                self._experts(self._x, *choice)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                for choice in self._choices:
                    self._experts(self._x, *choice)
        taken = seconds(graph.replay, device="cuda", calls=5, repeats=5) / len(self._choices)
        graph.reset()
        return taken

    def _failed(self, reason: str) -> None:
        self.failures[reason] = self.failures.get(reason, 0) + 1


def _choices(text: TextConfig, tokens: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and experts of each call, experts as likely as each other; one token goes to each of them in turn."""
    generator = torch.Generator("cuda").manual_seed(0)
    scores = torch.rand(tokens, text.num_experts, device="cuda", generator=generator)
    weights, experts = scores.topk(text.num_experts_per_tok, dim=-1)
    for call in range(_CALLS):
        yield weights, ((experts + call) % text.num_experts).to(torch.int32)
