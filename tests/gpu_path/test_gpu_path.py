"""vLLM's GPU engine, run on a CPU, gives the reference's tokens, log-probabilities and routing.

`make checks` puts Triton into .cache/triton. Only the engine's process sees it: torch behaves differently beside it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.parity_cases import IMAGES, QUESTIONS, Case, cases
from tests.engine.reference import Reference

ROOT = Path(__file__).parents[2]
TRITON = ROOT / ".cache" / "triton"
CASES = [
    case
    for case in cases()
    if case.name in {"llama, Med-MoE top-2", "stablelm, Med-MoE residual", "phi, Med-MoE top-1"}
]
TOLERANCE = 1e-4
"""Of a log-probability in float32."""
MINUTES = 15

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60 * MINUTES),
    pytest.mark.skipif(
        not (TRITON / "triton" / "__init__.py").is_file(), reason="Triton is not installed: make checks puts it there"
    ),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("gpu_path")
    return {case.name: case.save(parent) for case in CASES}


@pytest.fixture(scope="module")
def report(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process answered, with its counts of kernels, operators and waits."""
    output = tmp_path_factory.mktemp("report") / "report.json"
    # Paths of the project and of Triton come first; -P keeps the working directory from adding itself.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(TRITON)]),
        "VLLM_PLUGINS": "medmoe",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    command = [
        sys.executable,
        "-P",
        "-m",
        "tests.gpu_path.engine_process",
        str(output),
        *map(str, checkpoints.values()),
    ]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60 * MINUTES - 10, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(output.read_text())
    print("kernels interpreted:", found["kernels"], "operators replaced:", found["operators"])
    return found


def worst_difference(result: dict[str, Any], reference: Reference) -> tuple[float, bool]:
    """Return the largest difference of a log-probability, and whether every expert is the reference's."""
    layers = list(reference.model.config.text_config.moe_layers)
    worst, routed = 0.0, True
    for question, image, answer in zip(QUESTIONS, IMAGES, result["answers"], strict=False):
        trace = reference.trace(question, image, answer=answer["tokens"])
        for position, row in enumerate(answer["log_probs"]):
            for token, value in row.items():
                worst = max(worst, abs(value - trace.log_probs[position, int(token)].item()))
        experts = np.sort(np.asarray(answer["experts"])[:, layers], -1)
        routed &= np.array_equal(experts, np.sort(trace.experts[:, layers], -1))
    return worst, routed


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answers_are_the_references(case: Case, report: dict[str, Any], checkpoints: dict[str, Path]) -> None:
    directory = checkpoints[case.name]
    result, reference = report["results"][directory.name], Reference(directory)
    assert result["runner"] == "vllm.v1.worker.gpu.model_runner"
    count = len(result["answers"])
    tokens = [answer["tokens"] for answer in result["answers"]]
    assert tokens == reference.generate(QUESTIONS[:count], IMAGES[:count], max_tokens=len(tokens[0]))
    worst, routed = worst_difference(result, reference)
    assert worst < TOLERANCE
    assert routed
    print(f"{case.name}: log-probabilities within {worst:.1e}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_likelihoods_from_the_prefix_cache_are_the_references(
    case: Case, report: dict[str, Any], checkpoints: dict[str, Path]
) -> None:
    result = report["results"][checkpoints[case.name].name]
    assert result["cached"] > 0
    trace = Reference(checkpoints[case.name]).trace(QUESTIONS[0], IMAGES[0], answer=[result["asked_token"]])
    expected = [trace.log_probs[0, token].item() for token in (3, 5, 7)]
    assert result["asked"] == pytest.approx(expected, abs=TOLERANCE)


def without_gate_bias(reference: Reference) -> None:
    for name, parameter in reference.model.named_parameters():
        if name.endswith("gate.bias"):
            parameter.data.zero_()


def without_shared_expert(reference: Reference) -> None:
    for name, parameter in reference.model.named_parameters():
        if "shared_expert" in name:
            parameter.data.zero_()


def with_exact_gelu(reference: Reference) -> None:
    for module in reference.model.language_model.modules():
        if hasattr(module, "activation_fn"):
            module.activation_fn = torch.nn.GELU()


@pytest.mark.parametrize("mutate", [without_gate_bias, without_shared_expert, with_exact_gelu])
def test_another_model_is_told_apart(
    mutate: Callable[[Reference], None], report: dict[str, Any], checkpoints: dict[str, Path]
) -> None:
    directory = checkpoints["phi, Med-MoE top-1"]
    reference = Reference(directory)
    mutate(reference)
    worst, routed = worst_difference(report["results"][directory.name], reference)
    assert worst > TOLERANCE or not routed


def test_vllms_own_kernels_ran(report: dict[str, Any]) -> None:
    assert {
        "fused_moe_kernel",
        "kernel_unified_attention",
        "reshape_and_cache_kernel_flash",
        "_gumbel_sample_kernel",
    } <= (report["kernels"].keys())


def test_the_model_never_waits_for_the_gpu(report: dict[str, Any]) -> None:
    """A wait in every step would hold up asynchronous scheduling."""
    assert report["waits"] == {"forward": {}, "embed_multimodal": {}, "compute_logits": {}}
