"""Time the engine's decoding steps and prompts, graphs on, as the service starts it.

A step is the difference of a long and a short generation, divided by the steps between them: the prompts' own time,
which is in both, falls out, and what the engine does around the GPU's work stays in. Prompts are random token ids, so
that no two share a block of keys and values, and are as long as an image with its question.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medmoe.model.config import MedMoEConfig
from medmoe.model.files.calibration_binding import Dtype
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.prompt import Prompt
from tests.benchmarks.gpu.floor import counted_experts, distinct_experts, prefill_flops, step_bytes
from tests.benchmarks.gpu.vllm import engine_facts
from tests.benchmarks.kernels.quantised_parity import WORDS, drawn_image
from tests.engine.local_engine import LocalEngine, local_engine

_PROFILED = 12
_SHORTEST = 32
"""Tokens of context, below which a step says nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loads:
    """How much of everything."""

    batches: tuple[int, ...]
    context: int
    short: int
    long: int
    repeats: int
    prompts: int
    """In a prefill."""
    prompt_tokens: int
    eager_batches: tuple[int, ...]
    """Batches to time without graphs too."""

    @classmethod
    def of(cls, *, tiny: bool) -> "Loads":
        if tiny:
            small = {"context": 64, "short": 4, "long": 20, "repeats": 3, "prompts": 4, "prompt_tokens": 96}
            return cls(batches=(1, 8), eager_batches=(1, 8), **small)
        large = {"context": 640, "short": 8, "long": 72, "repeats": 5, "prompts": 32, "prompt_tokens": 1024}
        return cls(batches=(1, 64, 8, 256), eager_batches=(1, 64), **large)


class Steps:
    """One engine and what is asked of it."""

    def __init__(self, engine: LocalEngine, config: MedMoEConfig, directory: Path, loads: Loads) -> None:
        self._engine, self._config, self._loads = engine, config, loads
        self._directory = directory
        self._random = np.random.default_rng(0)
        self.facts = engine_facts(engine.llm)

    def decode(self, batch: int) -> dict[str, Any] | None:
        """One row: a step's seconds, the bytes that it must read, the experts that it hit; None where nothing fits."""
        loads, text = self._loads, self._config.text_config
        # Where the cache is too small for all, shorter ones: what is preempted would be computed twice.
        context = min(loads.context, int(self.facts["cached_tokens"] * 0.95) // batch - loads.long)
        if context < _SHORTEST:
            return None
        prompts = self._prompts(batch, context)
        self._seconds(prompts, loads.long)
        taken = []
        for _ in range(loads.repeats):
            short = self._seconds(prompts, loads.short)
            taken.append((self._seconds(prompts, loads.long) - short) / (loads.long - loads.short))
        mean_context = context + (loads.short + loads.long) / 2
        itemsize = getattr(torch, self.facts["dtype"]).itemsize
        needed = step_bytes(self._config, batch=batch, context=mean_context, itemsize=itemsize)
        return {
            "batch": batch,
            "context": mean_context,
            "seconds": statistics.median(taken),
            "all_seconds": taken,
            "bytes": asdict(needed) | {"total": needed.total},
            "experts_expected": distinct_experts(text.num_experts, text.num_experts_per_tok, batch),
            "experts_counted": self._experts(prompts, loads.long),
        }

    def prefill(self) -> dict[str, Any]:
        """Prompts that no cache knows, all at once: tokens a second, and the operations that they take."""
        loads, taken = self._loads, []
        for _ in range(loads.repeats):
            taken.append(self._seconds(self._prompts(loads.prompts, loads.prompt_tokens), 1))
        tokens = loads.prompts * loads.prompt_tokens
        flops = loads.prompts * prefill_flops(self._config, tokens=loads.prompt_tokens)
        middle = statistics.median(taken[1:])
        return {
            "prompts": loads.prompts,
            "tokens": tokens,
            "seconds": middle,
            "tokens_per_second": tokens / middle,
            "flops": flops,
        }

    def images(self) -> dict[str, Any]:
        """The same with a fresh image and a question each; the tower's work and Pillow's are in the time."""
        loads, taken = self._loads, []
        prompt = Prompt.from_directory(self._directory, self._config)
        processor = ImageProcessor.from_config(self._config)
        for repeat in range(3):
            asked = [
                {
                    "prompt_token_ids": prompt.question(WORDS[number % len(WORDS)]),
                    "multi_modal_data": {"image": processor.resize(drawn_image(1000 * repeat + number))},
                }
                for number in range(loads.prompts)
            ]
            taken.append(self._seconds(asked, 1))
        return {"images": loads.prompts, "seconds": statistics.median(taken[1:])}

    def kernels(self, batch: int) -> dict[str, Any]:
        """Where the GPU's time goes in a step of `batch` sequences: seconds of each kernel, the longest first."""
        prompts = self._prompts(batch, self._loads.context)
        self._seconds(prompts, self._loads.long)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            self._seconds(prompts, self._loads.long)
        rows = [(row.key, row.self_device_time_total / 1e6 / self._loads.long) for row in profile.key_averages()]
        rows.sort(key=lambda row: -row[1])
        return {
            "batch": batch,
            "seconds": sum(taken for _, taken in rows),
            "longest": [{"kernel": name[:120], "seconds": taken} for name, taken in rows[:_PROFILED]],
        }

    def _prompts(self, count: int, tokens: int) -> list[dict[str, Any]]:
        # The image token lies beyond the vocabulary.
        ids = self._random.integers(0, self._config.text_config.vocab_size, (count, tokens))
        return [{"prompt_token_ids": row} for row in ids.tolist()]

    def _generate(self, prompts: list[dict[str, Any]], length: int) -> list[Any]:
        return self._engine.generate(prompts, temperature=0, max_tokens=length, ignore_eos=True, detokenize=False)

    def _seconds(self, prompts: list[dict[str, Any]], length: int) -> float:
        begun = time.perf_counter()
        self._generate(prompts, length)
        return time.perf_counter() - begun

    def _experts(self, prompts: list[dict[str, Any]], length: int) -> float:
        """Among the generated positions, which are computed together."""
        layers = list(self._config.text_config.moe_layers)
        outputs = self._generate(prompts, length)
        routed = [np.asarray(output.outputs[0].routed_experts)[-(length - 1) :, layers] for output in outputs]
        return counted_experts(np.stack(routed), num_experts=self._config.text_config.num_experts)


def measure_eager(directory: Path, *, dtype: Dtype, tiny: bool, keep: Callable[[dict[str, Any]], None]) -> None:
    """Time decoding steps without graphs, and tell `keep` all that is known so far after each batch."""
    config, loads = MedMoEConfig.from_directory(directory), Loads.of(tiny=tiny)
    found: dict[str, Any] = {"decode": []}
    with local_engine(directory, dtype=dtype, max_num_seqs=max(loads.batches), enforce_eager=True) as engine:
        steps = Steps(engine, config, directory, loads)
        found["engine"] = steps.facts
        for batch in loads.eager_batches:
            if row := steps.decode(batch):
                found["decode"].append(row)
            keep(found)


def measure(directory: Path, *, dtype: Dtype, tiny: bool, keep: Callable[[dict[str, Any]], None]) -> None:
    """Tells `keep` all that is known so far after each load."""
    config, loads = MedMoEConfig.from_directory(directory), Loads.of(tiny=tiny)
    found: dict[str, Any] = {"decode": [], "too_large": []}
    with local_engine(directory, dtype=dtype, max_num_seqs=max(loads.batches)) as engine:
        steps = Steps(engine, config, directory, loads)
        found["engine"] = steps.facts
        for batch in loads.batches:
            row = steps.decode(batch)
            found["decode" if row else "too_large"].append(row or batch)
            keep(found)
        for name, load in (("prefill", steps.prefill), ("images", steps.images)):
            found[name] = load()
            keep(found)
        if torch.cuda.is_available():
            found["kernels"] = steps.kernels(min(64, max(loads.batches)))
            keep(found)
