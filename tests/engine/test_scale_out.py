"""Two tensor-parallel ranks on CPU cores: what they serve together is what the reference computes alone."""

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medmoe.model.language_model import build_language_model
from medmoe.model.moe import MoE
from tests.engine.parity_cases import IMAGES, MAX_TOKENS, PROMPTS, QUESTIONS, cases
from tests.engine.reference import Reference
from tests.engine.scale_out_worker import ANSWERS_FILE, RANKS
from tests.support.checkpoints.tiny import save_tiny_checkpoint, tiny_config

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < RANKS, reason="every rank needs a core"),
]

LOG_PROB_TOLERANCE = 1e-4
WORKER_SECONDS = 800
ROOT = Path(__file__).parents[2]
CHECKPOINTS: dict[str, dict[str, Any]] = {
    # One head of keys and values, which both ranks hold. Of the experts' 144 rows 72 on each, which is rounded up.
    "llama": {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 144,
        "num_experts_per_tok": 2,
        "renormalize": True,
        "residual": True,
    },
    # Experts with biases: the second one must be added on one rank only.
    "phi": {"intermediate_size": 144},
}
# Adapters on FFN and attention, a router at each linear: that of a divided input needs a sum over the ranks.
ADAPTED = "llama, Med-MoE-LoRA, FFN + attention"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the engine said to one prompt."""

    tokens: list[int]
    log_probs: np.ndarray
    """[A]: of the chosen tokens."""
    experts: np.ndarray | None
    """[prompt + A - 1, layers, K]; None without MoE layers."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Reference, list[Answer]]]:
    """Reference and answers by backbone; the engines have ended when the comparison begins."""
    parent = tmp_path_factory.mktemp("scale-out")
    directories = {
        name: save_tiny_checkpoint(parent / name, model_type=name, **shape) for name, shape in CHECKPOINTS.items()
    }
    directories[ADAPTED] = next(case for case in cases() if case.name == ADAPTED).save(parent)
    environment = {
        name: value
        for name, value in os.environ.items()
        # What an engine in this process has set for itself is not for one with two ranks.
        if not name.startswith("MEDMOE_") and name != "VLLM_CPU_OMP_THREADS_BIND"
    }
    command = [sys.executable, "-m", "tests.engine.scale_out_worker", *map(str, directories.values())]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, said = process.communicate(timeout=WORKER_SECONDS)
        assert process.returncode == 0, said[-8000:]
    finally:
        # Whatever happened, none of the engine's own processes stays behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return {name: (Reference(directory), read(directory)) for name, directory in directories.items()}


def read(directory: Path) -> list[Answer]:
    kept = np.load(directory / ANSWERS_FILE)
    return [
        Answer(
            tokens=kept[f"tokens.{number}"].tolist(),
            log_probs=kept[f"log_probs.{number}"],
            experts=kept.get(f"experts.{number}"),
        )
        for number in range(PROMPTS)
    ]


@pytest.mark.parametrize("backbone", [*CHECKPOINTS, ADAPTED])
def test_two_ranks_give_the_references_tokens(served: dict[str, tuple[Reference, list[Answer]]], backbone: str) -> None:
    reference, answers = served[backbone]
    expected = reference.generate(QUESTIONS, IMAGES, max_tokens=MAX_TOKENS)
    assert [answer.tokens for answer in answers] == expected
    assert len({tuple(tokens) for tokens in expected}) > PROMPTS // 2


@pytest.mark.parametrize("backbone", [*CHECKPOINTS, ADAPTED])
def test_two_ranks_give_the_references_log_probabilities_and_routing(
    served: dict[str, tuple[Reference, list[Answer]]], backbone: str
) -> None:
    reference, answers = served[backbone]
    moe_layers = list(reference.model.config.text_config.moe_layers)
    worst, used = 0.0, set()
    for question, image, answer in zip(QUESTIONS, IMAGES, answers, strict=True):
        trace = reference.trace(question, image, answer=answer.tokens)
        expected = [float(row[token]) for row, token in zip(trace.log_probs, answer.tokens, strict=True)]
        worst = max(worst, float(np.abs(answer.log_probs - expected).max()))
        if not moe_layers:
            continue
        assert answer.experts is not None
        # Which expert of the chosen ones comes first is nobody's promise.
        chosen, wanted = (np.sort(experts[:, moe_layers], axis=-1) for experts in (answer.experts, trace.experts))
        np.testing.assert_array_equal(chosen, wanted)
        used |= set(chosen.ravel().tolist())
    print(f"{backbone}: largest difference of a log-probability with {RANKS} ranks: {worst:.1e}")
    assert worst < LOG_PROB_TOLERANCE
    assert used == (set(range(reference.model.config.text_config.num_experts)) if moe_layers else set())


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("backbone", ["llama", "phi"])
def test_experts_dealt_out_to_ranks_add_up_to_the_layer(backbone: str, ranks: int) -> None:
    """Expert parallelism as vLLM deals, without its kernels, which have none of it on CPU."""
    from vllm.model_executor.layers.fused_moe.expert_map_manager import determine_expert_map

    config = tiny_config(model_type=backbone, num_experts_per_tok=2).text_config
    torch.manual_seed(0)
    layer: MoE = build_language_model(config).model.layers[0].mlp
    torch.nn.init.normal_(layer.gate.weight)
    x_TD = torch.randn(32, config.hidden_size)
    with torch.no_grad():
        for expert in layer.experts:
            for parameter in expert.parameters():
                parameter.normal_(std=0.2)
        weights_TK, experts_TK = layer.gate(x_TD)
        # The meta expert is divided like a dense layer, not dealt: here it is added whole.
        y_TD = layer.shared_expert(x_TD) if layer.shared_expert is not None else torch.zeros_like(x_TD)
        for rank in range(ranks):
            held, local_of, _ = determine_expert_map(ranks, rank, config.num_experts)
            assert held == config.num_experts // ranks
            mine = [expert for number, expert in enumerate(layer.experts) if local_of[number] >= 0]
            local_TK = local_of[experts_TK]
            for token, choice in (local_TK >= 0).nonzero().tolist():
                routed_D = mine[local_TK[token, choice]](x_TD[token])
                y_TD[token] += weights_TK[token, choice] * routed_D
        torch.testing.assert_close(y_TD, layer(x_TD))
