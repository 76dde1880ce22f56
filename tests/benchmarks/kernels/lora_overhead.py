"""Measure the cost of Med-MoE-LoRA in answers on CPU: a dense model with and without adapters, in one run.

    python -m tests.benchmarks.kernels.lora_overhead

A random Llama of some 90 million parameters and the paper's schedule of experts (2, 4, 8 from the bottom up, ranks 8 to
32), on its FFNs and then on attention too. The engines live side by side and are timed in turn; what counts is the
ratio of the times of a decoding step, beside the share of weights that the adapters add. In a wider model that share
is smaller: the ranks stay and the matrices grow.
"""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch

from medmoe.model.checkpoint.io import save_checkpoint
from medmoe.model.checkpoint.tokenizer_files import write_tokenizer
from medmoe.model.lora.adapter_config import AdapterConfig
from medmoe.model.lora.checkpoint import base_identity, save_adapted
from medmoe.model.lora.layout import target_modules
from medmoe.model.lora.schedule import scheduled_layers
from medmoe.model.medmoe import MedMoE
from tests.engine.local_engine import LocalEngine, local_engine
from tests.engine.parity_cases import image
from tests.support.checkpoints.tiny import tiny_config, tiny_tokenizer
from tests.support.checkpoints.tiny_lora import random_tensors

TOKENS = 48
ROUNDS = 12
BATCHES = (1, 8)
_SHAPE = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "vocab_size": 8192,
    "moe_layers": (),
}


def save_base(directory: Path) -> Path:
    torch.manual_seed(0)
    model = MedMoE(tiny_config(**_SHAPE))
    tokenizer = write_tokenizer(tiny_tokenizer(), directory.parent / "tokenizer", config=model.config)
    save_checkpoint(model, directory, tokenizer_files=tokenizer)
    return directory


def save_with_adapters(directory: Path, *, base: Path, attention: bool) -> tuple[Path, int]:
    """The directory, and the number of parameters the adapters add."""
    model = tiny_config(**_SHAPE)
    config = AdapterConfig(
        base=base_identity(base),
        dtype="float32",
        anchor_mode="replay",
        target_modules=target_modules(model.text_config, attention=attention),
        layers=scheduled_layers(model.text_config.num_hidden_layers, anchor_mode="replay"),
    )
    tensors = random_tensors(config, model)
    save_adapted(directory, config, tensors, base=base)
    return directory, sum(tensor.numel() for tensor in tensors.values())


def seconds_per_step(engine: LocalEngine, batch: int) -> float:
    """Of decoding `batch` answers: the time of many tokens less that of one."""
    prompts = [
        {"prompt_token_ids": [1, 3, *range(4, 40 + number)], "multi_modal_data": {"image": image(0).resize((32, 32))}}
        for number in range(batch)
    ]
    times = []
    for tokens in (1, TOKENS):
        start = time.perf_counter()
        engine.generate(prompts, temperature=0, max_tokens=tokens, ignore_eos=True)
        times.append(time.perf_counter() - start)
    return (times[1] - times[0]) / (TOKENS - 1)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as engines:
        parent = Path(folder)
        base = save_base(parent / "base")
        weights = sum(parameter.numel() for parameter in MedMoE(tiny_config(**_SHAPE)).parameters())
        print(f"base: {weights / 1e6:.0f} M parameters; float32; {TOKENS} tokens, best of {ROUNDS} rounds")
        shares, running = {"base": 0.0}, {"base": engines.enter_context(local_engine(base))}
        for name, attention in (("FFN", False), ("FFN + attention", True)):
            directory, added = save_with_adapters(parent / name.replace(" ", ""), base=base, attention=attention)
            shares[name], running[name] = added / weights, engines.enter_context(local_engine(directory))
        print("adapted          weights  batch  ms a token step  over base")
        for batch in BATCHES:
            best = dict.fromkeys(running, float("inf"))
            for _ in range(ROUNDS):
                for name, engine in running.items():
                    best[name] = min(best[name], seconds_per_step(engine, batch))
            for name, step in best.items():
                print(f"{name:16} {shares[name]:+7.1%} {batch:6} {step * 1e3:16.2f} {step / best['base']:10.2f}")


if __name__ == "__main__":
    main()
