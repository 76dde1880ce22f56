"""Check before vLLM is imported that it can divide a checkpoint among several processors.

vLLM itself would fail only after a minute, by an assertion in another process or, for expert parallelism on a CPU, by a
segmentation fault in the first request.
"""

import math
from collections.abc import Callable, Collection
from itertools import pairwise
from pathlib import Path

from medmoe.model.config import TextConfig
from medmoe.server.errors import DeploymentError
from medmoe.server.settings import Settings

_VOCABULARY_PADDING = 64
"""vLLM rounds the rows of the embedding and of the output head up to a multiple of this, then divides them."""
_FEW_CORES = 4
_TOPOLOGY = Path("/sys/devices/system/cpu")
_LEFT_TO_VLLM = ("auto", "nobind")


def check_parallelism(settings: Settings, text: TextConfig, *, on_cpu: bool) -> None:
    """Raise DeploymentError when the ranks that `settings` ask for cannot share this decoder."""
    ranks = settings.tensor_parallel_size
    if settings.expert_parallel:
        _check_expert_parallelism(ranks, text, on_cpu=on_cpu)
    _must_divide(ranks, text.num_attention_heads, what="num_attention_heads")
    heads = text.num_key_value_heads
    # With fewer heads than ranks vLLM keeps copies of a head, the same number of each.
    if max(heads, ranks) % min(heads, ranks):
        raise DeploymentError(
            f"MEDMOE_TENSOR_PARALLEL_SIZE={ranks} neither divides this checkpoint's num_key_value_heads {heads} nor is"
            f" a multiple of it; use {_usable(lambda n: max(heads, n) % min(heads, n) == 0, up_to=ranks)}"
        )
    # Dense layers, experts and the meta expert have one width; what a rank gets of it need not be round, kernels pad.
    # The vision tower and the projector are whole on every rank.
    _must_divide(ranks, text.intermediate_size, what="intermediate_size")
    padded = math.ceil(text.vocab_size / _VOCABULARY_PADDING) * _VOCABULARY_PADDING
    _must_divide(ranks, padded, what=f"vocab_size, padded to {_VOCABULARY_PADDING},")


def thread_binding(cores: Collection[int], *, ranks: int, asked: str | None) -> str | None:
    """Return the value of VLLM_CPU_OMP_THREADS_BIND, the cores of each rank separated by `|`; None leaves it to vLLM.

    `cores` are those this process may run on, `asked` is what the operator has set. Raises DeploymentError when there
    are fewer cores than ranks, or when the operator's value is for another number of ranks.
    """
    if asked:
        if asked not in _LEFT_TO_VLLM and len(asked.split("|")) != ranks:
            raise DeploymentError(
                f"VLLM_CPU_OMP_THREADS_BIND={asked} is for {len(asked.split('|'))} ranks and"
                f" MEDMOE_TENSOR_PARALLEL_SIZE is {ranks}; unset it, or name the cores of each rank, separated by |"
            )
        return asked
    if len(cores) < ranks:
        raise DeploymentError(
            f"MEDMOE_TENSOR_PARALLEL_SIZE={ranks} needs a core for each rank and this process may use {len(cores)};"
            " ask for fewer ranks or allow more cores"
        )
    if ranks == 1:
        # vLLM would keep a core for itself, half of a two-core machine; serving in front of it needs little.
        return _listed(sorted(cores)) if len(cores) <= _FEW_CORES else None
    # Two threads of one core would only wait for each other, and two ranks on the same cores would wait all the time.
    chosen = _one_thread_a_core(cores)
    if len(chosen) < ranks:
        chosen = sorted(cores)
    # vLLM's own rule gives every rank a memory node of its own, and fails on the usual machine, which has one.
    share, rest = divmod(len(chosen), ranks)
    ends = [rank * share + min(rank, rest) for rank in range(ranks + 1)]
    return "|".join(_listed(chosen[start:end]) for start, end in pairwise(ends))


def _check_expert_parallelism(ranks: int, text: TextConfig, *, on_cpu: bool) -> None:
    if not text.moe_layers:
        raise DeploymentError(
            "MEDMOE_EXPERT_PARALLEL=true, and this checkpoint has no experts: its moe_layers are empty"
        )
    if on_cpu:
        raise DeploymentError(
            "MEDMOE_EXPERT_PARALLEL=true does not work on CPU: vLLM's kernel there reads every expert by its global"
            " number, past the end of what a rank holds, and crashes; use MEDMOE_TENSOR_PARALLEL_SIZE alone"
        )
    if ranks == 1:
        raise DeploymentError(
            "MEDMOE_EXPERT_PARALLEL=true deals the experts out to the tensor-parallel ranks, and there is one; set"
            " MEDMOE_TENSOR_PARALLEL_SIZE too"
        )
    _must_divide(ranks, text.num_experts, what="num_experts (with MEDMOE_EXPERT_PARALLEL=true)")


def _must_divide(ranks: int, size: int, *, what: str) -> None:
    if size % ranks:
        raise DeploymentError(
            f"MEDMOE_TENSOR_PARALLEL_SIZE={ranks} does not divide this checkpoint's {what} {size};"
            f" use {_usable(lambda n: size % n == 0, up_to=ranks)}"
        )


def _usable(fits: Callable[[int], bool], *, up_to: int) -> str:
    smaller = [str(ranks) for ranks in range(1, up_to) if fits(ranks)]
    return " or ".join([", ".join(smaller[:-1]), smaller[-1]]) if len(smaller) > 1 else smaller[0]


def _one_thread_a_core(cores: Collection[int]) -> list[int]:
    """Return each core's first hardware thread among `cores`; all of `cores` where nothing is known."""
    first: dict[str, int] = {}
    for thread in sorted(cores):
        try:
            siblings = (_TOPOLOGY / f"cpu{thread}" / "topology" / "thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(thread)
        first.setdefault(siblings, thread)
    return sorted(first.values())


def _listed(cores: Collection[int]) -> str:
    return ",".join(map(str, cores))
