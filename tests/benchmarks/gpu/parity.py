"""Compare the engine's answers about images with the reference on one device: tokens, routing, log-probabilities.

In float32 both are held to fixed tolerances. In bfloat16 no fixed one means much, because 24 layers round at every
product and a token that is routed otherwise goes its own way from there on. The yardstick is therefore the reference
itself: the engine in bfloat16 may be FORMAT_FACTOR times as far from the reference in float32 as the reference in
bfloat16 is. The reference is asked about the engine's own answers, so that one early difference ends nothing.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from medmoe.model.checkpoint.io import model_tensors
from medmoe.model.config import MedMoEConfig
from medmoe.model.files.calibration_binding import Dtype
from medmoe.model.files.weight_files import WEIGHTS_FILE
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from tests.benchmarks.gpu.vllm import engine_facts
from tests.engine.local_engine import local_engine
from tests.engine.parity_cases import IMAGES, QUESTIONS
from tests.engine.reference import Reference

MAX_TOKENS = 12
LIKELIEST = 20
"""Tokens whose log-probabilities are compared at each position; vLLM gives no more unless told to."""
FLOAT32_LOG_PROB, FLOAT32_ROUTING = 2e-3, 0.999
"""Largest difference of a log-probability; share of routing decisions that are equal."""
FORMAT_FACTOR, ROUTING_SLACK = 2.0, 0.002
"""Of bfloat16's own mean error and share of other routing decisions, plus that share for chance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What one side says of every position of the engine's answers."""

    log_probs: list[np.ndarray]
    """Of each prompt [A, LIKELIEST]."""
    experts: list[np.ndarray]
    """Of each prompt [L, MoE layers, K], sorted: which of the chosen ones comes first is nobody's promise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distance:
    """Of two sides' answers."""

    mean: float
    largest: float
    same_routing: float


def distance(one: Answers, other: Answers) -> Distance:
    errors = np.concatenate([np.abs(a - b).ravel() for a, b in zip(one.log_probs, other.log_probs, strict=True)])
    equal = [(a == b).all(axis=-1).ravel() for a, b in zip(one.experts, other.experts, strict=True)]
    return Distance(
        mean=float(errors.mean()), largest=float(errors.max()), same_routing=float(np.concatenate(equal).mean())
    )


def verdict(engine: Distance, *, own: Distance | None, largest_gap: float) -> dict[str, bool]:
    """Whether the engine is the reference: `own` is the reference's distance in the engine's format, None in float32.

    `largest_gap` is by how much, in the reference's eyes, the engine's worst greedy token misses the best one.
    """
    if own is None:
        return {
            "log_probs": engine.largest <= FLOAT32_LOG_PROB,
            "routing": engine.same_routing >= FLOAT32_ROUTING,
            "tokens": largest_gap <= 2 * FLOAT32_LOG_PROB,
        }
    return {
        "log_probs": engine.mean <= FORMAT_FACTOR * own.mean,
        "routing": 1 - engine.same_routing <= FORMAT_FACTOR * (1 - own.same_routing) + ROUTING_SLACK,
        # Two tokens that are closer than both errors are a tie.
        "tokens": largest_gap <= 2 * FORMAT_FACTOR * own.largest,
    }


def answer(directory: Path, output: Path, *, dtype: Dtype) -> None:
    """Runs in a process of its own: the engine keeps the GPU's memory until its process ends."""
    config = MedMoEConfig.from_directory(directory)
    prompt, processor = Prompt.from_directory(directory, config), ImageProcessor.from_config(config)
    prompts = [
        {"prompt_token_ids": prompt.question(question), "multi_modal_data": {"image": processor.resize(image)}}
        for question, image in zip(QUESTIONS, IMAGES, strict=True)
    ]
    with local_engine(directory, dtype=dtype) as engine:
        facts = engine_facts(engine.llm)
        stop = [config.text_config.eos_token_id]
        outputs = engine.generate(
            prompts, temperature=0, max_tokens=MAX_TOKENS, logprobs=LIKELIEST, stop_token_ids=stop
        )
    kept: dict[str, Any] = {"facts": np.array([f"{name}: {value}" for name, value in facts.items()])}
    for number, output_ in enumerate(outputs):
        completion = output_.outputs[0]
        rows = [sorted(row.items(), key=lambda item: -item[1].logprob)[:LIKELIEST] for row in completion.logprobs]
        kept[f"tokens.{number}"] = np.array(completion.token_ids)
        kept[f"ids.{number}"] = np.array([[token for token, _ in row] for row in rows])
        kept[f"log_probs.{number}"] = np.array([[entry.logprob for _, entry in row] for row in rows])
        kept[f"experts.{number}"] = np.asarray(completion.routed_experts)
    np.savez(output, **kept)


def compare(directory: Path, work: Path, *, dtype: Dtype, device: str) -> dict[str, Any]:
    """One row. Raises SystemExit when the engine did not answer: what it said last is then the last that is said."""
    file = work / "answers.npz"
    command = [sys.executable, "-m", "tests.benchmarks.gpu.parity", str(directory), str(file), dtype]
    if code := subprocess.run(command, check=False).returncode:
        raise SystemExit(code)
    kept = dict(np.load(file))
    layers = list(MedMoEConfig.from_directory(directory).text_config.moe_layers)
    numbers = range(len(QUESTIONS))
    engine = Answers(
        log_probs=[kept[f"log_probs.{number}"] for number in numbers],
        experts=[np.sort(kept[f"experts.{number}"][:, layers], axis=-1) for number in numbers],
    )
    exact, gaps, best = account(reference(directory, device=device, dtype="float32"), kept, layers)
    own = None
    if dtype != "float32":
        own = distance(account(reference(directory, device=device, dtype=dtype), kept, layers)[0], exact)
    found = distance(engine, exact)
    return {
        "engine": kept["facts"].tolist(),
        "prompts": len(QUESTIONS),
        "positions": len(best),
        "same_tokens": int(sum(best)),
        "largest_gap": max(gaps),
        "different_answers": len({tuple(kept[f"tokens.{number}"].tolist()) for number in numbers}),
        "experts_used": len(np.unique(np.concatenate([chosen.ravel() for chosen in engine.experts]))),
        "log_prob_mean": found.mean,
        "log_prob_largest": found.largest,
        "same_routing": found.same_routing,
        "reference_log_prob_mean": None if own is None else own.mean,
        "reference_log_prob_largest": None if own is None else own.largest,
        "reference_same_routing": None if own is None else own.same_routing,
        "holds": verdict(found, own=own, largest_gap=max(gaps)),
    }


def reference(directory: Path, *, device: str, dtype: str) -> Reference:
    """The reference on `device`, its weights read right there.

    Built in `dtype` rather than converted: the rotary frequencies stay in float32, as the engine has them.
    """
    config = MedMoEConfig.from_directory(directory)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            model = MedMoE(config).eval()
    finally:
        torch.set_default_dtype(before)
    with safe_open(directory / WEIGHTS_FILE, framework="pt", device=device) as file, torch.no_grad():
        for name, parameter in model_tensors(model).items():
            parameter.copy_(file.get_tensor(name))
    return Reference(directory, model=model)


def account(
    model: Reference, kept: dict[str, np.ndarray], layers: list[int]
) -> tuple[Answers, list[float], list[bool]]:
    """Its account of the engine's answers; of each position by how much the engine's token misses its best one."""
    log_probs, experts, gaps, best = [], [], [], []
    for number, (question, image) in enumerate(zip(QUESTIONS, IMAGES, strict=True)):
        tokens = kept[f"tokens.{number}"]
        trace = model.trace(question, image, answer=tokens.tolist())
        told = trace.log_probs.numpy()
        log_probs.append(np.take_along_axis(told, kept[f"ids.{number}"], axis=1))
        experts.append(np.sort(trace.experts[:, layers], axis=-1))
        given = np.take_along_axis(told, tokens[:, None], axis=1)[:, 0]
        gaps += (told.max(axis=1) - given).tolist()
        best += (told.argmax(axis=1) == tokens).tolist()
    return Answers(log_probs=log_probs, experts=experts), gaps, best


if __name__ == "__main__":
    answer(Path(sys.argv[1]), Path(sys.argv[2]), dtype=sys.argv[3])  # type: ignore[arg-type]
